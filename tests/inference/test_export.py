"""The exported graph recommends what PyTorch does; what cannot be exported is refused and leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    Bert4RecModel,
    ItemTokenizer,
    OnnxRecommender,
    load_checkpoint,
    recommend,
)
from hfrec.inference.export import export_onnx as export_onnx_
from hfrec.inference.export import list_difference

export_onnx: Callable[..., Any] = export_onnx_  # bad input is part of the tests
MODULE = import_module("hfrec.inference.export")
ROTARY = Path(__file__).parents[1] / "fixtures" / "masked-post-rotary-factorised"
ITEMS = [f"item {number}" for number in range(40)]
TWINS = [5, 9, 40]  # token ids of equal score
PROGRAM = """
import importlib.abc, json, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hfrec", "torch", "transformers", "pyarrow"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Absent())
from onnx_recommender import OnnxRecommender

print(json.dumps(OnnxRecommender.from_pretrained(".").recommend([["item 1", "item 2"]], top_k=3)))
"""


def build(model_class: Any, **shape: Any) -> tuple[Any, ItemTokenizer]:
    torch.manual_seed(0)
    settings = {"vocab_size": 43, "hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 6, **shape}
    model = model_class(Bert4RecConfig(**settings, initializer_range=0.5))
    with torch.no_grad():
        model.decoder.weight[TWINS] = model.decoder.weight[TWINS[0]].clone()
        model.decoder.bias.copy_(torch.randn(43)).index_fill_(0, torch.tensor(TWINS), 3.0)
    titles = pa.table({"item_id": ITEMS, "title": [f"Title of {item}" for item in ITEMS]})
    return model.eval(), ItemTokenizer.from_items(ITEMS, metadata=titles)


class Exported:
    """A model, its export and what the export returned."""

    def __init__(self, model: Any, tokenizer: ItemTokenizer, folder: Path, **kwargs: Any) -> None:
        self.model, self.tokenizer, self.folder = model, tokenizer, folder
        self.results = export_onnx(model, tokenizer, folder, **kwargs)
        self.graph: Any = OnnxRecommender.from_pretrained(folder)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(*build(Bert4RecForMaskedLM), tmp_path_factory.mktemp("masked") / "new", int8=True)


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The other half of the settings: post-norm, rotary positions, factorised embeddings."""
    shape = {"norm_position": "post", "position_embedding_type": "rotary", "embedding_size": 8}
    return Exported(*build(Bert4RecForCausalLM, **shape), tmp_path_factory.mktemp("causal"), top_k=30)


@pytest.fixture(scope="module")
def rotary(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A masked one of these settings, with more than one layer or head."""
    model, tokenizer = load_checkpoint(ROTARY)
    return Exported(model, tokenizer, tmp_path_factory.mktemp("rotary"))


def assert_same(found: list[list[dict[str, Any]]], expected: list[list[dict[str, Any]]]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        plain = [[{**item, "score": 0.0} for item in items] for items in (ours, theirs)]
        assert plain[0] == plain[1]
        np.testing.assert_allclose([i["score"] for i in ours], [i["score"] for i in theirs], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("kind", ["masked", "causal", pytest.param("rotary", marks=pytest.mark.slow)])
def test_lists_are_those_of_the_model(kind: str, filter_seen: bool, request: pytest.FixtureRequest) -> None:
    """A graph that pads, cuts, masks or filters otherwise recommends other items, and nobody looks at a graph."""
    exported: Exported = request.getfixturevalue(kind)
    rng = np.random.default_rng(0)
    items = exported.tokenizer.items["item_id"].to_pylist()
    longest = exported.model.config.max_position_embeddings
    sizes = [1, 2, longest - 1, longest, longest + 1, 3 * longest, *([] if kind == "causal" else [0])]
    histories = [rng.choice(items, size).tolist() for size in sizes]
    top_k = min(8, len(items))
    expected = recommend(exported.model, exported.tokenizer, histories, top_k, filter_seen=filter_seen)
    for batch_size in (1, 3, 100):
        found = exported.graph.recommend(histories, top_k, filter_seen=filter_seen, batch_size=batch_size)
        assert_same(found, expected)


def test_equal_scores_are_ordered_by_token_id(masked: Exported) -> None:
    """A tie that falls otherwise on another machine gives a list that nobody can repeat."""
    twins = [ITEMS[token - 3] for token in TWINS]
    (found,) = masked.graph.recommend([["item 20"]], 40)
    assert [item["item_id"] for item in found if item["item_id"] in twins] == twins


def test_fewer_items_are_the_first_of_more(masked: Exported) -> None:
    """The runtime finds a few and many of the best in different ways; a tie at the end must fall alike in both."""
    (most,) = masked.graph.recommend([["item 20"]], 40)
    for top_k in (1, 2, 5, 12, 30):
        assert masked.graph.recommend([["item 20"]], top_k) == [most[:top_k]]
    inputs = {"input_ids": np.array([[23]]), "filter_seen": np.array(True), "excluded": np.zeros(1, np.int64)}
    assert masked.graph.session.run(["scores"], {**inputs, "top_k": np.array([5])})[0].shape == (1, 5)


def test_a_user_with_few_unseen_items_gets_a_shorter_list(masked: Exported) -> None:
    """Filling the list up would bring back seen items or special tokens."""
    short, none, full = masked.graph.recommend([ITEMS[:37], ITEMS, ["item 0"]], 5)
    assert {item["item_id"] for item in short} == set(ITEMS[37:]) and none == []
    assert [item["rank"] for item in short] == [1, 2, 3] and len(full) == 5


def test_results_and_settings(masked: Exported, causal: Exported) -> None:
    """Figures that are returned but not kept cannot be looked up when a service misbehaves."""
    assert masked.results["histories"] == 256 and masked.results["same_items"] == 1.0
    assert masked.results["max_score_difference"] < 1e-4
    assert json.loads((masked.folder / "export_results.json").read_text()) == masked.results
    assert (masked.graph.top_k, causal.graph.top_k) == (40, 30)
    assert "int8_overlap@10" not in causal.results and not (causal.folder / "model_int8.onnx").exists()


def test_int8_loads_and_is_close(masked: Exported) -> None:
    """A quantised graph that was never run may not even load."""
    graph = OnnxRecommender.from_pretrained(masked.folder, int8=True)
    assert [len(items) for items in graph.recommend([["item 1"], ["item 2", "item 3"]])] == [10, 10]
    assert 0.6 < masked.results["int8_overlap@10"] <= 1.0
    assert (masked.folder / "model_int8.onnx").stat().st_size < (masked.folder / "model.onnx").stat().st_size


def test_a_session_has_no_memory_pool_of_its_own(masked: Exported) -> None:
    """A service that swaps models would grow with every session: pools are given back in pieces."""
    assert masked.graph.session.get_session_options().enable_cpu_mem_arena is False


def test_the_folder_serves_without_torch_and_hfrec(masked: Exported) -> None:
    """A service that needs two gigabytes of torch to run a graph has gained nothing."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=masked.folder, env=environment, check=False
    )
    assert process.returncode == 0, process.stderr
    expected = recommend(masked.model, masked.tokenizer, [["item 1", "item 2"]], 3)
    assert_same(json.loads(process.stdout), expected)
    assert "title" in expected[0][0]


def test_policies_for_unknown_items(masked: Exported) -> None:
    """An unknown id that is read in another way than by the model shifts everybody's list."""
    histories: list[list[Any]] = [["new", "item 1", "new"], ["item 2"], ["new"], [7]]
    for policy in ("drop", "unk"):
        expected = recommend(masked.model, masked.tokenizer, histories, unknown_items=policy)  # type: ignore[arg-type]
        assert_same(masked.graph.recommend(histories, unknown_items=policy), expected)
    assert masked.graph.recommend([]) == []


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (ValueError, "`top_k` must be between 1 and the 30 items that the graph gives, found 31", {"top_k": 31}),
        (ValueError, "`top_k` must be between 1", {"top_k": 0}),
        (ValueError, "`batch_size` must be at least 1", {"batch_size": 0}),
        (ValueError, "`unknown_items` must be", {"unknown_items": "ignore"}),
        (TypeError, "one list of item ids a user, found 'item 1' as history 0", {"histories": ["item 1"]}),
        (ValueError, "found 'new' in history 1", {"histories": [["item 1"], ["item 2", "new"]]}),
        (ValueError, "found a null in history 0", {"histories": [[None]], "unknown_items": "drop"}),
        (ValueError, "found history 1 empty", {"histories": [["item 1"], ["new"]], "unknown_items": "drop"}),
    ],
)
def test_bad_requests_are_named(
    causal: Exported, error: type[Exception], message: str, settings: dict[str, Any]
) -> None:
    """Each of these would give a list of something."""
    with pytest.raises(error, match=message):
        causal.graph.recommend(**{"histories": [["item 1"]], **settings})


def test_a_graph_that_is_not_there(causal: Exported) -> None:
    """Falling back to the whole graph would hide that no quantised one was exported."""
    with pytest.raises(FileNotFoundError, match=r"no model_int8\.onnx .* `hfrec export --int8 true`"):
        OnnxRecommender.from_pretrained(causal.folder, int8=True)


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (ValueError, "`top_k` must be between 1 and the 40 items of the model, found 41", {"top_k": 41}),
        (ValueError, "`top_k` must be between 1", {"top_k": 0}),
        (TypeError, "found Bert4RecModel", {"model": Bert4RecModel(Bert4RecConfig(vocab_size=43))}),
        (ValueError, "the model's 43 tokens, found 5", {"tokenizer": ItemTokenizer.from_items(["a", "b"])}),
        (ValueError, "found torch.float16 on cpu", {"model": build(Bert4RecForMaskedLM)[0].half()}),
        (ValueError, "found 'new' in history 0", {"histories": [["new"]]}),
        (ValueError, "`histories` is empty", {"histories": []}),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(
    error: type[Exception], message: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """A half-written folder would be served."""
    model, tokenizer = build(Bert4RecForMaskedLM)
    with pytest.raises(error, match=message):
        export_onnx(**{"model": model, "tokenizer": tokenizer, "output_dir": tmp_path / "new", **settings})
    assert not (tmp_path / "new").exists()


def test_attention_is_written_out_in_the_graph_alone(causal: Exported) -> None:
    """Of torch's fused attention the exporter makes a longer graph; a model left with eager attention is slower."""
    onnx = pytest.importorskip("onnx")
    operations = {node.op_type for node in onnx.load(str(causal.folder / "model.onnx")).graph.node}
    assert "Softmax" in operations and "IsNaN" not in operations
    assert causal.model.config._attn_implementation == "sdpa"


def test_a_graph_that_differs_is_not_kept(masked: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that recommends other items than the model must not reach a service."""
    monkeypatch.setattr(MODULE, "TOLERANCE", -1.0)
    monkeypatch.setattr(MODULE, "_write_graph", lambda _, path: shutil.copy(masked.folder / "model.onnx", path))
    model, tokenizer = build(Bert4RecForMaskedLM)
    model.train()
    with pytest.raises(ValueError, match="other recommendations than the model: history 0 differs"):
        export_onnx(model, tokenizer, tmp_path / "new")
    assert not (tmp_path / "new").exists() and model.training


def test_a_folder_in_use(tmp_path: Path) -> None:
    """A graph beside the items of another model gives wrong names."""
    (tmp_path / "model.onnx").write_text("")
    with pytest.raises(ValueError, match=r"is in use: .* found model\.onnx"):
        export_onnx(*build(Bert4RecForMaskedLM), tmp_path)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`No module named 'onnxscript'` from deep inside torch does not say what to install."""
    monkeypatch.setattr(MODULE, "LIBRARIES", ("onnx", "no_such_library"))
    with pytest.raises(ImportError, match=r"needs no_such_library: `pip install 'hfrec\[onnx\]'`"):
        export_onnx(*build(Bert4RecForMaskedLM), tmp_path / "new")


def test_the_difference_of_two_lists() -> None:
    """A swap among equals is no difference; another item in the list, a lost one or another score is."""
    a, b, c = ({"item_id": name, "score": score} for name, score in (("a", 20.0), ("b", 20.0), ("c", 0.5)))
    assert list_difference([b, a, c], [a, b, c]) == 0.0
    assert list_difference([a, c, b], [a, b, c]) == pytest.approx(19.5)
    assert list_difference([a, b], [a, {**c, "score": 10.0}]) == pytest.approx(1.0)
    assert list_difference([a], [{**a, "score": 22.0}]) == pytest.approx(2 / 22)
    assert list_difference([a], [a, b]) == float("inf") and list_difference([], []) == 0.0


def test_an_export_says_nothing_of_its_machine_and_comes_out_again(masked: Exported, tmp_path: Path) -> None:
    """Stack traces with the paths of the exporter's machine went to whoever got the graph, other ones each time."""
    again = Exported(*build(Bert4RecForMaskedLM), tmp_path / "again", int8=True)
    for graph in ("model.onnx", "model_int8.onnx"):
        content = (masked.folder / graph).read_bytes()
        assert content == (again.folder / graph).read_bytes()
        for word in (b"File ", b".py", str(Path(torch.__file__).parent).encode()):
            assert word not in content


def test_a_graph_of_another_export_is_refused(masked: Exported, causal: Exported, tmp_path: Path) -> None:
    """Item ids of one catalogue under the tokens of another give a list of wrong names."""
    folder = Path(shutil.copytree(masked.folder, tmp_path / "copy"))
    for graph, int8 in (("model.onnx", False), ("model_int8.onnx", True)):
        shutil.copy(causal.folder / "model.onnx", folder / graph)
        with pytest.raises(ValueError, match=f"{graph} is not of the export that recommender.json"):
            OnnxRecommender.from_pretrained(folder, int8=int8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"titles": ["Title"] * 39}, "titles"),
        ({"item_ids": ["item 1"] * 40}, "item_ids"),
        ({"item_ids": "item 1"}, "item_ids"),
        ({"top_k": True}, "top_k"),
        ({"objective": None}, "objective"),
        ({"counts": [0.5] * 40}, "counts"),
        ({"metadata": {"genres": [1] * 40}}, "metadata genres"),
        ({"sha256": []}, "sha256"),
    ],
)
def test_settings_that_are_not_those_of_the_export_are_refused(
    change: dict[str, Any], reason: str, causal: Exported, tmp_path: Path
) -> None:
    """Two ids that changed their places are two wrong names in every list."""
    folder = Path(shutil.copytree(causal.folder, tmp_path / "copy"))
    path = folder / "recommender.json"
    settings = json.loads(path.read_text())
    ids = settings["item_ids"]
    for content in ({**settings, "item_ids": [ids[1], ids[0], *ids[2:]]}, {**settings, **change}):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="is not as it was exported"):
            OnnxRecommender.from_pretrained(folder)
    (folder / "sha256.json").unlink()  # as exports of earlier versions are
    with pytest.raises(ValueError, match=f"is damaged: .*{reason}.* cannot be used"):
        OnnxRecommender.from_pretrained(folder)
    for text in ("[]", "{", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"recommender\.json"):
            OnnxRecommender.from_pretrained(folder)
