"""Weights are fitted on what they may see, and a blend is kept only where it is worth it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hfrec import ItemKNNBaseline, ItemTokenizer, MarkovBaseline, PopularityBaseline
from hfrec.blending.fit import best_scale, fit_weights, mix_margins, ndcg, score_margins, search_weights
from hfrec.blending.parts import make_blend

VOCAB_SIZE = 23


def noisy_margins(num_users: int, *, signal: float, seed: int = 0) -> np.ndarray:
    """Two parts that each see the same preference through noise of their own, and one that sees nothing."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(num_users, 50)) - 1.5
    parts = [truth * signal + rng.normal(size=truth.shape) for _ in range(2)]
    return np.stack([*parts, rng.normal(size=truth.shape)]).astype(np.float32)


def test_margins_are_those_of_all_unseen_items() -> None:
    """A seen item, the target itself or an item counted twice would be a rival that no ranking knows."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, VOCAB_SIZE, 6).tolist() for _ in range(40)]
    counts = PopularityBaseline().fit(rows, VOCAB_SIZE)
    parts = {
        "item_knn": ItemKNNBaseline(k=5).fit(rows, VOCAB_SIZE),
        "markov": MarkovBaseline(k=5).fit(rows, VOCAB_SIZE),
    }
    blend = make_blend(parts, [1.0, 1.0], counts=counts.counts)
    tokenizer = ItemTokenizer.from_items([f"item {number}" for number in range(VOCAB_SIZE - 3)])
    histories = [[3, 4], [5], [6, 7, 8], [9], [10]]
    targets = np.array([5, 2, 9, 9, 11])  # the second is unknown, the fourth is seen
    margins = score_margins(blend, tokenizer, histories, targets, top_items=100, batch_size=2)
    assert margins.shape[:2] == (2, 3)
    for user, row in enumerate((0, 2, 4)):
        scores = torch.stack(blend.component_scores(torch.tensor([histories[row]])))[:, 0]  # (2, num_items)
        rivals = [item - 3 for item in range(3, VOCAB_SIZE) if item not in (*histories[row], targets[row])]
        expected = (scores[:, rivals] - scores[:, [targets[row] - 3]]).numpy()
        found = margins[:, user][:, margins[0, user] > -1e5]
        np.testing.assert_allclose(np.sort(found, axis=1), np.sort(expected, axis=1), atol=1e-5)
    repeats = score_margins(blend, tokenizer, histories, targets, filter_seen=False, batch_size=2)
    assert repeats.shape[1] == 4  # of the five, whose histories now are rivals, all but the unknown target
    assert (repeats[0] > -1e5).sum(axis=1).tolist() == [VOCAB_SIZE - 4] * 4


def test_ndcg_by_hand() -> None:
    """A rival of equal score ranks before the target, as in every ranking here."""
    assert ndcg(np.array([[-1.0, -1.0], [0.0, -1.0], [1.0, 1.0]]), 2).tolist() == [1.0, 1 / np.log2(3), 0.0]


def test_two_noisy_parts_beat_each_and_noise_gets_nothing() -> None:
    """The fit has to find what averaging is worth, on users that it has not seen."""
    fit = fit_weights(noisy_margins(1500, signal=1.0))
    assert fit.mixes and fit.blend_ndcg > max(fit.part_ndcg) + 0.02
    assert fit.weights[0] == pytest.approx(fit.weights[1], rel=0.6)
    assert fit.weights[2] < 0.3 * min(fit.weights[:2])
    fresh = noisy_margins(1500, signal=1.0, seed=1)
    blended = mix_margins(np.array(fit.weights), fresh)
    assert ndcg(blended, 10).mean() > max(ndcg(part, 10).mean() for part in fresh[:2]) + 0.02


def test_a_part_that_is_right_or_far_off_keeps_its_weight() -> None:
    """A Markov chain names the next item or knows nothing of it: a likelihood counts how far off, and would drop it."""
    rng = np.random.default_rng(0)
    chain = rng.normal(size=(1500, 50)) - np.where(rng.random((1500, 1)) < 0.3, 6.0, -12.0)
    smooth = rng.normal(size=(1500, 50)) - 1.0
    fit = fit_weights(np.stack([chain, smooth]).astype(np.float32))
    assert fit.best_part == 0 and fit.weights[0] > 0
    assert fit.blend_ndcg > fit.part_ndcg[0] - 0.005


def test_what_is_best_by_chance_does_not_take_all() -> None:
    """Of two parts as good as each other, the luckier one of 60 users would be all of the blend for everyone."""
    gains = []
    for seed in range(6):
        fit = fit_weights(noisy_margins(60, signal=1.0, seed=seed))
        assert fit.mixes == (fit.difference >= -fit.standard_error)
        fresh = noisy_margins(1000, signal=1.0, seed=seed + 100)
        gains.append(ndcg(mix_margins(np.array(fit.weights), fresh), 10).mean() - ndcg(fresh[fit.best_part], 10).mean())
    assert np.mean(gains) > 0.02


def test_a_part_that_knows_nothing_costs_little_or_is_left_out() -> None:
    """Weights fitted to the noise of few users would cost accuracy on all others."""
    for seed in range(5):
        margins = noisy_margins(40, signal=0.0, seed=seed)
        margins[0] -= 1.0  # one part knows something
        fit = fit_weights(margins)
        if not fit.mixes:
            assert [weight > 0 for weight in fit.weights] == [part == fit.best_part for part in range(3)]
        fresh = noisy_margins(2000, signal=0.0, seed=seed + 100)
        fresh[0] -= 1.0
        blended = mix_margins(np.array(fit.weights), fresh)
        loss = ndcg(fresh[fit.best_part], 10) - ndcg(blended, 10)
        assert loss.mean() < 3 * loss.std() / 2000**0.5 + 0.02


def test_two_fits_are_equal_and_scale_changes_no_rank() -> None:
    """A refit of the same log must give the same model."""
    margins = noisy_margins(200, signal=1.0)
    assert fit_weights(margins) == fit_weights(margins.copy())
    mixed = mix_margins(search_weights(margins), margins)
    assert (ndcg(mixed, 10) == ndcg(mixed * np.float32(best_scale(mixed)), 10)).all()


def test_the_scale_makes_probabilities_of_scores() -> None:
    """The prior of empty histories is mixed with the softmax of the scores: at a wrong scale it has no say, or all."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 6))
    chosen = np.array([rng.choice(6, p=np.exp(row) / np.exp(row).sum()) for row in logits])
    rivals = np.delete(np.arange(6)[None].repeat(4000, 0), np.arange(4000) * 6 + chosen).reshape(4000, 5)
    margins = np.take_along_axis(logits, rivals, 1) - np.take_along_axis(logits, chosen[:, None], 1)
    assert best_scale((margins * 5.0).astype(np.float32)) == pytest.approx(0.2, rel=0.1)
    alone = np.stack([np.pad(margins * 5.0, ((0, 0), (0, 2)), constant_values=-1e6)] * 2).astype(np.float32)
    mixed = mix_margins(np.array([0.1, 0.1]), alone)  # places without a rival have no say
    assert best_scale(mixed) == pytest.approx(1.0, rel=0.1)
