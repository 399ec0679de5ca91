"""Where the module of a command lives: in this package, or in the harness of the studies, which only a checkout has."""

from __future__ import annotations

import sys
from pathlib import Path

HARNESS = ("study", "cold_items")
ROOT = Path(__file__).resolve().parents[2]


class HarnessMissing(ImportError):
    """hfrec is installed without the harness."""


def package_of(name: str) -> str:
    """The package that holds the module of a command; of the harness, also made importable.

    Args:
        name: Subcommand.

    Raises:
        HarnessMissing: A command of the harness, and hfrec is installed without it.
    """
    if name not in HARNESS:
        return __package__
    if not (ROOT / "benchmarks" / "study" / "commands" / f"{name}.py").is_file():
        raise HarnessMissing(
            f"`hfrec {name}` is part of hfrec's repository and not of the installed package: expected the folder "
            f"benchmarks/study in {ROOT}, found none. Clone the repository, install it with "
            f"`pip install -e '.[study]'` there, and run the command again."
        )
    if str(ROOT) not in sys.path:  # before what else is called `benchmarks`
        sys.path.insert(0, str(ROOT))
    return "benchmarks.study.commands"
