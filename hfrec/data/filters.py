"""What is left out of a log: by conditions on its columns, as repeats, or where users and items have too few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Duplicates = Literal["keep", "first", "last", "consecutive"]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LogFilters:
    """What is left out of a log; the defaults leave out nothing.

    Args:
        where (`Sequence[str]`): Conditions that every kept interaction meets, "column=value" or "column!=value", on any
            column of the source: `["country!=France"]`.
        min_user_interactions (`int`), min_item_interactions (`int`): Users and items with fewer are dropped, over and
            over until all that are left have enough (k-core). 1 drops nothing.
        duplicates (`str`): "keep"; "first" or "last" of each (user, item); "consecutive" keeps the first of repeats
            that follow each other directly.

    Raises:
        ValueError: A value out of range.
    """

    where: Sequence[str] = ()
    min_user_interactions: int = 1
    min_item_interactions: int = 1
    duplicates: Duplicates = "keep"

    def __post_init__(self) -> None:
        check_core(self.min_user_interactions, self.min_item_interactions)
        if self.duplicates not in ("keep", "first", "last", "consecutive"):
            raise ValueError(
                f"`duplicates` must be 'keep', 'first', 'last' or 'consecutive', found {self.duplicates!r}."
            )

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> LogFilters:
        """Those of the settings of these names, such as the flags of a command (`vars(arguments)`)."""
        return cls(**{place.name: settings[place.name] for place in fields(cls) if place.name in settings})

    @property
    def drops_nothing(self) -> bool:
        """Whether all interactions are kept."""
        return not self.where and self == replace(NO_FILTERS, where=self.where)


def check_core(min_user: int, min_item: int) -> None:
    """Refuse sizes of the k-core below 1."""
    for name, value in (("min_user_interactions", min_user), ("min_item_interactions", min_item)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1 (which drops nothing), found {value}.")


def nothing_left(source: str, min_user: int, min_item: int, *, rows: int, users: int) -> ValueError:
    """The refusal of a log of which the k-core leaves nothing."""
    return ValueError(
        f"{source}: every user was filtered out by `min_user_interactions`={min_user} and "
        f"`min_item_interactions`={min_item} ({rows:,} interactions of {users:,} users were read). Lower them."
    )


NO_FILTERS = LogFilters()


def meeting(table: pa.Table, conditions: Sequence[str], *, source: str, names: Mapping[str, str]) -> pa.Table:
    """The interactions that meet all conditions.

    Args:
        table: The log, its columns under their canonical names.
        conditions: As in [`LogFilters`].
        source: What a refusal calls the log.
        names: Name in the source of each canonical column.

    Raises:
        ValueError: A condition of another form or on no column, or one that nothing meets.
    """
    canonical = {name: column for column, name in names.items()}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        column = canonical.get(name.removesuffix("!"), name.removesuffix("!"))
        if not equals or column not in table.column_names:
            raise ValueError(
                f"`where`: expected 'column=value' or 'column!=value' with a column of {source} "
                f"({', '.join(table.column_names)}), found {condition!r}."
            )
        equal = pc.fill_null(pc.equal(table[column].cast(pa.string()), value), False)
        kept = table.filter(pc.invert(equal) if name.endswith("!") else equal)
        if len(kept) == 0:
            values = pc.unique(table[column].cast(pa.string())).to_pylist()
            more = ", …" if len(values) > 8 else ""
            found = ", ".join(map(repr, values[:8])) + more
            raise ValueError(f"`where`: no interaction of {source} is left by {condition!r}. {column!r} holds {found}.")
        table = kept
    return table


def unique_mask(users: IntArray, items: IntArray, duplicates: Duplicates) -> BoolArray:
    """What a policy keeps of interactions sorted by user and time; all of shape `(num_interactions,)`."""
    mask = np.ones(len(users), dtype=bool)
    if duplicates == "consecutive":
        mask[1:] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
    elif duplicates != "keep":
        pairs = users * (int(items.max()) + 1) + items
        step = 1 if duplicates == "first" else -1
        _, first = np.unique(pairs[::step], return_index=True)
        mask[:] = False
        mask[first if step == 1 else len(users) - 1 - first] = True
    return mask


def core_mask(
    users: IntArray, items: IntArray, start: BoolArray, *, min_user: int, min_item: int
) -> tuple[BoolArray, int]:
    """The k-core of the interactions where `start` is true, `(num_interactions,)`, and the passes that it took."""
    mask, rounds = start.copy(), 0
    while True:
        enough = (np.bincount(users[mask], minlength=int(users.max()) + 1) >= min_user)[users]
        enough &= (np.bincount(items[mask], minlength=int(items.max()) + 1) >= min_item)[items]
        if not (mask & ~enough).any():
            return mask, rounds
        mask &= enough
        rounds += 1
