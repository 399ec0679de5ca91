"""Divide a log into train, validation and test, and say what that does to the numbers measured on it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hfrec.data.interactions import Interactions, concatenate_interactions, timestamps_to_numpy, user_codes

BoolArray = npt.NDArray[np.bool_]
Time = int | float | str | datetime


@dataclass(frozen=True)
class SplitReport:
    """What a split did; print it beside every number.

    Args:
        strategy (`str`): E.g. "leave_one_out".
        num_train (`int`), num_validation (`int`), num_test (`int`): Interactions in each part.
        users_without_test (`int`): Users that no test interaction is left for.
        users_without_validation (`int`): The same for validation.
        validation_tie_share (`float`), test_tie_share (`float`): Share of targets which carry the same time as an
            interaction of the same user outside that part: only the order of the source made these the targets.
        validation_start, test_start: First time of the parts of a temporal split, ISO text for datetimes; else None.
        validation_ratio (`float`), test_ratio (`float`): Shares of each user's interactions, of a split by them.
    """

    strategy: str
    num_train: int
    num_validation: int
    num_test: int
    users_without_test: int
    users_without_validation: int
    validation_tie_share: float
    test_tie_share: float
    validation_start: int | float | str | None = None
    test_start: int | float | str | None = None
    validation_ratio: float | None = None
    test_ratio: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as a dictionary that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        starts = f" (validation from {self.validation_start}, test from {self.test_start})"
        name = self.strategy + ("" if self.test_start is None else starts)
        name += "" if self.test_ratio is None else f" ({self.validation_ratio:g} and {self.test_ratio:g} of each user)"
        return (
            f"{name}: {self.num_train:,} train, {self.num_validation:,} validation and {self.num_test:,} test "
            f"interactions; {self.users_without_validation:,} users without validation, {self.users_without_test:,} "
            f"without test; tied in time: {self.validation_tie_share:.1%} of validation, "
            f"{self.test_tie_share:.1%} of test"
        )


@dataclass(frozen=True)
class Split:
    """Three disjoint parts of one log. At test time the validation part belongs to the history.

    Args:
        train ([`Interactions`]), validation ([`Interactions`]), test ([`Interactions`]): The parts.
        report ([`SplitReport`]): Their sizes and the share of tied targets.
        targets (`str`): Which interactions of a part are ranked: "all", or the "first" of each user, whose history
            ends where the part begins.
    """

    train: Interactions
    validation: Interactions
    test: Interactions
    report: SplitReport
    targets: Literal["all", "first"] = "all"

    @cached_property
    def history(self) -> Interactions:
        """Train and validation together: what is known when the test targets are ranked."""
        return concatenate_interactions(self.train, self.validation)

    @cached_property
    def validation_targets(self) -> Interactions:
        """What is ranked on validation, with `train` as history."""
        return self.validation if self.targets == "all" else first_of_each_user(self.validation)

    @cached_property
    def test_targets(self) -> Interactions:
        """What is ranked on test, with `history`."""
        return self.test if self.targets == "all" else first_of_each_user(self.test)


@dataclass(frozen=True)
class LeakageReport:
    """What the training part knows of the test part.

    Args:
        order_violations (`int`): Training interactions later than one of the same user's test interactions. Any other
            number than 0 means that the model is trained on its own future.
        shared_interactions (`int`): Test interactions (user, item and time) that are also training interactions.
        repeated_targets (`int`): Test items which the user already has in training (a seen filter makes them misses).
        unknown_items (`int`): Test interactions with an item that training does not have (always a miss).
        unknown_users (`int`): Test users that training does not have.
        future_train_share (`float`): Share of training interactions later than the first test interaction of anyone.
            Per-user splits have this by design; only `split_by_time` brings it to 0.
    """

    order_violations: int
    shared_interactions: int
    repeated_targets: int
    unknown_items: int
    unknown_users: int
    future_train_share: float

    @property
    def is_clean(self) -> bool:
        """Whether no user's own future, and no test interaction, is in training."""
        return self.order_violations == 0 and self.shared_interactions == 0

    def to_dict(self) -> dict[str, Any]:
        """The report as a dictionary that JSON can hold."""
        return {**asdict(self), "is_clean": self.is_clean}

    def __str__(self) -> str:
        return (
            f"leakage: {self.order_violations:,} training interactions after the user's own test, "
            f"{self.shared_interactions:,} shared with test; {self.repeated_targets:,} targets seen before, "
            f"{self.unknown_items:,} with an unknown item, {self.unknown_users:,} unknown users; "
            f"{self.future_train_share:.1%} of training is later than the first test interaction"
        )


def leave_one_out(interactions: Interactions) -> Split:
    """The last item of every user is the test target, the one before it the validation target.

    Args:
        interactions ([`Interactions`]): The whole log.

    Returns:
        [`Split`]: Users with one interaction are in train only; with two, they have a test target but no validation.

    Example:

    ```python
    >>> import pyarrow as pa
    >>> from hfrec.data.interactions import load_interactions
    >>> log = pa.table({"user_id": ["u"] * 4, "item_id": list("abcd"), "timestamp": [1, 2, 3, 4]})
    >>> split = leave_one_out(load_interactions(log))
    >>> [part.table["item_id"].to_pylist() for part in (split.train, split.validation, split.test)]
    [['a', 'b'], ['c'], ['d']]

    ```
    """
    return _last(interactions, 1, strategy="leave_one_out")


def last_n(interactions: Interactions, n: int) -> Split:
    """The last `n` items of every user are test targets, the `n` before them validation targets.

    Args:
        interactions ([`Interactions`]): The whole log.
        n (`int`): Targets per user and part. Users with at most `n` interactions are in train only, those with at
            most `2 n` have no validation targets.

    Returns:
        [`Split`]: For `n=1` the same as [`leave_one_out`].

    Raises:
        ValueError: `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1, found {n}.")
    return _last(interactions, n, strategy=f"last_{n}")


def split_by_time(interactions: Interactions, *, validation_start: Time, test_start: Time) -> Split:
    """One cut in time for all users: nothing in train is later than anything in test.

    Args:
        interactions ([`Interactions`]): The whole log.
        validation_start, test_start: First time that belongs to the part: a number like the log's own, or for
            datetimes a datetime or ISO string.

    Returns:
        [`Split`]: Users may be in one part only; [`leakage_audit`] counts them.

    Raises:
        ValueError: The times are out of order or not of the log's kind, or leave train or test empty.
    """
    column = interactions.table["timestamp"]
    starts = [
        time_value(value, column.type, name)
        for name, value in (("validation_start", validation_start), ("test_start", test_start))
    ]
    if starts[0] > starts[1]:
        raise ValueError(f"`validation_start` ({validation_start}) must not be after `test_start` ({test_start}).")
    times = timestamps_to_numpy(column)
    test = times >= starts[1]
    validation = (times >= starts[0]) & ~test
    for name, mask in (("train", ~test & ~validation), ("test", test)):
        if not mask.any():
            span = f"{pc.min(column).as_py()} to {pc.max(column).as_py()}"
            raise ValueError(
                f"The {name} part is empty: the log runs from {span}. Move `validation_start`, `test_start`."
            )
    return make_split(interactions, validation, test, strategy=f"split_by_time({validation_start}, {test_start})")


def hold_out_users(
    interactions: Interactions,
    *,
    fraction: float | None = None,
    users: Iterable[str] | None = None,
    by: Literal["random", "latest"] = "random",
    seed: int = 0,
) -> tuple[Interactions, Interactions]:
    """Set whole users aside, as new users of a trained model or as a target domain of their own.

    Args:
        interactions ([`Interactions`]): The whole log.
        fraction (`float`): Share of the users, in (0, 1). Give this or `users`.
        users: The ids of the users to hold out.
        by (`str`): With `fraction`: "random", or "latest", those whose first interaction came last.
        seed (`int`): Of the random choice.

    Returns:
        `(kept, held_out)`: Two [`Interactions`] without a common user.

    Raises:
        ValueError: Neither or both of `fraction` and `users`, unknown users, or a part without users.
    """
    if (fraction is None) == (users is None):
        raise ValueError("Give either `fraction` or `users`, found " + ("neither." if users is None else "both."))
    if users is not None:
        mask = _users_mask(interactions, users)
    elif fraction is not None:
        mask = _fraction_mask(interactions, fraction, by=by, seed=seed)
    if mask.all() or not mask.any():
        raise ValueError(f"`fraction` or `users` holds out all or none of {interactions.num_users} users: change it.")
    return interactions.select(~mask), interactions.select(mask)


def leakage_audit(split: Split) -> LeakageReport:
    """Count what training knows of the test part.

    Args:
        split ([`Split`]): Any split, also one made by hand.

    Returns:
        [`LeakageReport`]: `report.is_clean` is the verdict on each user's own future.
    """
    train, test = split.train.table, split.test.table
    train_times, test_times = (timestamps_to_numpy(table["timestamp"]) for table in (train, test))
    first = test.group_by("user_id").aggregate([("timestamp", "min")])
    known = pc.index_in(train["user_id"], first["user_id"].combine_chunks())
    limits = pc.take(first["timestamp_min"], known.combine_chunks())
    late = pc.sum(pc.fill_null(pc.greater(train["timestamp"], limits), False)).as_py() or 0
    users = set(pc.unique(test["user_id"]).to_pylist()) - set(pc.unique(train["user_id"]).to_pylist())
    known_items = pc.is_in(test["item_id"], pc.unique(train["item_id"]))
    return LeakageReport(
        order_violations=int(late),
        shared_interactions=int(is_among(test, train, ["user_id", "item_id", "timestamp"]).sum()),
        repeated_targets=int(is_among(test, train, ["user_id", "item_id"]).sum()),
        unknown_items=int(len(test) - (pc.sum(known_items).as_py() or 0)),
        unknown_users=len(users),
        future_train_share=float((train_times > test_times.min()).mean()) if len(train) and len(test) else 0.0,
    )


def first_of_each_user(interactions: Interactions) -> Interactions:
    """The oldest interaction of each user."""
    codes = user_codes(interactions.table)
    first = np.ones(len(codes), dtype=bool)
    first[1:] = codes[1:] != codes[:-1]
    return interactions.select(first)


def split_facts(split: Split) -> dict[str, Any]:
    """What results say of a split: its report and the audit of its leaks."""
    return {**split.report.to_dict(), "leakage": leakage_audit(split).to_dict()}


def tied_target_share(targets: Interactions, others: Interactions) -> float:
    """Share of `targets` at the same time as an interaction of the same user in `others`, in [0, 1].

    These targets depend on the order of the source alone: another stable order would have chosen others.
    """
    if len(targets) == 0:
        return 0.0
    return float(is_among(targets.table, others.table, ["user_id", "timestamp"]).mean())


def _last(interactions: Interactions, n: int, *, strategy: str) -> Split:
    codes = user_codes(interactions.table)
    sizes = np.bincount(codes)
    # 0 for a user's newest interaction, 1 for the one before.
    age = np.cumsum(sizes)[codes] - 1 - np.arange(len(codes))  # (num_interactions,)
    size = sizes[codes]  # (num_interactions,)
    test = (age < n) & (size > n)
    validation = (age >= n) & (age < 2 * n) & (size > 2 * n)
    return make_split(interactions, validation, test, strategy=strategy)


def make_split(interactions: Interactions, validation: BoolArray, test: BoolArray, *, strategy: str) -> Split:
    """The parts that two masks `(num_interactions,)` choose, and their report."""
    parts = [interactions.select(mask) for mask in (~validation & ~test, validation, test)]
    report = SplitReport(
        strategy=strategy,
        num_train=len(parts[0]),
        num_validation=len(parts[1]),
        num_test=len(parts[2]),
        users_without_test=interactions.num_users - parts[2].num_users,
        users_without_validation=interactions.num_users - parts[1].num_users,
        validation_tie_share=tied_target_share(parts[1], interactions.select(~validation)),
        test_tie_share=tied_target_share(parts[2], interactions.select(~test)),
    )
    return Split(train=parts[0], validation=parts[1], test=parts[2], report=report)


def is_among(rows: pa.Table, others: pa.Table, columns: list[str]) -> BoolArray:
    """Whether each of `rows` agrees in `columns` with a row of `others`. Shape `(num_rows,)`."""
    both = pa.concat_tables([rows.select(columns), others.select(columns)])
    keys = np.zeros(len(both), dtype=np.int64)
    for name in columns:
        codes = np.asarray(both[name].combine_chunks().dictionary_encode().indices, dtype=np.int64)
        # Renumbered after each column, so that the product of the numbers of values cannot overflow.
        _, keys = np.unique(keys * (codes.max(initial=0) + 1) + codes, return_inverse=True)
    return np.isin(keys[: len(rows)], keys[len(rows) :])


def time_value(value: Time, kind: pa.DataType, name: str) -> int | float:
    """A time as the log's own numbers, microseconds for datetimes; `name` is the argument that an error blames."""
    if not pa.types.is_timestamp(kind):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"`{name}` must be a number like the log's times ({kind}), found {value!r}.")
        return value
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))  # Python 3.10 does not read the "Z"
        except ValueError as error:
            raise ValueError(f"`{name}` must be an ISO time, found {value!r}.") from error
    if not isinstance(value, datetime):
        raise ValueError(f"`{name}` must be a datetime or ISO string like the log's times, found {value!r}.")
    # A zoned time becomes UTC, as the log's own times were.
    zone = "UTC" if value.tzinfo is not None else None
    return int(pa.scalar(value, pa.timestamp("us", tz=zone)).cast(pa.int64()).as_py())


def time_of_flag(value: Time, kind: pa.DataType, name: str) -> int | float:
    """`time_value` of a flag, which is text: a number where the log has numbers."""
    if isinstance(value, str) and not pa.types.is_timestamp(kind):
        with suppress(ValueError):  # which `time_value` says in words
            value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
    return time_value(value, kind, name)


def _users_mask(interactions: Interactions, users: Iterable[str]) -> BoolArray:
    wanted = pa.array([str(user) for user in users], pa.string())
    column = interactions.table["user_id"]
    unknown = wanted.filter(pc.invert(pc.is_in(wanted, pc.unique(column))))
    if len(unknown):
        raise ValueError(f"`users` names {len(unknown)} users that are not in the log: {unknown[:5].to_pylist()}.")
    return np.asarray(pc.is_in(column, wanted).combine_chunks().to_numpy(zero_copy_only=False), dtype=bool)


def _fraction_mask(interactions: Interactions, fraction: float, *, by: str, seed: int) -> BoolArray:
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"`fraction` must lie in (0, 1), found {fraction}.")
    codes = user_codes(interactions.table)
    num_users = int(codes.max()) + 1
    if by == "random":
        order = np.random.default_rng(seed).permutation(num_users)
    elif by == "latest":
        first = timestamps_to_numpy(interactions.table["timestamp"])[np.unique(codes, return_index=True)[1]]
        order = np.argsort(first, kind="stable")[::-1]
    else:
        raise ValueError(f"`by` must be 'random' or 'latest', found {by!r}.")
    held = np.zeros(num_users, dtype=bool)
    held[order[: max(1, round(fraction * num_users))]] = True
    return held[codes]
