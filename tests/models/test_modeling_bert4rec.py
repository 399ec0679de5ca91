"""Losses, positions, attention back ends and surgery of the models."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hfrec.models import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    Bert4RecForSequenceClassification,
    Bert4RecModel,
)
from hfrec.models.layers import positions_from_newest

HISTORIES = [[5, 6, 7, 1], [9, 1], [3, 4, 5, 6, 7, 1]]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"position_embedding_type": "rotary"},
    {"position_embedding_type": "none"},
    {"gated_mlp": True, "hidden_act": "silu"},
    {"norm_position": "post"},
    {"embedding_size": 6},
    {"embedding_size": 6, "head_transform": False},
    {"head_transform": False, "head_bias": False},
    {"tie_word_embeddings": False},
]


def _config(**changes: Any) -> Bert4RecConfig:
    sizes = {"vocab_size": 20, "hidden_size": 16, "max_position_embeddings": 8, "initializer_range": 0.3}
    return Bert4RecConfig(**{**sizes, **changes})


def _model(kind: type = Bert4RecForMaskedLM, **changes: Any) -> Any:
    torch.manual_seed(0)
    model = kind(_config(**changes)).eval()
    if getattr(model, "decoder", None) is not None and model.decoder.bias is not None:
        torch.nn.init.normal_(model.decoder.bias)
    return model


def _pad(rows: list[list[int]], length: int, side: str = "left") -> dict[str, torch.Tensor]:
    ids, mask = [], []
    for row in rows:
        filling = [0] * (length - len(row))
        ids.append([*filling, *row] if side == "left" else [*row, *filling])
        mask.append([*filling, *[1] * len(row)] if side == "left" else [*[1] * len(row), *filling])
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def _scores(model: Any, rows: list[list[int]], length: int, side: str = "left") -> torch.Tensor:
    """Scores of the items at the newest token, `(batch, vocab_size - 3)`."""
    with torch.no_grad():
        return model.score_items(model.encode_history(**_pad(rows, length, side)))[:, 3:]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
def test_loss_is_cross_entropy_and_logits_stand_at_labels_only(kind: type, changes: dict[str, Any]) -> None:
    """Scores and labels in different orders give a loss that falls and a model that learns noise."""
    model = _model(kind, **changes)
    batch = _pad(HISTORIES, 6)
    labels = torch.full((3, 6), -100)
    labels[0, 5], labels[1, 4], labels[2, 1], labels[2, 5] = 8, 10, 4, 3
    full = model(**batch).logits
    outputs = model(**batch, labels=labels)
    assert full.shape == (3, 6, 20)
    assert outputs.logits.shape == (4, 20)
    torch.testing.assert_close(outputs.logits, full[labels != -100])
    torch.testing.assert_close(outputs.loss, F.cross_entropy(full.reshape(-1, 20), labels.reshape(-1)))
    outputs.loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_two_accumulated_parts_equal_one_big_batch() -> None:
    """A mean per part weighs the labels of rows by the part they fell into."""
    model = _model()
    batch = _pad(HISTORIES, 6)
    labels = torch.full((3, 6), -100)
    labels[0, 3:], labels[2, 5] = 8, 3
    model(**batch, labels=labels).loss.backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for rows in (slice(0, 2), slice(2, 3)):
        part = {name: value[rows] for name, value in batch.items()}
        model(**part, labels=labels[rows], num_items_in_batch=torch.tensor(4)).loss.backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, whole[name], msg=name)


def test_no_label_at_all_gives_loss_zero() -> None:
    """One batch without labels would turn the run into NaN."""
    model = _model()
    outputs = model(**_pad(HISTORIES, 6), labels=torch.full((3, 6), -100))
    outputs.loss.backward()
    assert outputs.loss.item() == 0.0
    assert outputs.logits.shape == (0, 20)


def test_an_unknown_target_keeps_its_row_and_leaves_the_loss_finite() -> None:
    """One user whose target is [UNK] would make the evaluation loss of all infinite."""
    model = _model()
    batch = _pad(HISTORIES, 6)
    labels = torch.full((3, 6), -100)
    labels[:, 5] = torch.tensor([8, 2, 3])
    outputs = model(**batch, labels=labels)
    assert outputs.logits.shape == (3, 20)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits[[0, 2]], torch.tensor([8, 3])))
    outputs.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_logits_to_keep() -> None:
    """A slice from the wrong end scores the oldest items."""
    model = _model()
    batch = _pad(HISTORIES, 6)
    full = model(**batch).logits
    torch.testing.assert_close(model(**batch, logits_to_keep=2).logits, full[:, -2:])
    torch.testing.assert_close(model(**batch, logits_to_keep=torch.tensor([0, 3])).logits, full[:, [0, 3]])


def test_special_tokens_get_no_probability() -> None:
    """A [PAD] or [UNK] in a list of recommendations is no item."""
    model = _model()
    logits = model(**_pad(HISTORIES, 6)).logits
    assert torch.isneginf(logits[..., :3]).all()
    assert torch.isfinite(logits[..., 3:]).all()
    representation = model.encode_history(**_pad(HISTORIES, 6))
    whole = model.score_items(representation)
    for start, stop in ((0, 2), (1, 6), (3, 9), (9, 20)):
        torch.testing.assert_close(model.score_items(representation, start, stop), whole[:, start:stop])


@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
@pytest.mark.parametrize("changes", VARIANTS[:5], ids=str)
def test_padding_side_length_and_batch_change_nothing(kind: type, changes: dict[str, Any]) -> None:
    """Scores that depend on the neighbours in the batch differ between evaluation and recommendation."""
    model = _model(kind, **changes)
    expected = torch.cat([_scores(model, [row], len(row)) for row in HISTORIES])
    for side in ("left", "right"):
        for length in (6, 8):
            torch.testing.assert_close(_scores(model, HISTORIES, length, side), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        unmasked = model.score_items(model.encode_history(torch.tensor(HISTORIES[2:])))[:, 3:]
    torch.testing.assert_close(unmasked, expected[2:], rtol=1e-4, atol=1e-5)
    newest = model(**_pad(HISTORIES, 6)).logits[:, -1, 3:]
    torch.testing.assert_close(newest, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
@pytest.mark.parametrize("changes", VARIANTS[:5], ids=str)
def test_the_last_column_alone_is_the_last_column(kind: type, changes: dict[str, Any], implementation: str) -> None:
    """What an export leaves out of the last layer must not be what its answer depends on."""
    model = _model(kind, num_hidden_layers=2, **changes)
    model.set_attn_implementation(implementation)
    for batch in (_pad(HISTORIES, 8), {"input_ids": torch.tensor([[5, 6, 7, 9], [9, 4, 3, 1]])}):
        with torch.no_grad():
            whole = model.model(**batch).last_hidden_state
            last = model.model(**batch, last_only=True).last_hidden_state
        torch.testing.assert_close(last, whole[:, -1:])


def test_positions_count_from_the_newest_item() -> None:
    """Positions from the left would move with padding and with every item that a history gains or loses."""
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]])
    assert positions_from_newest(mask).tolist() == [[2, 2, 1, 0], [1, 0, 0, 0], [3, 2, 1, 0]]


@pytest.mark.parametrize("kind", ["absolute", "rotary"])
def test_truncation_leaves_what_is_kept_as_it_was(kind: str) -> None:
    """A kept item whose position changed when older ones were cut is another input to the same weights."""
    model = _model(position_embedding_type=kind)
    captured: list[torch.Tensor] = []
    model.model.layers[0].attention.query_key_value.register_forward_hook(lambda *call: captured.append(call[2]))
    angles: list[torch.Tensor] = []
    model.model.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: angles.append(kwargs["rotary"]), with_kwargs=True
    )
    history = [3, 4, 5, 6, 7, 8, 9, 1]
    for row in (history, history[-4:]):
        model(torch.tensor([row]))
    torch.testing.assert_close(captured[0][:, -4:], captured[1])
    if kind == "rotary":
        torch.testing.assert_close(angles[0][:, :, -4:], angles[1])


def test_position_matters() -> None:
    """Without this, a model that forgot its positions would pass every invariance test."""
    for kind in ("absolute", "rotary"):
        model = _model(position_embedding_type=kind)
        assert not torch.allclose(_scores(model, [[3, 4, 5, 1]], 4), _scores(model, [[5, 4, 3, 1]], 4), atol=1e-3)
    model = _model(position_embedding_type="none")
    torch.testing.assert_close(_scores(model, [[3, 4, 5, 1]], 4), _scores(model, [[5, 4, 3, 1]], 4))


@pytest.mark.parametrize("size", [7, 12])
def test_resized_positions_change_nothing(size: int) -> None:
    """Fine-tuning on longer histories would start from other weights than the pretrained ones."""
    model = _model()
    before = _scores(model, HISTORIES, 6)
    model.resize_position_embeddings(size)
    assert model.config.max_position_embeddings == size
    assert model.get_position_embeddings().num_embeddings == size
    torch.testing.assert_close(_scores(model, HISTORIES, 6), before)
    torch.testing.assert_close(_scores(model, HISTORIES, size), before, rtol=1e-4, atol=1e-5)


def test_too_long_a_history_is_an_error() -> None:
    """An index past the table fails deep inside torch, or on the GPU takes the process down."""
    with pytest.raises(ValueError, match="length 9, above `max_position_embeddings` = 8"):
        _model()(torch.full((1, 9), 3))
    with pytest.raises(ValueError, match="exactly one"):
        _model()()
    with pytest.raises(ValueError, match="above 0"):
        _model().resize_position_embeddings(0)


@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
@pytest.mark.parametrize("position_embedding_type", ["absolute", "rotary"])
@pytest.mark.parametrize("implementation", ["eager", "flex_attention"])
def test_attention_back_ends_agree(kind: type, position_embedding_type: str, implementation: str) -> None:
    """A mask that one back end reads otherwise makes the results depend on the machine.

    Flex attention runs uncompiled here, which checks its masks and takes a fraction of the time.
    """
    with torch.compiler.set_stance("force_eager"):
        _compare_with_sdpa(kind, implementation, position_embedding_type)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
def test_compiled_flex_attention_agrees(kind: type) -> None:
    """The compiled kernel is what users get; its last block of 8 keys is where torch's was found wrong."""
    _compare_with_sdpa(kind, "flex_attention", "absolute")


def _compare_with_sdpa(kind: type, implementation: str, position_embedding_type: str) -> None:
    reference = _model(kind, position_embedding_type=position_embedding_type, hidden_size=48)
    reference.set_attn_implementation("sdpa")
    other = kind(copy.deepcopy(reference.config)).eval()
    other.load_state_dict(reference.state_dict())
    other.set_attn_implementation(implementation)
    assert other.config._attn_implementation == implementation
    for side in ("left", "right", "left"):
        expected = _scores(reference, HISTORIES, 8, side)
        torch.testing.assert_close(_scores(other, HISTORIES, 8, side), expected, rtol=1e-4, atol=1e-5)


def test_flex_attention_refuses_narrow_heads_on_a_cpu() -> None:
    """torch's kernel reads keys beyond the tensor there: scores that are wrong, and other ones at each call."""
    model = _model(hidden_size=46)
    model.set_attn_implementation("flex_attention")
    with pytest.raises(ValueError, match=r"at least 24 on a CPU, found 23.*'sdpa'"):
        _scores(model, HISTORIES, 8)


def test_causal_sees_no_future_and_masked_does() -> None:
    """A causal model that sees its answer has a perfect loss and recommends nothing."""
    first, second = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[3, 4, 9, 6]])
    # Positions count from the newest item; both rows have the same, so only the item differs.
    for implementation in ("eager", "sdpa"):
        causal = _model(Bert4RecForCausalLM)
        causal.set_attn_implementation(implementation)
        torch.testing.assert_close(causal(first).logits[:, :2], causal(second).logits[:, :2])
        assert not torch.allclose(causal(first).logits[:, 2:, 3:], causal(second).logits[:, 2:, 3:])
        masked = _model()
        masked.set_attn_implementation(implementation)
        assert not torch.allclose(masked(first).logits[:, :2, 3:], masked(second).logits[:, :2, 3:])


def test_gradient_checkpointing_gives_equal_gradients() -> None:
    """A checkpointed layer that drops an argument trains another model to save memory."""
    model = _model(position_embedding_type="rotary", hidden_dropout_prob=0.0).train()
    labels = torch.full((3, 6), -100)
    labels[:, 5] = torch.tensor([8, 10, 3])
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**_pad(HISTORIES, 6), labels=labels).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert model.model.layers[0].gradient_checkpointing
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
def test_the_body_compiles_without_graph_breaks(causal: bool) -> None:
    """A graph break makes compiled training as slow as before and says so only in a log."""
    torch.manual_seed(0)
    model = Bert4RecModel(_config(), is_causal=causal).eval()
    batch = _pad(HISTORIES, 6)
    expected = model(**batch).last_hidden_state
    compiled = torch.compile(model, fullgraph=True)(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(compiled[real], expected[real], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_resized_vocabulary_keeps_scores_bias_and_tie(tied: bool) -> None:
    """New items that cost the old ones their bias, or a head that came loose, make fine-tuning start anew."""
    model = _model(tie_word_embeddings=tied)
    before, bias = _scores(model, HISTORIES, 6), model.decoder.bias.detach().clone()
    model.resize_token_embeddings(25)
    assert model.config.vocab_size == 25
    assert model.decoder.bias.shape == (25,)
    torch.testing.assert_close(model.decoder.bias[:20], bias)
    assert (model.decoder.weight is model.get_input_embeddings().weight) is tied
    torch.testing.assert_close(_scores(model, HISTORIES, 6)[:, :17], before)


def test_weights_are_tied_and_an_update_reaches_both() -> None:
    """Two copies drift apart from the first step on."""
    model = _model()
    assert model.decoder.weight is model.model.embeddings.item_embeddings.weight
    assert sum(name.endswith(("decoder.weight", "item_embeddings.weight")) for name, _ in model.named_parameters()) == 1


@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM, Bert4RecForSequenceClassification])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_save_and_load_give_equal_logits(kind: type, changes: dict[str, Any], tmp_path: Path) -> None:
    """A weight that is not saved comes back random, and the model is only a little worse."""
    model = _model(kind, **changes)
    model.save_pretrained(tmp_path)
    loaded, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    batch = _pad(HISTORIES, 6)
    torch.testing.assert_close(loaded.eval()(**batch).logits, model(**batch).logits, rtol=0, atol=0)
    if kind is not Bert4RecForSequenceClassification and model.config.tie_word_embeddings:
        assert loaded.decoder.weight is loaded.get_input_embeddings().weight


def test_body_loads_into_every_head(tmp_path: Path) -> None:
    """A prefix that does not match starts the new task from random weights."""
    model = _model()
    model.save_pretrained(tmp_path)
    classifier, info = Bert4RecForSequenceClassification.from_pretrained(
        tmp_path, num_labels=3, output_loading_info=True
    )
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    body = Bert4RecModel.from_pretrained(tmp_path).eval()
    batch = _pad(HISTORIES, 6)
    expected = model.model(**batch).last_hidden_state
    torch.testing.assert_close(body(**batch).last_hidden_state, expected)
    torch.testing.assert_close(classifier.eval().model(**batch).last_hidden_state, expected)


@pytest.mark.parametrize("preset", [Bert4RecConfig.bert4rec, Bert4RecConfig.sasrec])
def test_presets_run_and_learn(preset: Any) -> None:
    """A preset that cannot be trained is only a name."""
    torch.manual_seed(0)
    config = preset(vocab_size=20, hidden_size=16, max_position_embeddings=8, hidden_dropout_prob=0.0)
    model = Bert4RecForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
    labels = torch.tensor([[4, 5, 6, 7]])
    losses = []
    for _ in range(30):
        loss = model(torch.tensor([[3, 4, 5, 6]]), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 < losses[0]


def test_hidden_states_and_attentions_are_returned_on_request() -> None:
    """The flags of transformers would otherwise be taken and forgotten."""
    model = _model()
    model.set_attn_implementation("eager")
    outputs = model(**_pad(HISTORIES, 6), output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in outputs.hidden_states] == [(3, 6, 16)] * 3
    assert [weights.shape for weights in outputs.attentions] == [(3, 2, 6, 6)] * 2
    assert isinstance(model(**_pad(HISTORIES, 6), return_dict=False), tuple)


def test_inputs_embeds_equal_input_ids() -> None:
    """A second way in that skips the projection or the positions gives other scores for the same history."""
    model = _model(embedding_size=6)
    batch = _pad(HISTORIES, 6)
    embeds = model.get_input_embeddings()(batch["input_ids"])
    other = model(inputs_embeds=embeds, attention_mask=batch["attention_mask"])
    torch.testing.assert_close(other.logits, model(**batch).logits)


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize(
    ("problem_type", "labels", "num_labels"),
    [
        ("single_label_classification", torch.tensor([0, 2, 1]), 3),
        ("multi_label_classification", torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]]), 3),
        ("regression", torch.tensor([0.5, -1.0, 2.0]), 1),
        ("regression", torch.tensor([[0.5, 1.0], [-1.0, 0.0], [2.0, 1.0]]), 2),
    ],
)
def test_classification_losses(pooling: str, problem_type: str, labels: torch.Tensor, num_labels: int) -> None:
    """A regression trained as a classification, or the other way round, has a falling loss too."""
    changes = {"num_labels": num_labels, "classifier_pooling": pooling}
    model = _model(Bert4RecForSequenceClassification, problem_type=problem_type, **changes)
    outputs = model(**_pad(HISTORIES, 6), labels=labels)
    if problem_type != "regression" or num_labels == 1:  # several float columns are multi label unless it is named
        unnamed = _model(Bert4RecForSequenceClassification, **changes)
        torch.testing.assert_close(unnamed(**_pad(HISTORIES, 6), labels=labels).loss, outputs.loss)
    logits = outputs.logits
    assert logits.shape == (3, num_labels)
    expected = {
        "single_label_classification": lambda: F.cross_entropy(logits, labels),
        "multi_label_classification": lambda: F.binary_cross_entropy_with_logits(logits, labels),
        "regression": lambda: F.mse_loss(logits.reshape(labels.shape), labels),
    }[problem_type]()
    torch.testing.assert_close(outputs.loss, expected)
    outputs.loss.backward()
    torch.testing.assert_close(model(**_pad(HISTORIES, 8, "right")).logits, logits, rtol=1e-4, atol=1e-5)


def test_remote_code_files_lie_beside_the_weights(tmp_path: Path) -> None:
    """A checkpoint without its code loads only where hfrec is installed."""
    _model().save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {
        "configuration_bert4rec.py",
        "modeling_bert4rec.py",
        "losses.py",
        "config.json",
        "model.safetensors",
    } <= names


def test_dropout_acts_in_training_only() -> None:
    """Dropout left on makes evaluation random."""
    model = _model(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    batch = _pad(HISTORIES, 6)
    torch.testing.assert_close(model(**batch).logits, model(**batch).logits, rtol=0, atol=0)
    model.train()
    assert not torch.allclose(model(**batch).logits[..., 3:], model(**batch).logits[..., 3:])
