"""What `hfrec baseline` and `hfrec blend` have in common: methods, mixing, testing, and the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..data.arguments import ProtocolArguments
from ..training.arguments import CardArguments, DataArguments


@dataclass
class BlendFinalArguments:
    """Whether the checkpoint is what was tested, or is fitted again on everything."""

    final: bool = field(
        default=False,
        metadata={
            "help": "Fit what is shipped: settings and weights are chosen and tested with items held out, in "
            "OUTPUT_DIR/validation; then all is fitted with them on all rows and all items."
        },
    )


class Whole(NamedTuple):
    """What `--final true` fits on: all rows, the vocabulary of all items, and networks trained on them, by name."""

    log: Any
    tokenizer: Any
    networks: dict[str, Any]


def finish(
    parts: Any,
    tokenizer: Any,
    split: Any,
    whole: Whole | None,
    *,
    arguments: tuple[DataArguments, ProtocolArguments, CardArguments],
    output_dir: str,
) -> dict[str, Any]:
    """Mix the parts, test them, fit them again where `whole` is given, and write the checkpoint with its results, its
    users' ranks and its card."""
    from ..blending.run import describe, measure_blend, mix
    from ..data.files import VALIDATION_FOLDER, sealed_files, whole_files, write_json
    from ..data.sequences import to_evaluation_sequences
    from ..data.splits import split_facts
    from ..evaluation.protocol import versions
    from ..evaluation.table import results_table
    from ..evaluation.user_ranks import RANKS_FILE
    from ..hub.model_card import write_model_card
    from ..training.facts import log_sizes
    from ..training.run import save_checkpoint
    from ..training.seen import decide_seen_items

    data, protocol, card = arguments
    validation = to_evaluation_sequences(split.train, split.validation_targets, tokenizer)
    seen = decide_seen_items(validation, protocol)
    blend, fit = mix(parts, tokenizer, validation, filter_seen=seen["seen_items"]["filter_seen"])
    test, report = measure_blend(blend, fit, parts, tokenizer=tokenizer, split=split)
    results = {
        "test": test.results(),
        "blend": report,
        "split": split_facts(split),
        "data": {"source": data.source, "train_fingerprint": split.train.fingerprint},
        "settings": vars(data),
        "sizes": log_sizes(split.train),
        "versions": versions(),
        **seen,
    }
    folder = Path(output_dir)
    with whole_files(folder) as draft:
        tested = draft if whole is None else draft / VALIDATION_FOLDER
        save_checkpoint(blend, tokenizer, tested)
        with sealed_files(tested) as added:
            test.user_ranks().save(added / RANKS_FILE)
            write_json(added / "all_results.json", results)
        write_model_card(tested, license=card.license, name=folder.resolve().name)
        final = None if whole is None else save_whole(blend, whole, results, draft)
        if final is not None:
            write_model_card(draft, license=card.license, name=folder.resolve().name)
    print(results_table(results["test"]))
    print(describe(report))
    print(f"Checkpoint: {folder}")
    if "verdict" in results["test"]:
        print(results["test"]["verdict"]["text"])
    if final is None:
        return results
    print(
        f"Fitted on all {final['sizes']['interactions']:,} interactions and {final['sizes']['items']:,} items. No test "
        f"figure is of these tables and weights: those above, with items held out, lie in {VALIDATION_FOLDER}/."
    )
    return final


def save_whole(blend: Any, whole: Whole, validation: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Fit a tested blend again on all rows, write its checkpoint and results, and return these."""
    from ..blending.run import REQUESTS, refit, request_cost
    from ..data.files import seal, write_json
    from ..data.sequences import to_sequences
    from ..training.facts import log_sizes
    from ..training.final import ALL_ROWS
    from ..training.run import save_checkpoint

    components = validation["blend"]["components"]
    settings = {part["name"]: part["settings"] for part in components}
    shipped = refit(blend, settings, whole.log, whole.tokenizer, networks=whole.networks)
    histories = to_sequences(whole.log, whole.tokenizer)["input_ids"][:REQUESTS]
    report = {name: value for name, value in validation["blend"].items() if name != "minus_best_part"}
    results = {
        **{name: value for name, value in validation.items() if name != "test"},
        "final": {part["name"]: {"weight": part["weight"], **part["settings"]} for part in components},
        "blend": {**report, "request": request_cost(shipped, whole.tokenizer, histories)},
        "split": {"strategy": ALL_ROWS},
        "data": {**validation["data"], "train_fingerprint": whole.log.fingerprint},
        "sizes": log_sizes(whole.log),
        "validation_run": validation,
    }
    save_checkpoint(shipped, whole.tokenizer, folder)
    write_json(folder / "all_results.json", results)
    seal(folder)
    return results
