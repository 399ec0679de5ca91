"""An interrupted run goes on as the same run, to the bit, or not at all."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pytest
from safetensors.torch import load_file
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from hfrec.data.files import RUN_FILE, SEAL_FILE, fault_of
from hfrec.training.checkpoints import SealCheckpoint, last_whole_checkpoint
from hfrec_command import main

TINY = ["--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1", "--per_device_train_batch_size", "16"]
STEPS = ["--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "steps", "--eval_steps", "3"]
WORDS = ["pretrain", *TINY, *STEPS, "--disable_tqdm", "true", "--save_total_limit", "99"]


def run(source: Path, folder: Path, *words: str) -> int:
    return main([*WORDS, "--train_file", str(source), "--output_dir", str(folder), *words])


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def cut(whole: Path, folder: Path, last: int) -> None:
    """The folder as it was when the checkpoint had been written."""
    folder.mkdir()
    shutil.copy(whole / RUN_FILE, folder)
    for step in steps(whole):
        if step <= last:
            shutil.copytree(whole / f"checkpoint-{step}", folder / f"checkpoint-{step}")


def assert_same(one: Path, two: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert set(first) == set(second) and all(first[name].equal(second[name]) for name in first)
    assert steps(one) == steps(two)
    before, after = (json.loads((folder / "all_results.json").read_text()) for folder in (one, two))
    assert before["test"] == after["test"]
    assert Path(before["best_checkpoint"]).name == Path(after["best_checkpoint"]).name


@pytest.fixture(scope="module")
def sequences(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "sequences"
    words = ["prepare", "--train_file", str(log_file), "--layout", "sequences", "--output_dir", str(folder)]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def interrupted(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended; `cut` makes an interrupted one of it."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    assert run(log_file, folder, "--num_train_epochs", "2") == 0
    return folder


@pytest.mark.parametrize("kind", ["memory", "streaming"])
def test_early_stopping_goes_on_counting(kind: str, log_file: Path, sequences: Path, tmp_path: Path) -> None:
    """The counter began anew with each interruption: a run ended later than it would have, with another best model."""
    source, words = (sequences, ["--streaming", "true"]) if kind == "streaming" else (log_file, [])
    words += ["--num_train_epochs", "30", "--early_stopping_patience", "3", "--learning_rate", "0.01"]
    whole = tmp_path / "whole"
    assert run(source, whole, *words) == 0
    ended = steps(whole)
    assert len(ended) >= 4 and ended[-1] < 100
    for step in ended:
        folder = tmp_path / f"cut{step}"
        cut(whole, folder, step)
        assert run(source, folder, *words) == 0
        assert_same(whole, folder)


def test_a_run_whose_last_step_is_done_trains_no_further(log_file: Path, tmp_path: Path) -> None:
    """With `max_steps` inside an epoch, one step more than asked for was trained after an interruption at the end."""
    words = ["--max_steps", "9", "--early_stopping_patience", "0"]
    assert run(log_file, tmp_path / "whole", *words) == 0
    cut(tmp_path / "whole", tmp_path / "cut", 9)
    assert run(log_file, tmp_path / "cut", *words) == 0
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_another_log_is_no_resumption(
    interrupted: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights of one log went on under the fingerprint of the other where the vocabularies were of one size."""
    table = pyarrow.csv.read_csv(log_file)
    pyarrow.csv.write_csv(table.set_column(2, "timestamp", pyarrow.array(range(len(table), 0, -1))), tmp_path / "b.csv")
    cut(interrupted, tmp_path / "cut", 3)
    assert run(tmp_path / "b.csv", tmp_path / "cut", "--num_train_epochs", "2") == 1
    assert "another log" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "cut" / "all_results.json").exists()


def test_other_settings_are_no_resumption(
    interrupted: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run went on with the checkpoint's settings and told of the new ones in its results."""
    cut(interrupted, tmp_path / "cut", 3)
    for words, expected in (
        (
            ["--learning_rate", "0.5", "--seed", "7"],
            ["`--learning_rate` 0.002 there, 0.5 now", "`--seed` 42 there, 7 now"],
        ),
        (["--hidden_size", "32"], ["`--hidden_size` 16 there, 32 now"]),
        (["--mlm_probability", "0.5"], ["`--mlm_probability` 0.2 there, 0.5 now"]),
    ):
        assert run(log_file, tmp_path / "cut", "--num_train_epochs", "2", *words) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert all(text in line for text in expected)
    assert run(log_file, tmp_path / "cut", "--num_train_epochs", "3") == 1
    assert "`--num_train_epochs` 2.0 there, 3.0 now" in capsys.readouterr().err
    free = ["--save_total_limit", "98", "--logging_steps", "1", "--logging_strategy", "steps", "--run_name", "b"]
    assert run(log_file, tmp_path / "cut", "--num_train_epochs", "2", *free) == 0
    assert_same(interrupted, tmp_path / "cut")


def test_checkpoints_of_nobody_knows_what(
    interrupted: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its run file a checkpoint may be of anything; whoever knows names it."""
    cut(interrupted, tmp_path / "cut", 3)
    (tmp_path / "cut" / RUN_FILE).write_text('{"log": "a text", "training": null}')
    assert run(log_file, tmp_path / "cut", "--num_train_epochs", "2") == 1
    assert f"{RUN_FILE} is damaged: expected groups of settings" in capsys.readouterr().err
    (tmp_path / "cut" / RUN_FILE).unlink()
    assert run(log_file, tmp_path / "cut", "--num_train_epochs", "2") == 1
    assert f"without {RUN_FILE}" in capsys.readouterr().err
    named = ["--resume_from_checkpoint", str(tmp_path / "cut" / "checkpoint-3")]
    assert run(log_file, tmp_path / "cut", "--num_train_epochs", "2", *named) == 0
    assert_same(interrupted, tmp_path / "cut")


def test_finetuning_goes_on_from_its_own_start(
    interrupted: Path, checkpoint: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that began at one checkpoint must not go on as one that began at another."""
    words = ["finetune", "--train_file", str(log_file), *STEPS, "--num_train_epochs", "1", "--disable_tqdm", "true"]
    words += ["--per_device_train_batch_size", "16", "--save_total_limit", "99"]

    def finetune(start: Path, folder: Path, *more: str) -> int:
        return main([*words, "--model_name_or_path", str(start), "--output_dir", str(folder), *more])

    assert finetune(checkpoint, tmp_path / "tuned") == 0
    cut(tmp_path / "tuned", tmp_path / "cut", 3)
    assert finetune(interrupted, tmp_path / "cut") == 1
    assert "`weights`" in capsys.readouterr().err
    assert finetune(checkpoint, tmp_path / "cut", "--l2sp_alpha", "1") == 1
    assert "`--l2sp_alpha` 0.0 there, 1.0 now" in capsys.readouterr().err
    moved = shutil.copytree(checkpoint, tmp_path / "moved", ignore=shutil.ignore_patterns("checkpoint-*"))
    assert finetune(moved, tmp_path / "cut") == 0
    assert_same(tmp_path / "tuned", tmp_path / "cut")


@pytest.mark.parametrize("with_run_file", [True, False])
def test_killed_during_the_first_checkpoint(
    with_run_file: bool, interrupted: Path, log_file: Path, write_log: Callable[..., Path], tmp_path: Path
) -> None:
    """The same command said "in use" for ever."""
    folder = tmp_path / "cut"
    cut(interrupted, folder, 3)
    (folder / "checkpoint-3" / "trainer_state.json").unlink()
    (folder / "checkpoint-3" / SEAL_FILE).unlink()
    if not with_run_file:
        (folder / RUN_FILE).unlink()
    assert run(log_file, folder, "--num_train_epochs", "2") == 0
    assert_same(interrupted, folder)


@pytest.mark.parametrize("damage", ["missing", "short", "zeros"])
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json"],
)
def test_a_damaged_checkpoint_is_left_out_by_name(
    name: str, damage: str, interrupted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was a traceback, or another run without a word: zeros are weights, and a missing optimiser is a new one."""
    cut(interrupted, tmp_path / "cut", 6)
    path = tmp_path / "cut" / "checkpoint-6" / name
    content = path.read_bytes()
    path.write_bytes({"missing": b"", "short": content[:-7], "zeros": content[:99] + bytes(len(content) - 99)}[damage])
    if damage == "missing":
        path.unlink()
    logging.enable_propagation()
    try:
        assert last_whole_checkpoint(tmp_path / "cut") == tmp_path / "cut" / "checkpoint-3"
    finally:
        logging.disable_propagation()
    assert f"checkpoint-6 is left out: {name} " in caplog.text


def test_a_run_goes_back_to_the_checkpoint_before(interrupted: Path, log_file: Path, tmp_path: Path) -> None:
    """A damaged checkpoint was the end of a run."""
    cut(interrupted, tmp_path / "cut", 6)
    (tmp_path / "cut" / "checkpoint-6" / "optimizer.pt").unlink()
    (tmp_path / "cut" / "checkpoint-6" / "optimizer.pt").mkdir()  # torch wrote it no more
    (tmp_path / "cut" / "checkpoint-6" / "of another time").touch()
    assert run(log_file, tmp_path / "cut", "--num_train_epochs", "2") == 0
    assert_same(interrupted, tmp_path / "cut")
    results = json.loads((tmp_path / "cut" / "all_results.json").read_text())
    assert "train_loss" not in results["train"], "it is that of the steps since the checkpoint"
    assert not (tmp_path / "cut" / "checkpoint-6" / "of another time").exists()


def test_a_named_checkpoint_is_checked_too(
    interrupted: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint that somebody names can be damaged as well."""
    cut(interrupted, tmp_path / "cut", 3)
    (tmp_path / "cut" / "checkpoint-3" / "optimizer.pt").unlink()
    named = ["--resume_from_checkpoint", str(tmp_path / "cut" / "checkpoint-3")]
    assert run(log_file, tmp_path / "new", "--num_train_epochs", "2", *named) == 1
    assert "optimizer.pt missing. Take another one." in capsys.readouterr().err


def test_a_checkpoint_named_from_another_folder_is_warned_of(
    interrupted: Path, log_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever begins a new run at a checkpoint means it, and must know what goes on."""
    named = ["--resume_from_checkpoint", str(interrupted / "checkpoint-3"), "--num_train_epochs", "3"]
    logging.enable_propagation()
    try:
        assert run(log_file, tmp_path / "new", *named) == 0
    finally:
        logging.disable_propagation()
    assert "`--num_train_epochs` 2.0 there, 3.0 now" in caplog.text  # a warning of a command names flags too
    settings = json.loads((tmp_path / "new" / RUN_FILE).read_text())["training"]
    assert settings["num_train_epochs"] == 3


def test_a_clock_that_jumped_removes_no_new_checkpoint(log_file: Path, tmp_path: Path) -> None:
    """The Trainer removes the checkpoints that look oldest: with the clock put back, those just written."""
    words = ["--num_train_epochs", "2", "--learning_rate", "0"]  # so that the first stays the best
    whole, folder = tmp_path / "whole", tmp_path / "cut"
    assert run(log_file, whole, *words) == 0
    cut(whole, folder, 6)
    later = time.time() + 1e6
    for name in ("checkpoint-3", "checkpoint-6"):
        os.utime(folder / name, (later, later))
    assert run(log_file, folder, *words, "--save_total_limit", "2") == 0
    assert steps(folder) == [3, steps(whole)[-1]]


def test_the_random_states_of_all_processes_are_sealed(tmp_path: Path) -> None:
    """A damaged random state of the second process was another run without a word."""
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    for name in ("rng_state_0.pth", "rng_state_1.pth"):
        (checkpoint / name).write_bytes(name.encode())
    arguments = TrainingArguments(output_dir=str(tmp_path))
    SealCheckpoint().on_save(arguments, TrainerState(global_step=3), TrainerControl())
    assert fault_of(checkpoint) is None
    (checkpoint / "rng_state_1.pth").write_bytes(b"rng_state_2.pth")
    assert fault_of(checkpoint) == "rng_state_1.pth damaged"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_run_that_is_told_to_stop_writes_a_checkpoint_first(
    step: int,
    number: int,
    interrupted: Path,
    log_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a machine that is taken away, all steps since the last checkpoint were lost."""
    training_step = Trainer.training_step
    words = ["--num_train_epochs", "2", "--save_on_exit", "true"]

    def told(self: Trainer, *arguments: Any, **settings: Any) -> Any:
        if self.state.global_step == step - 1:
            os.kill(os.getpid(), number)
        return training_step(self, *arguments, **settings)

    monkeypatch.setattr(Trainer, "training_step", told)
    assert run(log_file, tmp_path / "cut", *words) == 128 + number
    assert f"checkpoint-{step}; the same command goes on from it." in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr(Trainer, "training_step", training_step)
    assert run(log_file, tmp_path / "cut", *words) == 0
    first, second = (load_file(folder / "model.safetensors") for folder in (interrupted, tmp_path / "cut"))
    assert all(first[name].equal(second[name]) for name in first)
    assert set(steps(tmp_path / "cut")) == {*steps(interrupted), step}


def test_a_card_that_a_killed_run_left_out_is_written(
    interrupted: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run said that it was finished for ever, and nobody wrote the card."""
    folder = shutil.copytree(interrupted, tmp_path / "run")
    card = (folder / "README.md").read_text()
    (folder / "README.md").unlink()
    assert run(log_file, folder, "--num_train_epochs", "2") == 1
    assert "holds a finished run" in (said := capsys.readouterr().err).splitlines()[-1]
    assert "finished but for its card" in said
    assert (folder / "README.md").read_text().replace("run", "whole") == card.replace("run", "whole")
