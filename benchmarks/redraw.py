"""Draw the pictures of cards of transfer studies again, from the tables of the cards.

python benchmarks/redraw.py model_cards/transfer-*.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.study.plots import plot_tables


def main(paths: list[str]) -> None:
    for path in map(Path, paths):
        plot_tables(path.read_text(encoding="utf-8"), path.parent / "plots", prefix=f"{path.stem}-")


if __name__ == "__main__":
    main(sys.argv[1:])
