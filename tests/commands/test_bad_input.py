"""Bad input through the commands: one line with a reason and a remedy, an exit code, nothing half-written."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import Trainer

from hfrec import Bert4RecForCausalLM, Bert4RecForMaskedLM, ItemTokenizer, load_checkpoint
from hfrec.data.files import LOG_FILE, RUN_FILE, SEAL_FILE
from hfrec.training.checkpoints import last_whole_checkpoint
from hfrec_command import main

TINY = ["--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1", "--per_device_train_batch_size", "16"]
QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0"]
HEADER = "user_id,item_id,timestamp\n"
BAD_LOGS = {
    # file: (content, reason, remedy)
    "empty.csv": ("", "the file is empty", "at least one interaction"),
    "header_only.csv": (HEADER, "no rows", "at least one interaction"),
    "null_item.csv": (HEADER + "u1,i1,1\nu1,,2\n", "row 2 (counted from 1", "Repair or remove that row"),
    "null_user.csv": (HEADER + "u1,i1,1\n,i2,2\n", "column 'user_id': found None", "Repair or remove that row"),
    "bad_time.csv": (HEADER + "u1,i1,1\nu1,i2,2\nu1,i3,soon\n", "row 3", "'soon', expected a number or an ISO time"),
    "no_time.csv": (
        "user_id,item_id\nu1,i1\n",
        "Found: user_id, item_id",
        "Name the right one with `--timestamp_column`",
    ),
    "ragged.csv": (HEADER + "u1,i1,1\nu2\n", "Expected 3 columns, got 1", "Repair the file"),
    "table.xlsx": ("x", "unknown format", "Rename or convert the file"),
}


@pytest.fixture
def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must be refused; gives its line, after a look at what it left behind."""

    def run(*words: Any) -> str:
        before = {path for path in tmp_path.rglob("*")}
        assert main([str(word) for word in words]) != 0
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith(f"hfrec {words[0]}: "), lines[-1]
        assert not any("Traceback" in line for line in lines)
        assert {path for path in tmp_path.rglob("*")} == before
        return lines[-1]

    return run


def command(name: str, log: Path, model: Path, output: Path) -> list[str]:
    """A command on a log, with an output of its own."""
    if name in ("pretrain", "prepare"):
        return [name, "--train_file", str(log), "--output_dir", str(output)]
    if name == "recommend":
        words = ["--history_file", str(log), "--output_file", str(output.with_suffix(".csv"))]
    else:
        flag = "--train_file" if name == "finetune" else "--test_file"
        words = [flag, str(log), "--output_dir", str(output)]
    return [name, "--model_name_or_path", str(model), *words]


@pytest.mark.parametrize("name", ["pretrain", "finetune", "evaluate", "recommend", "prepare"])
@pytest.mark.parametrize("file", list(BAD_LOGS))
def test_unreadable_log(name: str, file: str, checkpoint: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    """A bad row that one command lets through reaches the model as another user, item or time."""
    content, reason, remedy = BAD_LOGS[file]
    (tmp_path / file).write_text(content)
    line = refusal(*command(name, tmp_path / file, checkpoint, tmp_path / "out"))
    assert file in line and reason in line and remedy in line


@pytest.mark.parametrize("name", ["pretrain", "finetune", "evaluate", "recommend", "prepare", "prepare sequences"])
def test_damaged_archives(
    name: str, checkpoint: Path, log_file: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """What an archive lost at its end are the newest users: a log that is read as far as it goes is another log."""
    path = tmp_path / "log.csv.gz"
    whole = gzip.compress(log_file.read_bytes(), mtime=0)
    place = len(whole) // 2
    damages = [
        whole[:place],
        whole[:-4],  # but for its last bytes, which hold the size
        whole[:place] + bytes(64) + whole[place + 64 :],
        whole[:-8] + bytes(8),  # another checksum
        whole[:20],
        log_file.read_bytes(),  # no archive at all
    ]
    for content in damages:
        path.write_bytes(content)
        words = command(name.split()[0], path, checkpoint, tmp_path / "out")
        line = refusal(*words, *(["--layout", "sequences"] if " " in name else []))
        assert f"{path}: not readable as .csv" in line and "Repair the file" in line


@pytest.mark.parametrize("of_folder", [True, False])
def test_a_prepared_log_that_was_changed(
    of_folder: bool, checkpoint: Path, log_file: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """A row that was changed, or lost, is a row like any other: the run is of another log, and nothing tells."""
    folder = tmp_path / "prepared"
    assert main(["prepare", "--train_file", str(log_file), "--output_dir", str(folder)]) == 0
    file = folder / "interactions.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(file).slice(1), file)
    source = folder if of_folder else file
    for name in ("pretrain", "recommend", "evaluate"):
        line = refusal(*command(name, source, checkpoint, tmp_path / "out"))
        assert f"{file} is not as it was written" in line and f"remove {SEAL_FILE}" in line
    (folder / SEAL_FILE).unlink()  # whoever means it
    assert main(command("recommend", source, checkpoint, tmp_path / "out")) == 0


@pytest.mark.parametrize("name", ["pretrain", "finetune", "evaluate", "recommend", "prepare"])
def test_missing_and_empty_log_folder(name: str, checkpoint: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    """A mistyped path must not be taken for the name of a data set somewhere else."""
    line = refusal(*command(name, tmp_path / "missing", checkpoint, tmp_path / "out"))
    assert "is no file, folder, glob, named data set or hub id" in line and "Check the path" in line
    (tmp_path / "empty").mkdir()
    line = refusal(*command(name, tmp_path / "empty", checkpoint, tmp_path / "out"))
    assert "holds no readable file. Expected .csv" in line


@pytest.mark.parametrize("name", ["pretrain", "finetune", "evaluate"])
def test_users_of_one_item(name: str, checkpoint: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    """Without a history and a target there is nothing to train or to test; an average over no user is no number."""
    log = tmp_path / "log.csv"
    log.write_text(HEADER + "".join(f"u{user},item{user % 3},{user}\n" for user in range(9)))
    line = refusal(*command(name, log, checkpoint, tmp_path / "out"))
    assert str(log) in line and ("no user with 3 interactions" in line or "one interaction only" in line)
    assert "Give a log with" in line


def test_every_user_filtered_out(log_file: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    """A limit above what the log holds would train on nothing."""
    for name in ("pretrain", "prepare"):
        line = refusal(*command(name, log_file, log_file, tmp_path / "out"), "--min_user_interactions", "99")
        assert "every user was filtered out by `--min_user_interactions`=99" in line and "Lower them" in line


@pytest.mark.parametrize("name", ["finetune", "evaluate", "recommend"])
def test_what_is_no_checkpoint(
    name: str, log_file: Path, checkpoint: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """A folder that is missing, of another model, of two models or damaged would score with random weights."""
    output = tmp_path / "out"
    line = refusal(*command(name, log_file, tmp_path / "missing", output))
    assert "missing` is neither a checkpoint folder nor a model that the hub gives: check the path" in line

    other = tmp_path / "other"
    other.mkdir()
    line = refusal(*command(name, log_file, other, output))
    assert "other` is no checkpoint: expected a folder with config.json" in line  # not: no such file 'None'
    (other / "config.json").write_text('{"model_type": "bert"}')
    assert "is a checkpoint of 'bert', expected one of 'bert4rec'" in refusal(*command(name, log_file, other, output))

    mixed = tmp_path / "mixed"
    shutil.copytree(checkpoint, mixed, ignore=shutil.ignore_patterns("checkpoint-*"))
    (mixed / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes()[:-100])
    assert "model.safetensors damaged" in refusal(*command(name, log_file, mixed, output))
    (mixed / SEAL_FILE).unlink()
    assert "weights of" in (line := refusal(*command(name, log_file, mixed, output))) and "damaged" in line
    ItemTokenizer.from_items(["a", "b"]).save_pretrained(mixed)
    line = refusal(*command(name, log_file, mixed, output))
    assert "has a tokenizer of 5 tokens and a model of" in line and "Save model and tokenizer into it again" in line


@pytest.mark.parametrize("name", ["finetune", "evaluate", "recommend"])
def test_hub_id_that_the_hub_does_not_give(
    name: str, log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    """Without the name in it, the hub's own error leaves open which of the sources is meant."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    line = refusal(*command(name, log_file, Path("nobody/nothing"), tmp_path / "out"))
    assert "`nobody/nothing` is neither a checkpoint folder nor a model that the hub gives: check the path" in line


def test_data_set_that_the_hub_does_not_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    """A typing error in the name of a data set must say so."""
    for constants in (huggingface_hub.constants, datasets.config):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = refusal("pretrain", "--dataset", "nobody/nothing", "--output_dir", tmp_path / "out")
    assert "'nobody/nothing' is neither a local file or folder nor a data set that the hub gives" in line


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--hidden_dropout_prob", "1.5"], "`--hidden_dropout_prob` must be in [0, 1), found 1.5"),
        (["--hidden_act", "nothing"], "`--hidden_act` must be one of"),
        (["--num_hidden_layers", "0"], "`--num_hidden_layers` must be above 0, found 0"),
        (["--max_length", "1"], "`--max_length` must be at least 2, found 1"),
        (["--mask_last_probability", "2"], "`--mask_last_probability` must be in [0, 1], found 2.0"),
        (["--learning_rate", "-1"], "`--learning_rate` must be at least 0, found -1.0"),
        (["--num_train_epochs", "0"], "`--num_train_epochs` must be above 0, found 0.0"),
        (["--per_device_train_batch_size", "0"], "`--per_device_train_batch_size` must be above 0, found 0"),
        (["--early_stopping_patience", "-3"], "`--early_stopping_patience` must be at least 0, found -3"),
        (["--hidden_size", "wide"], "invalid int value: 'wide'. `hfrec pretrain --help` lists the flags"),
        (["--objective", "other"], "invalid choice: 'other' (choose from"),
        (["--hub_model_id", "<script>alert(1)</script>"], "<script>alert(1)</script>"),
        (["--hiden_size", "8"], "unknown flag '--hiden_size'. Did you mean 'hidden_size'?"),
        (["8"], "found '8' alone: put its flag before it"),
    ],
)
def test_values_out_of_range(
    words: list[str], reason: str, log_file: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """A wrong value must be refused before hours of training, and by the name under which it was given."""
    line = refusal(*command("pretrain", log_file, log_file, tmp_path / "out"), *QUIET, *words)
    assert reason in line and "validator" not in line


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--l2sp_alpha", "-1"], "`--l2sp_alpha`: expected a finite number of at least 0, found -1.0"),
        (["--layerwise_lr_decay", "2"], "`--layerwise_lr_decay`: expected a number in (0, 1], found 2.0"),
        (["--unfreeze_every_steps", "0"], "`--unfreeze_every_steps`: expected an integer of at least 1, found 0"),
        (["--freeze", "layers:9"], "`--freeze`: expected N of 'layers:N' between 1 and 1, found 'layers:9'"),
    ],
)
def test_finetuning_values_out_of_range(
    words: list[str], reason: str, log_file: Path, checkpoint: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """A wrong value of the transfer must be refused before the run."""
    assert reason in refusal(*command("finetune", log_file, checkpoint, tmp_path / "out"), *QUIET, *words)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("a.yaml", "train_file: [1", "not readable as yaml"),
        ("a.json", "{", "not readable as json"),
        ("a.yaml", "- a\n", "expected names of flags with their values, found a list"),
        ("a.yaml", "train_file: a.csv\nhiden_size: 8\n", "unknown flag 'hiden_size'. Did you mean 'hidden_size'?"),
        ("a.yaml", "train_file: a.csv\nhidden_size: 8.5\n", "invalid int value: '8.5'"),
        ("a.yaml", "train_file: a.csv\nobjective: other\n", "invalid choice: 'other'"),
        ("a.yaml", "seed: 1\ntrain_file: a.csv\nseed: 2\n", "found `--seed` twice: leave one of them out"),
        ("a.json", '{"max-steps": 1, "max_steps": 2}', "found `--max_steps` twice: leave one of them out"),
        ("a.yaml", "train_file: " + "[" * 5000, "not readable as yaml"),
        ("a.json", "[" * 200_000, "not readable as json"),
        ("a.json", '{"seed": ' + "9" * 5000 + "}", "not readable as json"),
        ("a.yaml", "# \udce9\nseed: 1\n", "not readable as yaml: 'utf-8' codec can't decode"),
        ("a.yaml", "train_file: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("a.yaml", "train_file: a.csv\nseed: 0x10\n", "invalid int value: '0x10'"),
    ],
)
def test_bad_settings_file(file: str, content: str, reason: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    """A typing error in a settings file would train with the default, a wrong type fail somewhere in the model."""
    (tmp_path / file).write_text(content, errors="surrogateescape")
    assert reason in refusal("pretrain", tmp_path / file)
    assert "no settings file" in refusal("pretrain", tmp_path / f"b.{file.partition('.')[2]}")


def test_unknown_item_in_a_history(checkpoint: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    """An item that the model does not know must not be read as another one."""
    log = tmp_path / "log.csv"
    log.write_text(HEADER + "u1,never-seen,1\n")
    line = refusal(*command("recommend", log, checkpoint, tmp_path / "out"), "--unknown_items", "error")
    assert "'never-seen'" in line and "unknown_items='drop'" in line


@pytest.mark.parametrize("top_k", ["0", "999"])
def test_top_k_beyond_the_catalogue(
    top_k: str, log_file: Path, checkpoint: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """More places than items would be filled with padding."""
    words = command("recommend", log_file, checkpoint, tmp_path / "out")
    line = refusal(*words, "--top_k", top_k)
    assert f"found {top_k}" in line and "Ask for fewer items" in line


def test_output_in_use(log_file: Path, checkpoint: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    """Another run's files, or a file of the name, must never be written over or mixed with."""
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes.txt").write_text("mine")
    for name in ("pretrain", "finetune", "prepare"):
        line = refusal(*command(name, log_file, checkpoint, used))
        assert "is in use: expected a new or empty folder, found notes.txt. Choose another" in line
    for name in ("pretrain", "finetune", "evaluate", "prepare"):
        assert "is a file: name a folder" in refusal(*command(name, log_file, checkpoint, log_file))
    (tmp_path / "folder.csv").mkdir()
    line = refusal(*command("recommend", log_file, checkpoint, tmp_path / "folder"))
    assert "is a folder: name a file" in line
    words = command("recommend", log_file, checkpoint, tmp_path / "out")
    assert "must end in .csv" in refusal(*words[:-1], str(tmp_path / "out.txt"))


def pretraining(log: Path, output: Path) -> list[str]:
    words = ["pretrain", "--train_file", str(log), "--output_dir", str(output), "--load_best_model_at_end", "false"]
    words += ["--objective", "masked"]
    return [*words, *TINY, *QUIET, "--num_train_epochs", "3", "--save_total_limit", "5"]


def numbers(checkpoint: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(checkpoint / "model.safetensors"))


def test_a_diverging_run_stops_before_its_first_checkpoint(
    log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that are no numbers would be saved, and their metrics believed."""
    output = tmp_path / "out"
    assert main([*pretraining(log_file, output), "--learning_rate", "1e30", "--max_grad_norm", "0"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no longer finite" in line and "no checkpoint was written yet" in line and "Lower `--learning_rate`" in line
    assert not list(output.rglob("*"))


@pytest.mark.parametrize("strategy", [[], ["--logging_strategy", "no", "--eval_strategy", "no"]])
def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(
    strategy: list[str],
    log_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A checkpoint of NaN written over the good ones loses the run, logged or not."""
    output = tmp_path / "out"
    words = pretraining(log_file, output)
    forward = Bert4RecForMaskedLM.forward
    steps = 0

    @wraps(forward)  # the Trainer reads its signature
    def breaks(self: Bert4RecForMaskedLM, *arguments: Any, **inputs: Any) -> Any:
        nonlocal steps
        outputs = forward(self, *arguments, **inputs)
        steps += self.training
        if self.training and steps == 6:
            outputs.loss = outputs.loss * math.nan
        return outputs

    monkeypatch.setattr(Bert4RecForMaskedLM, "forward", breaks)
    assert main([*words, *strategy]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "training stopped, the last good checkpoint is" in line and "checkpoint-4" in line
    assert {path.name for path in output.iterdir()} - {LOG_FILE} == {RUN_FILE, "checkpoint-4"}  # a log once evaluated
    load_checkpoint(output / "checkpoint-4")
    assert all(weight.isfinite().all() for weight in numbers(output / "checkpoint-4").values())
    monkeypatch.setattr(Bert4RecForMaskedLM, "forward", forward)
    assert main([*words, *strategy]) == 0
    assert all(weight.isfinite().all() for weight in numbers(output).values())


def test_a_full_disk_in_the_middle_of_a_checkpoint(
    log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a checkpoint is the newest one: the next start would take it, fail, and the run be lost.

    The limit on the size of a file stands in for the full disk: weights fit, the optimiser's state does not.
    """
    resource = pytest.importorskip("resource")
    save = Trainer._save_checkpoint

    def on_a_full_disk(self: Trainer, *arguments: Any) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            if self.state.global_step == 8:
                resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
            save(self, *arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(pretraining(log_file, whole)) == 0
    monkeypatch.setattr(Trainer, "_save_checkpoint", on_a_full_disk)
    capsys.readouterr()
    assert main(pretraining(log_file, cut)) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "checkpoint-8 could not be written and was removed" in line
    assert "checkpoint-4 is whole" in line and "free disk space" in line
    assert sorted(path.name for path in cut.iterdir()) == [RUN_FILE, LOG_FILE, "checkpoint-4"]
    load_checkpoint(cut / "checkpoint-4")
    monkeypatch.setattr(Trainer, "_save_checkpoint", save)
    assert main(pretraining(log_file, cut)) == 0
    first, second = numbers(whole), numbers(cut)
    assert all(first[name].equal(second[name]) for name in first)


def test_a_kill_in_the_middle_of_a_checkpoint(log_file: Path, tmp_path: Path) -> None:
    """Nobody tidies up after a killed process: the next start must take the checkpoint before."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(pretraining(log_file, whole)) == 0
    cut.mkdir()
    shutil.copy(whole / RUN_FILE, cut)
    for step in (4, 8):
        shutil.copytree(whole / f"checkpoint-{step}", cut / f"checkpoint-{step}")
    state = cut / "checkpoint-8" / "trainer_state.json"
    state.write_text(state.read_text()[:-10])
    (cut / "checkpoint-8" / SEAL_FILE).unlink()
    (cut / "checkpoint-8" / "model.safetensors").write_bytes(b"half")
    assert last_whole_checkpoint(cut) == cut / "checkpoint-4"
    assert main(pretraining(log_file, cut)) == 0
    first, second = numbers(whole), numbers(cut)
    assert all(first[name].equal(second[name]) for name in first)


def test_a_full_disk_at_the_end(
    log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A final folder of which a part is missing would pass for a finished checkpoint."""

    def full(*arguments: Any, **settings: Any) -> None:
        raise OSError(28, "No space left on device")

    output = tmp_path / "out"
    save = ItemTokenizer.save_pretrained

    def at_the_end(self: ItemTokenizer, folder: Any, **settings: Any) -> Any:
        return (full if "checkpoint-" not in str(folder) else save)(self, folder, **settings)

    monkeypatch.setattr(ItemTokenizer, "save_pretrained", at_the_end)
    assert main(pretraining(log_file, output)) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "could not be written into" in line and "No space left on device" in line and "Free disk space" in line
    assert sorted(path.name for path in output.iterdir()) == [
        RUN_FILE,
        LOG_FILE,
        "checkpoint-12",
        "checkpoint-4",
        "checkpoint-8",
    ]
    monkeypatch.setattr(ItemTokenizer, "save_pretrained", save)
    assert main(pretraining(log_file, output)) == 0
    assert json.loads((output / "all_results.json").read_text())["test"]["n_users"] == 60


@pytest.mark.parametrize("name", ["evaluate", "recommend", "prepare"])
def test_a_full_disk_under_results(
    name: str,
    log_file: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Callable[..., str],
) -> None:
    """Half a file of results would be read as all of them."""

    def full(*arguments: Any, **settings: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyarrow.csv, "write_csv", full)
    monkeypatch.setattr(Path, "write_text", full)
    (tmp_path / "out").mkdir()
    words = command(name, log_file, checkpoint, tmp_path / "out")
    extra = ["--unknown_items", "drop"] if name == "recommend" else []
    assert "No space left on device" in refusal(*words, *extra)


def test_recommendations_overwrite_nothing_that_is_read(
    log_file: Path, checkpoint: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """The log of all users was gone, or the items of a model, in whose place recommendations lay."""
    log = tmp_path / "log.csv"
    shutil.copy(log_file, log)
    folder = shutil.copytree(checkpoint, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint-*"))
    words = ["recommend", "--model_name_or_path", str(folder), "--history_file", str(log), "--unknown_items", "drop"]
    for output, expected in ((log, "is the `--history_file`"), (folder / "items.parquet", "part of a checkpoint")):
        content = output.read_bytes()
        assert expected in refusal(*words, "--output_file", str(output))
        assert output.read_bytes() == content
    assert main([*words, "--output_file", str(tmp_path / "lists.csv")]) == 0
    assert main([*words, "--output_file", str(tmp_path / "lists.csv")]) == 0


def test_users_who_have_seen_the_whole_catalogue(tmp_path: Path) -> None:
    """The run trained to its end and failed then, without a result."""
    items = [f"i{item}" for item in range(6)]
    rows = [(f"u{user}", item) for user in range(8) for item in [*items, *items[user % 6 :], *items[: user % 6]]]
    lines = "".join(f"{user},{item},{time}\n" for time, (user, item) in enumerate(rows))
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + lines)
    words = ["pretrain", "--train_file", str(tmp_path / "log.csv"), "--output_dir", str(tmp_path / "run")]
    assert main([*words, "--max_length", "12", "--hidden_size", "16", "--num_train_epochs", "1"]) == 0
    test = json.loads((tmp_path / "run" / "all_results.json").read_text())["test"]
    assert test["filter_seen"]["ndcg@10"] == test["filter_seen"]["coverage@6"] == 0
    assert test["unfiltered"]["hit_rate@10"] == 1
    assert (tmp_path / "run" / "README.md").exists()


def test_a_metric_that_cannot_choose_the_best(log_file: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    """An unknown one was a traceback after the first epoch; the highest loss is the worst checkpoint."""
    words = ["pretrain", "--train_file", str(log_file), "--output_dir", str(tmp_path / "out")]
    assert "expected one of loss, hit_rate@5" in refusal(*words, "--metric_for_best_model", "auc")
    assert "`--greater_is_better false`" in refusal(*words, "--metric_for_best_model", "loss")
    assert not (tmp_path / "out").exists()


def test_no_memory_is_said_in_one_line(
    log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    """A traceback of torch does not say what to lower."""

    def full(*arguments: Any, **settings: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(Trainer, "train", full)
    words = ["pretrain", "--train_file", str(log_file), "--output_dir", str(tmp_path / "out")]
    assert "out of memory" in (line := refusal(*words)) and "`hfrec estimate`" in line


def test_a_settings_file_of_aliases(tmp_path: Path, refusal: Callable[..., str]) -> None:
    """Ten lines of aliases unfold to more than all memory."""
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40))]
    (tmp_path / "settings.yaml").write_text("\n".join(lines))
    assert "found a YAML alias" in refusal("pretrain", str(tmp_path / "settings.yaml"))


def test_an_evaluation_keeps_the_ranks_of_a_run(
    log_file: Path, checkpoint: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """Ranks on another log took the place of the run's own, which `hfrec compare` then read."""
    folder = shutil.copytree(checkpoint, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint-*"))
    ranks = (folder / "test_ranks.parquet").read_bytes()
    words = ["evaluate", "--model_name_or_path", str(folder), "--test_file", str(log_file)]
    assert "test_ranks.parquet would be lost" in refusal(*words, "--output_dir", str(folder))
    assert (folder / "test_ranks.parquet").read_bytes() == ranks


def test_a_full_disk_under_changed_items(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    """safetensors has an error of its own, which was a traceback."""

    def full(*arguments: Any, **settings: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(Bert4RecForMaskedLM, "save_pretrained", full)
    monkeypatch.setattr(Bert4RecForCausalLM, "save_pretrained", full)
    (tmp_path / "items.csv").write_text("item_id\nnew\n")
    words = ["items", "add", "--model_name_or_path", str(checkpoint), "--items_file", str(tmp_path / "items.csv")]
    assert "No space left on device" in refusal(*words, "--output_dir", str(tmp_path / "out"))


@pytest.mark.parametrize(
    "words",
    [
        ["pretrain", "--train_file", "", "--output_dir", "out"],
        ["prepare", "log.csv", "--output_dir", ""],
        ["evaluate", "", "log.csv", "--output_dir", "out"],
        ["recommend", "model", "", "--output_file", "lists.csv"],
        ["pretrain", "log.csv", "--items_file", " ", "--output_dir", "out"],
    ],
)
def test_an_empty_name_of_a_file_or_folder(
    words: list[str], log_file: Path, tmp_path: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shell makes of a variable that it does not know: the folder that one is in was read, or written into."""
    shutil.copy(log_file, tmp_path / "log.csv")
    monkeypatch.chdir(tmp_path)
    assert "expected a path, found an empty text" in refusal(*words)


def test_a_log_of_which_no_item_is_known(
    log_file: Path, checkpoint: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """With the columns of users and items exchanged, everybody got what is popular, with exit code 0."""
    words = command("recommend", log_file, checkpoint, tmp_path / "out")
    swapped = ["--user_column", "item_id", "--item_column", "user_id"]
    assert "no item of them is the checkpoint's" in refusal(*words, *swapped)
    assert main([*words, *swapped, "--unknown_items", "unk"]) == 0
