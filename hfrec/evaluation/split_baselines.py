"""Classical baselines on a log: fitted on a training part, or on all rows."""

from __future__ import annotations

from collections.abc import Sequence

from ..classical.names import METHODS, Method
from ..data.interactions import Interactions, timestamps_to_numpy
from ..data.sequences import to_evaluation_sequences, to_sequences
from ..data.splits import Split
from ..tokenization import ItemTokenizer
from .tuning import TrainingLog, TunedBaseline, tuned_baselines


def classical_baselines(
    split: Split, tokenizer: ItemTokenizer, *, methods: Sequence[Method] = METHODS, tuned: bool = True
) -> tuple[dict[str, TunedBaseline], dict[str, str]]:
    """The baselines fitted on the training part, and the reasons of those that are left out.

    Args:
        split: Leave-one-out split.
        tokenizer: Vocabulary.
        methods: Which ones.
        tuned: Whether their settings are chosen on the validation part, if there is one.
    """
    log = baseline_log(split.train, tokenizer)
    if not tuned or len(split.validation_targets) == 0:
        return tuned_baselines(log, methods=methods)
    rows = to_evaluation_sequences(split.train, split.validation_targets, tokenizer)
    histories, targets = rows.data["input_ids"].combine_chunks(), rows.data["target"].to_numpy()
    return tuned_baselines(log, histories, targets, methods=methods)


def baseline_log(log: Interactions, tokenizer: ItemTokenizer) -> TrainingLog:
    """What classical baselines are fitted on: the rows of a log whose items the vocabulary has."""
    sequences = to_sequences(log, tokenizer, unknown="drop").data["input_ids"].combine_chunks()
    known = tokenizer.encode_column(log.table["item_id"], unknown="drop").is_valid()
    return TrainingLog(sequences, len(tokenizer), timestamps_to_numpy(log.table["timestamp"].filter(known)))
