"""What several sources of one run are called. Nothing heavy is imported here: flags need it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

SEPARATOR = ":"  # between the name of a source and an id of it


def source_names(paths: Sequence[str]) -> list[str]:
    """A name for each source: that of its file, or where files have the same name that of its folder.

    Raises:
        ValueError: Neither tells the sources apart.

    Example:
        >>> source_names(["data/beauty.csv.gz", "data/toys.csv"])
        ['beauty', 'toys']
        >>> source_names(["beauty/interactions.csv", "toys/interactions.csv"])
        ['beauty', 'toys']
    """
    for names in (
        [Path(path).name.split(".")[0] for path in paths],
        [Path(path).resolve().parent.name for path in paths],
    ):
        if len(set(names)) == len(names) and all(names):
            return [name.replace(SEPARATOR, "-") for name in names]
    raise ValueError(
        f"`--train_file` names files of the same name in folders of the same name: {', '.join(paths)}. Give each "
        "source a name with `--source_names`."
    )


def check_source_names(names: Sequence[str]) -> None:
    """Refuse names that are empty, stand there twice or hold a colon.

    Raises:
        ValueError: With the name.
    """
    for name, count in Counter(names).items():
        if not name or SEPARATOR in name or count > 1:
            found = f"{count} times" if count > 1 else "with a colon" if name else "empty"
            raise ValueError(
                f"A source needs a name of its own without {SEPARATOR!r}, found {name!r} {found}. Change it."
            )
