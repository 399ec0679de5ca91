"""What a change of the start, the model or the schedule is worth: validation NDCG@10 over seeds, paired with the first.

Nothing of the test part is read. Seen items do not compete, as in the recipes. Each (log, variant, seed) is trained
once, and kept as one line of `--output_file`; the table is printed from these lines, so that a run that was stopped
resumes.

python benchmarks/quality/ablation.py --log ml-100k --objective causal --epochs 8 --output_file outputs/ablation.jsonl
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hfrec import LogFilters, leave_one_out, load_interactions, to_evaluation_sequences
from hfrec.evaluation.protocol import evaluation_collator
from hfrec.evaluation.ranking import rank_dataset
from hfrec.training.arguments import DataArguments, ModelArguments
from hfrec.training.l2sp import L2SPCallback
from hfrec.training.rows import build_tokenizer, training_sequences
from hfrec.training.start import attend_to_nearest, histories_and_counts, pass_on_attended, start_from_log
from hfrec.training.trainer import build_model, build_trainer, seed_everything
from hfrec.training.trainer_arguments import RecommenderTrainingArguments
from hfrec.transfer.cooccurrence import CooccurrenceSettings, cooccurrence_rows, log_counts, set_item_rows
from hfrec.transfer.rows import ItemRows

Start = Callable[[PreTrainedModel, Any, Any, int], None]


def embeddings_only(**settings: Any) -> Start:
    """Item embeddings and biases from the log; the layers as they are drawn."""

    def start(model: PreTrainedModel, histories: Any, counts: Any, seed: int) -> None:
        size = model.get_input_embeddings().weight.shape[1]
        rows = cooccurrence_rows(histories, counts, size=size, seed=seed, settings=CooccurrenceSettings(**settings))
        set_item_rows(model, rows)

    return start


def with_layers(nearest: bool = True, **settings: Any) -> Start:
    """The same, and layers that pass on what they attend to: the nearest tokens, where positions are rotary."""

    def start(model: PreTrainedModel, histories: Any, counts: Any, seed: int) -> None:
        embeddings_only(**settings)(model, histories, counts, seed)
        pass_on_attended(model, seed=seed)
        if nearest and model.config.position_embedding_type == "rotary":
            attend_to_nearest(model)

    return start


def biases_only(model: PreTrainedModel, histories: Any, counts: Any, seed: int) -> None:
    """Biases at the logarithm of the counts, the rest at random."""
    set_item_rows(model, ItemRows(model.get_input_embeddings().weight[3:], log_counts(counts)))


def layers_only(model: PreTrainedModel, histories: Any, counts: Any, seed: int) -> None:
    """Layers that pass on what they attend to, and the biases; the items at random."""
    biases_only(model, histories, counts, seed)
    pass_on_attended(model, seed=seed)


ROTARY = {"position_embedding_type": "rotary"}  # only these can start at the nearest items

# Name -> start of the model, further fields of the model, of the training arguments.
VARIANTS: dict[str, tuple[Start | None, dict[str, Any], dict[str, Any]]] = {
    "random": (None, {}, {}),
    "biases": (biases_only, {}, {}),
    "biases + layers": (layers_only, {}, {}),
    "svd": (embeddings_only(), {}, {}),
    "svd + layers": (with_layers(), {}, {}),
    "rotary positions": (with_layers(nearest=False), ROTARY, {}),
    "svd + layers + nearest (default)": (lambda *given: start_from_log(*given[:3], seed=given[3]), ROTARY, {}),
    "window 5": (with_layers(window=5), ROTARY, {}),
    "window 30": (with_layers(window=30), ROTARY, {}),
    "rows of length 0.3": (with_layers(row_norm=0.3), ROTARY, {}),
    "rows of length 0.8": (with_layers(row_norm=0.8), ROTARY, {}),
    "no head transform": (with_layers(), {**ROTARY, "head_transform": False}, {}),
    "learning rate halved": (with_layers(), ROTARY, {"learning_rate": 1e-3}),
    "weight decay 0.01": (with_layers(), ROTARY, {"weight_decay": 0.01}),
    "label smoothing 0.1": (with_layers(), ROTARY, {"label_smoothing_factor": 0.1}),
    "cosine schedule": (with_layers(), ROTARY, {"lr_scheduler_type": "cosine"}),
    "constant rate": (with_layers(), ROTARY, {"lr_scheduler_type": "constant"}),
    "gated feed-forward": (with_layers(), {**ROTARY, "gated_mlp": True}, {}),
    "all items compete": (with_layers(), {**ROTARY, "loss_candidates": "all"}, {}),
    "1,024 drawn negatives": (with_layers(), {**ROTARY, "loss": "sampled_softmax"}, {}),
    "512 hard and 512 drawn": (
        with_layers(),
        {**ROTARY, "loss": "sampled_softmax", "num_negatives": 512, "num_hard_negatives": 512},
        {},
    ),
    "dropout 0.1": (with_layers(), {**ROTARY, "hidden_dropout_prob": 0.1}, {}),
    "dropout 0.3": (with_layers(), {**ROTARY, "hidden_dropout_prob": 0.3}, {}),
    "L2-SP to the start, 0.001": (with_layers(), ROTARY, {"l2sp_alpha": 1e-3}),
    "L2-SP to the start, 0.01": (with_layers(), ROTARY, {"l2sp_alpha": 1e-2}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", required=True, help="Named data set, file or folder.")
    parser.add_argument("--duplicates", default="keep")
    parser.add_argument("--objective", default="causal", choices=["causal", "masked"])
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--max_length", type=int, default=50)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--loss", default="chunked")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--output_file", type=Path, required=True)
    options = parser.parse_args()
    split = leave_one_out(load_interactions(options.log, filters=LogFilters(duplicates=options.duplicates)))
    tokenizer = build_tokenizer(split.train)
    rows = to_evaluation_sequences(split.train, split.validation, tokenizer)
    done = (
        [json.loads(line) for line in options.output_file.read_text().splitlines()]
        if options.output_file.exists()
        else []
    )
    for seed in options.seeds:
        for variant in options.variants:
            key = {
                "log": options.log,
                "objective": options.objective,
                "epochs": options.epochs,
                "variant": variant,
                "seed": seed,
            }
            if not any(key.items() <= line.items() for line in done):
                line = {**key, **train(variant, seed, options, split, tokenizer, rows)}
                done.append(line)
                options.output_file.parent.mkdir(parents=True, exist_ok=True)
                with options.output_file.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(variant, seed, line["best"], line["cpu_seconds"], flush=True)
    print_table(
        [
            line
            for line in done
            if (line["log"], line["objective"], line["epochs"]) == (options.log, options.objective, options.epochs)
        ]
    )


def train(variant: str, seed: int, options: Any, split: Any, tokenizer: Any, rows: Any) -> dict[str, Any]:
    """One run: its validation curve, the best value, and each user's reciprocal-log gain at the best checkpoint."""
    start, shape, settings = VARIANTS[variant]
    settings = {**settings}
    alpha = settings.pop("l2sp_alpha", 0.0)
    folder = tempfile.mkdtemp()
    data = DataArguments(train_file=options.log, max_length=options.max_length)
    fields = {"hidden_dropout_prob": options.dropout, "loss": options.loss, "loss_candidates": "unseen", **shape}
    arguments: dict[str, Any] = {
        "output_dir": folder,
        "learning_rate": options.learning_rate,
        "per_device_train_batch_size": options.batch_size,
        "num_train_epochs": options.epochs,
        "early_stopping_patience": 0,
        "disable_tqdm": True,
        "seed": seed,
        **settings,
    }
    training = RecommenderTrainingArguments(**arguments)
    seed_everything(training)
    model = build_model(ModelArguments(objective=options.objective, **fields), len(tokenizer), options.max_length)
    started = time.process_time()
    if start is not None:
        start(model, *histories_and_counts(split.train, tokenizer), seed)
    sequences = training_sequences(split.train, tokenizer, options.objective, data, options.max_length)
    trainer = build_trainer(model, tokenizer, sequences, rows, data=data, training=training)
    if alpha:
        trainer.add_callback(L2SPCallback(model, alpha=alpha, tokenizer=tokenizer, reference_tokenizer=tokenizer))
    trainer.train()
    history = [entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    ranks = rank_dataset(trainer.model, rows, evaluation_collator(model, tokenizer))["filter_seen"]
    gains = np.where((ranks > 0) & (ranks <= 10), 1 / np.log2(np.maximum(ranks, 1) + 1), 0.0)
    return {
        "curve": [round(value, 4) for value in history],
        "best": round(max(history), 4),
        "gains": [round(float(gain), 4) for gain in gains],
        "cpu_seconds": round(time.process_time() - started),
    }


def print_table(lines: list[dict[str, Any]]) -> None:
    """Mean over seeds, and the difference to the default with a 95 % interval over users and seeds."""
    base = "svd + layers + nearest (default)"
    by_variant: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_variant.setdefault(line["variant"], []).append(line)
    print("| variant | seeds | after 1 epoch | best | against the default, paired 95 % |")
    print("|---|---|---|---|---|")
    for variant, found in by_variant.items():
        first = np.mean([line["curve"][0] for line in found])
        best = np.mean([line["best"] for line in found])
        note = ""
        if base in by_variant and variant != base:
            ours = np.mean([line["gains"] for line in found], axis=0)
            theirs = np.mean([line["gains"] for line in by_variant[base]], axis=0)
            draws = np.random.default_rng(0).integers(0, len(ours), (1000, len(ours)))
            low, high = np.quantile((ours - theirs)[draws].mean(axis=1), [0.025, 0.975])
            note = f"{np.mean(ours - theirs):+.4f} [{low:+.4f}, {high:+.4f}]"
        print(f"| {variant} | {len(found)} | {first:.4f} | {best:.4f} | {note} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
