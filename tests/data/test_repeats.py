"""Repeated consumption: the share that is measured, the rule, and what a checkpoint says."""

from __future__ import annotations

import datasets
import pytest

from hfrec import Bert4RecConfig
from hfrec.data.repeats import REPEAT_THRESHOLD, chosen_filter, filters_seen, repeat_share, settle_filter_seen


@pytest.mark.parametrize("batch_size", [1, 2, 99])
def test_share_counts_targets_not_repeats(batch_size: int) -> None:
    """An item that was had three times is one repeated target; batches must change nothing."""
    rows = datasets.Dataset.from_dict({"input_ids": [[3, 3, 3], [], [4, 5], [5, 4, 3]], "target": [3, 3, 3, 4]})
    assert repeat_share(rows, batch_size=batch_size) == 0.5
    assert repeat_share(rows.select([1, 2]), batch_size=batch_size) == 0.0


def test_rule_on_both_sides_of_the_threshold() -> None:
    """The side decides whether a third of all targets are misses by rule."""
    assert settle_filter_seen("auto", REPEAT_THRESHOLD)[0]
    above, line = settle_filter_seen("auto", REPEAT_THRESHOLD + 0.001)
    assert not above
    assert line == (
        "10.1 % of the validation targets repeat the history: seen items are not filtered; `--filter_seen true` "
        "filters them."
    )
    assert settle_filter_seen("true", 0.9)[0] and not settle_filter_seen("false", 0.0)[0]
    assert "`--filter_seen false` keeps them" in settle_filter_seen("true", 0.9)[1]


def test_an_old_checkpoint_filters() -> None:
    """A config that does not say, of our class or of a checkpoint's own code, must recommend as it did."""
    assert filters_seen(Bert4RecConfig.from_dict({"vocab_size": 9}))
    assert filters_seen(object())
    silent = Bert4RecConfig(vocab_size=9, filter_seen=False)
    assert not chosen_filter("auto", silent) and chosen_filter("true", silent)
    assert not Bert4RecConfig.from_dict(silent.to_dict()).filter_seen
