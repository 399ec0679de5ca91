"""What tests of several folders start from."""

from collections.abc import Callable
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
