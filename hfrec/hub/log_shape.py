"""The shape of the log that a checkpoint was trained on, so that nobody has to say it again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..data.columns import LogColumns
from ..data.filters import LogFilters
from ..data.interactions import Interactions, load_interactions
from .checkpoint import read_results

# Those of the items file are said anew: so is the file.
COLUMNS = {name: value for name, value in vars(LogColumns()).items() if name != "content_columns"}
FILTERS = {name: value for name, value in vars(LogFilters()).items() if name != "where"}  # which no command remembers


def log_shape(name_or_path: str | os.PathLike[str], flags: Any, *, revision: str | None = None) -> dict[str, Any]:
    """Columns and filters of a log: those of the flags, else those that the checkpoint was trained with.

    Args:
        name_or_path: Folder or hub id of the checkpoint.
        flags: Dataclass of a command, whose fields of these names are None where no flag was given.
        revision: Branch, tag or commit on the hub.

    Returns:
        Of `COLUMNS` and `FILTERS` those that the command has flags for.

    Raises:
        ValueError: What the checkpoint remembers is damaged.
    """
    stored = dict(read_results(name_or_path, revision=revision).get("settings", {}))
    if stored.get("items_file") is not None:
        stored["title_column"] = None  # of that file, which every command is given anew or does without
    own = {name: value for name, value in {**COLUMNS, **FILTERS}.items() if name in vars(flags)}
    remembered = {name: stored.get(name) or usual for name, usual in own.items()}
    for name, value in remembered.items():
        kind = int if name in FILTERS and name != "duplicates" else str
        if value is not None and type(value) is not kind:
            raise ValueError(
                f"all_results.json of `{name_or_path}` remembers {name} = {value!r:.60}, expected "
                f"{'a number' if kind is int else 'text'}: it is damaged. Copy it again, or give `--{name}`."
            )
    return {name: remembered[name] if getattr(flags, name) is None else getattr(flags, name) for name in own}


def load_log_like(source: str, shape: dict[str, Any], flags: Any) -> Interactions:
    """Read a log in the shape that a checkpoint remembers.

    Args:
        source: File, folder, glob or named data set.
        shape: Of `log_shape`.
        flags: Those of `log_shape`.

    Raises:
        ValueError: As `load_interactions`; of a column that the checkpoint remembers it says so.
    """
    with explained(shape, flags):
        log = load_interactions(source, columns=LogColumns.of(shape), filters=LogFilters.of(shape))
    return log


@contextmanager
def explained(shape: dict[str, Any], flags: Any) -> Iterator[None]:
    """Refusals of columns say which names are those that the checkpoint remembers.

    Args:
        shape: Of `log_shape`.
        flags: Those of `log_shape`.
    """
    try:
        yield
    except ValueError as error:
        columns = [name for name in shape if name in COLUMNS and getattr(flags, name) is None]
        columns = [name for name in columns if shape[name] != COLUMNS[name]]
        if not columns or "column" not in str(error):
            raise
        said = ", ".join(f"`--{name} {shape[name]}`" for name in columns)
        raise ValueError(
            f"{error} The checkpoint was trained with {said}, which holds here too unless you give these flags."
        ) from error
