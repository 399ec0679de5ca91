"""The temporal protocol and repeated consumption, from the log to the recommendations."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from transformers import pipeline

from hfrec import load_checkpoint, load_interactions, recommend
from hfrec.data.temporal import temporal_split
from hfrec_command import main

TINY = ["--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1", "--per_device_train_batch_size", "16"]
QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0", "--num_train_epochs", "2"]


def write(path: Path, *, repeats: bool, num_users: int = 50, seed: int = 0) -> Path:
    """Users who come one after the other, each with 8 interactions on 20 items; one item comes at the very end."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        start = user * 100
        items = (
            rng.choice(20, 8, replace=False)
            if not repeats
            else rng.choice(20, 3, replace=False)[[0, 1, 2] * 2 + [0, 1]]
        )
        times = np.sort(rng.integers(start, start + 1500, 8))
        rows += [(f"u{user:02d}", f"i{item}", int(time)) for item, time in zip(items, times, strict=True)]
    rows.append(("u00", "late", num_users * 100 + 1500))
    users, items, times = zip(*rows, strict=True)
    pyarrow.csv.write_csv(pa.table({"user_id": users, "item_id": items, "timestamp": times}), path)
    return path


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("logs")
    return {name: write(folder / f"{name}.csv", repeats=name == "again") for name in ("once", "again")}


def results_of(folder: Path, name: str = "all_results.json") -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / name).read_text())
    return results


def pretrain(log: Path, folder: Path, *words: str) -> dict[str, Any]:
    assert main(["pretrain", "--train_file", str(log), "--output_dir", str(folder), *TINY, *QUIET, *words]) == 0
    return results_of(folder)


def evaluate(folder: Path, log: Path, output: Path, *words: str) -> dict[str, Any]:
    command = ["evaluate", "--model_name_or_path", str(folder), "--test_file", str(log), "--output_dir", str(output)]
    assert main([*command, *words]) == 0
    return results_of(output, "eval_results.json")


@pytest.fixture(scope="module")
def temporal(logs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("temporal") / "run"
    pretrain(logs["once"], folder, "--objective", "masked", "--protocol", "temporal", "--test_ratio", "0.2")
    return folder


def test_a_temporal_run_says_what_it_was(temporal: Path, logs: dict[str, Path]) -> None:
    """A number under another protocol, taken for leave-one-out, would be compared with what it is no equal of."""
    results, split = results_of(temporal), temporal_split(load_interactions(logs["once"]), test_ratio=0.2)
    test = results["test"]
    assert results["split"]["strategy"] == "temporal" and results["split"]["leakage"]["is_clean"]
    assert results["split"]["leakage"]["future_train_share"] == 0.0
    assert results["protocol"]["test_ratio"] == 0.2
    assert str(split.report.test_start) in test["protocol"]["split"]
    assert results["sizes"]["interactions"] == len(split.train)
    assert test["n_users"] == len(split.test_targets)
    known = set(split.history.table["user_id"].to_pylist())
    newcomers = [user for user in split.test_targets.table["user_id"].to_pylist() if user not in known]
    assert test["n_new_users"] == len(newcomers) > 0 and test["n_left_out"] == 0
    assert test["n_new_items"] == test["n_unknown_targets"] == 1
    card = (temporal / "README.md").read_text()
    assert f"| Newcomers | {len(newcomers)} users without a history, 1 targets with an item" in card
    assert "dataset_config" not in card and "config: temporal" in card
    assert f"the first interaction of each user from {split.report.test_start} on" in card


def test_evaluate_takes_the_split_of_the_training(
    temporal: Path, logs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default share of another command would test on what was trained on."""
    again = evaluate(temporal, logs["once"], tmp_path / "again", "--protocol", "temporal")
    printed = capsys.readouterr()
    first = results_of(temporal)["test"]
    assert "The checkpoint's own starts are taken" in printed.err and "new users" in printed.out
    for part in ("protocol", "filter_seen", "unfiltered", "n_users", "n_new_users", "n_new_items", "baselines"):
        assert again[part] == first[part], part
    assert again["split"] == results_of(temporal)["split"]


def test_evaluate_warns_of_targets_that_were_trained_on(
    temporal: Path, logs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last item of a user who left early is in the training part of a temporal split."""
    evaluate(temporal, logs["once"], tmp_path / "other")
    assert "it has seen some of the targets" in caplog.text
    caplog.clear()
    split = results_of(temporal)["split"]
    later = ["--test_start", str(split["test_start"] + 50), "--validation_start", str(split["test_start"])]
    evaluate(temporal, logs["once"], tmp_path / "later", "--protocol", "temporal", *later)
    assert "it has seen some of the targets" not in caplog.text


def test_a_causal_model_leaves_newcomers_out(logs: dict[str, Path], temporal: Path, tmp_path: Path) -> None:
    """A rank from an empty history of a model that cannot read one is noise in the mean."""
    words = ["--protocol", "temporal", "--test_ratio", "0.2", "--objective", "causal"]
    test = pretrain(logs["once"], tmp_path / "causal", *words)["test"]
    everybody = results_of(temporal)["test"]["n_users"]
    assert test["n_left_out"] == test["n_new_users"] > 0
    assert test["n_users"] == everybody - test["n_left_out"]


def test_finetune_goes_by_time_too(temporal: Path, logs: dict[str, Path], tmp_path: Path) -> None:
    """A fine-tuned model tested on its own training would look like a success of transfer."""
    words = ["finetune", "--model_name_or_path", str(temporal), "--train_file", str(logs["once"]), *QUIET]
    start = results_of(temporal)["split"]["test_start"]
    flags = ["--protocol", "temporal", "--test_start", str(start)]
    assert main([*words, *flags, "--output_dir", str(tmp_path / "tuned")]) == 0
    results = results_of(tmp_path / "tuned")
    assert results["split"]["test_start"] == start and results["split"]["strategy"] == "temporal"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pretrain", "--train_file", "{log}", "--test_start", "9"], "need `--protocol temporal`"),
        (["pretrain", "--train_file", "{log}", "--protocol", "temporal", "--test_start", "1e9"], "the log runs from"),
        (
            ["pretrain", "--train_file", "{log}", "--protocol", "temporal", "--streaming", "true"],
            "is not for `--streaming`",
        ),
        (
            [
                "finetune",
                "--train_file",
                "{log}",
                "--model_name_or_path",
                "x",
                "--protocol",
                "temporal",
                "--task",
                "classification",
                "--label_file",
                "{log}",
                "--label_column",
                "item_id",
            ],
            "divides users and recommends nothing",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    words: list[str], expected: str, logs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag that is ignored gives another protocol than was asked for."""
    filled = [word.format(log=logs["once"]) for word in words]
    assert main([*filled, "--output_dir", str(tmp_path / "out")]) == 1
    assert expected in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def repeating(logs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repeating") / "run"
    pretrain(logs["again"], folder)
    return folder


def test_repeats_turn_the_filter_off(
    logs: dict[str, Path], repeating: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where users take items again, the filter makes misses of them, and early stopping watches the rest."""
    results = results_of(repeating)
    assert results["seen_items"] == {"filter_seen": False, "validation_repeat_share": 1.0, "threshold": 0.1}
    assert results["hyperparameters"]["metric_for_best_model"] == "unfiltered_ndcg@10"
    assert results["test"]["decided_by"] == "unfiltered"
    assert json.loads((repeating / "config.json").read_text())["filter_seen"] is False
    best = json.loads((Path(results["best_checkpoint"]) / "trainer_state.json").read_text())["best_metric"]
    assert best == results["validation"]["eval_unfiltered_ndcg@10"]
    assert "chosen by: not filtered; 100.0% of the validation targets repeat" in (repeating / "README.md").read_text()

    forced = pretrain(logs["again"], tmp_path / "forced", "--filter_seen", "true")
    printed = capsys.readouterr()
    assert "100 % of the validation targets repeat the history: seen items are filtered" in printed.err
    assert printed.out.split().index("filter_seen") < printed.out.split().index("unfiltered")
    assert forced["seen_items"]["filter_seen"] and forced["test"]["decided_by"] == "filter_seen"
    assert forced["hyperparameters"]["metric_for_best_model"] == "ndcg@10"

    evaluated = evaluate(repeating, logs["again"], tmp_path / "evaluated")
    printed = capsys.readouterr()
    assert evaluated["decided_by"] == "unfiltered" and {"filter_seen", "unfiltered"} <= set(evaluated)
    assert printed.out.split().index("unfiltered") < printed.out.split().index("filter_seen")
    other = evaluate(repeating, logs["again"], tmp_path / "filtered", "--filter_seen", "true")
    assert other["decided_by"] == "filter_seen" and other["unfiltered"] == evaluated["unfiltered"]


def test_without_repeats_nothing_changes(logs: dict[str, Path], tmp_path: Path) -> None:
    """Most published figures are of logs without repeats: they must stay comparable."""
    results = pretrain(logs["once"], tmp_path / "run")
    assert results["seen_items"]["filter_seen"] and results["seen_items"]["validation_repeat_share"] == 0.0
    assert results["test"]["decided_by"] == "filter_seen"
    assert results["hyperparameters"]["metric_for_best_model"] == "ndcg@10"


def test_every_way_to_recommend_does_as_the_checkpoint_says(
    logs: dict[str, Path], repeating: Path, tmp_path: Path
) -> None:
    """One way that filters where the others do not recommends something else than was measured."""
    model, tokenizer = load_checkpoint(repeating)
    histories = [["i1", "i2", "i3"], ["i4"]]
    everything = len(tokenizer) - 3
    kept = recommend(model, tokenizer, histories, everything, filter_seen=False)
    assert recommend(model, tokenizer, histories, everything, filter_seen=None) == kept
    assert [len(row) for row in recommend(model, tokenizer, histories, everything)] == [everything - 3, everything - 1]
    recommender = pipeline("recommendation", model=str(repeating), device=-1)
    assert [len(row) for row in recommender(histories, top_k=everything)] == [everything, everything]
    assert len(recommender(histories, top_k=everything, filter_seen=True)[0]) == everything - 3

    words = ["recommend", "--model_name_or_path", str(repeating), "--history_file", str(logs["again"])]
    words += ["--unknown_items", "drop", "--top_k", str(everything)]
    lengths = []
    for flags in ([], ["--filter_seen", "true"]):
        output = tmp_path / f"{len(flags)}.csv"
        assert main([*words, *flags, "--output_file", str(output)]) == 0
        lengths.append(pyarrow.csv.read_csv(output).num_rows)
    assert lengths[0] == 50 * everything and lengths[1] < lengths[0]


def test_an_export_does_as_the_checkpoint_says(
    repeating: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service has no config of the model: its own settings must say it."""
    pytest.importorskip("onnxscript")
    module = import_module("hfrec.inference.export")
    monkeypatch.setattr(module, "_write_graph", lambda _, path: path.write_bytes(b""))  # other tests run graphs
    found = {"histories": 1, "same_items": 1.0, "max_score_difference": 0.0}
    monkeypatch.setattr(module, "_check", lambda *_: found)
    assert main(["export", "--model_name_or_path", str(repeating), "--output_dir", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "recommender.json").read_text())["filter_seen"] is False


def test_a_refresh_goes_on_as_the_old_model(logs: dict[str, Path], repeating: Path, tmp_path: Path) -> None:
    """A verdict on ranks without repeats would judge what nobody is shown."""
    words = ["refresh", "--model_name_or_path", str(repeating), "--train_file", str(logs["again"]), *QUIET]
    words += ["--test_start", "5000", "--refresh_start", "2000", "--min_cohort", "1000"]
    reports = {}
    for choice in ("auto", "true"):
        main([*words, "--filter_seen", choice, "--output_dir", str(tmp_path / choice)])
        reports[choice] = results_of(tmp_path / choice, "refresh_report.json")
        config = json.loads((tmp_path / choice / "config.json").read_text())
        assert config["filter_seen"] == (choice == "true")
    assert "ranks with items" in reports["auto"]["rule"] and "ranks without items" in reports["true"]["rule"]
