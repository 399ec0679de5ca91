"""`hfrec refresh` from a log and a checkpoint to a report, a verdict and an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow.csv
import pytest

from hfrec import load_checkpoint, synthetic_tables
from hfrec_command import main

TINY = ["--num_train_epochs", "1", "--per_device_train_batch_size", "16", "--n_bootstrap", "50"]
QUIET = ["--disable_tqdm", "true"]


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A log that goes on after the checkpoint's, with a new item in its new period; and its times as flags."""
    log, _ = synthetic_tables(num_users=60, num_items=30, num_groups=4, min_length=5, max_length=14)
    rows = log.select(["user_id", "item_id", "timestamp"]).to_pylist()
    times = sorted(row["timestamp"] for row in rows)
    refresh, test = times[len(times) // 2], times[3 * len(times) // 4]
    for row in rows[:]:
        if refresh <= row["timestamp"] < test and len(rows) % 3:
            rows.append({**row, "item_id": "brand-new"})
    path = tmp_path_factory.mktemp("newer") / "log.csv"
    pyarrow.csv.write_csv(pyarrow.Table.from_pylist(rows), path)
    return path, ["--refresh_start", str(refresh), "--test_start", str(test)]


def refresh(checkpoint: Path, log: Path, output: Path, *words: str) -> int:
    start = ["refresh", "--model_name_or_path", str(checkpoint), "--train_file", str(log)]
    return main([*start, "--output_dir", str(output), *words, *TINY, *QUIET])


def test_report_and_exit_code(checkpoint: Path, newer: tuple[Path, list[str]], tmp_path: Path) -> None:
    """A scheduler acts on the exit code alone: it must be the report's, and 3 when a loss is past the rule."""
    log, times = newer
    output = tmp_path / "fresh"
    code = refresh(checkpoint, log, output, *times)
    report = json.loads((output / "refresh_report.json").read_text())
    assert code == report["exit_code"] == (3 if report["objections"] else 0)
    old = report["filter_seen"]["old items"]
    assert old["n"] > 0 and report["filter_seen"]["all"]["n"] >= old["n"]
    assert "| old users |" in (output / "refresh_report.md").read_text()
    _, tokenizer = load_checkpoint(output)
    assert "brand-new" in tokenizer.get_vocab()
    assert refresh(checkpoint, log, output, *times) == 1  # a finished refresh is never written over


@pytest.mark.parametrize(("ranks", "code", "verdict"), [((1, 501), 3, "keep the old model"), ((2, 1), 0, "promote")])
def test_verdict(
    ranks: tuple[int, int],
    code: int,
    verdict: str,
    checkpoint: Path,
    newer: tuple[Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A verdict that cannot say no, or that takes the new model for the old one, is none."""
    from hfrec.commands import refresh as command

    ranked, left = command.rank_next, list(ranks)  # the old model's rank, then the new one's

    def fixed(*arguments: object) -> dict[str, object]:
        rank = left.pop(0)
        return {name: values * 0 + rank for name, values in ranked(*arguments).items()}  # type: ignore[arg-type]

    pushed: list[tuple[str, str]] = []

    def push(folder: str, repo_id: str, **settings: object) -> object:
        assert settings["tag"] == "monday" and (Path(folder) / "refresh_report.json").exists()
        pushed.append((folder, repo_id))
        return SimpleNamespace(commit_url="there")

    monkeypatch.setattr(command, "rank_next", fixed)
    monkeypatch.setattr(command, "push_to_hub", push)
    words = ["--push_to_hub", "true", "--hub_model_id", "me/films", "--tag", "monday"]
    assert refresh(checkpoint, newer[0], tmp_path / "out", *newer[1], *words) == code
    assert pushed == ([(str(tmp_path / "out"), "me/films")] if code == 0 else [])
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"Verdict: {verdict}" in card and "| the model before |" in card
    assert f"Verdict: {verdict}" in (tmp_path / "out" / "refresh_report.md").read_text()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--test_start", "yesterday"], "`--test_start` must be a number like the log's times"),
        (["--test_start", "99999999999999"], "No interaction lies in the next period"),
        (["--test_start", "-5"], "must be in the order `--refresh_start` < `--test_start`"),
        ([], "required: --test_start"),
        (["--test_start", "5", "--tag", "v2"], "`--tag` is that of a pushed commit"),
        (["--test_start", "5", "--max_loss", "2"], "`--max_loss` must be in [0, 1], found 2.0"),
    ],
)
def test_refusals(
    words: list[str],
    reason: str,
    checkpoint: Path,
    newer: tuple[Path, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wrong dates must be one line before the training, and leave no folder behind."""
    assert refresh(checkpoint, newer[0], tmp_path / "out", *words) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("hfrec refresh: ") and reason in line
    assert not (tmp_path / "out").exists()


def test_checkpoint_of_another_catalogue(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that knows none of the items would be trained as if it were pretrained."""
    log = tmp_path / "other.csv"
    log.write_text("user_id,item_id,timestamp\n" + "".join(f"u{n % 3},other{n % 5},{n}\n" for n in range(30)))
    assert refresh(checkpoint, log, tmp_path / "out", "--test_start", "20") == 1
    assert "expected a shared catalogue, found none shared" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()
