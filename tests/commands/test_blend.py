"""`hfrec baseline` and `hfrec blend`: one folder that every command takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import pipeline

from hfrec import Blend, OnnxRecommender, load_checkpoint, recommend
from hfrec.commands import blend
from hfrec_command import main

METHODS = ["popularity", "recent_popularity", "markov", "item_knn", "ease"]


@pytest.fixture(scope="module")
def blended(checkpoint: Path, log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blend") / "blended"
    words = ["--model_name_or_path", str(checkpoint), "--train_file", str(log_file), "--output_dir", str(folder)]
    assert main(["blend", *words]) == 0
    return folder


@pytest.fixture(scope="module")
def classical(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blend") / "classical"
    assert main(["baseline", "--train_file", str(log_file), "--output_dir", str(folder)]) == 0
    return folder


def results_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "all_results.json").read_text())
    return found


def test_the_parts_stand_beside_the_blend(blended: Path, classical: Path, checkpoint: Path) -> None:
    """A blend that hides what it is made of cannot be judged."""
    results = results_of(blended)
    assert set(results["test"]["baselines"]) == {checkpoint.name, "markov", "item_knn", "ease", "popularity"}
    assert set(results_of(classical)["test"]["baselines"]) == set(METHODS)
    fit, components = results["blend"]["fit"], results["blend"]["components"]
    weights = {part["name"]: part["weight"] for part in components}
    config = json.loads((blended / "config.json").read_text())
    assert weights == {part["name"]: part["weight"] for part in config["components"]}
    fitted = {name: weight for name, weight in zip(fit["parts"], fit["weights"], strict=True) if weight}
    assert {name: weight / sum(weights.values()) for name, weight in weights.items()} == pytest.approx(fitted)
    found = results["blend"]["minus_best_part"]["filter_seen"]
    best = results["test"]["baselines"][fit["best_part"]]["filter_seen"]["ndcg@10"]
    assert found["difference"] == pytest.approx(results["test"]["filter_seen"]["ndcg@10"] - best)
    assert found["difference_ci"][0] <= found["difference"] <= found["difference_ci"][1]
    assert results["blend"]["request"]["milliseconds"] > 0


def test_a_network_alone_in_the_table_is_the_one_that_was_trained(blended: Path, checkpoint: Path) -> None:
    """A network that the blend feeds otherwise than its own training did would be measured as a worse one."""
    trained = results_of(checkpoint)["test"]
    for setting in ("filter_seen", "unfiltered"):
        found = results_of(blended)["test"]["baselines"][checkpoint.name][setting]
        assert found["ndcg@10"] == pytest.approx(trained[setting]["ndcg@10"], abs=1e-6)


@pytest.mark.parametrize("name", ["blended", "classical"])
def test_evaluate_repeats_its_numbers(
    name: str, log_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What was saved is what was measured."""
    folder = request.getfixturevalue(name)
    words = ["--model_name_or_path", str(folder), "--test_file", str(log_file), "--output_dir", str(tmp_path)]
    assert main(["evaluate", *words]) == 0
    found = json.loads((tmp_path / "eval_results.json").read_text())
    for setting in ("filter_seen", "unfiltered"):
        expected = results_of(folder)["test"][setting]
        for metric in ("ndcg@10", "hit_rate@20", "ndcg@10_ci"):
            assert found[setting][metric] == pytest.approx(expected[metric])


@pytest.mark.parametrize("method", METHODS)
def test_one_method_is_a_blend_of_one(method: str, log_file: Path, tmp_path: Path) -> None:
    """Its ranks are those of the baseline that stands beside every model."""
    words = ["--method", method, "--train_file", str(log_file), "--output_dir", str(tmp_path / "out")]
    assert main(["baseline", *words]) == 0
    model, _ = load_checkpoint(tmp_path / "out")
    assert isinstance(model, Blend) and [part["name"] for part in model.config.components or []] == [method]
    words = ["--model_name_or_path", str(tmp_path / "out"), "--test_file", str(log_file)]
    assert main(["evaluate", *words, "--output_dir", str(tmp_path / "evaluation")]) == 0
    found = json.loads((tmp_path / "evaluation" / "eval_results.json").read_text())
    baseline = found["baselines"][method]["filter_seen"]["ndcg@10"]
    # Items of score 0 are tied in a baseline, and ties never help; the order of popularity helps some of them.
    assert found["filter_seen"]["ndcg@10"] == pytest.approx(baseline, abs=0.02)


def test_it_recommends_in_every_way(blended: Path, log_file: Path, tmp_path: Path) -> None:
    """A folder that one command reads and another refuses is no checkpoint."""
    model, tokenizer = load_checkpoint(blended)
    history = tokenizer.items["item_id"].to_pylist()[:4]
    (expected,) = recommend(model, tokenizer, [history], 5, filter_seen=None)
    assert pipeline("recommendation", model=str(blended))(history, top_k=5) == expected
    words = ["--history_file", str(log_file), "--output_file", str(tmp_path / "out.csv"), "--unknown_items", "drop"]
    assert main(["recommend", "--model_name_or_path", str(blended), *words]) == 0
    assert main(["export", "--model_name_or_path", str(blended), "--output_dir", str(tmp_path / "exported")]) == 0
    graph = OnnxRecommender.from_pretrained(tmp_path / "exported")
    for row in (history, history * 9, []):
        (found,), (expected,) = graph.recommend([row], 5), recommend(model, tokenizer, [row], 5, filter_seen=None)
        assert [item["item_id"] for item in found] == [item["item_id"] for item in expected]
        np.testing.assert_allclose([i["score"] for i in found], [i["score"] for i in expected], rtol=1e-4)


def test_the_card_says_what_it_is(classical: Path, blended: Path) -> None:
    """A card that calls a table of neighbours a transformer is not read twice."""
    card = (classical / "README.md").read_text()
    assert "AutoModel.from_pretrained(name, trust_remote_code=True)" in card and "| Score | " in card
    assert "ms on one thread" in card and "random weights" not in card
    for part in results_of(blended)["blend"]["components"]:
        assert f"{part['weight']:.3g} × {part['name']}" in (blended / "README.md").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["finetune", "--train_file", "{log}"],
        ["items", "remove", "--items_file", "{log}"],
        ["refresh", "--train_file", "{log}", "--refresh_start", "1", "--test_start", "2"],
        ["blend", "--train_file", "{log}"],
    ],
)
def test_what_no_blend_can_is_refused_in_a_line(
    words: list[str], classical: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trainer would find no loss, and the tables would keep the old items."""
    filled = [word.format(log=log_file) for word in words]
    flags = ["--model_name_or_path", str(classical), "--output_dir", str(tmp_path / "out")]
    assert main([*filled, *flags]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "is a blend" in line and "`hfrec baseline`" in line
    assert not (tmp_path / "out").exists()


def test_int8_and_an_index_are_refused(
    classical: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables of integers do not shrink, and no vector stands for a history."""
    words = ["--model_name_or_path", str(classical)]
    assert main(["export", *words, "--int8", "true", "--output_dir", str(tmp_path / "out")]) == 1
    assert "`--int8` is not for a blend" in capsys.readouterr().err
    pytest.importorskip("faiss")
    words += ["--history_file", str(log_file), "--output_file", str(tmp_path / "out.csv"), "--approximate", "true"]
    assert main(["recommend", *words]) == 1
    assert "`--model_name_or_path` is a blend" in capsys.readouterr().err


def test_checkpoints_of_other_logs_are_refused(
    checkpoint: Path,
    log_file: Path,
    write_log: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Scores of other items would be added up, or items would silently be missing."""
    other_log = write_log("other.csv", num_users=30, num_items=50, min_length=5)
    other = tmp_path / "other"
    tiny = ["--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1", "--num_train_epochs", "1"]
    assert main(["pretrain", "--train_file", str(other_log), "--output_dir", str(other), *tiny]) == 0
    output = ["--output_dir", str(tmp_path / "out")]
    words = ["blend", "--train_file", str(log_file), "--model_name_or_path", str(checkpoint), str(other), *output]
    assert main(words) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(checkpoint) in line and str(other) in line and "different items" in line
    assert main(["blend", "--train_file", str(other_log), "--model_name_or_path", str(checkpoint), *output]) == 1
    assert "training items of this log: expected all" in capsys.readouterr().err
    words = ["blend", "--train_file", str(log_file), "--model_name_or_path", str(checkpoint), "--methods", "forest"]
    assert main([*words, *output]) == 1
    assert "`--methods` must be of popularity" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class _Reached(Exception):
    """Everything before the fit was right."""


def test_results_are_those_of_the_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look at a checkpoint's results was at another revision than its weights."""

    def read(path: str, *, revision: str | None = None) -> dict[str, Any]:
        return {"final": {}, "data": {"train_fingerprint": "f"}} if revision == "v1" else {}

    def reached(*parts: Any, **options: Any) -> None:
        raise _Reached

    (tmp_path / "shipped" / "validation").mkdir(parents=True)
    (tmp_path / "shipped" / "validation" / "config.json").write_text("{}")
    log = SimpleNamespace(fingerprint="f")
    monkeypatch.setattr("hfrec.hub.checkpoint.read_results", read)
    monkeypatch.setattr("hfrec.training.rows.load_split", lambda *parts: (log, SimpleNamespace(train=None)))
    monkeypatch.setattr("hfrec.blending.run.fit_parts", reached)
    monkeypatch.setattr(blend, "load_networks", lambda *parts: ({}, None))
    monkeypatch.setattr(blend, "check_catalogue", lambda *parts: None)
    words = ["log.csv", "--model_name_or_path", str(tmp_path / "shipped"), "--revision", "v1", "--final", "true"]
    with pytest.raises(_Reached):
        blend.main(blend.parse([*words, "--output_dir", str(tmp_path / "out")]))


def test_two_networks_and_no_method(checkpoint: Path, log_file: Path, tmp_path: Path) -> None:
    """Names of parts must stay apart, and networks alone are a blend too."""
    words = ["--model_name_or_path", str(checkpoint), str(checkpoint), "--methods", "none"]
    assert main(["blend", *words, "--train_file", str(log_file), "--output_dir", str(tmp_path / "out")]) == 0
    names = results_of(tmp_path / "out")["blend"]["fit"]["parts"]
    assert names == [checkpoint.name, f"{checkpoint.name}_network"]
