"""Ranks: tie rule, filters and chunks, against a loop that spells the definition out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hfrec.evaluation.ranking import make_compute_metrics, preprocess_ranks, rank_dataset, target_ranks

INF = float("inf")


def brute_force_rank(scores: list[float], target: int, seen: set[int], allowed: set[int] | None = None) -> int:
    """The definition, one item at a time."""
    items = [i for i in range(3, len(scores)) if i not in seen and (allowed is None or i in allowed)]
    if target not in items:
        return 0
    return 1 + sum(scores[i] >= scores[target] for i in items if i != target)


class LookupModel(torch.nn.Module):
    """Scores are a product with item vectors, as in a real model; the history is its newest token's vector."""

    def __init__(self, vocab_size: int = 23, nan_at: int | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weights = torch.randint(-2, 3, (vocab_size, 4), generator=generator).float()  # small integers: many ties
        self.items = torch.nn.Parameter(weights)
        self.config = SimpleNamespace(vocab_size=vocab_size)
        self.nan_at = nan_at
        self.calls: list[tuple[int, int]] = []

    def encode_history(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise RuntimeError("dropout would be on")
        return self.items[input_ids[:, -1]]

    def score_items(self, representation: torch.Tensor, start: int = 0, stop: int | None = None) -> torch.Tensor:
        stop = self.config.vocab_size if stop is None else stop
        self.calls.append((start, stop))
        scores = representation @ self.items[start:stop].T
        ids = torch.arange(start, stop)
        scores = scores.masked_fill(ids < 3, -INF)
        return scores if self.nan_at is None else scores.masked_fill(ids == self.nan_at, torch.nan)


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows) + 1
    input_ids = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full_like(input_ids, -100)
    for place, row in enumerate(rows):
        history = row["input_ids"] or [1]
        input_ids[place, -len(history) :] = torch.tensor(history)
        labels[place, -1] = row["target"]
    return {
        "input_ids": input_ids,
        "attention_mask": (input_ids != 0).long(),
        "labels": labels,
        "seen_ids": input_ids.masked_fill(input_ids == 1, 0),
    }


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    found = [
        {"input_ids": rng.integers(3, 23, size=rng.integers(0, 9)).tolist(), "target": int(rng.integers(3, 23))}
        for _ in range(40)
    ]
    found[5]["target"] = 2  # unknown item
    found[6]["target"] = (found[6]["input_ids"] or [3])[0]
    return found


def expected_ranks(rows: list[dict[str, Any]], seen: bool, allowed: set[int] | None = None) -> list[int]:
    model = LookupModel()
    found = []
    for row in rows:
        scores = (model.items[(row["input_ids"] or [1])[-1]] @ model.items.T).tolist()
        found.append(brute_force_rank(scores, row["target"], set(row["input_ids"]) if seen else set(), allowed))
    return found


def test_hand_worked_ranks() -> None:
    """Tokens 3..7 score .5 .9 .5 .1 .7; token 0..2 score highest and must not count."""
    logits = torch.tensor([[9.0, 9.0, 9.0, 0.5, 0.9, 0.5, 0.1, 0.7]]).repeat(4, 1)
    targets = torch.tensor([4, 3, 6, 2])
    assert target_ranks(logits, targets).tolist() == [1, 4, 5, 0]
    seen = torch.tensor([[0, 0], [4, 4], [6, 5], [3, 0]])  # twice seen counts once; a seen target is a miss
    assert target_ranks(logits, targets, seen_ids=seen).tolist() == [1, 3, 0, 0]
    allowed = torch.tensor([True] * 5 + [False] * 3)  # 3 and 4 left
    assert target_ranks(logits, targets, allowed=allowed).tolist() == [1, 2, 0, 0]


def test_constant_scores_put_the_target_last() -> None:
    """A collapsed model must not look perfect."""
    ranks = target_ranks(torch.zeros(2, 10), torch.tensor([3, 9]))
    assert ranks.tolist() == [7, 7]
    assert ranks.dtype == torch.int64


def test_minus_infinity_target_is_last() -> None:
    """A target that the model scores -inf ties with nothing better."""
    logits = torch.tensor([[-INF, -INF, -INF, 0.0, -INF, -INF]])
    assert target_ranks(logits, torch.tensor([5])).tolist() == [3]


@pytest.mark.parametrize("item_chunk_size", [1, 4, 7, 23, 100])
@pytest.mark.parametrize("batch_size", [1, 16, 64])
def test_chunks_and_batches_do_not_change_ranks(
    rows: list[dict[str, Any]], item_chunk_size: int, batch_size: int
) -> None:
    """Off-by-one at a chunk's edge, or a seen item of another chunk, would shift ranks silently."""
    found = rank_dataset(LookupModel(), rows, collate, batch_size=batch_size, item_chunk_size=item_chunk_size)
    assert found["filter_seen"].tolist() == expected_ranks(rows, seen=True)
    assert found["unfiltered"].tolist() == expected_ranks(rows, seen=False)
    assert set(found) == {"filter_seen", "unfiltered"}


def test_fixture_holds_ties_and_misses(rows: list[dict[str, Any]]) -> None:
    """Guards the test above: without ties, misses and seen rivals it would prove little."""
    filtered, unfiltered = expected_ranks(rows, seen=True), expected_ranks(rows, seen=False)
    assert 0 in unfiltered and filtered.count(0) > unfiltered.count(0)
    assert any(0 < a < b for a, b in zip(filtered, unfiltered, strict=True))


def test_one_chunk_is_scored_once() -> None:
    """The two passes must not double the cost where the catalogue fits into one chunk."""
    model = LookupModel()
    rank_dataset(model, [{"input_ids": [3], "target": 4}], collate)
    assert model.calls == [(0, 23)]


def test_allow_list(rows: list[dict[str, Any]]) -> None:
    """Items outside the allow list are neither ranked nor hits."""
    allowed = {4, 5, 9, 20}
    found = rank_dataset(LookupModel(), rows, collate, item_chunk_size=5, allowed_items=allowed, top_k=6)
    assert found["filter_seen"].tolist() == expected_ranks(rows, seen=True, allowed=allowed)
    assert set(np.unique(found["recommended"])) <= allowed | {0}


@pytest.mark.parametrize("item_chunk_size", [2, 23])
def test_recommended_agree_with_the_ranks(rows: list[dict[str, Any]], item_chunk_size: int) -> None:
    """Coverage would be computed on other items than the ranks: seen or special ones, or in another order."""
    model = LookupModel()
    recommended = rank_dataset(model, rows, collate, item_chunk_size=item_chunk_size, top_k=20)["recommended"]
    for row, items in zip(rows, recommended.tolist(), strict=True):
        scores = (model.items[(row["input_ids"] or [1])[-1]] @ model.items.T).tolist()
        unseen = [item for item in range(3, 23) if item not in row["input_ids"]]
        assert sorted(item for item in items if item) == unseen
        assert [scores[item] for item in items if item] == sorted((scores[item] for item in unseen), reverse=True)
        assert items[len(unseen) :] == [0] * (20 - len(unseen))


def test_training_mode_comes_back(rows: list[dict[str, Any]]) -> None:
    """Dropout during ranking, or none in the training after it."""
    model = LookupModel()
    model.train()
    rank_dataset(model, rows, collate)
    assert model.training
    model.nan_at = 4
    with pytest.raises(ValueError, match="NaN"):
        rank_dataset(model, rows, collate)
    assert model.training


def test_nan_is_an_error() -> None:
    """NaN compares false with everything: a diverged model would rank first everywhere."""
    logits = torch.zeros(2, 6)
    logits[1, 4] = torch.nan
    with pytest.raises(ValueError, match="found 1 NaN, first for history 1 at token id 4"):
        target_ranks(logits, torch.tensor([3, 3]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": torch.tensor([6])}, "`targets` must be token ids in 0..5"),
        ({"targets": torch.tensor([-100])}, "`targets` must be token ids"),
        ({"targets": torch.tensor([3]), "seen_ids": torch.tensor([[6]])}, "`seen_ids` must be token ids"),
        ({"targets": torch.tensor([3]), "seen_ids": torch.tensor([[4], [4]])}, "one history a row"),
        ({"targets": torch.tensor([3]), "allowed": torch.tensor([3, 4])}, "`allowed` must be a bool tensor"),
    ],
)
def test_wrong_input_is_refused(arguments: dict[str, Any], message: str) -> None:
    """Ids of another vocabulary would give plausible ranks."""
    with pytest.raises(ValueError, match=message):
        target_ranks(torch.zeros(1, 6), **arguments)


def test_empty_data_set_and_bad_collator_are_refused() -> None:
    """A mean over nothing, or training labels in the place of evaluation labels."""
    with pytest.raises(ValueError, match="at least one row"):
        rank_dataset(LookupModel(), [], collate)
    row = {"input_ids": [3, 4], "target": 4}
    with pytest.raises(ValueError, match="found 3"):
        rank_dataset(LookupModel(), [row], lambda rows: collate(rows) | {"labels": torch.full((1, 3), 4)})
    with pytest.raises(ValueError, match="labels and seen_ids"):
        rank_dataset(LookupModel(), [row], lambda rows: {"input_ids": torch.tensor([[3]])})


def test_trainer_path_equals_rank_dataset(rows: list[dict[str, Any]]) -> None:
    """The score that picks the best checkpoint must be the one that is reported."""
    model, batch = LookupModel().eval(), collate(rows)
    logits = model.score_items(model.encode_history(batch["input_ids"], batch["attention_mask"]))
    ranks = preprocess_ranks(logits, (batch["labels"], batch["seen_ids"].masked_fill(batch["seen_ids"] == 0, -100)))
    found = rank_dataset(model, rows, collate, batch_size=7, item_chunk_size=5)
    assert ranks.tolist() == np.stack([found["filter_seen"], found["unfiltered"]], axis=1).tolist()


def test_rows_without_label_are_misses() -> None:
    """Such rows must keep their place: dropping one would hand its ranks to the neighbour."""
    logits = torch.tensor([[-INF, -INF, -INF, 0.1, 0.7, 0.4], [-INF, -INF, -INF, 0.3, 0.2, 0.1]])
    labels = torch.tensor([[-100, 5], [-100, -100], [3, -100]])
    seen = torch.tensor([[4, -100], [3, 4], [0, 0]])
    assert preprocess_ranks((logits, logits), (labels, seen)).tolist() == [[1, 2], [0, 0], [1, 1]]
    assert preprocess_ranks(logits[:0], (labels[1:2], seen[1:2])).tolist() == [[0, 0]]


def test_preprocess_refuses_other_labels() -> None:
    """Trainer's default label names would leave the seen filter out silently."""
    logits, labels = torch.zeros(1, 6), torch.tensor([[5]])
    for given in (labels, None, (labels,)):  # `label_names` of the Trainer left as it is: once a bare TypeError
        with pytest.raises(ValueError, match="label_names"):
            preprocess_ranks(logits, given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at most one labelled position a row for ranking, found 2"):
        preprocess_ranks(logits, (torch.tensor([[5, 4]]), labels))
    with pytest.raises(ValueError, match="`logits` must have one row"):
        preprocess_ranks(torch.zeros(2, 6), (labels, labels))


def test_compute_metrics_names_both_protocols() -> None:
    """Filtered and unfiltered numbers must not be mixed up; rank 0 counts in the mean."""
    prediction = SimpleNamespace(predictions=np.array([[1, 3], [0, 0], [2, 11], [0, 1]]))
    found = make_compute_metrics(ks=(2, 10))(prediction)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / np.log2(3)) / 4)
    assert found["unfiltered_ndcg@10"] == pytest.approx((0.5 + 1) / 4)
    assert found["hit_rate@2"] == 0.5 and found["unfiltered_hit_rate@2"] == 0.25
    assert all(type(value) is float for value in found.values())  # numpy numbers do not go into JSON


def test_stock_trainer_uses_the_hooks(rows: list[dict[str, Any]], tmp_path: Any) -> None:
    """The whole path through `Trainer.evaluate`, the last batch being shorter than the others."""
    from transformers import Trainer, TrainingArguments

    class Labelled(LookupModel):
        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, seen_ids: torch.Tensor
        ) -> dict[str, torch.Tensor]:
            return {"loss": self.items.sum(), "logits": self.score_items(self.items[input_ids[:, -1]])}

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        label_names=["labels", "seen_ids"],
        per_device_eval_batch_size=16,
        remove_unused_columns=False,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        Labelled(),
        arguments,
        data_collator=collate,
        eval_dataset=rows,  # type: ignore[arg-type]
        preprocess_logits_for_metrics=preprocess_ranks,
        compute_metrics=make_compute_metrics(),
    )
    found = trainer.evaluate()
    ranks = SimpleNamespace(
        predictions=np.stack([expected_ranks(rows, seen=True), expected_ranks(rows, seen=False)], axis=1)
    )
    for name, value in make_compute_metrics()(ranks).items():
        assert found[f"eval_{name}"] == pytest.approx(value)
