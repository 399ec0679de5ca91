"""Work on real tokens and labelled positions only gives what work on everything gives."""

import functools
from typing import Any

import pytest
import torch
from transformers import modeling_flash_attention_utils

from hfrec.models import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM, layers, packing
from hfrec.models.layers import Dropout
from hfrec.models.packing import Packing

SIZES = [7, 2, 7, 1, 6, 3, 0, 7]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"position_embedding_type": "rotary"},
    {"norm_position": "post"},
    {"embedding_size": 6, "gated_mlp": True},
    {"num_hidden_layers": 1},
]


def _batch(side: str, share: float) -> dict[str, torch.Tensor]:
    """Rows of 0 to 7 tokens in 8 places, a share of them labelled."""
    generator = torch.Generator().manual_seed(3)
    steps, sizes = torch.arange(8), torch.tensor(SIZES)[:, None]
    mask = steps >= 8 - sizes if side == "left" else steps < sizes
    ids = torch.randint(3, 20, mask.shape, generator=generator)
    labelled = mask & (torch.rand(mask.shape, generator=generator) < share)
    labels = torch.randint(3, 20, mask.shape, generator=generator).masked_fill(~labelled, -100)
    return {"input_ids": ids * mask, "attention_mask": mask.long(), "labels": labels}


def _model(kind: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": 20, "hidden_size": 16, "max_position_embeddings": 8, "hidden_dropout_prob": 0.0}
    return kind(Bert4RecConfig(**{**shape, "initializer_range": 0.3, **changes})).train()


@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("shared_width", [0, 4, 8])  # no histories, the short ones, all of them side by side
def test_packed_is_padded(
    kind: Any, changes: dict[str, Any], side: str, share: float, *, shared_width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query that sees another history, or its future, gives a model that is only a little worse."""
    monkeypatch.setattr(packing, "SHARED_WIDTH", shared_width)
    monkeypatch.setattr(layers, "CACHED_TOKENS", 5)  # the feed-forward part in pieces, the last one smaller
    model, batch = _model(kind, **changes), _batch(side, share)
    results = []
    for packs in (True, False):
        monkeypatch.setattr(kind, "_packs", lambda *_, packs=packs, **__: packs)
        model.zero_grad()
        outputs = model(**batch)
        outputs.loss.backward()
        results.append((outputs.logits, outputs.loss, {name: p.grad for name, p in model.named_parameters()}))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


class _Adapted(torch.nn.Linear):
    """A layer whose output is not what its weights alone give, as with adapters and quantised weights."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).cos()


def test_adapters_of_the_queries_are_packed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries taken from the weights of a layer, past its adapter, are those of the model before fine-tuning."""
    model, batch = _model(Bert4RecForMaskedLM), _batch("left", 0.3)
    for layer in model.model.layers:
        layer.attention.query_key_value = _Adapted(16, 48)
    losses = []
    for packs in (True, False):
        monkeypatch.setattr(Bert4RecForMaskedLM, "_packs", lambda *_, packs=packs, **__: packs)
        losses.append(model(**batch).loss)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
def test_labels_alone_are_packed(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A condition that is never met would leave training as slow as before, unseen."""
    model, batch = _model(kind), _batch("left", 0.5)
    calls: list[torch.Tensor] = []
    original = model.model.at_labels
    monkeypatch.setattr(
        model.model, "at_labels", lambda labelled, **rest: calls.append(labelled) or original(labelled, **rest)
    )
    model(**batch)
    model(inputs_embeds=model.get_input_embeddings()(batch["input_ids"]), labels=batch["labels"])
    assert len(calls) == 2
    assert len(model(**batch, output_hidden_states=True).hidden_states) == 3
    beyond = {**batch, "labels": torch.full_like(batch["labels"], 5)}  # labels at padding too
    assert model(**beyond).logits.shape == (64, 20)
    assert len(calls) == 2


@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("side", ["left", "right"])
def test_histories_are_encoded_as_the_body_does(
    kind: Any, changes: dict[str, Any], side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recommendations from another position, or in another order of users, look like recommendations too."""
    model, batch = _model(kind, **changes).eval(), _batch(side, 1.0)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    held = mask.sum(dim=1) > 0
    states = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
    newest = torch.full((len(ids),), 7) if side == "left" else mask.sum(dim=1).clamp(min=1) - 1
    expected = model.head(states[torch.arange(len(ids)), newest])
    calls: list[torch.Tensor] = []
    original = model.model.at_labels
    monkeypatch.setattr(
        model.model, "at_labels", lambda labelled, **rest: calls.append(labelled) or original(labelled, **rest)
    )
    found = model.encode_history(ids[held], mask[held])
    torch.testing.assert_close(found, expected[held], rtol=1e-4, atol=1e-5)
    states = model.model(input_ids=ids[:2]).last_hidden_state
    torch.testing.assert_close(model.encode_history(ids[:2]), model.head(states[:, -1]), rtol=1e-4, atol=1e-5)
    assert len(calls) == 2
    for row in held.nonzero().flatten().tolist():
        one = slice(row, row + 1)
        with torch.no_grad():
            found = model.encode_history(ids[one], mask[one])
        torch.testing.assert_close(found, expected[one], rtol=1e-4, atol=1e-5)
    assert len(calls) == 2 + int(held.sum())
    assert model.encode_history(ids, mask).shape == expected.shape  # a row of no token is left to the body
    assert len(calls) == 2 + int(held.sum())


def test_gradient_checkpointing_keeps_packed_gradients() -> None:
    """A checkpointed layer that forgets its packing would attend over the whole batch."""
    model, batch = _model(Bert4RecForMaskedLM), _batch("left", 0.5)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize(
    ("shared_width", "rows", "tokens", "places"),
    [(0, [4, 1, 1, 1], [27, 3, 2, 1], 34), (4, [4, 2], [27, 6], 34), (8, [5], [33], 35)],
    ids=str,
)
def test_groups_hold_little_padding_and_every_token_once(
    shared_width: int, rows: list[int], tokens: list[int], places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups that are cut wrongly lose tokens, or bring the padding back."""
    monkeypatch.setattr(packing, "SHARED_WIDTH", shared_width)
    mask = _batch("left", 1.0)["attention_mask"].bool()
    packed = Packing.of(mask, mask, is_causal=False)
    assert sorted(packed.source.tolist()) == mask.flatten().nonzero().flatten().tolist()
    blocks = [group.keys for group in packed.inner.groups]
    assert [block.rows for block in blocks] == rows
    assert [block.tokens for block in blocks] == tokens
    assert sum(block.rows * block.width for block in blocks) == places


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    """A wrong threshold or scale is another regularisation than the one stated."""
    torch.manual_seed(0)
    values = torch.ones(1000, 333, requires_grad=True)
    for p in (0.1, 0.2, 0.5, 0.9):
        dropped = Dropout(p)(values)
        assert abs((dropped == 0).float().mean().item() - p) < 0.004
        assert abs(dropped.mean().item() - 1) < 0.02
        (gradient,) = torch.autograd.grad(dropped.sum(), values)
        assert gradient.equal(dropped)
    for axis in (0, 1):  # neighbours share a 64-bit draw
        both = (dropped == 0) & (dropped.roll(1, axis) == 0)
        assert abs(both.float().mean().item() - 0.81) < 0.01


def test_dropout_repeats_with_its_seed_and_rests_in_evaluation() -> None:
    """Bits from another generator would make runs with one seed differ."""
    layer, values = Dropout(0.5), torch.ones(5, 7)
    drawn = []
    for _ in range(2):
        torch.manual_seed(1)
        drawn.append(layer(values))
    assert drawn[0].equal(drawn[1]) and not drawn[0].equal(layer(values))
    assert layer.eval()(values) is values or layer(values).equal(values)
    assert Dropout(0.5)(torch.ones(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
@pytest.mark.parametrize("labelled", [[5], [2], [2, 5], [1, 2, 3, 4, 5], []])
def test_a_single_row_is_packed_as_among_others(kind: Any, labelled: list[int]) -> None:
    """One history has a shorter way of its own; a mask forgotten there would show in single requests alone."""
    model = _model(kind).eval()
    ids = torch.tensor([[0, 4, 7, 5, 9, 6], [0, 0, 0, 3, 8, 1]])
    asked = torch.zeros_like(ids, dtype=torch.bool)
    asked[0, labelled] = True
    together = model.model.at_labels(asked, input_ids=ids, attention_mask=ids != 0)
    alone = model.model.at_labels(asked[:1], input_ids=ids[:1], attention_mask=ids[:1] != 0)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    if labelled:
        gradients = [
            torch.autograd.grad(states.square().sum(), model.get_input_embeddings().weight, retain_graph=True)
            for states in (alone, together)
        ]
        torch.testing.assert_close(*(gradient[0] for gradient in gradients), rtol=1e-3, atol=1e-4)


def _flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """What flash-attn's function of this name computes, written out; queries are the newest tokens of a sequence."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert (max_seqlen_q, max_seqlen_k) == tuple(int(starts.diff().max()) for starts in (cu_seqlens_q, cu_seqlens_k))
    assert (int(cu_seqlens_q[-1]), int(cu_seqlens_k[-1])) == (len(q), len(k))
    parts = []
    for number in range(len(cu_seqlens_k) - 1):
        asking, seen = (slice(*starts[number : number + 2].tolist()) for starts in (cu_seqlens_q, cu_seqlens_k))
        query, key, value = (part.transpose(0, 1) for part in (q[asking], k[seen], v[seen]))
        scores = query @ key.transpose(1, 2) * softmax_scale  # (heads, asking, seen)
        if causal:
            hidden = torch.ones(scores.shape[1:]).triu(scores.shape[2] - scores.shape[1] + 1).bool()
            scores = scores.masked_fill(hidden, float("-inf"))
        parts.append((scores.softmax(dim=-1) @ value).transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, torch.dtype]]:
    """transformers' flash attention with the kernel written out; the list gets tokens and type of each call."""
    calls: list[tuple[int, torch.dtype]] = []

    def kernel(q: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append((len(q), q.dtype))
        return _flash_attn_varlen_func(q, *args, **kwargs)

    functools.update_wrapper(kernel, _flash_attn_varlen_func)
    monkeypatch.setattr(modeling_flash_attention_utils, "_loaded_implementation", None)
    monkeypatch.setattr(
        modeling_flash_attention_utils, "_lazy_imports", lambda *_, **__: (None, kernel, None, None, None)
    )
    return calls


@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_flash_attention_is_told_each_history(
    kind: Any, changes: dict[str, Any], side: str, share: float, flash: list[Any]
) -> None:
    """A start that is off by one token mixes two users; nothing fails, and no CPU would ever show it."""
    model, batch = _model(kind, **changes), _batch(side, share)
    results = []
    for implementation in ("flash_attention_2", "eager"):
        model.config._attn_implementation = implementation  # the public way looks for a GPU
        model.zero_grad()
        outputs = model(**batch)
        outputs.loss.backward()
        results.append((outputs.logits, outputs.loss, {name: p.grad for name, p in model.named_parameters()}))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)
    layers, asking = model.config.num_hidden_layers, int((batch["labels"] != -100).sum())
    last = sum(SIZES) if model._is_causal else asking  # who asks in the last layer; nobody is no call
    assert [tokens for tokens, _ in flash] == [sum(SIZES)] * (layers - 1) + ([last] if last else [])


@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
def test_flash_attention_gets_half_precision_under_autocast(kind: Any, flash: list[Any]) -> None:
    """flash-attn takes no float32: `--bf16 true` must reach it, also behind norms that give float32."""
    model, batch = _model(kind), _batch("left", 0.5)
    expected = model(**batch).loss
    model.config._attn_implementation = "flash_attention_2"
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    assert {dtype for _, dtype in flash} == {torch.bfloat16}
    torch.testing.assert_close(loss, expected, rtol=2e-2, atol=0)


def test_attention_is_float32_on_a_cpu_that_computes_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's attention in bfloat16 takes eight times as long on a CPU: `--bf16 true` would make training slower."""
    attend, kinds = packing.F.scaled_dot_product_attention, []
    monkeypatch.setattr(
        packing.F,
        "scaled_dot_product_attention",
        lambda query, *rest, **options: kinds.append(query.dtype) or attend(query, *rest, **options),
    )
    torch.manual_seed(0)
    config = Bert4RecConfig(vocab_size=20, hidden_size=8, num_hidden_layers=2, max_position_embeddings=6)
    model = Bert4RecForMaskedLM(config).eval()
    input_ids = torch.tensor([[0, 0, 5, 6, 1, 7], [3, 4, 1, 8, 9, 10]])
    labels = torch.full_like(input_ids, -100).masked_fill(input_ids == 1, 11)
    inputs = {"input_ids": input_ids, "attention_mask": (input_ids != 0).long(), "labels": labels}
    expected = model(**inputs).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(**inputs).loss
    found.backward()
    assert len(kinds) == 4 and set(kinds) == {torch.float32}
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)
