"""The project's own models and collator under both ways of evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfrec.data.collators import DataCollatorForNextItem
from hfrec.evaluation import make_compute_metrics, preprocess_ranks, rank_dataset
from hfrec.models.configuration_bert4rec import Bert4RecConfig
from hfrec.models.modeling_bert4rec import Bert4RecForCausalLM, Bert4RecForMaskedLM
from hfrec.tokenization import ItemTokenizer


@pytest.mark.parametrize(
    ("model_class", "objective"), [(Bert4RecForMaskedLM, "masked"), (Bert4RecForCausalLM, "causal")]
)
def test_trainer_and_rank_dataset_agree(model_class: Any, objective: Any, tmp_path: Path) -> None:
    """Histories longer than the model, an unknown target and a seen target: one rank for each, whoever computes it."""
    from transformers import Trainer, TrainingArguments

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tokenizer = ItemTokenizer.from_items([f"item {number}" for number in range(30)])
    rows = [
        {"input_ids": rng.integers(3, 33, size=rng.integers(1, 20)).tolist(), "target": int(rng.integers(2, 33))}
        for _ in range(20)
    ]
    rows[0]["target"], rows[1]["target"] = tokenizer.unk_token_id, rows[1]["input_ids"][0]
    config = Bert4RecConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=9
    )
    model = model_class(config)
    collator = DataCollatorForNextItem(tokenizer, objective, max_length=9)
    ranks = rank_dataset(model, rows, collator, batch_size=7, item_chunk_size=10)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        label_names=["labels", "seen_ids"],
        per_device_eval_batch_size=7,
        remove_unused_columns=False,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=collator,
        preprocess_logits_for_metrics=preprocess_ranks,
        compute_metrics=make_compute_metrics(),
    )
    predicted = trainer.predict(rows).predictions  # type: ignore[arg-type]
    assert predicted.tolist() == np.stack([ranks["filter_seen"], ranks["unfiltered"]], axis=1).tolist()
    assert predicted[0].tolist() == [0, 0]
    assert predicted[1, 0] == 0 and predicted[1, 1] > 0
    assert (predicted[:, 0] <= predicted[:, 1]).all()
