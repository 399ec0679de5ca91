"""From finished runs to a comparison, and the line that each run ends with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfrec.evaluation.metrics import metric_values
from hfrec.evaluation.user_ranks import RANKS_FILE, UserRanks
from hfrec_command import main


@pytest.fixture(scope="module")
def evaluated(checkpoint: Path, log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "evaluated"
    words = ["evaluate", "--model_name_or_path", str(checkpoint), "--test_file", str(log_file)]
    assert main([*words, "--output_dir", str(folder)]) == 0
    return folder


def test_kept_ranks_are_those_of_the_results(checkpoint: Path, evaluated: Path) -> None:
    """Ranks of another order, protocol or model than the table shows."""
    results = json.loads((evaluated / "eval_results.json").read_text())
    ranks = UserRanks.load(evaluated)
    for name, row in {"model": results, **results["baselines"]}.items():
        for setting in ("filter_seen", "unfiltered"):
            mean = metric_values(ranks.ranks[name][setting], "ndcg@10").mean()
            assert mean == pytest.approx(row[setting]["ndcg@10"])
    assert len(ranks.user_ids) == results["n_users"] == len(set(ranks.user_ids))
    trained = UserRanks.load(checkpoint)
    assert trained.about == ranks.about and trained.item_ids == ranks.item_ids
    assert np.array_equal(trained.ranks["model"]["filter_seen"], ranks.ranks["model"]["filter_seen"])


def test_targets_are_each_users_last_item(evaluated: Path, log_file: Path) -> None:
    """Ranks beside another user's target."""
    import pyarrow.csv

    table = pyarrow.csv.read_csv(log_file)
    last: dict[str, tuple[float, str]] = {}
    for user, item, time in zip(*(table[name].to_pylist() for name in ("user_id", "item_id", "timestamp"))):  # noqa: B905
        if str(user) not in last or time >= last[str(user)][0]:
            last[str(user)] = (time, str(item))
    ranks = UserRanks.load(evaluated)
    assert list(ranks.item_ids) == [last[user][1] for user in ranks.user_ids]


def test_compare_prints_and_writes(
    checkpoint: Path, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run against its own evaluation differs in nothing: any other number pairs the wrong users."""
    output = tmp_path / "compare.json"
    words = [f"trained={checkpoint},{checkpoint}", str(evaluated), "--n_bootstrap", "50"]
    assert main(["compare", *words, "--output_file", str(output)]) == 0
    compared = json.loads(output.read_text())
    assert {row["difference"] for found in compared["comparisons"].values() for row in found} == {0.0}
    assert len(compared["arms"]["trained"]["runs"]) == 2
    printed = capsys.readouterr().out
    assert f"trained − {evaluated}" in printed and "Holm" in printed
    assert main(["compare", str(evaluated), "--n_bootstrap", "50", "--output_file", str(output)]) == 0
    arms = list(json.loads(output.read_text())["arms"])
    assert arms[0] == "model" and {"popularity", "markov", "item_knn", "ease"} <= set(arms)
    assert main(["compare", str(tmp_path), "--output_file", str(tmp_path / "none.json")]) == 1
    assert "has no test_ranks.parquet" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()


def test_runs_end_with_the_verdict(
    checkpoint: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model below its baselines looks like a success in a table of numbers."""
    words = ["evaluate", "--model_name_or_path", str(checkpoint), "--test_file", str(log_file)]
    assert main([*words, "--output_dir", str(tmp_path / "evaluated")]) == 0
    results = json.loads((tmp_path / "evaluated" / "eval_results.json").read_text())
    found = results["verdict"]
    assert capsys.readouterr().out.splitlines()[-1] == found["text"]
    setting = results["decided_by"]
    best = max(row[setting]["ndcg@10"] for row in results["baselines"].values())
    assert found["difference"] == pytest.approx(results[setting]["ndcg@10"] - best)
    words = ["finetune", "--model_name_or_path", str(checkpoint), "--train_file", str(log_file), "--output_dir"]
    words += [str(tmp_path / "tuned"), "--num_train_epochs", "1", "--disable_tqdm", "true"]
    assert main([*words, "--early_stopping_patience", "0"]) == 0
    tuned = json.loads((tmp_path / "tuned" / "all_results.json").read_text())["test"]["verdict"]
    assert capsys.readouterr().out.splitlines()[-1] == tuned["text"]
    assert tuned["text"] in (tmp_path / "tuned" / "README.md").read_text()
    assert (tmp_path / "tuned" / RANKS_FILE).exists()


def test_categories_give_diversity_and_calibration(
    checkpoint: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Categories of the neighbour's row would measure other items; here all items share one, or each has its own."""
    import shutil

    folder = shutil.copytree(checkpoint, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint-*"))
    (folder / "sha256.json").unlink()  # the change of the items is meant
    items = pq.read_table(folder / "items.parquet")
    found = {}
    for name, values in {"same": ["a"] * len(items), "own": [f"c{place}" for place in range(len(items))]}.items():
        pq.write_table(items.append_column("genres", pa.array(values)), folder / "items.parquet")
        words = ["evaluate", "--model_name_or_path", str(folder), "--test_file", str(log_file)]
        words += ["--category_column", "genres", "--output_dir", str(tmp_path / name)]
        assert main(words) == 0
        found[name] = json.loads((tmp_path / name / "eval_results.json").read_text())["filter_seen"]
    assert found["same"]["diversity@10"] == 0.0 and found["own"]["diversity@10"] == 1.0
    assert found["same"]["calibration@10"] == pytest.approx(0.0)
    assert found["own"]["calibration@10"] == pytest.approx(np.log(100.0))  # no unseen item has a seen one's category
    assert {"gini@10", "novelty@10", "novelty@10_ci", "popularity_lift@10", "coverage@10"} <= set(found["own"])
    assert main([*words[:-4], "--category_column", "shop", "--output_dir", str(tmp_path / "none")]) == 1
    assert "no column 'shop'" in capsys.readouterr().err
