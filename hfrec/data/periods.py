"""A log cut in time for a refresh: what was before, the new period, and the next one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow.compute as pc

from .interactions import Interactions, concatenate_interactions, timestamps_to_numpy, user_codes
from .splits import time_of_flag


@dataclass(frozen=True)
class Periods:
    """One log cut in time.

    Args:
        before ([`Interactions`]): Older than the new period; may be empty.
        new ([`Interactions`]): What the refresh trains on.
        targets ([`Interactions`]): The first interaction of each user in the next period. It alone has a history that
            is known when the period begins, which is when a refreshed model goes to work.
        refresh_start (`float`): First time of the new period, as the log counts.
    """

    before: Interactions
    new: Interactions
    targets: Interactions
    refresh_start: float

    @cached_property
    def known(self) -> Interactions:
        """All that is known when the next period begins."""
        return concatenate_interactions(self.before, self.new) if len(self.before) else self.new

    def training_parts(self, context_items: int) -> tuple[Interactions, Interactions, Interactions]:
        """What trains, and the history and targets of the validation.

        Args:
            context_items: Earlier items of a user that stay before his first one of the new period.

        Returns:
            The new period with its context, without the validation targets; everything known without them; the last
            interaction of each user with two or more in the new period.

        Raises:
            ValueError: No user has two.
        """
        codes = user_codes(self.known.table)
        is_new = timestamps_to_numpy(self.known.table["timestamp"]) >= self.refresh_start
        sizes = np.bincount(codes)
        place = np.arange(len(codes)) - (np.cumsum(sizes) - sizes)[codes]  # 0 for a user's oldest interaction
        num_new = np.bincount(codes, weights=is_new).astype(np.int64)  # (num_users,)
        held = (place == sizes[codes] - 1) & (num_new[codes] >= 2)
        if not held.any():
            raise ValueError(
                "No user has two interactions in the new period: nothing is left to validate on. Move `refresh_start` "
                "or `test_start`, so that the period is longer."
            )
        first = sizes[codes] - num_new[codes]  # place of the user's first new interaction
        recent = (num_new[codes] > 0) & (place >= first - context_items)
        return self.known.select(recent & ~held), self.known.select(~held), self.known.select(held)


def split_periods(
    log: Interactions, *, test_start: str | float, refresh_start: str | float | None, test_end: str | float | None
) -> Periods:
    """Cut a log into what was before, the new period, and the next one.

    Args:
        log ([`Interactions`]): The whole log, or the new and the next period of it.
        test_start, refresh_start, test_end: First time of the next and of the new period, and first time after the
            next one: ISO times for datetimes, else numbers like the log's. None: from the log's start, to its end.

    Raises:
        ValueError: Times of another kind or out of order, or a period without interactions.

    Example:
        >>> import pyarrow as pa
        >>> from hfrec.data.interactions import load_interactions
        >>> table = pa.table({"user_id": ["u"] * 4, "item_id": list("abcd"), "timestamp": [1, 2, 3, 4]})
        >>> periods = split_periods(load_interactions(table), test_start=3, refresh_start=2, test_end=None)
        >>> [part.table["item_id"].to_pylist() for part in (periods.before, periods.new, periods.targets)]
        [['a'], ['b'], ['c']]
    """
    column = log.table["timestamp"]
    times = timestamps_to_numpy(column)
    start = times.min() if refresh_start is None else time_of_flag(refresh_start, column.type, "refresh_start")
    test = time_of_flag(test_start, column.type, "test_start")
    end = np.inf if test_end is None else time_of_flag(test_end, column.type, "test_end")
    if not start < test < end:
        raise ValueError(
            "The times must be in the order `refresh_start` < `test_start` < `test_end`, found "
            f"{refresh_start if refresh_start is not None else pc.min(column).as_py()}, {test_start}, {test_end}. "
            f"The log runs from {pc.min(column).as_py()} to {pc.max(column).as_py()}."
        )
    new, following = (times >= start) & (times < test), (times >= test) & (times < end)
    for name, mask, flags in (("new", new, "refresh_start"), ("next", following, "test_end")):
        if not mask.any():
            raise ValueError(
                f"No interaction lies in the {name} period: the log runs from {pc.min(column).as_py()} to "
                f"{pc.max(column).as_py()}. Move `test_start` or `{flags}`, or give a newer log."
            )
    codes = user_codes(log.table)
    later = np.flatnonzero(following)
    first = np.zeros(len(codes), dtype=bool)
    first[later[np.unique(codes[later], return_index=True)[1]]] = True
    return Periods(log.select(times < start), log.select(new), log.select(first), float(start))
