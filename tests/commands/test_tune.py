"""`hfrec tune`: a search that goes on, keeps what was given, prunes, reads no test item, and can be made again."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pyarrow.csv
import pytest
import yaml

from hfrec.training.tuning import OWN, STUDY_NAME, VALUES
from hfrec_command import main

FIXED = ["--objective", "masked", "--hidden_size", "16", "--num_hidden_layers", "1", "--trial_steps", "12"]


def _tune(log: Path, folder: Path, trials: int, *words: str) -> int:
    numbers = ["--n_trials", str(trials), "--n_jobs", "1"]
    return main(["tune", "--train_file", str(log), "--output_dir", str(folder), *numbers, *FIXED, *words])


def _study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=STUDY_NAME, storage=f"sqlite:///{folder / 'study.db'}")


def _values(folder: Path) -> list[float | None]:
    return [trial.value for trial in _study(folder).trials]


@pytest.fixture(scope="module")
def tuned(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune") / "tuned"
    assert _tune(log_file, folder, 3) == 0
    return folder


def test_the_first_trial_is_the_recipes_own_and_given_flags_are_kept(tuned: Path) -> None:
    """Without the recipe's own value nobody knows what the search has gained."""
    trials = _study(tuned).trials
    assert len(trials) == 3 and [bool(trial.user_attrs.get(OWN)) for trial in trials] == [True, False, False]
    own = trials[0].user_attrs[VALUES]
    assert own["learning_rate"] == 2e-3 and own["per_device_train_batch_size"] == 64
    assert not {"objective", "hidden_size", "num_hidden_layers"} & set(own)
    assert len({json.dumps(trial.user_attrs[VALUES]) for trial in trials}) == 3
    assert not list(tuned.glob("*checkpoint*"))


def test_several_sources_are_searched_by_their_mean(write_log: Callable[..., Path], tmp_path: Path) -> None:
    """Trials that ranked all sources' items together would choose other settings than the run needs."""
    logs = [str(write_log(f"{name}.csv", num_users=30, num_items=20, seed=n)) for n, name in enumerate(("a", "b"))]
    folder = tmp_path / "tuned"
    words = ["--output_dir", str(folder), "--n_trials", "2", "--n_jobs", "1", "--source_temperature", "2", *FIXED]
    assert main(["tune", "--train_file", *logs, *words]) == 0
    settings = yaml.safe_load((folder / "best.yaml").read_text())
    assert settings["train_file"] == logs and settings["source_temperature"] == 2
    assert main(["pretrain", str(folder / "best.yaml")]) == 0
    results = json.loads((folder / "best" / "all_results.json").read_text())
    metric = results["hyperparameters"]["metric_for_best_model"].removeprefix("eval_")
    assert results["validation"][f"eval_{metric}"] == _study(folder).best_value
    each = [results["validation"][f"eval_{name}/{metric}"] for name in ("a", "b")]
    assert _study(folder).best_value == pytest.approx(sum(each) / 2)


def test_best_yaml_trains_to_the_value_of_its_trial(tuned: Path) -> None:
    """Settings that left something out would train another model than the one that was measured."""
    settings = yaml.safe_load((tuned / "best.yaml").read_text())
    assert settings["hidden_size"] == 16 and settings["max_steps"] == 12
    with (tuned / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert max(float(row["value"]) for row in rows) == _study(tuned).best_value
    assert main(["pretrain", str(tuned / "best.yaml")]) == 0
    results = json.loads((tuned / "best" / "all_results.json").read_text())
    metric = results["hyperparameters"]["metric_for_best_model"]
    assert results["validation"][f"eval_{metric.removeprefix('eval_')}"] == _study(tuned).best_value


def test_the_same_command_goes_on(tuned: Path, log_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A search that starts anew loses hours; a trial that was cut off is none, and is not repeated as if it were."""
    study, before = _study(tuned), _values(tuned)
    study.ask()  # as a command that was killed leaves it
    assert _tune(log_file, tuned, 4) == 0
    trials = _study(tuned).trials
    assert [trial.value for trial in trials[:3]] == before
    assert [trial.state.name for trial in trials[3:]] == ["FAIL", "COMPLETE"]
    assert trials[4].user_attrs[VALUES] not in [trial.user_attrs.get(VALUES) for trial in trials[:4]]
    capsys.readouterr()
    assert _tune(log_file, tuned, 4) == 0
    assert len(_study(tuned).trials) == 5
    assert "larger `--n_trials`" in capsys.readouterr().out


def test_another_search_does_not_go_on_with_the_study(
    tuned: Path, log_file: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values of two logs or two spaces in one study have no best one."""
    other = tmp_path / "other.csv"
    lines = log_file.read_text().splitlines(keepends=True)
    other.write_text("".join(line for line in lines if '"u1"' not in line))
    assert len(other.read_text()) < len(log_file.read_text())
    before = len(_study(tuned).trials)
    refused: list[tuple[Path, Path, tuple[str, ...], str]] = [
        (other, tuned, (), "another log:"),
        (log_file, tuned, ("--weight_decay", "0.1"), "`--weight_decay`: None, now 0.1"),
        (log_file, checkpoint, (), "is in use"),
    ]
    for log, folder, words, text in refused:
        assert _tune(log, folder, 9, *words) == 1
        assert text in capsys.readouterr().err
    assert len(_study(tuned).trials) == before


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _without_pages(content: bytes) -> bytes:
    return content[:4096] + bytes(len(content) - 4096)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut, "malformed"),
        (_without_pages, "malformed"),
        (lambda content: b"no database, " * 1000, "not a database"),
        (lambda content: b"", "it is empty"),
    ],
    ids=["cut", "zeros", "text", "empty"],
)
def test_a_damaged_study_is_told_in_one_line(
    damage: Callable[[bytes], bytes],
    reason: str,
    tuned: Path,
    log_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A page of SQL says nothing; an empty file that is taken for a new study loses a night of trials in silence."""
    folder = shutil.copytree(tuned, tmp_path / "tuned")
    content = damage((folder / "study.db").read_bytes())
    (folder / "study.db").write_bytes(content)
    capsys.readouterr()
    assert _tune(log_file, folder, 9) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("hfrec tune: ") and "study.db cannot be read" in line and reason in line
    assert "another `--output_dir`" in line and "SELECT" not in line
    assert (folder / "study.db").read_bytes() == content


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE study_directions SET direction = 'MINIMIZE'", "does not look for the largest value"),
        ("DELETE FROM studies", "Record does not exist"),
        ("DELETE FROM trial_values", "trial 0 ended with None for a value"),
        ("UPDATE trial_values SET value = 'x'", "'x'"),
        ("UPDATE trial_params SET distribution_json = '{'", "Expecting property name"),
    ],
)
def test_tables_that_were_changed_are_told_too(
    statement: str, reason: str, tuned: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study without its row was a traceback; one that looks for the smallest value gave the worst settings."""
    folder = shutil.copytree(tuned, tmp_path / "tuned")
    with closing(sqlite3.connect(folder / "study.db")) as database:
        database.execute(statement)
        database.commit()
    capsys.readouterr()
    assert _tune(log_file, folder, 9) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("hfrec tune: ") and "study.db cannot be read" in line and reason in line


def test_the_test_part_decides_nothing(
    tuned: Path, log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings chosen with the test items make every figure on them too good."""
    table = pyarrow.csv.read_csv(log_file)
    rows: list[dict[str, Any]] = table.to_pylist()
    last = {row["user_id"]: index for index, row in enumerate(rows)}
    for index in last.values():
        rows[index]["item_id"] = "i0"
    changed = tmp_path / "log.csv"
    pyarrow.csv.write_csv(pyarrow.Table.from_pylist(rows), changed)
    monkeypatch.setattr("hfrec.training.rows.rank_checkpoint", pytest.fail)
    assert _tune(changed, tmp_path / "tuned", 3) == 0
    assert _values(tmp_path / "tuned") == _values(tuned)[:3]


def test_a_hopeless_trial_is_pruned_and_one_that_diverges_ends_nothing(log_file: Path, tmp_path: Path) -> None:
    """A hopeless trial that runs to its end takes the time of better ones; NaN must not end the search."""
    words = ("--item_start", "random", "--max_length", "10", "--mask_last_probability", "0.1")
    assert _tune(log_file, tmp_path, 4, *words) == 0
    good = _study(tmp_path).best_trial.params
    for rate in (1e-12, 1e300):
        _study(tmp_path).enqueue_trial({**good, "learning_rate": rate}, skip_if_exists=False)
    with pytest.warns(UserWarning, match="out of range"):
        assert _tune(log_file, tmp_path, 6, *words) == 0
    trials = _study(tmp_path).trials
    assert [trial.state.name for trial in trials[4:]] == ["PRUNED", "FAIL"]
    assert max(trials[4].intermediate_values) < 12
    assert "PRUNED" not in [trial.state.name for trial in trials[:4]]


@pytest.mark.slow
def test_several_processes_share_one_study(log_file: Path, tmp_path: Path) -> None:
    """Processes that draw alike, or lose trials to each other's locks, make a search no faster."""
    assert _tune(log_file, tmp_path / "alone", 1) == 0
    assert _tune(log_file, tmp_path / "together", 4, "--n_jobs", "2") == 0
    trials = _study(tmp_path / "together").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert len({json.dumps(trial.user_attrs[VALUES]) for trial in trials}) == 4
    assert trials[0].value == _values(tmp_path / "alone")[0]


@pytest.mark.slow
def test_an_interrupted_search_leaves_no_process_and_goes_on(log_file: Path, tmp_path: Path) -> None:
    """Trials that train on after Ctrl-C hold the cores and write into a study that nobody owns."""
    code = "import sys; from hfrec_command import main; sys.exit(main(sys.argv[1:]))"
    words = ["tune", "--train_file", str(log_file), "--output_dir", str(tmp_path), "--n_jobs", "2"]
    command = [sys.executable, "-c", code, *words, "--trial_steps", "400"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("trial 0"):
            assert process.poll() is None
        process.terminate()
        _, errors = process.communicate(timeout=60)  # its pipes close when the last of its processes ends
    assert process.returncode == 128 + 15
    assert errors.strip() == f"hfrec tune: interrupted. The same command goes on with the study in {tmp_path}."
    assert _study(tmp_path).best_value > 0


def test_no_trial_starts_after_the_timeout(log_file: Path, tmp_path: Path) -> None:
    """Without an end, `--timeout` promises what it does not keep; the recipe's own settings are tried all the same."""
    assert _tune(log_file, tmp_path, 50, "--timeout", "0.001s") == 0
    assert len(_study(tmp_path).trials) == 1


@pytest.mark.parametrize(
    "words, text",
    [
        (["--num_train_epochs", "3"], "shorten them with `--trial_steps`"),
        (["--time_budget", "5m"], "shorten them with `--trial_steps`"),
        (["--recipe", "none"], "`--recipe` none"),
        (["--n_trials", "0"], "`--n_trials` must be at least 1"),
        (["--timeout", "soon"], "`--timeout` must be a duration"),
        (["--metric_for_best_model", "loss", "--greater_is_better", "false"], "`--greater_is_better` must be true"),
        (["--rowwise_embeddings", "true"], "`--rowwise_embeddings` is not for `hfrec tune`"),
    ],
)
def test_what_a_search_cannot_follow_is_refused(
    words: list[str], text: str, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag that is dropped in silence makes a study of something else."""
    folder = tmp_path / "tuned"
    assert main(["tune", "--train_file", str(log_file), "--output_dir", str(folder), *words]) == 1
    assert text in capsys.readouterr().err
    assert not folder.exists()


def test_without_optuna_the_extra_is_named(
    log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback does not say what to install."""
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert _tune(log_file, tmp_path / "tuned", 1) == 1
    assert "pip install 'hfrec[tune]'" in capsys.readouterr().err
