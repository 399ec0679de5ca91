"""A blend scores as its parts do when they are mixed by hand, on every path, and refuses what it cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file

from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    Blend,
    BlendConfig,
    EASEBaseline,
    ItemKNNBaseline,
    ItemTokenizer,
    MarkovBaseline,
    PopularityBaseline,
    load_checkpoint,
    recommend,
)
from hfrec.blending.parts import make_blend, reweighted
from hfrec.data.collators import DataCollatorForNextItem, objective_of
from hfrec.evaluation import rank_dataset
from hfrec.models.neighbours import NeighbourTable

VOCAB_SIZE = 43
WEIGHTS = [0.3, 0.4, 0.5, 0.6, 0.7, 0.1]
LENGTHS = [1, 2, 5, 6, 7, 30]
PROGRAM = """
import importlib.abc, json, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hfrec":
            raise ImportError("hfrec is not installed here")

sys.meta_path.insert(0, Absent())
import torch
from transformers import AutoModel

folder, copy = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
model.save_pretrained(copy)
again = AutoModel.from_pretrained(copy, trust_remote_code=True).eval()
with torch.no_grad():
    logits = [one(torch.tensor([[0, 3, 4], [5, 6, 7]])).logits[:, 0, 3:].tolist() for one in (model, again)]
print(json.dumps({"class": type(model).__name__, "logits": logits}))
"""


def sequences(seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCAB_SIZE, rng.integers(2, 12)).tolist() for _ in range(80)]


def network(model_class: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    config = Bert4RecConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=16,
        num_hidden_layers=1,
        max_position_embeddings=6,
        initializer_range=0.5,
        norm_position="post",
    )
    return model_class(config).eval()


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    rows = sequences()
    return {
        "causal": network(Bert4RecForCausalLM, 0),
        "masked": network(Bert4RecForMaskedLM, 1),
        "item_knn": ItemKNNBaseline(k=10, decay=0.5).fit(rows, VOCAB_SIZE),
        "ease": EASEBaseline(k=20, decay=1.0).fit(rows, VOCAB_SIZE),
        "markov": MarkovBaseline(k=10, smoothing=1.0).fit(rows, VOCAB_SIZE),
        "popularity": PopularityBaseline().fit(rows, VOCAB_SIZE),
    }


@pytest.fixture(scope="module")
def blend(parts: dict[str, Any]) -> Blend:
    return make_blend(parts, WEIGHTS, counts=parts["popularity"].counts)


@pytest.fixture(scope="module")
def tokenizer() -> ItemTokenizer:
    return ItemTokenizer.from_items([f"item {number}" for number in range(VOCAB_SIZE - 3)])


@pytest.fixture(scope="module")
def histories() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(3, VOCAB_SIZE, length).tolist() for length in LENGTHS]


@torch.no_grad()
def by_hand(parts: dict[str, Any], tokenizer: ItemTokenizer, histories: list[list[int]]) -> torch.Tensor:
    """Each part scores by its own code, and is scaled and weighted here."""
    total = np.zeros((len(histories), VOCAB_SIZE - 3))
    for weight, (name, part) in zip(WEIGHTS, parts.items(), strict=True):
        if name in ("causal", "masked"):
            batch = DataCollatorForNextItem(tokenizer, name, max_length=6)([{"input_ids": row} for row in histories])
            scores = part.score_items(part.encode_history(batch["input_ids"], batch["attention_mask"]))[:, 3:]
            values = scores.double().log_softmax(dim=1).numpy()
        elif name == "popularity":
            counts = part.counts[3:].astype(float)
            values = np.log((counts + 0.1 * counts.mean()) / (1.1 * counts.sum()))[None]
        else:
            scores = part.score(histories)[:, 3:].astype(float)
            if name == "ease":
                values = (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
            else:
                values = np.log(0.99 * scores / scores.sum(1, keepdims=True) + 0.01 / scores.shape[1])
        total += weight * values
    return torch.from_numpy(total).float()


def encode(blend: Blend, tokenizer: ItemTokenizer, histories: list[list[int]], side: Any = "left") -> torch.Tensor:
    collator = DataCollatorForNextItem(tokenizer, "blend", padding_side=side)
    batch = collator([{"input_ids": row} for row in histories])
    with torch.no_grad():
        return blend.encode_history(batch["input_ids"], batch["attention_mask"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_are_those_mixed_by_hand(
    side: str, blend: Blend, parts: dict[str, Any], tokenizer: ItemTokenizer, histories: list[list[int]]
) -> None:
    """A network that gets the wrong end of a history, or no [MASK], still gives scores that look like scores."""
    found = encode(blend, tokenizer, histories, side)
    assert (found[:, :3] == -torch.inf).all()
    torch.testing.assert_close(found[:, 3:], by_hand(parts, tokenizer, histories), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["item_knn", "ease", "markov"])
def test_a_table_scores_as_its_baseline(name: str, blend: Blend, parts: dict[str, Any]) -> None:
    """Rows, ages or the horizon of the newest items read otherwise give other recommendations than were tuned."""
    rng = np.random.default_rng(2)
    rows = [rng.integers(2, VOCAB_SIZE, 40).tolist() for _ in range(8)]  # [UNK] among them
    table = blend.components[list(parts).index(name)]
    tokens = torch.tensor(rows)
    found = table(tokens, torch.ones_like(tokens, dtype=torch.bool))[:, 3:]
    np.testing.assert_allclose(found.numpy(), parts[name].score(rows)[:, 3:], rtol=1e-4, atol=1e-5)


def test_a_table_is_the_same_in_pieces_and_padded(
    blend: Blend, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded by taking users apart, and a graph sums over padding: neither may change a score."""
    table: Any = blend.components[list(parts).index("ease")]
    tokens = torch.randint(0, VOCAB_SIZE, (7, 9), generator=torch.Generator().manual_seed(0))
    real = tokens > 0
    whole = table(tokens, real)
    torch.testing.assert_close(table._padded(tokens, real, torch.ones(9)), whole)
    monkeypatch.setattr("hfrec.models.neighbours.MAX_ENTRIES", 1)
    assert torch.equal(table(tokens, real), whole)


def test_ranks_hang_on_no_chunk_or_batch(
    blend: Blend, tokenizer: ItemTokenizer, histories: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A softmax over a slice of the catalogue would lift the items of small slices."""
    rows: Any = [{"input_ids": row, "target": 3 + 5 * place} for place, row in enumerate(histories)]
    collator = DataCollatorForNextItem(tokenizer, "blend")
    expected = rank_dataset(blend, rows, collator)
    monkeypatch.setattr("hfrec.models.modeling_blend.MAX_SCORES", 1)
    for item_chunk_size, batch_size in ((1, 2), (7, 1), (1000, 100)):
        found = rank_dataset(blend, rows, collator, item_chunk_size=item_chunk_size, batch_size=batch_size)
        assert all((found[name] == expected[name]).all() for name in expected)


def test_recommend_is_evaluate(blend: Blend, tokenizer: ItemTokenizer, histories: list[list[int]]) -> None:
    """What was measured is what is served."""
    rows: Any = [{"input_ids": row, "target": 3} for row in histories]
    ranked = rank_dataset(blend, rows, DataCollatorForNextItem(tokenizer, "blend"), top_k=5)["recommended"]
    found = recommend(blend, tokenizer, [tokenizer.decode_items(row) for row in histories], top_k=5)
    names = [[item["item_id"] for item in items] for items in found]
    assert names == [tokenizer.decode_items(row) for row in ranked]


def test_an_empty_history_gets_what_is_popular(parts: dict[str, Any], tokenizer: ItemTokenizer) -> None:
    """A table that says nothing must not put the items in the order of their ids."""
    counts = parts["popularity"].counts
    best = tokenizer.decode_items([int(counts.argmax())])
    (found,) = recommend(make_blend({"item_knn": parts["item_knn"]}, [1.0], counts=counts), tokenizer, [[]], top_k=1)
    assert [item["item_id"] for item in found] == best


def test_a_checkpoint_scores_as_what_was_saved(
    blend: Blend, tokenizer: ItemTokenizer, histories: list[list[int]], tmp_path: Path
) -> None:
    """Buffers that are initialised anew, or the untied head of a network inside, load without an error."""
    blend.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = load_checkpoint(tmp_path)
    assert torch.equal(encode(loaded, tokenizer, histories), encode(blend, tokenizer, histories))
    assert objective_of(loaded) == "blend"
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "components.0.network.decoder.weight" not in names  # it is the item embeddings


def test_it_loads_where_hfrec_is_not_installed(blend: Blend, tmp_path: Path) -> None:
    """A file that the remote code misses is missed by its readers alone."""
    blend.save_pretrained(tmp_path / "folder")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "folder"), str(tmp_path / "copy")]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    with torch.no_grad():
        expected = blend(torch.tensor([[0, 3, 4], [5, 6, 7]])).logits[:, 0, 3:]
    assert found["class"] == "Blend"
    for logits in found["logits"]:
        torch.testing.assert_close(torch.tensor(logits), expected)


def test_parts_without_weight_are_left_out(blend: Blend, tokenizer: ItemTokenizer, histories: list[list[int]]) -> None:
    """A part that is dropped must take no other's place."""
    mixed = reweighted(blend, [0.0, 0.0, 2.0, 0.0, 0.0, 1.0])
    assert [entry["name"] for entry in mixed.config.components or []] == ["item_knn", "popularity"]
    parts = blend.component_scores(torch.tensor([histories[2]]))
    torch.testing.assert_close(encode(mixed, tokenizer, [histories[2]])[:, 3:], 2.0 * parts[2] + parts[5])


def test_parts_of_another_vocabulary_are_refused(parts: dict[str, Any]) -> None:
    """Scores of other items would be added up."""
    other = PopularityBaseline().fit(sequences(), VOCAB_SIZE + 1)
    with pytest.raises(ValueError, match=r"same 44 tokens, found 43 in 'item_knn'"):
        make_blend({"popularity": other, "item_knn": parts["item_knn"]}, [1.0, 1.0], counts=other.counts)
    with pytest.raises(ValueError, match="at least one part, found none"):
        make_blend({}, [], counts=other.counts)


TABLE = {"name": "t", "kind": "neighbours", "weight": 1.0, "scale": "log_share", "decay": 0.5}
SIZES = {"num_neighbours": 3, "longest_row": 2}


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        ([], "found none"),
        ([{**TABLE, **SIZES}] * 2, "different names"),
        ([{**TABLE, **SIZES, "kind": "forest"}], "`kind` of component 't'"),
        ([{**TABLE, **SIZES, "weight": float("nan")}], "`weight` of component 't'"),
        ([{**TABLE, **SIZES, "weight": -1.0}], "`weight` of component 't'"),
        ([{**TABLE, **SIZES, "decay": 1.5}], "`decay` of component 't'"),
        ([{**TABLE, **SIZES, "scale": "plain"}], "`scale` of component 't'"),
        ([{**TABLE, **SIZES, "longest_row": 10**9}], "do not fit 10 tokens"),
        ([TABLE], "must have num_neighbours, longest_row"),
        (
            [{"name": "n", "kind": "network", "weight": 1.0, "architecture": "A", "config": {"vocab_size": 9}}],
            "same items",
        ),
    ],
)
def test_a_config_that_cannot_be_is_refused(components: Any, expected: str) -> None:
    """It would fail later, or score wrongly."""
    with pytest.raises(StrictDataclassError) as error:
        BlendConfig(vocab_size=10, components=components)
    assert expected in str(error.value.__cause__ or error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("components.2.ids", lambda t: t.fill_(VOCAB_SIZE)),
        ("components.2.offsets", lambda t: t.flip(0)),
        ("components.2.offsets", lambda t: t.index_fill(0, torch.tensor([43]), 10**12)),
    ],
)
def test_a_forged_table_is_refused(name: str, value: Any, blend: Blend, tokenizer: Any, tmp_path: Path) -> None:
    """Offsets of a stranger's file could point anywhere."""
    blend.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights[name] = value(weights[name].clone()).contiguous()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="neighbours of 'item_knn' do not fit"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [(2, "num_neighbours", 10**9), (0, "hidden_size", 10**6), (0, "max_position_embeddings", 10**9)],
)
def test_sizes_that_the_weights_have_not_are_refused(
    place: int, key: str, value: int, blend: Blend, tokenizer: ItemTokenizer, tmp_path: Path
) -> None:
    """A config may ask for more memory than there is, before the weights are looked at."""
    blend.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    component = config["components"][place]
    (component if key in component else component["config"])[key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"claims `{key}` = {value}"):
        load_checkpoint(tmp_path)


def test_a_table_by_hand() -> None:
    """decay 0 reads the newest item alone; 0 to the power of 0 is 1."""
    table = NeighbourTable(6, num_neighbours=2, longest_row=1, decay=0.0)
    table.fill(torch.tensor([0, 0, 0, 0, 1, 2, 2]), torch.tensor([5, 3]), torch.tensor([1.0, 2.0]))
    tokens = torch.tensor([[3, 4], [4, 3]])
    assert table(tokens, tokens > 0).tolist() == [[0.0, 0.0, 0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
