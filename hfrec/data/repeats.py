"""Repeated consumption: how often the next item is one that the user had, and whether such items are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .arguments import Choice

if TYPE_CHECKING:
    import datasets

REPEAT_THRESHOLD = 0.1


def repeat_share(rows: datasets.Dataset, *, batch_size: int = 65_536) -> float:
    """Share of the targets that stand in their own history, in [0, 1].

    Args:
        rows: Rows of `to_evaluation_sequences`, in memory or mapped from disk.
        batch_size (`int`): Rows held at a time.

    Example:

    ```python
    >>> import datasets
    >>> rows = datasets.Dataset.from_dict({"input_ids": [[3, 4], [], [5]], "target": [4, 3, 3]})
    >>> round(repeat_share(rows), 3)
    0.333

    ```
    """
    import pyarrow.compute as pc

    repeats = 0
    for batch in rows.with_format("arrow").iter(batch_size=batch_size):
        histories = batch["input_ids"].combine_chunks()
        owners = pc.list_parent_indices(histories)  # (num_tokens,)
        targets = batch["target"].combine_chunks().take(owners)  # (num_tokens,)
        same = pc.equal(histories.flatten(), targets)
        repeats += len(np.unique(np.asarray(owners)[same.to_numpy(zero_copy_only=False)]))
    return repeats / max(1, len(rows))


def settle_filter_seen(choice: Choice, share: float) -> tuple[bool, str]:
    """Whether items of the history are left out, and the line that says so.

    Args:
        choice (`str`): "true", "false", or "auto": left out unless more than 10 % of the validation targets repeat the
            history. A seen filter makes each of these a miss that no model can avoid; where they are rarer, the items
            of the history are mostly in the way of others.
        share (`float`): Share of the validation targets that repeat the history.

    Example:
        >>> settle_filter_seen("auto", 0.31)[1].partition("; ")[0]
        '31 % of the validation targets repeat the history: seen items are not filtered'
        >>> settle_filter_seen("auto", 0.1)[0], settle_filter_seen("true", 0.31)[0]
        (True, True)
    """
    filter_seen = share <= REPEAT_THRESHOLD if choice == "auto" else choice == "true"
    done, other = ("filtered", "keeps") if filter_seen else ("not filtered", "filters")
    return filter_seen, (
        f"{100 * share:.3g} % of the validation targets repeat the history: seen items are {done}; "
        f"`--filter_seen {str(not filter_seen).lower()}` {other} them."
    )


def filters_seen(config: Any) -> bool:
    """What the config of a checkpoint says of seen items; one that was written before it could say is filtered."""
    # The class may be that of the checkpoint's own remote code, which has no default of ours.
    return bool(getattr(config, "filter_seen", True))


def chosen_filter(choice: Choice, config: Any) -> bool:
    """Whether a command leaves out seen items: as the flag says, for "auto" as the checkpoint says."""
    return filters_seen(config) if choice == "auto" else choice == "true"
