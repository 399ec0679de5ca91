"""Training on prepared shards: as in memory, to the bit over an interruption, and on two processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from hfrec import leave_one_out, load_interactions
from hfrec.data.files import RUN_FILE
from hfrec.data.large import prepare_sequences
from hfrec.data.shards import StreamedBatches
from hfrec_command import main

ROOT = Path(__file__).parents[2]
# `--multi_gpu` is accelerate's name for its torchrun launcher; `--cpu` starts one process whatever `--num_processes`.
LAUNCH = ["-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2"]
LAUNCH += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
RECORDER = """
import json, os, sys
from hfrec.data.shards import StreamedBatches
from hfrec_command import main

batches = StreamedBatches._batches
folder, words = sys.argv[1], sys.argv[2:]

def recorded(self):
    with open(f"{folder}/{os.environ['RANK']}-{self.epoch}.jsonl", "w") as file:
        for rows in batches(self):
            file.write(json.dumps([row.tolist() for row in rows]) + chr(10))
            yield rows

StreamedBatches._batches = recorded
sys.exit(main(words))
"""
TINY = ["--max_length", "8", "--hidden_size", "8", "--num_hidden_layers", "1", "--per_device_train_batch_size", "8"]
QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0", "--shuffle_buffer_size", "11"]


@pytest.fixture(scope="module")
def log_file(write_log: Callable[..., Path]) -> Path:
    return write_log("log.csv", num_users=61, num_items=20, min_length=4)


@pytest.fixture(scope="module")
def sequences(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "sequences"
    words = ["prepare", "--train_file", str(log_file), "--output_dir", str(folder), "--layout", "sequences"]
    assert main(words) == 0
    return folder


def pretrain(source: Path, output: Path, *words: str) -> dict[str, object]:
    command = ["pretrain", "--train_file", str(source), "--output_dir", str(output), *TINY, *QUIET]
    assert main([*command, "--num_train_epochs", "2", *words]) == 0
    results: dict[str, object] = json.loads((output / "all_results.json").read_text())
    return results


def weights_equal(one: Path, two: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    return set(first) == set(second) and all(weight.equal(second[name]) for name, weight in first.items())


def test_what_is_told_of_a_streamed_run(sequences: Path, log_file: Path, tmp_path: Path) -> None:
    """A streamed run on other users, targets or steps than the log's would be compared with runs it is no equal of."""
    results = pretrain(sequences, tmp_path / "run", "--streaming", "true")
    split = leave_one_out(load_interactions(log_file))
    test = results["test"]
    assert isinstance(test, dict)
    assert test["n_users"] == len(split.test)
    assert results["sizes"] == {
        "users": split.train.num_users,
        "items": split.train.num_items,
        "interactions": len(split.train),
    }
    assert test["baselines"]["popularity"]["unfiltered"]["ndcg@10"] > 0
    plain = pretrain(log_file, tmp_path / "plain")["test"]
    assert isinstance(plain, dict)
    for setting in ("filter_seen", "unfiltered"):
        assert test["baselines"]["popularity"][setting] == plain["baselines"]["popularity"][setting]
    assert (tmp_path / "run" / "README.md").is_file()


@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_an_interrupted_run_goes_on_to_the_bit(objective: str, sequences: Path, tmp_path: Path) -> None:
    """A run that goes on at another row, or with other masks, is another run."""
    words = ["--streaming", "true", "--objective", objective, "--save_strategy", "steps", "--save_steps", "5"]
    words += ["--eval_strategy", "no", "--load_best_model_at_end", "false", "--save_total_limit", "9"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    pretrain(sequences, whole, *words)
    steps = [int(path.name.split("-")[1]) for path in whole.glob("checkpoint-*")]
    assert len(steps) >= 3
    for step in (5, sorted(steps)[-2]):  # in the middle of the first epoch, and of the second
        shutil.copytree(whole / f"checkpoint-{step}", cut / f"checkpoint-{step}")
        shutil.copy(whole / RUN_FILE, cut)
        workers = [] if step == 5 else ["--dataloader_num_workers", "2"]
        pretrain(sequences, cut, *words, *workers)
        assert weights_equal(whole, cut), step
        shutil.rmtree(cut)


def test_streaming_refuses(sequences: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that is ignored trains on something else than was asked for."""

    def refusal(command: str, source: Path, *words: str) -> str:
        output = ["--output_dir", str(tmp_path / "out")]
        assert main([command, "--train_file", str(source), "--streaming", "true", *output, *words]) == 1
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "is no folder of prepared sequences" in refusal("pretrain", log_file.parent)
    assert "filter in `hfrec prepare`" in refusal("pretrain", sequences, "--min_user_interactions", "3")
    assert "`--shuffle_buffer_size` must be at least 1" in refusal("pretrain", sequences, "--shuffle_buffer_size", "0")
    start = tmp_path / "start"
    pretrain(log_file, start)
    assert "is for `hfrec pretrain` alone" in refusal("finetune", log_file, "--model_name_or_path", str(start))


def test_stock_arguments_count_rows(sequences: Path) -> None:
    """The loader holds batches; their number taken for that of rows would make every speed wrong."""
    files = sorted((sequences / "train").glob("*.parquet"))
    dataset = StreamedBatches(files, list, batch_size=8, vocab_size=50, max_length=8)  # type: ignore[arg-type]
    assert len(dataset) == -(-dataset.num_rows // 8)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_two_processes_share_the_rows_and_go_on_to_the_bit(objective: str, sequences: Path, tmp_path: Path) -> None:
    """Rows dealt twice by the loader, or a process that waits for a step of the other, show with two processes only."""
    program = tmp_path / "program.py"
    program.write_text(RECORDER)
    words = ["pretrain", "--train_file", str(sequences), "--streaming", "true", "--objective", objective, *TINY, *QUIET]
    words += ["--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "no", "--num_train_epochs", "2"]
    words += ["--load_best_model_at_end", "false", "--save_total_limit", "9", "--use_cpu", "true"]

    def train(output: Path, rows: Path) -> list[list[list[list[int]]]]:
        rows.mkdir()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, *LAUNCH, str(program), str(rows), *words, "--output_dir", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        files = [rows / f"{rank}-0.jsonl" for rank in range(2)]
        return [[json.loads(line) for line in file.read_text().splitlines()] for file in files if file.exists()]

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    first, second = train(whole, tmp_path / "rows")
    assert len(first) == len(second) >= 4
    found = [row for batches in (first, second) for batch in batches for row in batch]
    length = 8 if objective == "masked" else 9
    files = sorted((sequences / "train").glob("*.parquet"))
    least = 1 if objective == "masked" else 2
    settings = {"batch_size": 1, "vocab_size": 50, "max_length": length, "min_length": least}
    alone = StreamedBatches(files, lambda rows: rows, **settings)  # type: ignore[arg-type, return-value]
    assert sorted(found) == sorted(rows[0]["input_ids"].tolist() for rows in alone)  # type: ignore[call-overload]
    shutil.copytree(whole / "checkpoint-3", cut / "checkpoint-3")
    shutil.copy(whole / RUN_FILE, cut)
    train(cut, tmp_path / "again")
    assert weights_equal(whole, cut)


@pytest.mark.parametrize("damage", ["missing", "twice", "other", "items"])
def test_shards_are_those_that_were_prepared(
    damage: str, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on half of the shards, or on some twice, told of all users."""
    stream = load_interactions(log_file, streaming=True)
    prepare_sequences(stream, tmp_path / "shards", interactions_per_shard=60)
    train = sorted((tmp_path / "shards" / "train").iterdir())
    assert len(train) > 2
    if damage == "missing":
        train[0].unlink()
    elif damage == "twice":
        shutil.copy(train[0], train[0].with_name("part-00000 (copy).parquet"))
    elif damage == "other":
        table = pq.read_table(train[0])
        pq.write_table(table.take(list(reversed(range(len(table))))), train[0])
    else:
        items = pq.read_table(tmp_path / "shards" / "items.parquet")
        pq.write_table(items.take(list(reversed(range(len(items))))), tmp_path / "shards" / "items.parquet")
    words = ["--train_file", str(tmp_path / "shards"), "--streaming", "true", "--output_dir", str(tmp_path / "out")]
    assert main(["pretrain", *words]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    if damage == "items":
        assert "is not as it was saved: items.parquet damaged" in line
    else:
        assert "dataset_info.json" in line and "prepare the log again" in line
    assert not (tmp_path / "out").exists()
