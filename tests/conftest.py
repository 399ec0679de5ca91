"""What tests of several folders start from."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def write_log(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a synthetic log of the sizes that `synthetic_tables` takes, as a file of the name."""

    def write(name: str, **sizes: Any) -> Path:
        import pyarrow.csv

        from hfrec import synthetic_tables

        path = tmp_path_factory.mktemp("log") / name
        pyarrow.csv.write_csv(synthetic_tables(num_groups=4, max_length=14, **sizes)[0], path)
        return path

    return write


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the caches of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFREC_HOME", str(tmp_path_factory.mktemp("home")))
        yield
