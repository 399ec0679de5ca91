"""A share of each user: sizes by hand, order kept, and what a run makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from hfrec import leakage_audit, load_interactions, split_by_user_ratio
from hfrec_command import main


def log(**users: str) -> object:
    rows = [(user, item, time) for user, items in users.items() for time, item in enumerate(items)]
    columns = zip(*rows, strict=True)
    return load_interactions(pa.table(dict(zip(("user_id", "item_id", "timestamp"), map(list, columns), strict=True))))


def parts(split: object, user: str) -> list[str]:
    tables = [getattr(split, name).table.to_pylist() for name in ("train", "validation", "test")]
    return ["".join(row["item_id"] for row in table if row["user_id"] == user) for table in tables]


def test_the_parts_of_each_user_are_the_newest_shares() -> None:
    """A share of the whole log would take everything of those who came last and nothing of the others."""
    split = split_by_user_ratio(log(a="abcdefghij", b="abc", c="ab", d="a"), validation_ratio=0.2, test_ratio=0.3)
    assert parts(split, "a") == ["abcde", "fg", "hij"]
    assert parts(split, "b") == ["a", "b", "c"], "one each where there are three"
    assert parts(split, "c") == ["a", "", "b"] and parts(split, "d") == ["a", "", ""]
    assert leakage_audit(split).is_clean
    assert split.report.users_without_test == 1 and split.report.users_without_validation == 2


def test_each_user_has_one_target_with_a_history_that_is_known() -> None:
    """Later items of the test would be ranked by a history that is test itself."""
    split = split_by_user_ratio(log(a="abcdefghij", b="abc"), validation_ratio=0.2, test_ratio=0.3)
    assert split.test_targets.table["item_id"].to_pylist() == ["h", "c"]
    assert split.validation_targets.table["item_id"].to_pylist() == ["f", "b"]
    assert len(split.history) == 7 + 2


@pytest.mark.parametrize("ratios", [(0.5, 0.5), (0.0, 0.1), (0.1, -0.1)])
def test_shares_that_leave_nothing_are_refused(ratios: tuple[float, float]) -> None:
    """Nothing would be trained on, or nothing tested."""
    with pytest.raises(ValueError, match="must be above 0 and below 1 together"):
        split_by_user_ratio(log(a="abc"), validation_ratio=ratios[0], test_ratio=ratios[1])


def test_a_run_and_its_evaluation_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Other shares at evaluation test on what was trained on."""
    words = ["--dataset", "synthetic", "--method", "markov", "--protocol", "user_ratio", "--test_ratio", "0.3"]
    assert main(["baseline", *words, "--output_dir", str(tmp_path / "out")]) == 0
    assert main(["prepare", "--dataset", "synthetic", "--output_dir", str(tmp_path / "log")]) == 0
    words = [
        "--model_name_or_path",
        str(tmp_path / "out"),
        "--test_file",
        str(tmp_path / "log" / "interactions.parquet"),
    ]
    words += ["--protocol", "user_ratio"]
    assert main(["evaluate", *words, "--output_dir", str(tmp_path / "e")]) == 0
    found = json.loads((tmp_path / "e" / "eval_results.json").read_text())
    trained = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert found["filter_seen"]["ndcg@10"] == pytest.approx(trained["test"]["filter_seen"]["ndcg@10"])
    assert found["split"]["test_ratio"] == 0.3
    assert "of each user the newest 0.3 of the interactions are the test" in found["protocol"]["split"]
    assert main(["evaluate", *words, "--test_ratio", "0.5", "--output_dir", str(tmp_path / "f")]) == 0
    assert "has seen some of the targets" in caplog.text
    assert main(["evaluate", *words, "--test_start", "5", "--output_dir", str(tmp_path / "g")]) == 1
    assert "`--test_start` need `--protocol temporal`" in capsys.readouterr().err
