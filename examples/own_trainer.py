"""A training script of your own on the stock `Trainer`: model, loop and test are yours to change.

python examples/own_trainer.py --dataset synthetic --output_dir own --num_train_epochs 3 --max_length 20
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import HfArgumentParser, Trainer

import hfrec


@dataclass
class ScriptArguments:
    """What this script adds to the flags of the log and of `TrainingArguments`."""

    hidden_size: int = field(default=32, metadata={"help": "Width of the model."})


class ZLossModel(hfrec.Bert4RecForCausalLM):
    """A loss of your own: the cross-entropy, and a little for scores that drift away from zero (the z-loss of PaLM)."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The parent's output with another loss; its logits are those of the labelled positions alone."""
        output = super().forward(*args, **kwargs)
        if output.loss is not None and self.training:
            output.loss = output.loss + 1e-4 * output.logits.float().logsumexp(dim=-1).square().mean()
        return output


def main(
    data: hfrec.DataArguments, training: hfrec.RecommenderTrainingArguments, script: ScriptArguments
) -> dict[str, Any]:
    """Train, keep the best checkpoint, and test it beside a baseline on the same users."""
    log = hfrec.load_interactions(data.source)
    split = hfrec.leave_one_out(log)
    tokenizer = hfrec.ItemTokenizer.from_items(sorted(set(split.train.table["item_id"].to_pylist())))
    length = data.max_length or 50
    config = hfrec.Bert4RecConfig(
        vocab_size=len(tokenizer), hidden_size=script.hidden_size, max_position_embeddings=length, head_transform=False
    )
    trainer: Trainer = hfrec.build_trainer(
        ZLossModel(config),
        tokenizer,
        hfrec.to_sequences(split.train, tokenizer, max_length=length + 1, windows="overlapping"),
        hfrec.to_evaluation_sequences(split.train, split.validation, tokenizer),
        data=data,
        training=training,
    )
    trainer.train()
    trainer.model.save_pretrained(training.output_dir)
    tokenizer.save_pretrained(training.output_dir)

    test = hfrec.to_evaluation_sequences(split.history, split.test, tokenizer)
    collator = hfrec.DataCollatorForNextItem(tokenizer, "causal", max_length=length)
    ranks = hfrec.rank_dataset(trainer.model, test, collator)["filter_seen"]
    baseline = hfrec.ItemKNNBaseline().fit(hfrec.to_sequences(split.train, tokenizer)["input_ids"][:], len(tokenizer))
    others = hfrec.rank_baseline(baseline, test["input_ids"][:], np.asarray(test["target"]))["filter_seen"]
    results = {
        "model": hfrec.ranking_metrics(ranks),
        "item_knn": hfrec.ranking_metrics(others),
        "difference": hfrec.paired_bootstrap(ranks, others),
    }
    for name in ("model", "item_knn"):
        print(f"{name}: NDCG@10 {results[name]['ndcg@10']:.4f} {results[name]['ndcg@10_ci']}")
    print(f"model - item_knn: {results['difference']['difference']:+.4f} {results['difference']['difference_ci']}")
    return results


if __name__ == "__main__":
    classes = (hfrec.DataArguments, hfrec.RecommenderTrainingArguments, ScriptArguments)
    main(*HfArgumentParser(classes).parse_args_into_dataclasses())
