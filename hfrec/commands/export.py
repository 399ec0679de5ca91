"""Write a checkpoint as an ONNX graph that recommends without torch.

hfrec export out exported
hfrec export out exported --int8 true --history_file interactions.csv
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .columns import LogFlags
from .parsing import parse_into


@dataclass
class ExportArguments(LogFlags):
    """What is exported, and on what it is checked."""

    words: ClassVar[tuple[str, ...]] = ("model_name_or_path", "output_dir")

    model_name_or_path: str = field(metadata={"help": "Checkpoint: a folder or a hub id."})
    output_dir: str = field(metadata={"help": "New folder for graph, items and serving code."})
    top_k: int | None = field(default=None, metadata={"help": "Most items that can be asked for; 100 if None."})
    int8: bool = field(default=False, metadata={"help": "Also write the graph with weights of 8 bits."})
    history_file: str | None = field(
        default=None, metadata={"help": "Log of the users to check the graph on; random histories if None."}
    )
    max_histories: int = field(default=1000, metadata={"help": "Most users of history_file to check on."})


parse = parse_into("export", ExportArguments)


def main(arguments: ExportArguments) -> dict[str, Any]:
    """Export, check and print how the graph compares with the model."""
    from transformers.utils import logging

    from ..data.files import check_new_folder
    from ..hub.checkpoint import load_checkpoint
    from ..inference.export import RESULTS_FILE, export_onnx
    from ..inference.prior import load_prior

    output = Path(arguments.output_dir)
    check_new_folder(output)
    model, tokenizer = load_checkpoint(arguments.model_name_or_path, revision=arguments.revision)
    if load_prior(arguments.model_name_or_path, tokenizer, revision=arguments.revision) is not None:
        logging.get_logger(__name__).warning(
            "the checkpoint has a prior for empty histories, which the graph leaves out: its lists are the model's."
        )
    histories = None if arguments.history_file is None else read_histories(arguments, tokenizer)
    results = export_onnx(model, tokenizer, output, top_k=arguments.top_k, int8=arguments.int8, histories=histories)
    print(
        f"{output}: on {results['histories']:,} histories {results['same_items']:.1%} of the lists hold the same items "
        f"in the same order as the model's, scores within {results['max_score_difference']:.1e}"
    )
    if arguments.int8:
        print(f"int8: {results['int8_overlap@10']:.1%} of the ten best items")
    print(f"All figures: {output / RESULTS_FILE}")
    return results


def read_histories(arguments: ExportArguments, tokenizer: Any) -> list[list[str]]:
    """The first users' known items, oldest first; users without one are left out.

    Raises:
        ValueError: No user has one.
    """
    from ..data.interactions import histories_of
    from ..hub.log_shape import load_log_like, log_shape

    shape = log_shape(arguments.model_name_or_path, arguments, revision=arguments.revision)
    interactions = load_log_like(str(arguments.history_file), shape, arguments)
    known = set(tokenizer.items["item_id"].to_pylist())
    rows = ([item for item in row if item in known] for row in histories_of(interactions.table)[1])
    histories = [row for row in rows if row][: arguments.max_histories]
    if not histories:
        raise ValueError(
            f"`history_file` {arguments.history_file} has no item of the checkpoint: is it the log of another "
            "catalogue?"
        )
    return histories
