"""The start of a model: what the log says before the first step, in the right rows, for every kind of model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM, leave_one_out, load_interactions
from hfrec.data.sequences import to_evaluation_sequences
from hfrec.evaluation.metrics import ranking_metrics
from hfrec.evaluation.protocol import evaluation_collator
from hfrec.evaluation.ranking import rank_dataset
from hfrec.training.fitting import cover_items
from hfrec.training.rows import build_tokenizer
from hfrec.training.start import attend_to_nearest, histories_and_counts, pass_on_attended, start_from_log
from hfrec.transfer import set_item_features


def _config(vocab_size: int, **settings: Any) -> Bert4RecConfig:
    return Bert4RecConfig(vocab_size=vocab_size, hidden_size=16, max_position_embeddings=20, **settings)


@pytest.mark.parametrize("kind", [Bert4RecForCausalLM, Bert4RecForMaskedLM])
def test_an_untrained_model_ranks_better_from_the_log_than_from_nothing(kind: type[Any]) -> None:
    """Rows that are one off, or biases on other items, leave the start worth nothing and nobody sees it."""
    split = leave_one_out(load_interactions("synthetic"))
    tokenizer = build_tokenizer(split.train)
    rows = to_evaluation_sequences(split.train, split.validation, tokenizer)
    found = []
    for started in (False, True):
        torch.manual_seed(0)
        model = kind(_config(len(tokenizer), head_transform=False)).eval()
        if started:
            start_from_log(model, *histories_and_counts(split.train, tokenizer), seed=0)
        ranks = rank_dataset(model, rows, evaluation_collator(model, tokenizer))["filter_seen"]
        found.append(ranking_metrics(ranks, n_bootstrap=0)["ndcg@10"])
    assert found[1] > 2 * found[0]


def test_every_layer_passes_on_what_it_attends_to() -> None:
    """The output layer must undo the values, or the layers turn the items out of their space."""
    model = Bert4RecForCausalLM(_config(10))
    pass_on_attended(model, seed=0, share=0.25)
    for layer in cast(Any, model.model.layers):
        values = layer.attention.query_key_value.weight[32:]
        assert torch.allclose(layer.attention.output.weight @ values, 0.25 * torch.eye(16), atol=1e-5)


@pytest.mark.parametrize("kind", [Bert4RecForCausalLM, Bert4RecForMaskedLM])
def test_attention_starts_at_the_nearest_tokens(kind: type[Any]) -> None:
    """A `[MASK]` that attends to all of a long history alike starts as its mean, which training takes long to leave."""
    torch.manual_seed(0)
    config = Bert4RecConfig(vocab_size=60, position_embedding_type="rotary", attn_implementation="eager")  # heads of 32
    model = kind(config).eval()
    attend_to_nearest(model, recency=9.0)
    for layer in cast(Any, model.model.layers):
        torch.nn.init.zeros_(layer.attention.query_key_value.weight)  # what the tokens say is noise around it
    steps = torch.arange(49, -1, -1)[:, None]  # from the last token
    expected = (9.0 * (steps * 10_000.0 ** (-torch.arange(0, 32, 2) / 32)).cos().mean(-1)).softmax(-1)
    with torch.no_grad():
        found = model(input_ids=torch.arange(3, 53)[None], output_attentions=True).attentions
    for weights in found:
        assert torch.allclose(weights[0, :, -1], expected.expand(2, 50), atol=1e-4)
    assert bool((expected[-4:].diff() > 0).all()) and float(expected[-4:].sum()) > 0.6


def test_a_model_that_masks_starts_with_recency() -> None:
    """With `pretrain`'s defaults: the newest item of a history must say more than those long ago."""
    split = leave_one_out(load_interactions("synthetic"))
    tokenizer = build_tokenizer(split.train)
    torch.manual_seed(0)
    model = Bert4RecForMaskedLM(_config(len(tokenizer), head_transform=False, position_embedding_type="rotary")).eval()
    start_from_log(model, *histories_and_counts(split.train, tokenizer), seed=0)
    items = torch.stack([3 + torch.randperm(len(tokenizer) - 3)[:15] for _ in range(300)])  # (histories, length)
    with torch.no_grad():
        asked = model.encode_history(torch.cat([items, torch.ones(300, 1, dtype=torch.long)], dim=1))
        heard = (model.item_table()[items] @ asked[:, :, None])[..., 0].mean(dim=0)  # (length,)
    assert float(heard[-1]) > 1.5 * float(heard[:5].mean())


def test_the_start_is_the_same_in_every_process_and_moves_with_the_seed() -> None:
    """Processes of one run that start apart train apart."""
    split = leave_one_out(load_interactions("synthetic"))
    tokenizer = build_tokenizer(split.train)
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = Bert4RecForCausalLM(_config(len(tokenizer)))
        start_from_log(model, *histories_and_counts(split.train, tokenizer), seed=seed)
        weights.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_items_that_are_their_content_keep_it() -> None:
    """Features are frozen: a start that writes over them would replace the content by co-occurrence."""
    split = leave_one_out(load_interactions("synthetic"))
    tokenizer = build_tokenizer(split.train)
    content = {"blocks": [{"kind": "vectors", "column": "image", "width": 4}]}
    for representation in ("content", "content+id"):
        model = Bert4RecForCausalLM(_config(len(tokenizer), item_representation=representation, item_content=content))
        set_item_features(model, torch.randn(len(tokenizer) - 3, 4, generator=torch.Generator().manual_seed(0)))
        before = model.model.embeddings.content.features.clone()
        start_from_log(model, *histories_and_counts(split.train, tokenizer), seed=0)
        assert model.model.embeddings.content.features.equal(before)
        residuals = model.get_input_embeddings().weight[3:].detach()
        assert not residuals[:, :4].any() and residuals.any() == (representation == "content+id")
        assert float(model.item_bias.detach()[3]) > float(model.item_bias.detach()[-1])


def test_fine_tuning_starts_new_items_beside_their_neighbours(write_log: Callable[..., Path]) -> None:
    """At random, a new item is ranked by chance until its own few interactions have trained it."""
    log = load_interactions(write_log("log.csv", num_users=80, num_items=30, min_length=8))
    whole = build_tokenizer(log)
    items = whole.items["item_id"].to_pylist()
    old = type(whole).from_items(items[:-3])
    model = Bert4RecForCausalLM(_config(len(old)))
    with torch.no_grad():
        model.get_input_embeddings().weight[3:] += 1.0  # all known items point one way
    known = model.get_input_embeddings().weight.detach().clone()
    grown = cover_items(model, old, log)
    weight = model.get_input_embeddings().weight.detach()
    new = [grown.get_vocab()[item] for item in items[-3:]]
    assert torch.equal(weight[: len(known)], known)
    cosine = torch.nn.functional.cosine_similarity(weight[new], known[3:].mean(0, keepdim=True))
    assert float(cosine.min()) > 0.9
    assert np.isclose(weight[new].norm(dim=1), known[3:].norm(dim=1).mean(), rtol=1e-4).all()
