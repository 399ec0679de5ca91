"""Freezing, gradual unfreezing and layer-wise learning rates, on the names of the package's models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from hfrec.training.freezing import GradualUnfreezingCallback, freeze, layerwise_learning_rates


class Recommender(nn.Module):
    """The parameter names of the package's masked model, the tie included."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.embeddings = nn.Module()
        self.model.embeddings.item_embeddings = nn.Embedding(6, 4)
        self.model.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.model.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 6)
        if tied:  # the Trainer cannot save a tied weight of a plain module
            self.decoder.weight = self.model.embeddings.item_embeddings.weight

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        hidden = self.model.embeddings.item_embeddings(input_ids)
        for layer in self.model.layers:
            hidden = hidden + torch.tanh(layer(hidden))
        return {"loss": nn.functional.cross_entropy(self.decoder(self.head(self.model.norm(hidden))), labels)}


def recommender(tied: bool = True) -> Recommender:
    torch.manual_seed(0)
    return Recommender(tied)


def trainable(model: nn.Module) -> set[str]:
    """Trainable modules, short: `layers.0`, `norm`, `head`, `decoder`, `item_embeddings`."""
    names = (name.rsplit(".", 1)[0] for name, weight in model.named_parameters() if weight.requires_grad)
    return {name.removeprefix("model.").removeprefix("embeddings.") for name in names}


EVERYTHING = {"item_embeddings", "layers.0", "layers.1", "layers.2", "norm", "head", "decoder"}


@pytest.mark.parametrize(
    ("spec", "frozen"),
    [
        ("none", set()),
        ("embeddings", {"item_embeddings"}),
        ("layers:2", {"item_embeddings", "layers.0", "layers.1"}),
        ("backbone", {"item_embeddings", "layers.0", "layers.1", "layers.2", "norm"}),
    ],
)
def test_each_spec_freezes_what_it_says(spec: str, frozen: set[str]) -> None:
    """Stops a spec that matches other names and so freezes nothing; the tied head goes with the embeddings."""
    model = recommender()
    names = freeze(model, spec)
    assert trainable(model) == EVERYTHING - frozen
    assert bool(names) == bool(frozen)
    assert model.decoder.weight.requires_grad == ("item_embeddings" not in frozen)


@pytest.mark.parametrize("spec", ["layers:0", "layers:4", "layers:x", "body", ""])
def test_unknown_specs_are_errors(spec: str) -> None:
    model = recommender()
    with pytest.raises(ValueError, match="`freeze`"):
        freeze(model, spec)
    assert trainable(model) == EVERYTHING


def test_freezing_nothing_or_everything_is_an_error() -> None:
    """Stops a run in which nothing learns, or in which nothing was frozen."""
    with pytest.raises(ValueError, match="fits no weight"):
        freeze(nn.Linear(2, 2), "backbone")
    with pytest.raises(ValueError, match="leaves nothing to train"):
        freeze(nn.ModuleDict({"model": nn.Linear(2, 2)}), "backbone")


class Watch(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[set[str]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append(trainable(kwargs["model"]))


def run(model: nn.Module, folder: Path, callbacks: list[Any], resume: str | None = None, **options: Any) -> None:
    ids = torch.randint(0, 6, (8,), generator=torch.Generator().manual_seed(1))
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4, "num_train_epochs": 4, "learning_rate": 0.01, "report_to": [],
        "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "save_steps": 3,
        "remove_unused_columns": False,
    }  # fmt: skip
    arguments = TrainingArguments(output_dir=str(folder), **{**settings, **options})
    data = [{"input_ids": row, "labels": row} for row in ids]
    Trainer(model, arguments, train_dataset=data, callbacks=callbacks).train(resume_from_checkpoint=resume)


STAGES = [
    {"layers.2", "norm", "head", "decoder"},
    {"layers.1", "layers.2", "norm", "head", "decoder"},
    {"layers.0", "layers.1", "layers.2", "norm", "head", "decoder"},
    EVERYTHING,
]


@pytest.mark.parametrize(("unit", "every"), [("epoch", 1), ("step", 2)])
def test_layers_unfreeze_from_the_top(tmp_path: Path, unit: Any, every: int) -> None:
    """Stops the wrong end being unfrozen, a stage coming late, and unfrozen weights missing in the optimiser."""
    model, watch = recommender(tied=False), Watch()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    run(model, tmp_path, [GradualUnfreezingCallback(every=every, unit=unit), watch])
    assert watch.seen == [stage for stage in STAGES for _ in range(2)]  # two steps an epoch
    assert all(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_resumed_run_goes_on_at_its_stage(tmp_path: Path) -> None:
    """Stops a resumed run starting to unfreeze all over again."""
    whole, resumed, watch = recommender(tied=False), recommender(tied=False), Watch()
    run(whole, tmp_path, [GradualUnfreezingCallback()], save_strategy="steps")
    run(resumed, tmp_path, [GradualUnfreezingCallback(), watch], resume=str(tmp_path / "checkpoint-3"))
    assert watch.seen[0] == STAGES[1]
    for name, weight in whole.named_parameters():
        assert torch.equal(weight, dict(resumed.named_parameters())[name]), name


def test_weights_frozen_by_the_user_stay_frozen(tmp_path: Path) -> None:
    model = recommender(tied=False)
    freeze(model, "embeddings")
    run(model, tmp_path, [GradualUnfreezingCallback()])
    assert trainable(model) == EVERYTHING - {"item_embeddings"}


def test_gradual_unfreezing_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`every`"):
        GradualUnfreezingCallback(every=0)
    with pytest.raises(ValueError, match="`unit`"):
        GradualUnfreezingCallback(unit="batch")  # type: ignore[arg-type]


def test_learning_rates_fall_with_depth() -> None:
    """Stops the embeddings learning fastest, a weight in two groups or none, and decay on biases and norms."""
    model = recommender()
    groups = layerwise_learning_rates(model, learning_rate=0.1, decay=0.5, weight_decay=0.01)
    rate = {id(weight): (group["lr"], group["weight_decay"]) for group in groups for weight in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) == len(rate)
    assert rate[id(model.head.weight)] == (0.1, 0.01)
    assert rate[id(model.decoder.bias)] == rate[id(model.model.norm.weight)] == (0.1, 0.0)
    assert rate[id(model.model.layers[2].weight)] == (0.05, 0.01)
    assert rate[id(model.model.layers[0].bias)] == (0.0125, 0.0)
    assert rate[id(model.decoder.weight)] == (0.00625, 0.01)  # tied: it goes with the embeddings
    torch.optim.AdamW(groups)


def test_frozen_weights_get_no_learning_rate_and_a_wrong_decay_fails() -> None:
    model = recommender()
    freeze(model, "backbone")
    groups = layerwise_learning_rates(model, learning_rate=0.1, decay=0.5)
    assert {id(w) for group in groups for w in group["params"]} == {
        id(w) for w in model.parameters() if w.requires_grad
    }
    with pytest.raises(ValueError, match="`decay`"):
        layerwise_learning_rates(model, learning_rate=0.1, decay=0.0)
