"""Labels that compete with the items of their own source: one batch of several sources is several batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM

BLOCKS = ((3, 8), (8, 15), (15, 17))
KINDS = (Bert4RecForMaskedLM, Bert4RecForCausalLM)


def new_model(kind: Any = Bert4RecForCausalLM, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = Bert4RecConfig(
        vocab_size=17,
        hidden_size=8,
        num_hidden_layers=1,
        hidden_dropout_prob=0.0,
        max_position_embeddings=6,
        **settings,
    )
    model = kind(config).train()
    with torch.no_grad():
        model.item_bias.normal_()
    return model


def batches(seed: int = 1) -> list[dict[str, torch.Tensor]]:
    """One batch of each source, of different sizes, with labels here and there."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for size, (first, stop) in zip((3, 2, 4), BLOCKS, strict=True):
        ids = torch.randint(first, stop, (size, 6), generator=generator)
        labels = torch.randint(first, stop, (size, 6), generator=generator)
        labels[torch.rand(size, 6, generator=generator) < 0.5] = -100
        labels[0, 0] = first
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return found


def joined(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def gradients(model: Any, *losses: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    sum(losses).backward()  # type: ignore[union-attr]
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


EXHAUSTIVE = {"num_negatives": 100}
LOSSES = [
    {"loss": "full"},
    {"loss": "chunked"},
    {"loss": "chunked", "loss_chunk_size": 8},
    {"loss": "chunked", "loss_candidates": "unseen"},
    {"loss": "chunked", "label_smoothing": 0.2},
    {"loss": "full", "label_smoothing": 0.2},
    {"loss": "sampled_softmax", **EXHAUSTIVE},
    {"loss": "sampled_softmax", "num_negatives": 4, "num_hard_negatives": 100},
    {"loss": "gbce", **EXHAUSTIVE},
    {"loss": "gbce", "loss_candidates": "unseen", **EXHAUSTIVE},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", LOSSES)
def test_one_batch_of_several_sources_is_several_batches(kind: Any, settings: dict[str, Any]) -> None:
    """Items of another shop as rivals teach what shop an item is of, not which item comes next."""
    model = new_model(kind, **settings)
    model.compete_within(BLOCKS)
    parts = batches()
    number = (joined(parts)["labels"] != -100).sum()
    together = model(**joined(parts)).loss
    apart = [model(**part, num_items_in_batch=number).loss for part in parts]
    torch.testing.assert_close(together, sum(apart))
    expected, found = gradients(model, *apart), gradients(model, model(**joined(parts)).loss)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("loss", ["full", "chunked", "sampled_softmax"])
def test_the_loss_is_the_cross_entropy_over_the_own_source(loss: str) -> None:
    """By hand: the softmax runs over the tokens of the label's source, and special tokens have no probability."""
    model = new_model(loss=loss, **(EXHAUSTIVE if loss == "sampled_softmax" else {}))
    whole = joined(batches())
    labels = whole["labels"]
    scores = model.eval()(**whole).logits[:, 3:]  # no blocks: all items
    expected = []
    for row, label in zip(scores, labels[labels != -100], strict=True):
        first, stop = next(block for block in BLOCKS if block[0] <= label < block[1])
        expected.append(F.cross_entropy(row[first - 3 : stop - 3], label - first))
    model.train().compete_within(BLOCKS)
    torch.testing.assert_close(model(**whole).loss, torch.stack(expected).mean())


def test_ranks_of_validation_are_among_the_own_source() -> None:
    """The Trainer's ranks come from the scores of `forward`: rivals of other sources would hide a good model."""
    model, whole = new_model().eval(), joined(batches())
    whole["labels"][0, 0] = 2  # an unknown target keeps its row: it is a miss
    plain = model(**whole).logits
    model.compete_within(BLOCKS)
    found = model(**whole).logits
    labels = whole["labels"][whole["labels"] != -100]
    for row, before, label in zip(found, plain, labels, strict=True):
        own = next((block for block in BLOCKS if block[0] <= label < block[1]), (3, 17))
        assert torch.equal(row[own[0] : own[1]], before[own[0] : own[1]])
        outside = torch.cat([row[: own[0]], row[own[1] :]])
        assert bool((outside == -torch.inf).all())


@pytest.mark.parametrize("sampling", ["uniform", "log_uniform", "in_batch", "mixed"])
def test_negatives_are_drawn_within_the_source(sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negatives of another source are easy ones: the loss falls and nothing is learnt."""
    model = new_model(loss="sampled_softmax", num_negatives=4, negative_sampling=sampling)
    model.compete_within(BLOCKS)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    scored = model._score_candidates

    def watched(labelled: Any, negatives: torch.Tensor) -> Any:
        seen.append((labelled.items, negatives))
        return scored(labelled, negatives)

    monkeypatch.setattr(model, "_score_candidates", watched)
    model(**joined(batches())).loss.backward()
    assert len(seen) == 3
    for (first, stop), ids in zip(BLOCKS, (torch.cat(pair) for pair in seen), strict=True):
        assert bool(((ids >= first) & (ids < stop)).all())


def test_a_source_without_labels_in_the_batch_costs_nothing() -> None:
    """A batch seldom holds every source: an empty mean would make the loss NaN."""
    for settings in LOSSES:
        model = new_model(**settings)
        model.compete_within(BLOCKS)
        loss = model(**batches()[1]).loss
        loss.backward()
        assert bool(torch.isfinite(loss))


def test_one_block_of_all_items_is_no_block() -> None:
    """A run of one source must not differ for the code of several."""
    for settings in LOSSES:
        losses = []
        for blocks in (None, [(3, 17)]):
            model = new_model(**settings)
            model.compete_within(blocks)
            torch.manual_seed(3)
            losses.append(model(**joined(batches())).loss)
        torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("blocks", [[(3, 8), (9, 17)], [(3, 8), (8, 16)], [(4, 17)], [(3, 3), (3, 17)], []])
def test_blocks_that_do_not_divide_the_catalogue_are_refused(blocks: Any) -> None:
    """Labels outside of all blocks would silently not count."""
    with pytest.raises(ValueError, match="`blocks` must divide"):
        new_model().compete_within(blocks)
