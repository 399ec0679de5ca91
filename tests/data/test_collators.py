"""Batches ask only about items, keep the newest ones and are the tensors that the docstrings promise."""

from typing import Any

import pytest
import torch

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM, Bert4RecModel, Blend, BlendConfig
from hfrec.data.collators import DataCollatorForMaskedItems, DataCollatorForNextItem, objective_of, pad_newest
from hfrec.tokenization import ItemTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> ItemTokenizer:
    return ItemTokenizer.from_items([f"item {index}" for index in range(20)])  # token ids 3 … 22


def _features(rows: int = 200) -> list[dict[str, Any]]:
    """Rows of 1 to 9 tokens; every fifth token is [UNK]."""
    generator = torch.Generator().manual_seed(0)
    features = []
    for row in range(rows):
        ids = torch.randint(3, 23, (1 + row % 9,), generator=generator)
        ids[3::5] = 2
        features.append({"input_ids": ids.tolist(), "user_id": str(row)})
    return features


def _padded(features: list[dict[str, Any]]) -> torch.Tensor:
    return pad_newest([feature["input_ids"] for feature in features])[0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_pad_newest_keeps_the_newest(side: Any) -> None:
    """Cutting the newest items asks about tastes of years ago."""
    ids, mask = pad_newest([[5, 6, 7, 8], [9], []], 3, side)
    rows = {"left": [[6, 7, 8], [0, 0, 9], [0, 0, 0]], "right": [[6, 7, 8], [9, 0, 0], [0, 0, 0]]}[side]
    assert ids.tolist() == rows
    assert mask.tolist() == [[int(token > 0) for token in row] for row in rows]
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.int64)
    assert pad_newest([[], []])[0].shape == (2, 0)


@pytest.mark.parametrize("mlm_probability", [0.001, 0.3, 1.0])
def test_only_items_are_masked_and_every_row_has_a_label(tokenizer: ItemTokenizer, mlm_probability: float) -> None:
    """A label at padding or [UNK] teaches the model to recommend it; a row without one is wasted."""
    features = _features()
    batch = DataCollatorForMaskedItems(tokenizer, mlm_probability=mlm_probability, seed=1)(features)
    original, labelled = _padded(features), batch["labels"] != -100
    assert labelled.any(dim=-1).all()
    assert (original[labelled] >= 3).all()
    assert torch.equal(batch["labels"][labelled], original[labelled])
    assert (batch["input_ids"][labelled] == 1).all()
    assert torch.equal(batch["input_ids"][~labelled], original[~labelled])
    if mlm_probability == 1.0:
        plain = DataCollatorForMaskedItems(tokenizer, mlm_probability=1.0, mask_last_probability=0.0)(features)
        assert torch.equal(plain["labels"] != -100, original >= 3)


def test_share_of_masked_items(tokenizer: ItemTokenizer) -> None:
    """A rate that is off by a factor looks like a bad model."""
    features = [{"input_ids": [3] * 50}] * 400
    batch = DataCollatorForMaskedItems(tokenizer, mlm_probability=0.3, mask_last_probability=0.0, seed=0)(features)
    assert (batch["labels"] != -100).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_fates_of_the_masked_items(tokenizer: ItemTokenizer) -> None:
    """Replacements drawn from the specials, or shares that are swapped, train on another task."""
    features = [{"input_ids": list(range(3, 23))}] * 400
    collator = DataCollatorForMaskedItems(
        tokenizer,
        mlm_probability=1.0,
        mask_last_probability=0.0,
        mask_replace_prob=0.5,
        random_replace_prob=0.3,
        seed=0,
    )
    batch = collator(features)
    seen, original = batch["input_ids"], _padded(features)
    masked, swapped = seen == 1, (seen != 1) & (seen != original)
    assert masked.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert swapped.float().mean().item() == pytest.approx(0.3 * 19 / 20, abs=0.02)
    assert (seen[swapped] >= 3).all()
    assert set(seen[swapped].tolist()) == set(range(3, 23))
    assert torch.equal(batch["labels"], original)


@pytest.mark.parametrize("side", ["left", "right"])
def test_mask_last_asks_for_the_newest_item_alone(tokenizer: ItemTokenizer, side: Any) -> None:
    """The question of recommendation is the newest position; another one in its place never trains it."""
    collator = DataCollatorForMaskedItems(tokenizer, mask_last_probability=1.0, padding_side=side)
    batch = collator([{"input_ids": [3, 4, 5]}, {"input_ids": [6]}, {"input_ids": [7, 8, 2]}])
    left = side == "left"
    assert batch["input_ids"].tolist() == [[3, 4, 1], [0, 0, 1] if left else [1, 0, 0], [7, 1, 2]]
    ignored = -100
    single = [ignored, ignored, 6] if left else [6, ignored, ignored]
    assert batch["labels"].tolist() == [[ignored, ignored, 5], single, [ignored, 8, ignored]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1] if left else [1, 0, 0], [1, 1, 1]]


def test_share_of_rows_with_only_the_last_masked(tokenizer: ItemTokenizer) -> None:
    """A share applied to positions rather than rows would hardly ever ask about the newest alone."""
    collator = DataCollatorForMaskedItems(tokenizer, mlm_probability=1.0, mask_last_probability=0.25, seed=0)
    labels = collator([{"input_ids": [3, 4, 5]}] * 2000)["labels"]
    assert ((labels != -100).sum(dim=-1) == 1).float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_equal_seeds_give_equal_batches(tokenizer: ItemTokenizer) -> None:
    """A run that cannot be repeated cannot be compared; masks that depend on the batches before change on a resume."""
    features = _features()

    def draw(seed: int | None) -> list[torch.Tensor]:
        collator = DataCollatorForMaskedItems(tokenizer, random_replace_prob=0.0, seed=seed)
        return [collator(rows)["labels"] for rows in (features, features[::-1], features)]

    state = torch.random.get_rng_state()
    first, second, other = draw(1), draw(1), draw(2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1].flip(0))  # another order, as in another epoch
    assert not torch.equal(first[0], other[0])
    torch.manual_seed(5)
    third = draw(None)
    torch.manual_seed(5)
    assert torch.equal(third[0], draw(None)[0])


def test_masked_rows_are_cut_to_the_newest(tokenizer: ItemTokenizer) -> None:
    """The latest items of a long history are those that count."""
    collator = DataCollatorForMaskedItems(tokenizer, mask_last_probability=1.0, max_length=2)
    batch = collator([{"input_ids": [3, 4, 5, 6]}])
    assert (batch["input_ids"].tolist(), batch["labels"].tolist()) == ([[5, 1]], [[-100, 6]])


@pytest.mark.parametrize("row", [[], [2, 2]])
def test_a_history_without_an_item_is_an_error(tokenizer: ItemTokenizer, row: list[int]) -> None:
    """A row without a label trains nothing, and nobody would know how many there are."""
    with pytest.raises(ValueError, match="without an item"):
        DataCollatorForMaskedItems(tokenizer)([{"input_ids": [3]}, {"input_ids": row}])


@pytest.mark.parametrize(
    "wrong",
    [
        {"mlm_probability": 0.0},
        {"mlm_probability": 1.5},
        {"mask_last_probability": -0.1},
        {"mask_replace_prob": 0.8, "random_replace_prob": 0.3},
        {"max_length": 0},
    ],
    ids=str,
)
def test_masked_collator_refuses_wrong_values(tokenizer: ItemTokenizer, wrong: dict[str, Any]) -> None:
    """A chance above 1 masks everything and says nothing."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DataCollatorForMaskedItems(tokenizer, **wrong)


@pytest.mark.parametrize("side", ["left", "right"])
def test_evaluation_of_the_masked_model(tokenizer: ItemTokenizer, side: Any) -> None:
    """The [MASK] must follow the newest item, count in `max_length`, and carry the only label."""
    collator = DataCollatorForNextItem(tokenizer, "masked", max_length=3, padding_side=side)
    features = [
        {"input_ids": [3, 4, 5, 6], "target": 7},
        {"input_ids": [8], "target": 2},
        {"input_ids": [], "target": 9},
    ]
    batch = {name: value.tolist() for name, value in collator(features).items()}
    i = -100
    left = side == "left"
    assert batch == {
        "input_ids": [[5, 6, 1], [0, 8, 1] if left else [8, 1, 0], [0, 0, 1] if left else [1, 0, 0]],
        "attention_mask": [[1, 1, 1], [0, 1, 1] if left else [1, 1, 0], [0, 0, 1] if left else [1, 0, 0]],
        "labels": [[i, i, 7], [i, i, 2] if left else [i, 2, i], [i, i, 9] if left else [9, i, i]],
        "seen_ids": [[3, 4, 5, 6], [0, 0, 0, 8], [0, 0, 0, 0]],
    }


def test_evaluation_of_the_causal_model(tokenizer: ItemTokenizer) -> None:
    """A causal model answers at its newest item; an empty history has to be asked somehow too."""
    collator = DataCollatorForNextItem(tokenizer, "causal", max_length=2)
    features = [{"input_ids": [3, 4, 5], "target": 7}, {"input_ids": [], "target": 9}]
    assert {name: value.tolist() for name, value in collator(features).items()} == {
        "input_ids": [[4, 5], [0, 2]],
        "attention_mask": [[1, 1], [0, 1]],
        "labels": [[-100, 7], [-100, 9]],
        "seen_ids": [[3, 4, 5], [0, 0, 0]],
    }


def test_recommendation_has_no_labels(tokenizer: ItemTokenizer) -> None:
    """A label where nothing is known would be counted as a hit or a miss."""
    batch = DataCollatorForNextItem(tokenizer)([{"input_ids": [3, 4]}])
    assert set(batch) == {"input_ids", "attention_mask", "seen_ids"}
    assert batch["input_ids"].tolist() == [[3, 4, 1]]


def test_causal_training_labels_are_one_step_on(tokenizer: ItemTokenizer) -> None:
    """A label at its own position is copied, a label two steps on is another task; the newest ones are kept."""
    collator = DataCollatorForNextItem(tokenizer, "causal", max_length=3, train=True)
    batch = collator([{"input_ids": [3, 4, 5, 6, 7]}, {"input_ids": [8, 9]}])
    assert batch["input_ids"].tolist() == [[4, 5, 6], [0, 0, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch["labels"].tolist() == [[5, 6, 7], [-100, -100, 9]]
    with pytest.raises(ValueError, match="fewer than 2"):
        collator([{"input_ids": [3]}])


def test_causal_training_never_asks_for_a_special_token(tokenizer: ItemTokenizer) -> None:
    """The score of [UNK] is minus infinity, so a single such label makes the loss infinite."""
    batch = DataCollatorForNextItem(tokenizer, "causal", train=True)([{"input_ids": [3, 2, 5]}])
    assert batch["input_ids"].tolist() == [[3, 2]]
    assert batch["labels"].tolist() == [[-100, 5]]


def test_next_item_collator_refuses_wrong_values(tokenizer: ItemTokenizer) -> None:
    """A wrong objective would silently ask in the other model's way."""
    with pytest.raises(ValueError, match="`objective`"):
        DataCollatorForNextItem(tokenizer, "next")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="DataCollatorForMaskedItems"):
        DataCollatorForNextItem(tokenizer, "masked", train=True)
    with pytest.raises(ValueError, match="`max_length`"):
        DataCollatorForNextItem(tokenizer, max_length=0)


def test_a_blend_gets_the_history_as_it_is(tokenizer: ItemTokenizer) -> None:
    """A [MASK] or an [UNK] would be one item too many to its tables."""
    batch = DataCollatorForNextItem(tokenizer, "blend")([{"input_ids": [3, 4]}, {"input_ids": []}])
    assert batch["input_ids"].tolist() == [[3, 4], [0, 0]]
    assert batch["seen_ids"].tolist() == [[3, 4], [0, 0]]


def test_the_objective_is_found_in_subclasses_and_in_wraps() -> None:
    """A causal model asked as a masked one answers at a token it never saw, and its scores look like scores."""

    class Mine(Bert4RecForCausalLM):
        pass

    config = Bert4RecConfig(vocab_size=5, hidden_size=8)
    masked, causal = Bert4RecForMaskedLM(config), Mine(config)
    assert (objective_of(masked), objective_of(causal)) == ("masked", "causal")
    assert objective_of(torch.nn.parallel.DataParallel(causal)) == "causal"
    network = {"name": "n", "kind": "network", "weight": 1.0, "architecture": "Bert4RecForMaskedLM"}
    assert (
        objective_of(Blend(BlendConfig(vocab_size=5, components=[{**network, "config": config.to_dict()}]))) == "blend"
    )
    with pytest.raises(TypeError, match="found Bert4RecModel"):
        objective_of(Bert4RecModel(config))


def test_the_objective_of_an_adapter_from_disk(tmp_path: Any) -> None:
    """An adapter hides the class of its model."""
    peft = pytest.importorskip("peft")
    model = Bert4RecForCausalLM(Bert4RecConfig(vocab_size=5, hidden_size=8))
    model.save_pretrained(tmp_path / "base")
    peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query_key_value"])).save_pretrained(tmp_path)
    base = Bert4RecForCausalLM.from_pretrained(tmp_path / "base")
    assert objective_of(peft.PeftModel.from_pretrained(base, tmp_path)) == "causal"
