"""What a training run says: lines for people, the rest in a file."""

import io
import json
import sys
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from hfrec.data.files import LOG_FILE
from hfrec.training.printing import ProgressLines
from hfrec_command import main

METRICS = {"eval_ndcg@10": 0.1234, "eval_hit_rate@10": 0.25, "eval_unfiltered_ndcg@10": 0.5}


def lines(arguments: TrainingArguments, capsys: pytest.CaptureFixture[str], *values: float) -> list[str]:
    callback, control = ProgressLines(), TrainerControl()
    state = TrainerState(max_steps=40, num_train_epochs=4, epoch=0.0)
    callback.on_train_begin(arguments, state, control)
    for epoch, value in enumerate(values, start=1):
        state.epoch, state.global_step = float(epoch), 10 * epoch
        callback.on_log(arguments, state, control, logs={"loss": 2.0, "learning_rate": 0.1})
        metrics = {name: value if "ndcg" in name else other for name, other in METRICS.items()}
        callback.on_evaluate(arguments, state, control, metrics=metrics)
    callback.on_train_end(arguments, state, control)
    callback.on_evaluate(arguments, state, control, metrics=METRICS)  # of the best checkpoint, told by the run itself
    return capsys.readouterr().out.splitlines()


def test_a_line_for_each_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Dictionaries of fifty figures hid the two that people look at."""
    arguments = TrainingArguments(
        str(tmp_path), metric_for_best_model="ndcg@10", greater_is_better=True, eval_strategy="epoch", report_to="none"
    )
    found = lines(arguments, capsys, 0.1234, 0.1)
    assert [line.partition("  left ")[0] for line in found] == [
        "epoch  1/4  loss 2.000  NDCG@10 .1234  HR@10 .2500  best .1234*",
        "epoch  2/4  loss 2.000  NDCG@10 .1000  HR@10 .2500  best .1234 ",
    ]
    logged = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert logged[0] == {"step": 10, "loss": 2.0, "learning_rate": 0.1}


def test_the_metric_that_decides_is_the_one_that_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where repeats are ranked too, the filtered figures are others than those that choose the checkpoint."""
    arguments = TrainingArguments(
        str(tmp_path), metric_for_best_model="unfiltered_ndcg@10", greater_is_better=True, eval_strategy="epoch"
    )
    assert "NDCG@10 .5000  best .5000*" in lines(arguments, capsys, 0.5)[0]
    loss = TrainingArguments(
        str(tmp_path), metric_for_best_model="loss", greater_is_better=False, eval_strategy="epoch"
    )
    assert "best" not in lines(loss, capsys, 0.5)[0]


def test_bars_are_for_terminals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar in a file is a line of every step: the demo's log was a quarter of a megabyte."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    state, control = TrainerState(max_steps=4, num_train_epochs=1), TrainerControl()
    for stream, disabled, wanted in ((io.StringIO, False, False), (Terminal, True, False), (Terminal, False, True)):
        monkeypatch.setattr(sys, "stdout", stream())
        monkeypatch.setattr(sys, "stderr", stream())
        callback = ProgressLines()
        callback.on_train_begin(TrainingArguments(str(tmp_path), disable_tqdm=disabled), state, control)
        assert (callback.bar is not None) is wanted
        callback.on_train_end(TrainingArguments(str(tmp_path)), state, control)


def test_a_run_prints_no_dictionaries_bars_or_warnings_of_its_tools(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the libraries say of weights written and read is no news to whoever trains."""
    words = ["--dataset", "synthetic", "--output_dir", str(tmp_path / "run"), "--num_train_epochs", "2"]
    assert main(["pretrain", *words, "--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1"]) == 0
    printed = capfd.readouterr()
    everything = printed.out + printed.err
    assert everything.count("NDCG@10 ") >= 2 and "epoch  2/2" in printed.out
    for noise in ("{'", "it/s", "Writing model shards", "Loading weights", "missing keys"):
        assert noise not in everything
    logged = [json.loads(line) for line in (tmp_path / "run" / LOG_FILE).read_text().splitlines()]
    assert any("eval_unfiltered_map@20" in entry for entry in logged)
