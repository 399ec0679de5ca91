"""What tests of several folders start from."""

import gc
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


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


@pytest.fixture(scope="session")
def benchmark_script() -> Callable[[str], ModuleType]:
    """Loads a script of `benchmarks/`, anew each time, by its path there without the ending."""

    def load(name: str) -> ModuleType:
        module_name = f"benchmarks.{name.replace('/', '.')}"
        spec = importlib.util.spec_from_file_location(module_name, BENCHMARKS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the caches of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFREC_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _collect_young_objects_alone() -> None:
    """Each training ends with a full garbage collection: a third of a second where modules and tests are walked too."""
    gc.collect()
    gc.freeze()
