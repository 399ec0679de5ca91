"""Which protocol divides a log: leave-one-out, one cut in time for everybody, or a share of each user."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from transformers.utils import logging

from hfrec.data.arguments import SplitArguments
from hfrec.data.interactions import Interactions, timestamps_to_numpy
from hfrec.data.splits import (
    Split,
    first_of_each_user,
    is_among,
    leave_one_out,
    split_by_time,
    tied_target_share,
    time_of_flag,
)
from hfrec.data.user_ratio import split_by_user_ratio

logger = logging.get_logger(__name__)
RATIO = 0.1


def split_log(interactions: Interactions, arguments: SplitArguments) -> Split:
    """Divide a log as the flags say; the starts of a temporal split are told on stderr.

    Args:
        interactions ([`Interactions`]): The whole log.
        arguments ([`SplitArguments`]): The flags.

    Raises:
        ValueError: Times of another kind, out of order or outside the log, or a part without interactions.
    """
    if arguments.protocol == "leave_one_out":
        return leave_one_out(interactions)
    ratios = {
        name: RATIO if getattr(arguments, name) is None else getattr(arguments, name)
        for name in ("validation_ratio", "test_ratio")
    }
    if arguments.protocol == "user_ratio":
        return split_by_user_ratio(interactions, **ratios)
    split = temporal_split(
        interactions,
        validation_start=arguments.validation_start,
        test_start=arguments.test_start,
        **ratios,
    )
    print(split.report, file=sys.stderr)
    _warn_of_places(interactions)
    return split


def temporal_split(
    interactions: Interactions,
    *,
    validation_start: int | float | str | datetime | None = None,
    test_start: int | float | str | datetime | None = None,
    validation_ratio: float = RATIO,
    test_ratio: float = RATIO,
) -> Split:
    """One cut in time for all users, of whom each has one target a part: the first interaction in it.

    That target alone has a history that is known when the part begins, which is when a model trained before goes to
    work. Nothing later than `validation_start` is trained on, no target of the test is earlier than `test_start`.

    Args:
        interactions ([`Interactions`]): The whole log.
        validation_start, test_start: First time of the part: a number like the log's (also as text), or for datetimes
            a datetime or ISO string. None: by the ratio.
        validation_ratio (`float`), test_ratio (`float`): Share of the interactions in the part. Interactions at the
            time of the cut all belong to the later part, so that it may be a little larger.

    Returns:
        [`Split`]: With `targets="first"`; users may be in one part only.

    Raises:
        ValueError: Times of another kind, out of order or outside the log, or a part without interactions.

    Example:

    ```python
    >>> from hfrec.data.interactions import load_interactions
    >>> log = pa.table({"user_id": list("uuuvuv"), "item_id": list("abcdef"), "timestamp": [1, 2, 3, 4, 5, 6]})
    >>> split = temporal_split(load_interactions(log), validation_start=3, test_start=5)
    >>> [part["item_id"].to_pylist() for part in (split.train.table, split.history.table, split.test_targets.table)]
    [['a', 'b'], ['a', 'b', 'c', 'd'], ['e', 'f']]

    ```
    """
    column = interactions.table["timestamp"]
    times = np.sort(timestamps_to_numpy(column))
    test = _start(test_start, times, column.type, name="test_start", before=len(times), ratio=test_ratio)
    before = int(np.searchsorted(times, test))
    validation = _start(
        validation_start, times, column.type, name="validation_start", before=before, ratio=validation_ratio
    )
    if not validation < test:
        raise ValueError(
            f"`validation_start` ({_shown(validation, column.type)}) must be before `test_start` "
            f"({_shown(test, column.type)}): the validation part would be empty. Move one of them."
        )
    if int(np.searchsorted(times, validation)) == before:
        raise ValueError(
            f"No interaction lies between `validation_start` ({_shown(validation, column.type)}) and `test_start` "
            f"({_shown(test, column.type)}), so that nothing is left to validate on. Move one of them."
        )
    first, second = _shown(validation, column.type), _shown(test, column.type)
    split = split_by_time(interactions, validation_start=first, test_start=second)
    ties = [
        tied_target_share(first_of_each_user(part), _without_first(part)) for part in (split.validation, split.test)
    ]
    report = replace(
        split.report,
        strategy="temporal",
        validation_tie_share=ties[0],
        test_tie_share=ties[1],
        validation_start=first,
        test_start=second,
    )
    return replace(split, targets="first", report=report)


def new_items(split: Split, targets: Interactions) -> int:
    """Targets with an item that the training part does not have."""
    return len(targets) - int(is_among(targets.table, split.train.table, ["item_id"]).sum())


def new_users(split: Split) -> int:
    """Users with a test target and no history."""
    return len(split.test_targets) - int(is_among(split.test_targets.table, split.history.table, ["user_id"]).sum())


def _start(
    value: Any, times: npt.NDArray[Any], kind: pa.DataType, *, name: str, before: int, ratio: float
) -> int | float:
    """A start as the log counts: the one that is given, or the one that a share of all lies behind, up to `before`."""
    if value is None:
        place = before - round(ratio * len(times))
        if place < 1 or ratio * len(times) < 0.5:
            raise ValueError(
                f"{ratio:.0%} of {len(times)} interactions leave a part empty: give `{name}`, another ratio or a "
                "larger log."
            )
        start: int | float = times[place].item()
    else:
        start = time_of_flag(value, kind, name)
    if not times[0] < start <= times[-1]:
        raise ValueError(
            f"`{name}` must lie after the first interaction and not after the last, found {_shown(start, kind)}: the "
            f"log runs from {_shown(times[0].item(), kind)} to {_shown(times[-1].item(), kind)}."
        )
    return start


def _shown(time: int | float, kind: pa.DataType) -> int | float | str:
    """A time of the log as JSON can hold it and a flag can give it."""
    if pa.types.is_timestamp(kind):
        return str(pa.scalar(int(time), pa.int64()).cast(pa.timestamp("us")).as_py().isoformat())
    return int(time) if pa.types.is_integer(kind) and float(time).is_integer() else time


def _warn_of_places(interactions: Interactions) -> None:
    """A cut in the places of each user's items would hold out the longest histories, not the newest interactions."""
    first = timestamps_to_numpy(first_of_each_user(interactions).table["timestamp"])
    share = float((first == first.min()).mean())
    if len(first) >= 10 and share > 0.5:
        logger.warning(
            f"{share:.0%} of the users begin at the same time, {first.min()}: if the times are places in each user's "
            "sequence, `--protocol temporal` means nothing on this log. Give real times, or take leave_one_out."
        )


def _without_first(part: Interactions) -> Interactions:
    """The interactions after each user's first: no tie crosses a cut, so that only these can tie with a target."""
    users = part.table["user_id"].combine_chunks()
    same = np.zeros(len(users), dtype=bool)
    same[1:] = np.asarray(pc.equal(users[1:], users[:-1]).to_numpy(zero_copy_only=False), dtype=bool)
    return part.select(same)
