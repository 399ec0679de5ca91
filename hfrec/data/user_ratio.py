"""The newest share of each user's interactions held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hfrec.data.interactions import Interactions, user_codes
from hfrec.data.splits import Split, make_split


def split_by_user_ratio(interactions: Interactions, *, validation_ratio: float = 0.1, test_ratio: float = 0.1) -> Split:
    """The newest share of every user's interactions is held out; the first of a part is the user's target in it.

    Args:
        interactions ([`Interactions`]): The whole log.
        validation_ratio, test_ratio (`float`): Shares in (0, 1) of each user's interactions, rounded, one at least
            where the user has three. One interaction stays in train.

    Returns:
        [`Split`]: With `targets="first"`: later ones would be ranked by what the part itself holds. Users with one
        interaction are in train only; with two, they have a test target but no validation.

    Raises:
        ValueError: Ratios outside (0, 1), or together no less than 1.

    Example:

    ```python
    >>> import pyarrow as pa
    >>> from hfrec.data.interactions import load_interactions
    >>> log = pa.table({"user_id": ["u"] * 8, "item_id": list("abcdefgh"), "timestamp": range(8)})
    >>> split = split_by_user_ratio(load_interactions(log), validation_ratio=0.25, test_ratio=0.25)
    >>> [part.table["item_id"].to_pylist() for part in (split.train, split.validation, split.test)]
    [['a', 'b', 'c', 'd'], ['e', 'f'], ['g', 'h']]

    ```
    """
    if not (validation_ratio > 0 and test_ratio > 0 and validation_ratio + test_ratio < 1):
        raise ValueError(
            "`validation_ratio` and `test_ratio` must be above 0 and below 1 together, found "
            f"{validation_ratio} and {test_ratio}: something must be left to train on."
        )
    codes = user_codes(interactions.table)
    sizes = np.bincount(codes)  # (num_users,)
    test_sizes = np.minimum(np.maximum(1, np.rint(test_ratio * sizes)), sizes - 1)
    left = sizes - test_sizes
    validation_sizes = np.minimum(np.maximum(1, np.rint(validation_ratio * sizes)), left - 1)
    age = np.cumsum(sizes)[codes] - 1 - np.arange(len(codes))  # (num_interactions,)
    test = age < test_sizes[codes]
    validation = ~test & (age < (test_sizes + validation_sizes)[codes])
    split = make_split(interactions, validation, test, strategy="user_ratio")
    report = replace(split.report, validation_ratio=validation_ratio, test_ratio=test_ratio)
    return replace(split, report=report, targets="first")
