"""The README's table of results is that of the result files."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_readme_says_what_the_files_say() -> None:
    """A figure that was typed by hand stays when the run behind it is made again."""
    path = ROOT / "benchmarks" / "quality" / "table.py"
    spec = importlib.util.spec_from_file_location("results_table", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert module.BEGIN in readme and module.END in readme
    assert module.with_table(readme) == readme, "run `python benchmarks/quality/table.py`"
    assert module.with_table(readme.replace(module.END, f"| typed by hand |\n{module.END}")) == readme
