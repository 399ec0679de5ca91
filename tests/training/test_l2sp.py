"""L2-SP against explicit autograd and closed forms, and against the ways in which it could go wrong in silence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainingArguments

from hfrec.training.anchors import block_of
from hfrec.training.l2sp import L2SPCallback
from hfrec.training.reference import plain_name

FEATURES, ROWS = 3, 16


class Net(nn.Module):
    """Linear regression on one table, so that gradients can be written down."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, width)
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.head(torch.tanh(self.body(x))).squeeze(-1) - labels).square().mean()}


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def rows() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(ROWS, FEATURES, generator=generator), torch.randn(ROWS, generator=generator)
    return [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in module.named_parameters()}


def train(model: nn.Module, folder: Path, callbacks: list[Any], resume: str | None = None, **options: Any) -> Trainer:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 0.05, "lr_scheduler_type": "linear",
        "optim": "sgd", "report_to": [], "disable_tqdm": True, "use_cpu": True, "save_strategy": "no",
        "logging_steps": 1, "max_grad_norm": 0.0, "remove_unused_columns": False,
    }  # fmt: skip
    optimizers = options.pop("optimizers", (None, None))
    processing_class = options.pop("processing_class", None)
    data = options.pop("data", None) or rows()
    trainer = Trainer(
        model,
        TrainingArguments(output_dir=str(folder), **{**settings, **options}),
        train_dataset=data,
        callbacks=callbacks,
        optimizers=optimizers,
        processing_class=processing_class,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


class PenalisedNet(Net):
    """The objective as the formula says it, for autograd."""

    def anchor(self, reference: dict[str, Tensor], alpha: float, beta: float) -> PenalisedNet:
        self.reference, self.alpha, self.beta = reference, alpha, beta
        return self

    def penalty(self) -> Tensor:
        total = torch.zeros(())
        for name, weight in self.named_parameters():
            if name in self.reference:
                total = total + self.alpha / 2 * (weight - self.reference[name]).square().sum()
            else:
                total = total + self.beta / 2 * weight.square().sum()
        return total

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": super().forward(x, labels)["loss"] + self.penalty()}


@pytest.mark.parametrize("optimiser", ["sgd", "adamw_torch"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_coupled_equals_autograd_of_the_formula(tmp_path: Path, optimiser: str, accumulation: int) -> None:
    """Stops a factor of two, a pull per micro-batch under accumulation, and β forgotten on new weights."""
    reference = {name: w for name, w in weights_of(net(1)).items() if name.startswith("body")}
    plain, explicit = net(0), PenalisedNet().anchor(reference, 0.3, 0.2)
    explicit.load_state_dict(plain.state_dict())
    options = {"optim": optimiser, "gradient_accumulation_steps": accumulation, "max_steps": 2}
    train(plain, tmp_path / "a", [L2SPCallback(reference, alpha=0.3, beta=0.2)], **options)
    train(explicit, tmp_path / "b", [], **options)
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(weight, dict(explicit.named_parameters())[name], atol=1e-6, rtol=0)


def test_coupled_pull_is_not_clipped(tmp_path: Path) -> None:
    """Stops the penalty's gradient being scaled down with the loss's: without a loss only 1 − lr·alpha is left."""
    model, reference = net(0), weights_of(net(1))
    before = weights_of(model)
    still = [{"x": torch.zeros(FEATURES), "labels": torch.zeros(())} for _ in range(4)]
    model.forward = lambda x, labels: {"loss": 0.0 * sum(w.sum() for w in model.parameters())}  # type: ignore
    callback = L2SPCallback(reference, alpha=2.0)
    train(model, tmp_path, [callback], data=still, max_steps=1, max_grad_norm=1e-3, lr_scheduler_type="constant")
    for name, weight in model.named_parameters():
        expected = reference[name] + (1 - 0.05 * 2.0) * (before[name] - reference[name])
        torch.testing.assert_close(weight.detach(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw_torch"])
def test_decoupled_towards_zero_equals_the_optimisers_own_decay(tmp_path: Path, optimiser: str) -> None:
    """Stops the pull going through Adam's scaling, or using the wrong step's rate: w⁰ = 0 is AdamW's decay."""
    pulled, decayed = net(0), net(0)
    zeros = {name: torch.zeros_like(w) for name, w in weights_of(pulled).items()}
    train(pulled, tmp_path / "a", [L2SPCallback(zeros, alpha=0.5, mode="decoupled")], optim=optimiser)
    if optimiser == "sgd":  # closed form for plain SGD: the same step as the coupled one
        train(decayed, tmp_path / "b", [L2SPCallback(zeros, alpha=0.5)], optim=optimiser)
    else:
        inner = torch.optim.AdamW(decayed.parameters(), lr=0.05, weight_decay=0.5)
        train(decayed, tmp_path / "b", [], optimizers=(inner, None))
    for name, weight in pulled.named_parameters():
        torch.testing.assert_close(weight, dict(decayed.named_parameters())[name], atol=1e-6, rtol=0)


def test_the_modes_differ_under_adam(tmp_path: Path) -> None:
    """Stops `mode` being read and not used."""
    results = []
    for mode in ("coupled", "decoupled"):
        model = net(0)
        callback = L2SPCallback(weights_of(net(1)), alpha=1.0, mode=mode)  # type: ignore[arg-type]
        train(model, tmp_path / mode, [callback], optim="adamw_torch")
        results.append(model.body.weight.detach())
    assert (results[0] - results[1]).abs().max() > 1e-3


@pytest.mark.parametrize("mode", ["coupled", "decoupled"])
def test_weight_decay_is_off_on_pulled_weights_only(tmp_path: Path, mode: Any) -> None:
    """Stops two pulls on one weight, decay lost on weights without a penalty, and groups left changed."""
    reference = {"body.weight": weights_of(net(1))["body.weight"]}
    results = []
    for decay in (0.0, 0.4):
        model = net(0)
        callback = L2SPCallback(reference, alpha=0.3, mode=mode)
        # one step, so that the decayed head cannot reach the body through its gradient
        trainer = train(model, tmp_path / str(decay), [callback], weight_decay=decay, max_steps=1, optim="adamw_torch")
        assert [len(group["params"]) for group in trainer.optimizer.param_groups] == [2, 2]
        assert trainer.optimizer.param_groups[0]["weight_decay"] == decay
        results.append(weights_of(model))
    torch.testing.assert_close(results[0]["body.weight"], results[1]["body.weight"], atol=0, rtol=0)
    assert not torch.equal(results[0]["head.weight"], results[1]["head.weight"])


def test_weight_decay_error_names_the_weights(tmp_path: Path) -> None:
    callback = L2SPCallback(weights_of(net(1)), alpha=0.1, weight_decay="error")
    with pytest.raises(ValueError, match=r"`weight_decay`.*body\.weight"):
        train(net(0), tmp_path, [callback], weight_decay=0.1)


def test_log_holds_penalty_and_distance_per_block(tmp_path: Path) -> None:
    """Stops the penalty staying invisible: the Trainer's loss does not hold it."""
    model, reference = net(0), weights_of(net(1))
    callback = L2SPCallback(reference, alpha=0.3)
    trainer = train(model, tmp_path, [callback])
    distance = sum((w.detach() - reference[name]).square().sum() for name, w in model.named_parameters())
    entry = [line for line in trainer.state.log_history if "loss" in line][-1]
    assert entry["l2sp_penalty"] == pytest.approx(0.15 * float(distance), abs=1e-6)
    parts = entry["l2sp_distance/body"] ** 2 + entry["l2sp_distance/head"] ** 2
    assert parts == pytest.approx(float(distance), abs=1e-6)
    assert block_of("module.model.layers.3.attention.query.weight") == "model.layers.3"


def bert(vocab_size: int = 8, seed: int = 0, **options: Any) -> BertForMaskedLM:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=vocab_size, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=6, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0, **options,
    )  # fmt: skip
    return BertForMaskedLM(config)


def tokens(size: int = 8) -> list[dict[str, Tensor]]:
    ids = torch.randint(0, size, (8, 4), generator=torch.Generator().manual_seed(2))
    return [{"input_ids": row, "labels": row} for row in ids]


class Vocabulary:
    """The one method of a tokenizer that L2-SP needs, and what the Trainer wants of a processing class."""

    def __init__(self, *items: str) -> None:
        self.rows = {item: row for row, item in enumerate(("[PAD]", "[MASK]", "[UNK]", *items))}

    def get_vocab(self) -> dict[str, int]:
        return self.rows


def prepare(callback: L2SPCallback, model: nn.Module, processing_class: Any = None) -> dict[str, float]:
    """What the callback finds at the start of a run, without running one."""
    optimizer = torch.optim.SGD([w for w in model.parameters() if w.requires_grad], lr=0.1)
    callback._match(model, optimizer, processing_class)
    return callback.penalty()


@pytest.mark.parametrize("source", ["folder", "model", "state dict", "other name"])
def test_a_tied_head_counts_once(tmp_path: Path, source: str) -> None:
    """Stops the largest matrix being pulled twice as hard, or not at all where the file holds its other name."""
    pretrained, model = bert(seed=1), bert(seed=0)
    named = weights_of(pretrained)
    pretrained.save_pretrained(tmp_path)
    other = dict(named)
    other["cls.predictions.decoder.weight"] = other.pop("bert.embeddings.word_embeddings.weight")
    sources: dict[str, Any] = {
        "folder": str(tmp_path), "model": pretrained, "state dict": pretrained.state_dict(), "other name": other,
    }  # fmt: skip
    found = prepare(L2SPCallback(sources[source], alpha=1.0), model)
    expected = sum((w.detach() - named[name]).square().sum() for name, w in model.named_parameters()) / 2
    assert found["l2sp_penalty"] == pytest.approx(float(expected), rel=1e-6)


def test_rows_are_matched_by_item_and_new_rows_get_beta() -> None:
    """Stops item B being pulled to item A's vector where the catalogues differ in order or size."""
    pretrained, model = bert(6, seed=1), bert(7, seed=0)
    old, new = Vocabulary("a", "b", "c"), Vocabulary("c", "x", "a", "y")
    callback = L2SPCallback(pretrained, alpha=0.5, beta=0.25, reference_tokenizer=old)
    penalty = prepare(callback, model, processing_class=new)["l2sp_penalty"]
    expected, source = torch.zeros(()), weights_of(pretrained)
    row_weights = ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias")
    for name, weight in model.named_parameters():
        if name not in row_weights:
            expected += 0.25 * (weight.detach() - source[name]).square().sum()
            continue
        for item, row in new.rows.items():
            if item in old.rows:
                expected += 0.25 * (weight[row].detach() - source[name][old.rows[item]]).square().sum()
            else:
                expected += 0.125 * weight[row].detach().square().sum()
    assert penalty == pytest.approx(float(expected), rel=1e-6)
    weight = model.bert.embeddings.word_embeddings.weight
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    callback._pull(torch.optim.SGD(model.parameters(), lr=0.1))
    origin = source["bert.embeddings.word_embeddings.weight"]
    torch.testing.assert_close(weight.grad[3], 0.5 * (weight[3] - origin[5]).detach(), atol=1e-6, rtol=0)  # c
    torch.testing.assert_close(weight.grad[4], 0.25 * weight[4].detach(), atol=1e-6, rtol=0)  # x, new


def test_equal_sizes_with_another_order_are_still_matched_by_item(tmp_path: Path) -> None:
    """Stops the shape deciding: two catalogues of one size are not one. The folder's tokenizer.json is read."""
    pretrained = bert(6, seed=1)
    pretrained.save_pretrained(tmp_path)
    vocabulary = Vocabulary("a", "b", "c").rows
    added = [{"id": row, "content": item} for item, row in vocabulary.items() if row < 3]
    content = {"model": {"type": "WordLevel", "vocab": vocabulary}, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    model = copy.deepcopy(pretrained)
    order = torch.tensor([0, 1, 2, 5, 3, 4])  # rows now hold c, a, b
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.copy_(pretrained.bert.embeddings.word_embeddings.weight[order])
        model.cls.predictions.bias.copy_(pretrained.cls.predictions.bias[order])
    callback = L2SPCallback(str(tmp_path), alpha=1.0, tokenizer=Vocabulary("c", "a", "b"))
    assert prepare(callback, model)["l2sp_penalty"] == pytest.approx(0.0, abs=1e-9)


def test_frozen_weights_and_vectors_can_be_left_out() -> None:
    model, reference = net(0), weights_of(net(1))
    model.head.requires_grad_(False)
    penalty = prepare(L2SPCallback(reference, alpha=1.0, include_bias_and_norm=False), model)["l2sp_penalty"]
    expected = (model.body.weight.detach() - reference["body.weight"]).square().sum() / 2
    assert penalty == pytest.approx(float(expected), rel=1e-6)


def test_weights_unfrozen_during_training_are_anchored(tmp_path: Path) -> None:
    """Stops gradual unfreezing letting a layer train without its anchor."""
    from transformers import TrainerCallback

    class Unfreeze(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            kwargs["model"].body.requires_grad_(False)

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            kwargs["model"].body.requires_grad_(state.global_step >= 2)

    callback = L2SPCallback(weights_of(net(1)), alpha=0.1)
    trainer = train(net(0), tmp_path, [Unfreeze(), callback])
    lines = ["l2sp_distance/body" in line for line in trainer.state.log_history if "loss" in line]
    assert lines == [False, False, True, True]


@pytest.mark.parametrize("mode", ["coupled", "decoupled"])
def test_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, mode: Any) -> None:
    """Stops w⁰ being taken from the resumed weights, and optimiser groups that cannot be loaded again."""
    reference = {name: w for name, w in weights_of(net(1)).items() if name.startswith("body")}
    options: dict[str, Any] = {
        "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch", "weight_decay": 0.1, "seed": 3,
    }  # fmt: skip

    def callback(**changes: Any) -> L2SPCallback:
        return L2SPCallback(changes.pop("reference", reference), **{"alpha": 0.3, "mode": mode, **changes})

    whole, resumed = net(0), net(0)
    train(whole, tmp_path, [callback()], **options)
    checkpoint = str(tmp_path / "checkpoint-2")
    train(resumed, tmp_path, [callback()], resume=checkpoint, **options)
    for name, weight in whole.named_parameters():
        assert torch.equal(weight, dict(resumed.named_parameters())[name]), name

    stored = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert stored["stateful_callbacks"]["L2SPCallback"]["args"]["alpha"] == 0.3
    with pytest.raises(ValueError, match=r"`alpha` was 0\.3, is 0\.2"):
        train(net(0), tmp_path, [callback(alpha=0.2)], resume=checkpoint, **options)
    other = {name: w + 1 for name, w in reference.items()}
    with pytest.raises(ValueError, match="reference_fingerprint"):
        train(net(0), tmp_path, [callback(reference=other)], resume=checkpoint, **options)
    with pytest.raises(ValueError, match="leave `restore_callback_states_from_checkpoint` at False"):
        changed = {**options, "restore_callback_states_from_checkpoint": True}
        train(net(0), tmp_path, [callback()], resume=checkpoint, **changed)


def test_restored_callback_is_verified_against_the_present_file(tmp_path: Path) -> None:
    """Stops a restored callback being trusted after its reference was overwritten."""
    folder, out = tmp_path / "pretrained", tmp_path / "out"
    folder.mkdir()
    save_file(weights_of(net(1)), folder / "model.safetensors")
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    train(net(0), out, [L2SPCallback(folder, alpha=0.3)], **options)
    options["restore_callback_states_from_checkpoint"] = True
    train(net(0), out, [L2SPCallback(folder, alpha=0.3)], resume=str(out / "checkpoint-2"), **options)
    save_file(weights_of(net(2)), folder / "model.safetensors")
    with pytest.raises(ValueError, match="reference_fingerprint"):
        train(net(0), out, [L2SPCallback(folder, alpha=0.3)], resume=str(out / "checkpoint-2"), **options)


def test_resuming_a_run_without_l2sp_is_an_error(tmp_path: Path) -> None:
    train(net(0), tmp_path, [], save_strategy="steps", save_steps=2)
    with pytest.raises(ValueError, match="trained without L2-SP"):
        train(net(0), tmp_path, [L2SPCallback(net(1), alpha=0.1)], resume=str(tmp_path / "checkpoint-2"))


def test_references_that_do_not_fit_name_what_differs(tmp_path: Path) -> None:
    """Stops a penalty that is constantly zero because no name fitted."""
    with pytest.raises(ValueError, match=r"no weight of the model.*body\.weight.*stranger"):
        prepare(L2SPCallback({"stranger": torch.zeros(2)}, alpha=0.1), net())
    with pytest.raises(ValueError, match=r"body\.weight: \(4, 3\), reference \(5, 3\)"):
        prepare(L2SPCallback(Net(width=5), alpha=0.1), net())
    with pytest.raises(ValueError, match=r"word_embeddings.*needs both tokenizers"):
        prepare(L2SPCallback(bert(9), alpha=0.1), bert(8))
    bert().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "electra"}))
    with pytest.raises(ValueError, match="model type 'bert', found 'electra'"):
        prepare(L2SPCallback(str(tmp_path), alpha=0.1), bert())
    model = net()
    model.body.requires_grad_(False)
    with pytest.raises(ValueError, match=r"no trainable weight.*head\.weight"):
        prepare(L2SPCallback({"body.weight": torch.zeros(4, 3)}, alpha=0.1), model)


def test_pickles_are_refused_and_shards_are_read(tmp_path: Path) -> None:
    """Stops code in a downloaded pickle being run, and a reference of which only one shard is read."""
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    torch.save(net(1).state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="a pickle, which is not opened"):
        L2SPCallback(str(pickled), alpha=0.1)
    pretrained = bert(seed=1)
    pretrained.save_pretrained(tmp_path / "sharded", max_shard_size="1KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert prepare(L2SPCallback(str(tmp_path / "sharded"), alpha=1.0), pretrained)["l2sp_penalty"] == 0.0


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"alpha": float("nan")}, {"beta": -1.0}, {"mode": "loss"}])
def test_settings_out_of_range_fail_in_the_constructor(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        L2SPCallback(net(), **{"alpha": 0.1, **wrong})


def test_names_of_wrappers_are_taken_off() -> None:
    """Stops a wrapped model matching nothing."""
    assert plain_name("module._orig_mod.model.layers.0.norm.weight") == "model.layers.0.norm.weight"
    assert plain_name("base_model.model.decoder.modules_to_save.default.bias") == "decoder.bias"
    reference = weights_of(net(1))
    wrapped = nn.ModuleDict({"module": net(0)})
    assert prepare(L2SPCallback(reference, alpha=1.0), wrapped) == prepare(L2SPCallback(reference, alpha=1.0), net(0))


def test_peft_anchors_only_what_it_trains() -> None:
    """Stops frozen base weights in the penalty, and `modules_to_save` being taken for new weights."""
    peft = pytest.importorskip("peft")
    pretrained = bert(seed=1, tie_word_embeddings=False)
    config = peft.LoraConfig(r=2, target_modules=["query"], modules_to_save=["dense"])
    model = peft.get_peft_model(copy.deepcopy(pretrained), config)
    callback = L2SPCallback(pretrained, alpha=1.0)
    assert prepare(callback, model)["l2sp_penalty"] == 0.0
    names = [term.name for term in callback._terms]
    assert names and all("modules_to_save" in name for name in names)
    with_beta = L2SPCallback(pretrained, alpha=1.0, beta=2.0)
    lora = sum(float(w.detach().square().sum()) for name, w in model.named_parameters() if "lora_" in name)
    assert prepare(with_beta, model)["l2sp_penalty"] == pytest.approx(lora, rel=1e-6)


def test_bf16_weights_are_pulled_from_a_float32_difference() -> None:
    """Stops bf16 rounding in the difference, and a distance above 0 before the first step."""
    pretrained, model = net(1), net(1).to(torch.bfloat16)
    callback = L2SPCallback(pretrained, alpha=1.0)
    assert prepare(callback, model)["l2sp_penalty"] == 0.0
    with torch.no_grad():
        model.body.weight.add_(1.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    callback._pull(torch.optim.SGD(model.parameters(), lr=0.1))
    difference = model.body.weight.detach().float() - pretrained.body.weight.detach().bfloat16().float()
    torch.testing.assert_close(model.body.weight.grad, difference.bfloat16(), atol=0, rtol=0)


def test_sharded_weights_get_sharded_anchors() -> None:
    """Stops FSDP2 runs failing on, or gathering, their anchors; rows by item included."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    if dist.is_initialized():
        pytest.skip("a process group is already there")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        old, new = Vocabulary("a", "b", "c"), Vocabulary("c", "x", "a")
        for dim in (0, 1):
            tables = [nn.ModuleDict({"table": nn.Embedding(6, 4)}) for _ in range(2)]
            settings: dict[str, Any] = {"alpha": 0.5, "beta": 0.1, "tokenizer": new, "reference_tokenizer": old}
            expected = prepare(L2SPCallback(tables[0], **settings), tables[1])
            sharded = distribute_tensor(tables[1]["table"].weight.data, mesh, [Shard(dim)])
            tables[1]["table"].weight = nn.Parameter(sharded)
            callback = L2SPCallback(tables[0], **settings)
            assert prepare(callback, tables[1]) == pytest.approx(expected, rel=1e-6)
            weight = tables[1]["table"].weight
            assert isinstance(callback._terms[0].target, DTensor)
            assert callback._terms[0].target.placements == weight.placements
            callback._pull(torch.optim.SGD(tables[1].parameters(), lr=0.1))
            assert isinstance(weight.grad, DTensor)
    finally:
        dist.destroy_process_group()
