"""Models whose items are made of content: what is frozen, what new items get, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from hfrec import (
    Bert4RecConfig,
    Bert4RecForMaskedLM,
    ItemTokenizer,
    add_items,
    feature_rows,
    load_checkpoint,
    recommend,
    remove_items,
    set_item_features,
    unit_features,
)
from hfrec.transfer.features import other_whitening, source_whitening

ITEMS = ["a", "b", "c", "d"]
CONTENT = {"blocks": [{"kind": "vectors", "column": "image", "width": 4}]}


def feature_model(
    representation: str = "content", adapter: str = "linear"
) -> tuple[Bert4RecForMaskedLM, ItemTokenizer]:
    """Four items with the axes of a space as content."""
    torch.manual_seed(0)
    shape = {"item_representation": representation, "item_content": CONTENT, "content_adapter": "linear"}
    model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=7, hidden_size=8, num_hidden_layers=1, **shape))
    set_item_features(model, torch.eye(4))
    return model, ItemTokenizer.from_items(ITEMS)


def test_content_is_never_trained_and_stays_so_after_loading(tmp_path: Path) -> None:
    """Content that a step changes is no content any more, and a new item's features would mean something else."""
    model, tokenizer = feature_model()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = load_checkpoint(tmp_path)
    for each in (model, loaded):
        before = {name: buffer.clone() for name, buffer in each.named_buffers() if "content" in name}
        optimizer = torch.optim.AdamW([w for w in each.parameters() if w.requires_grad], lr=0.1)
        each.train()
        each(input_ids=torch.tensor([[3, 1]]), labels=torch.tensor([[-100, 4]])).loss.backward()
        optimizer.step()
        assert len(before) == 4 and all(each.get_buffer(name).equal(buffer) for name, buffer in before.items())
        assert not each.get_input_embeddings().weight.any() and not each.get_input_embeddings().weight.requires_grad
        assert each.model.embeddings.content.blocks[0].linear.weight.grad.abs().max() > 0


def test_a_new_item_with_known_content_scores_as_its_twin() -> None:
    """The use of it all: an item never trained ranks by its content."""
    model, tokenizer = feature_model("content+id")
    model.decoder.bias.data[3:] = torch.tensor([1.0, 1.0, 3.0, 3.0])
    tokenizer = add_items(model, tokenizer, ["twin of b"], rows=feature_rows(model, torch.eye(4)[1:2]))
    model.eval()
    scores = model.score_items(model.encode_history(torch.tensor([[3, 5, 1]])))[0].detach()
    bias = model.decoder.bias.detach()
    assert scores[7] - bias[7] == pytest.approx(float(scores[4] - bias[4]), abs=1e-5)
    assert bias[7] == pytest.approx(2.0)
    (found,) = recommend(model, tokenizer, [["a", "twin of b"]], top_k=3)
    assert {item["item_id"] for item in found} == {"b", "c", "d"}
    smaller = remove_items(model, tokenizer, ["a"])
    kept = model.base_model.embeddings.content.features[3:]
    assert kept.tolist() == [*torch.eye(4)[1:].tolist(), [0, 1, 0, 0]] and len(smaller) == model.config.vocab_size


def test_new_items_without_features_are_refused() -> None:
    """Zeros would be items without content."""
    model, tokenizer = feature_model()
    with pytest.raises(ValueError, match=r"features \(1, 4\) of the new items.*hfrec items add"):
        add_items(model, tokenizer, ["e"])
    assert len(tokenizer) == model.config.vocab_size == 7
    with pytest.raises(ValueError, match=r"\(items, width\).*\(1, 5\).*`content_features`"):
        feature_rows(model, torch.ones(1, 5))
    with pytest.raises(ValueError, match=r"of the shape \(4, 4\).*\(3, 4\)"):
        set_item_features(model, torch.ones(3, 4))
    with pytest.raises(ValueError, match="finite"):
        set_item_features(model, torch.full((4, 4), float("nan")))
    with pytest.raises(ValueError, match="item_representation='id'"):
        set_item_features(Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=7)), torch.ones(4, 62))


def test_bad_features_are_refused() -> None:
    """A number that is none spreads to every score."""
    with pytest.raises(ValueError, match="finite"):
        unit_features(torch.tensor([[float("nan")]]))
    with pytest.raises(ValueError, match=r"lengths \[1, 2\]"):
        unit_features(torch.ones(1, 2), torch.ones(2, 2))


def test_another_catalogue_is_whitened_by_its_own_statistics_and_a_small_one_by_the_sources() -> None:
    """By the source's, all toys look alike; by those of three items, noise is blown up."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(4000, 3, generator=generator) * torch.tensor([3.0, 1.0, 0.5]) + 1.0
    other = torch.randn(40_000, 3, generator=generator) * torch.tensor([0.5, 2.0, 1.0]) - 2.0
    learnt = source_whitening(source, rank=3)
    spread = ((source - learnt.mean) @ learnt.basis @ learnt.matrix).T.cov()
    assert torch.allclose(spread, torch.eye(3), atol=0.01)
    large, small = other_whitening(other, learnt), other_whitening(other[:3], learnt)
    assert torch.allclose(large.mean, other.mean(dim=0), atol=0.01) and large.basis.equal(learnt.basis)
    # 40,000 items against the weight of 1,000 that the source's covariance has.
    own = ((other - other.mean(dim=0)) @ learnt.basis).T.cov(correction=0)
    theirs = ((source - source.mean(dim=0)) @ learnt.basis).T.cov(correction=0)
    expected = torch.linalg.inv((40_000 * own + 1000 * theirs) / 41_000)
    assert torch.allclose(large.matrix @ large.matrix, expected, atol=1e-3)
    assert torch.allclose(small.matrix, learnt.matrix, rtol=0.02, atol=0.01)
    alone = other_whitening(other[:1], learnt)
    assert torch.isfinite(alone.matrix).all() and F.cosine_similarity(alone.mean, learnt.mean, dim=0) > 0.9
