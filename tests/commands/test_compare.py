"""From finished runs to a comparison, and the line that each run ends with."""

from __future__ import annotations

import json
import shutil
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
    assert "trained − evaluated " in printed and "Holm" in printed and str(tmp_path) not in printed
    assert main(["compare", str(evaluated), "--n_bootstrap", "50", "--output_file", str(output)]) == 0
    arms = list(json.loads(output.read_text())["arms"])
    assert arms[0] == "model" and {"popularity", "markov", "item_knn", "ease"} <= set(arms)
    assert main(["compare", str(tmp_path), "--output_file", str(tmp_path / "none.json")]) == 1
    assert "has no test_ranks.parquet" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()


def _with(table: pa.Table, name: str, values: object) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


RANK = "rank/model/filter_seen"
DAMAGES: dict[str, tuple[object, str]] = {
    "cut": (lambda content: content[:-200], "damaged, or no file of ranks"),
    "text": (lambda content: b"no table", "damaged, or no file of ranks"),
    "of somebody else": (lambda table: table.replace_schema_metadata(None), "damaged, or no file of ranks"),
    "without a protocol": (lambda table: table.drop_columns([RANK]), "is no file of ranks"),
    "without a user": (lambda table: table.slice(0, 0), "found 0 rows"),
    "a rank that is missing": (lambda table: _with(table, RANK, [None, *[1] * (len(table) - 1)]), "without nulls"),
    "a rank below 0": (lambda table: _with(table, RANK, np.full(len(table), -1, np.int32)), "at least 0"),
    "ranks as texts": (lambda table: _with(table, RANK, ["1"] * len(table)), f"{RANK} string"),
    "a user twice": (lambda table: pa.concat_tables([table, table]), "several targets of a user"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_ranks_are_told(name: str, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rank that is missing became any number, and ranks of another run pass for those of this one."""
    change, reason = DAMAGES[name]
    assert callable(change)
    file = Path(shutil.copytree(evaluated, tmp_path / "run")) / RANKS_FILE
    if reason == "damaged, or no file of ranks" and name != "of somebody else":
        file.write_bytes(change(file.read_bytes()))
    else:
        pq.write_table(change(pq.read_table(file)), file)
    words = ["compare", str(file.parent), "--output_file", str(tmp_path / "compare.json"), "--n_bootstrap", "10"]
    for text in ("is not as it was written", reason):  # with the hashes of the run, and where somebody took them away
        assert main(words) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("hfrec compare: ") and text in line
        (file.parent / "sha256.json").unlink(missing_ok=True)
    assert not (tmp_path / "compare.json").exists()


def test_results_are_those_of_the_run(
    checkpoint: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another filter in `all_results.json` tests another log, and nothing tells."""
    folder = shutil.copytree(checkpoint, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint-*"))
    path = folder / "all_results.json"
    results = json.loads(path.read_text())
    results["settings"]["duplicates"] = "last"
    path.write_text(json.dumps(results))
    words = ["evaluate", str(folder), str(log_file), "--output_dir", str(tmp_path / "evaluated")]
    assert main(words) == 1
    assert "all_results.json damaged" in capsys.readouterr().err
    results["settings"] = results["split"] = None  # as nobody writes it, in a folder without hashes
    path.write_text(json.dumps(results))
    (folder / "sha256.json").unlink()
    assert main(words) == 1
    assert "all_results.json: expected an object as `settings`" in capsys.readouterr().err


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
