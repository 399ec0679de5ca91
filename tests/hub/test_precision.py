"""Half-precision and quantised loading recommends nearly the same items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest
import torch

from hfrec import load_checkpoint, recommend, synthetic_tables
from hfrec_command import main

TOP_K = 10
pytestmark = pytest.mark.slow  # a trained model is needed


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """A trained model, whose scores differ, and histories; untrained scores are all alike."""
    folder = tmp_path_factory.mktemp("precision")
    log, _ = synthetic_tables(num_users=80, num_items=60, num_groups=4, min_length=8, max_length=20)
    pyarrow.csv.write_csv(log, folder / "log.csv")
    words = ["pretrain", "--train_file", str(folder / "log.csv"), "--output_dir", str(folder / "run"), "--seed", "0"]
    words += ["--max_length", "12", "--hidden_size", "32", "--num_train_epochs", "15", "--eval_strategy", "no"]
    words += ["--save_strategy", "no", "--load_best_model_at_end", "false", "--disable_tqdm", "true"]
    words += ["--per_device_train_batch_size", "16", "--early_stopping_patience", "0"]
    assert main(words) == 0
    grouped = log.group_by("user_id", use_threads=False).aggregate([("item_id", "list")])
    return folder / "run", grouped["item_id_list"].to_pylist()


def best(model: Any, tokenizer: Any, histories: list[list[str]]) -> list[set[str]]:
    found = recommend(model, tokenizer, histories, top_k=TOP_K, unknown_items="drop")
    return [{item["item_id"] for item in items} for items in found]


def overlap(ours: list[set[str]], theirs: list[set[str]]) -> float:
    shares = [len(left & right) / len(left) for left, right in zip(ours, theirs, strict=True)]
    return sum(shares) / len(shares)


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        ({"dtype": "bfloat16"}, torch.bfloat16),
        ({"dtype": "float16"}, torch.float16),
        ({"device_map": "auto"}, torch.float32),
    ],
)
def test_reduced_precision_recommends_nearly_the_same(
    settings: dict[str, Any], dtype: torch.dtype, trained: tuple[Path, list[list[str]]]
) -> None:
    """An argument that is swallowed loads fp32 and looks perfect; broken scores still give ten items."""
    folder, histories = trained
    full = best(*load_checkpoint(folder), histories)
    model, tokenizer = load_checkpoint(folder, **settings)
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    assert overlap(full, best(model, tokenizer, histories)) > 0.95


def test_int8_recommends_nearly_the_same(trained: tuple[Path, list[list[str]]]) -> None:
    """Quantised item embeddings would cost accuracy; the decoder, which is tied to them, is left out."""
    quantization = pytest.importorskip("torchao.quantization")
    from transformers import TorchAoConfig

    folder, histories = trained
    full = best(*load_checkpoint(folder), histories)
    scheme = quantization.Int8DynamicActivationInt8WeightConfig()
    config = TorchAoConfig(scheme, modules_to_not_convert=["decoder"])
    model, tokenizer = load_checkpoint(folder, quantization_config=config)
    assert type(model.model.layers[0].mlp.input.weight) is not torch.nn.Parameter
    assert overlap(full, best(model, tokenizer, histories)) > 0.95
