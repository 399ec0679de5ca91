"""Items made of content: where they start, what their losses and caches must equal, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM, set_item_features
from hfrec.models.content import ContentBlock
from hfrec.models.losses import NegativeSampler

NUM_ITEMS, WIDTH = 12, 5
CONTENT = {"blocks": [{"kind": "vectors", "column": "image", "width": WIDTH}]}


def features(seed: int = 0, number: int = NUM_ITEMS) -> Tensor:
    """Content that lies in one corner, as text vectors do."""
    drawn = torch.randn(number, WIDTH, generator=torch.Generator().manual_seed(seed))
    return drawn * torch.tensor([1.0, 0.5, 0.3, 0.2, 0.2]) + 2.0


def make(objective: str = "causal", rows: Tensor | None = None, **shape: Any) -> Any:
    torch.manual_seed(0)
    rows = features() if rows is None else rows
    shape = {"item_representation": "content+id", "hidden_size": 8, "num_hidden_layers": 1, **shape}
    config = Bert4RecConfig(vocab_size=len(rows) + 3, item_content=CONTENT, **shape)
    model = Bert4RecForCausalLM(config) if objective == "causal" else Bert4RecForMaskedLM(config)
    set_item_features(model, rows)
    model.train(False)
    return model


def trained(model: Any) -> Any:
    """Every weight moved, so that nothing is equal because it is zero; dropout off for comparisons."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return model


def whitened(rows: Tensor) -> Tensor:
    """Whitened unit vectors by the singular value decomposition, not as the package does it."""
    centred = (rows - rows.mean(dim=0)).double()
    left, _, right = torch.linalg.svd(centred, full_matrices=False)
    return F.normalize(left @ right, dim=1).float()


@pytest.mark.parametrize("objective", ["causal", "masked"])
@pytest.mark.parametrize("representation", ["content", "content+id"])
def test_an_untrained_model_ranks_by_the_whitened_cosine_to_the_recent_history(
    objective: str, representation: str
) -> None:
    """A body that starts as noise ranks worse than content alone, and few users never repair it."""
    model = make(objective, item_representation=representation)
    history = torch.tensor([[3, 9, 5]])
    ids = torch.cat([history, torch.tensor([[1]])], dim=1) if objective == "masked" else history
    items = whitened(features())
    weights = torch.tensor([0.6**2, 0.6, 1.0]) * (0.6 if objective == "masked" else 1.0)
    profile = F.normalize(weights @ items[history[0] - 3], dim=0)
    with torch.no_grad():
        scores = model.score_items(model.encode_history(ids))[0, 3:]
    assert torch.allclose(scores, 14.0 * items @ profile, atol=2e-3)


@pytest.mark.parametrize("adapter", ["none", "linear"])
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_padding_and_the_batch_change_nothing(objective: str, adapter: str) -> None:
    """The path past the body sees positions too; on padded rows it could count from the wrong end."""
    model = trained(make(objective, content_adapter=adapter))
    ids = torch.tensor([[0, 0, 3, 4, 1], [5, 6, 7, 8, 9]])
    right = torch.tensor([[3, 4, 1, 0, 0], [5, 6, 7, 8, 9]])
    with torch.no_grad():
        alone = model.encode_history(torch.tensor([[3, 4, 1]]))
        assert torch.allclose(model.encode_history(ids, (ids > 0).long())[:1], alone, atol=1e-5)
        assert torch.allclose(model.encode_history(right, (right > 0).long())[:1], alone, atol=1e-5)
        last = model(input_ids=ids, attention_mask=(ids > 0).long()).logits[:, -1]
        assert torch.allclose(last, model.score_items(model.encode_history(ids, (ids > 0).long())), atol=1e-4)


@pytest.mark.parametrize("adapter", ["whitening", "mlp", "moe"])
def test_adapters_of_earlier_versions_are_refused(adapter: str) -> None:
    """Weights of an adapter that is not there would be left out, and the rest load as if it were whole."""
    saved = make().config.to_dict() | {"content_adapter": adapter}
    with pytest.raises(ValueError, match=f"`content_adapter` '{adapter}' is no more: .* earlier version"):
        Bert4RecConfig.from_dict(saved)


@pytest.mark.parametrize("loss", ["chunked", "sampled_softmax"])
def test_every_loss_has_the_gradient_of_the_full_one(loss: str) -> None:
    """A loss that looks up the wrong rows of a step trains other items. With all items drawn, sampled is exact."""
    ids, labels = torch.tensor([[3, 4, 5], [0, 6, 3]]), torch.tensor([[4, 5, 14], [-100, 3, 2]])
    found = {}
    for kind in ("full", loss):
        exact = {"hidden_dropout_prob": 0.0, "content_adapter": "linear"}
        model = trained(make(loss=kind, num_negatives=NUM_ITEMS, **exact))
        model.train()
        output = model(input_ids=ids, attention_mask=(ids > 0).long(), labels=labels)
        output.loss.backward()
        found[kind] = output.loss, {name: weight.grad for name, weight in model.named_parameters()}
    assert torch.allclose(found["full"][0], found[loss][0], atol=1e-5)
    for name, gradient in found["full"][1].items():
        assert torch.allclose(gradient, found[loss][1][name], atol=1e-4), name
    assert found[loss][1]["model.embeddings.content.blocks.0.linear.weight"].abs().max() > 0


def test_the_adapter_runs_once_for_each_distinct_item_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each place in the batch, content would cost many times what ids cost."""
    seen = []
    forward = ContentBlock.forward
    monkeypatch.setattr(ContentBlock, "forward", lambda self, rows: seen.append(len(rows)) or forward(self, rows))
    ids, labels = torch.tensor([[3, 4, 3], [4, 3, 4]]), torch.tensor([[4, 3, 5], [3, 4, 5]])
    model = make(loss="sampled_softmax", num_negatives=2)
    model.train()
    monkeypatch.setattr(NegativeSampler, "draw", lambda self, labels: torch.tensor([6, 7]))
    model(input_ids=ids, labels=labels)
    assert seen == [5]  # 3, 4, 5, 6, 7
    seen.clear()
    model.config.loss = "chunked"
    model(input_ids=ids, labels=labels)
    assert seen == [NUM_ITEMS + 3]


def test_permuting_the_catalogue_permutes_the_scores() -> None:
    """A score that depends on an item's place in the vocabulary is no score of its content."""
    order = torch.randperm(NUM_ITEMS, generator=torch.Generator().manual_seed(3))
    one, other = trained(make()), trained(make(rows=features()[order]))
    with torch.no_grad():
        other.get_input_embeddings().weight[3:] = one.get_input_embeddings().weight[3:][order]
        other.decoder.bias[3:] = one.decoder.bias[3:][order]
        place = order.argsort()
        history = torch.tensor([0, 4, 7])
        scores = one.score_items(one.encode_history(history[None] + 3))[0, 3:]
        moved = other.score_items(other.encode_history(place[history][None] + 3))[0, 3:]
    assert torch.allclose(scores[order], moved, atol=1e-3)


def test_embeddings_that_were_kept_follow_the_weights() -> None:
    """A table from before the last step would rank by an older model."""
    model = trained(make())
    with torch.no_grad():
        before = model.item_table()
        assert model.item_table() is before
        model.model.embeddings.content.blocks[0].weight += 1.0
        model.get_input_embeddings().weight += 1.0
        assert not torch.allclose(model.item_table(), before)
        assert torch.allclose(model.item_table(), model.model.embeddings.rows())


def test_an_item_without_content_says_nothing_and_blocks_add_up() -> None:
    """A missing picture that counts as the mean picture would be like every other missing picture."""
    rows = torch.cat([features(), features(1)], dim=1)
    rows[0] = 0
    rows[1, WIDTH:] = 0
    content = {"blocks": [*CONTENT["blocks"], {"kind": "vectors", "column": "text", "width": WIDTH}]}
    config = Bert4RecConfig(vocab_size=NUM_ITEMS + 3, item_representation="content", item_content=content)
    model = Bert4RecForCausalLM(config)
    set_item_features(model, rows)
    table = model.item_table()[3:].detach()
    assert table.shape == (NUM_ITEMS, 2 * WIDTH) and not table[0].any()
    assert not table[1, WIDTH:].any() and table[1].norm() == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(table[2:, :WIDTH].norm(dim=1), torch.full((NUM_ITEMS - 2,), 0.5**0.5), atol=1e-5)


def test_fixed_items_score_as_before() -> None:
    """The graph that serves a model holds the embeddings and not what made them."""
    model = trained(make())
    history = torch.tensor([[3, 4]])
    with torch.no_grad():
        scores = model.score_items(model.encode_history(history))
        model.fix_items()
        assert model.model.embeddings.content is None
        assert torch.allclose(model.score_items(model.encode_history(history)), scores, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"item_representation": "content"}, "`item_content`"),
        ({"item_content": CONTENT}, "'id' with"),
        ({"item_representation": "content", "item_content": {"blocks": []}}, "widths above 0"),
        ({"item_representation": "content", "item_content": CONTENT, "embedding_size": 3}, "at least 5"),
        ({"item_representation": "content", "item_content": CONTENT, "content_rank": 0}, "content_rank"),
        ({"item_features": True}, "earlier version"),
    ],
)
def test_shapes_that_no_model_can_have_are_refused(shape: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        Bert4RecConfig(vocab_size=7, **shape)


@pytest.mark.parametrize("fused", [False, True])
def test_what_a_step_taught_is_ranked(fused: bool) -> None:
    """A table that was kept from before the step would rank by items that are no more: fused optimisers change weights
    and not their versions."""
    model = make()
    ids, labels = torch.tensor([[4, 5, 6]]), torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        model.eval().encode_history(ids)
        before = model.item_table().clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    model.train()(input_ids=ids, labels=labels).loss.backward()
    optimizer.step()
    with torch.no_grad():
        after = model.eval().item_table()
        assert not after.equal(before) and after.equal(model.base_model.embeddings.rows())
