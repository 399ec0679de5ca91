"""The examples in the docstrings run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import hfrec

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(hfrec.__path__, "hfrec.")
    if not module.name.startswith("hfrec.commands")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    """An example that no longer runs misleads whoever copies it."""
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples() -> None:
    """Collecting nothing would pass too."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(examples) >= 25
