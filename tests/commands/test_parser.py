"""The parser of the commands takes what transformers' `HfArgumentParser` takes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, get_type_hints

import pytest
from transformers import HfArgumentParser

from hfrec.commands.flags import FLAGS
from hfrec.commands.parser import Parser
from hfrec.commands.parsing import given_values
from hfrec.training.arguments import TrainingFlags
from hfrec.training.trainer_arguments import RecommenderTrainingArguments

KINDS = sorted({kind for kinds in FLAGS.values() for kind in kinds}, key=lambda kind: kind.__name__)


def facts(action: Any) -> tuple[Any, ...]:
    choices = None if action.choices is None else [str(choice) for choice in action.choices]
    return (action.default, action.nargs, action.const, action.required, choices)


@pytest.mark.parametrize("kind", [*KINDS, RecommenderTrainingArguments])
def test_every_flag_is_that_of_transformers_parser(kind: Any) -> None:
    """A default, a choice or a list read in another way would change runs in silence."""
    # A copy without metadata, of which theirs hands all on to argparse: it also writes into the fields' types.
    hints = get_type_hints(kind)
    places = [place for place in fields(kind) if place.init]
    copies = [
        (p.name, hints[p.name], field(default=p.default, default_factory=p.default_factory, kw_only=True))  # type: ignore[call-overload]
        for p in places
    ]
    plain = make_dataclass("plain", copies)
    theirs = {tuple(sorted(a.option_strings)): a for a in HfArgumentParser(plain)._actions if a.dest != "help"}
    ours = {tuple(sorted(a.option_strings)): a for a in Parser("x", [kind], [])._actions}
    assert ours.keys() == theirs.keys()
    for names, action in ours.items():
        assert facts(action) == facts(theirs[names]), names
        if action.type in (int, float, str):
            assert action.type is theirs[names].type, names


@dataclass
class Few:
    number: int | None = None
    on: bool = True
    maybe: bool | None = None
    names: list[str] | None = None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Few()),
        (["--number", "3", "--on", "false", "--maybe", "yes", "--names", "a", "b"], Few(3, False, True, ["a", "b"])),
        (["--no_on"], Few(on=False)),
        (["--no-on", "--on"], Few(on=True)),
    ],
)
def test_words_become_values(words: list[str], expected: Few) -> None:
    """The value of a flag would be the text of it, or that of another."""
    assert Parser("x", [Few], []).fill(words) == (expected,)


def test_a_truth_that_is_none_is_refused() -> None:
    """`--on flase` would be taken for true."""
    with pytest.raises(ValueError, match=r"expected true or false, found 'flase'.*`hfrec x --help` lists the flags"):
        Parser("x", [Few], []).fill(["--on", "flase"])


def test_flags_of_the_trainer_stand_for_all_of_its_arguments() -> None:
    """A flag of transformers that is not shown in the short help must still be taken."""
    assert given_values("x", (TrainingFlags,), ["--warmup_steps", "7"]) == {"warmup_steps": 7}
