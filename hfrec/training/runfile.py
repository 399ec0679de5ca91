"""What an interrupted run was about, so that only the same run goes on from its checkpoints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedModel
from transformers.utils import logging

from ..data.files import RUN_FILE, read_json_object, write_json
from ..data.shards import StreamedBatches
from ..data.splits import Split
from .arguments import DataArguments, FinetuneArguments
from .checkpoints import last_whole_checkpoint
from .reference import hash_weights
from .trainer_arguments import RecommenderTrainingArguments

logger = logging.get_logger(__name__)
# What cannot change the weights or which of them are best: where a run lies, and what it tells whom.
_TELLS = ("log_", "logging_", "hub_", "push_to_hub", "trackio_", "report_to", "run_name", "project", "disable_tqdm")
_PLACES = ("output_dir", "resume_from_checkpoint", "local_rank", "ddp_", "debug", "skip_memory_metrics")
_SPEED = ("dataloader_", "per_device_eval_batch_size", "eval_accumulation_steps", "torch_empty_cache_steps")
_KEEPS = ("save_total_limit", "save_on_each_node", "save_on_exit", "enable_jit_checkpoint", "do_", "include_")
_FREE = (*_TELLS, *_PLACES, *_SPEED, *_KEEPS)
_SEQUENCES = ("max_length", "windows", "streaming", "shuffle_buffer_size", "mlm_probability", "mask_last_probability")


def begin_run(
    data: DataArguments, training: RecommenderTrainingArguments, log: Mapping[str, Any], **settings: Mapping[str, Any]
) -> None:
    """Write what a new run is about into its folder, or compare that with the run whose checkpoint it goes on from.

    Args:
        data: How sequences are made.
        training: Arguments of the `Trainer`.
        log: Fingerprints of what is trained and validated on, such as `split_content` gives them.
        settings: Further groups of settings that decide the result, such as those of a new model.

    Raises:
        ValueError: The folder holds checkpoints of a run on another log, of other settings, or of nobody knows which.
    """
    folder = Path(training.output_dir)
    run = {
        "log": dict(log),
        "data": {name: getattr(data, name) for name in _SEQUENCES},
        "training": _training_settings(training),
        **{name: dict(values) for name, values in settings.items()},
    }
    run = json.loads(json.dumps(run, default=str))
    explicit = training.resume_from_checkpoint
    earlier = Path(explicit).parent if explicit else folder
    # A validation run that is done is compared too, when the run that it chooses for goes on.
    done = (folder / "all_results.json").exists() and (folder / RUN_FILE).exists()
    if explicit or done or last_whole_checkpoint(folder) is not None:
        if (earlier / RUN_FILE).is_file():
            check_same(earlier, run, elsewhere=earlier.resolve() != folder.resolve())
        elif not explicit:
            raise of_nobody_knows_what(
                folder, "checkpoints", ", or name the checkpoint to go on from with `--resume_from_checkpoint`"
            )
    if training.process_index == 0:
        write_json(folder / RUN_FILE, run)


def items_content(items: pa.Table | None) -> dict[str, str]:
    """Fingerprint of the rows of items that a model is made of by their content; nothing where there are none.

    Args:
        items: `item_id` and what stands beside it, whose `count` is the log's matter.
    """
    if items is None:
        return {}
    digest = hashlib.sha256()
    kept = items.drop_columns([name for name in items.column_names if name == "count"])
    for batch in kept.to_batches(max_chunksize=1 << 12):
        for row in batch.to_pylist():
            digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return {"items": digest.hexdigest()}


def begin_in(folder: Path, about: dict[str, dict[str, Any]]) -> bool:
    """Write what a folder is about, or compare that with what goes on there; whether something does.

    Raises:
        ValueError: It is of another log or other settings.
    """
    goes_on = (folder / RUN_FILE).is_file()
    if goes_on:
        check_same(folder, about)
    write_json(folder / RUN_FILE, about)
    return goes_on


def of_nobody_knows_what(folder: Path, what: str, remedy: str = "") -> ValueError:
    """The refusal of a folder whose contents nobody can compare with what is asked for."""
    return ValueError(
        f"`output_dir` {folder} holds {what} without {RUN_FILE}, so that nobody knows of which log and settings: "
        f"choose another folder{remedy}."
    )


def split_content(split: Split) -> dict[str, str]:
    """Fingerprints of the parts of a split that decide the weights."""
    return {"train": split.train.fingerprint, "validation": split.validation.fingerprint}


def streamed_content(train: StreamedBatches, info: Mapping[str, Any]) -> dict[str, Any]:
    """What shards hold: the fingerprint where `hfrec prepare` wrote them, and counts of rows and items."""
    counts = np.ascontiguousarray(train.item_counts())
    return {
        "fingerprint": info.get("fingerprint"),
        "rows": train.num_rows,
        "item counts": hashlib.sha256(counts.tobytes()).hexdigest(),
    }


def start_settings(model: PreTrainedModel, start: FinetuneArguments) -> dict[str, Any]:
    """What fine-tuning starts from and how it is held, for the comparison of a run with the one it goes on from."""
    named = {name: value for name, value in vars(start).items() if not name.startswith("model_")}
    return {**named, "weights": weights_digest(model)}


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 (hex) of a model's weights: what fine-tuning starts from, wherever it lies.

    Example:
        >>> import torch
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=8, hidden_size=8))
        >>> len(weights_digest(model))
        64
    """
    saved = model.state_dict().keys()  # without what is made anew whenever the model is
    kept = {name: buffer for name, buffer in model.named_buffers() if name in saved}  # features of items
    return hash_weights({**dict(model.named_parameters()), **kept}).hexdigest()


def _training_settings(training: RecommenderTrainingArguments) -> dict[str, Any]:
    everything: dict[str, Any] = training.to_dict()  # type: ignore[no-untyped-call]
    values = {name: value for name, value in everything.items() if not name.startswith(_FREE)}
    return {**values, "dataloader_drop_last": training.dataloader_drop_last, "world_size": training.world_size}


def check_same(folder: Path, now: dict[str, dict[str, Any]], *, elsewhere: bool = False) -> None:
    """Refuse to go on in a folder with another log or other settings; one that is named `elsewhere` is only warned of.

    Raises:
        ValueError: With each setting that differs, or what is there is no run.
    """
    before = read_json_object(folder / RUN_FILE)
    if not all(isinstance(group, dict) for group in before.values()):
        raise ValueError(
            f"{folder / RUN_FILE} is damaged: expected groups of settings. Choose another `output_dir`, or remove what "
            "lies there."
        )
    differing = [
        (group, name, before.get(group, {}).get(name), now.get(group, {}).get(name))
        for group in sorted(before | now)
        for name in sorted(before.get(group, {}) | now.get(group, {}))
        if before.get(group, {}).get(name) != now.get(group, {}).get(name)
    ]
    if not differing:
        return
    logs = {name for group, name, *_ in differing if group == "log"}
    found = ["another log" if logs - {"items"} else "", "other rows of items" if "items" in logs else ""]
    found += [f"`{name}` {old} there, {new} now" for group, name, old, new in differing if group != "log"]
    listed = "; ".join(filter(None, found))
    if elsewhere:
        logger.warning(
            f"The checkpoint is of a run in {folder} that differs: {listed}. Its weights and its optimiser, with the "
            "learning rate there, go on: the settings in the results are those asked for now."
        )
        return
    raise ValueError(
        f"{folder} holds an interrupted run that differs: {listed}. Give the log and the "
        "settings of that run to go on with it, or choose another `output_dir`."
    )
