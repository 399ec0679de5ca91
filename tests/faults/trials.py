"""Trials of every kind but fuzzed logs: each yields what was done, how it ended, and what is wrong with that."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfrec.data.files import SEAL_FILE

from .commands import COMMANDS, ONE_EPOCH, SMALL, Inputs, digests, run_whole
from .harness import Outcome, Server
from .kills import Trial, Whole, again, judge, whole_run
from .mutations import copy_of, mutate

READERS = ("recommend", "recommend", "recommend", "evaluate", "finetune")


def mutated_checkpoints(
    server: Server,
    inputs: Inputs,
    model: Path,
    output: Path,
    *,
    draw: random.Random,
    count: int,
    readers: tuple[str, ...] = READERS,
    names: list[str] | None = None,
    sealed: bool = True,
) -> Iterator[Trial]:
    """One mutation of one file of a checkpoint, which is then used.

    Args:
        server, inputs, output, draw, count: As of every kind.
        model: What is copied and changed.
        readers: Commands that use it.
        names: Files to change; all unless given.
        sealed: With its hashes; without, no number tells that it was changed, and all that is asked of the command is
            that it ends in a result or in words.
    """
    target = output.with_name(f"{output.name}-model")
    wholes: dict[str, Whole] = {}
    for _ in range(count):
        name = draw.choice(readers)
        words = COMMANDS[name](Inputs(**{**vars(inputs), "model": target, "content": target}), output)
        if name not in wholes:
            copy_of(model, target)
            wholes[name] = _whole(server, words, output)
        copy_of(model, target)
        if not sealed:
            (target / SEAL_FILE).unlink()
        file, done = mutate(target, draw, names)
        fault = "one mutation of a checkpoint" if sealed else "one mutation of a checkpoint without hashes"
        trial = _used(server, name, words, output, wholes[name], fault, f"{file} {done}")
        if not sealed and trial.outcome == "another result":
            trial = replace(trial, wrong=None)
        yield trial


# What is damaged: its name, the command that writes it, the input in whose place it stands, and commands that read it.
DATA = {
    "sequences": ("prepared sequences", "prepare sequences", "sequences", ("pretrain streaming",)),
    "prepared": ("a prepared log", "prepare", "log", ("recommend", "recommend", "pretrain", "evaluate", "prepare")),
    "ranks": ("an evaluation", "evaluate", "model", ("compare",)),
}


def mutated_data(
    server: Server, inputs: Inputs, output: Path, *, draw: random.Random, count: int, kind: str
) -> Iterator[Trial]:
    """One mutation of one file that a command wrote, which others then read.

    Args:
        server, inputs, output, draw, count: As of every kind.
        kind: Of `DATA`.
    """
    called, writer, place, readers = DATA[kind]
    source, target = output.with_name(f"{output.name}-whole"), output.with_name(f"{output.name}-{kind}")
    run_whole(server, COMMANDS[writer](inputs, source))
    wholes: dict[str, Whole] = {}
    for _ in range(count):
        name = draw.choice(readers)
        words = COMMANDS[name](Inputs(**{**vars(inputs), place: target}), output)
        copy_of(source, target)
        if name not in wholes:
            wholes[name] = _whole(server, words, output)
        file, done = mutate(target, draw)
        yield _used(server, name, words, output, wholes[name], f"one mutation of {called}", f"{file} {done}")


def mutated_runs(server: Server, inputs: Inputs, output: Path, *, draw: random.Random, count: int) -> Iterator[Trial]:
    """One mutation of one file of an interrupted run, which then goes on."""
    words = COMMANDS["pretrain"](inputs, output)
    whole = whole_run(server, "pretrain", inputs, output)
    cut = output.with_name(f"{output.name}-cut")
    shutil.rmtree(output)
    server.run(words, environment={"HFREC_FAULT_POINT": "sealed:2"})
    shutil.rmtree(cut, ignore_errors=True)
    shutil.copytree(output, cut)
    for _ in range(count):
        shutil.rmtree(output)
        shutil.copytree(cut, output)
        file, done = mutate(output, draw)
        outcome = server.run(words)
        ended = _told_or(outcome, output, whole)
        yield Trial("pretrain", "one mutation of an interrupted run", *ended, f"{file} {done}")


def mutated_settings(
    server: Server, inputs: Inputs, output: Path, *, draw: random.Random, count: int
) -> Iterator[Trial]:
    """A settings file of random values: it is followed or refused."""
    values = [0, -1, 2, 1e9, "x", "", None, True, [], [1], {"a": 1}, "1e-3", float("nan"), 10**30, "auto", "none", 0.5]
    names = [
        "learning_rate", "hidden_size", "num_hidden_layers", "max_length", "seed", "windows", "loss", "num_negatives",
        "warmup_steps", "save_total_limit", "metric_for_best_model", "lr_scheduler_type", "max_steps", "eval_steps",
        "label_smoothing_factor", "mlm_probability", "filter_seen", "recipe", "time_budget", "optim", "gbce_t",
        "num_attention_heads", "embedding_size", "hidden_act", "weight_decay", "max_grad_norm", "save_strategy",
        "items_file", "duplicates", "validation_ratio", "protocol", "gradient_accumulation_steps",
        "attn_implementation",
        "per_device_eval_batch_size", "logging_steps", "resume_from_checkpoint", "objective", "item_start", "bogus",
    ]  # fmt: skip
    small = dict(zip([*ONE_EPOCH, *SMALL][::2], [*ONE_EPOCH, *SMALL][1::2], strict=True))
    base = {str(key).removeprefix("--"): value for key, value in small.items()}
    for _ in range(count):
        shutil.rmtree(output, ignore_errors=True)
        suffix = draw.choice([".json", ".yaml"])
        path = output.with_name(f"{output.name}{suffix}")
        chosen = {draw.choice(names): draw.choice(values)}
        settings = {**base, "train_file": str(inputs.log), "output_dir": str(output), **chosen}
        text = json.dumps(settings)
        if draw.random() < 0.3:
            place = draw.randrange(len(text))
            noise = draw.choice(["", ":", "{", "\t", "&a *a", "\n- ", "'", "!!python/object:os.system"])
            text = text[:place] + noise + text[place:]
        path.write_text(text)
        outcome = server.run(["pretrain", path], folder=str(output.parent))
        wrong = outcome.fault()
        if wrong is None and outcome.code == 0 and output.is_dir() and not (output / "README.md").exists():
            wrong = "exit code 0 without a card"
        ended = "followed" if outcome.code == 0 else "told"
        yield Trial("pretrain", "a settings file of strange values", ended, wrong, f"{suffix} {chosen}")


def full_disks(server: Server, inputs: Inputs, output: Path, *, draw: random.Random, count: int) -> Iterator[Trial]:
    """A file system of a limited size (or a limit on the size of a file), and then room again."""
    names = [name for name in COMMANDS if name not in ("export", "tune", "prepare sequences", "study", "demo")]
    wholes: dict[str, tuple[Whole, int]] = {}
    for _ in range(count):
        name = draw.choice(names)
        shutil.rmtree(output, ignore_errors=True)
        if name not in wholes:
            whole = whole_run(server, name, inputs, output)
            wholes[name] = whole, sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
            shutil.rmtree(output)
        whole, size = wholes[name]
        words = COMMANDS[name](inputs, output)
        room = draw.randint(4096, max(8192, size))
        with small_disk(output, room) as mounted:
            limit = {} if mounted else {"FSIZE": draw.randint(1000, max(2000, size // 2))}
            outcome = server.run(words, **limit)
            fault = "full disk (tmpfs)" if mounted else "limit on the size of a file"
            wrong = outcome.fault()
            kept = output.with_name(f"{output.name}-kept")
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(output, kept) if output.is_dir() else None
        if wrong is not None:
            yield Trial(name, fault, "fault", wrong, f"{room} bytes")
            continue
        if outcome.code == 0:
            yield Trial(name, fault, "it was enough", None, f"{room} bytes")
            continue
        shutil.rmtree(output, ignore_errors=True)
        if kept.is_dir():
            kept.rename(output)
        yield again(server, name, words, output, whole, fault, f"{room} bytes")


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A file system in memory of so many bytes at a folder; False where this process may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True) if shutil.which("mount") else None
    mounted = done is not None and done.returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def races(server: Server, inputs: Inputs, output: Path, *, draw: random.Random, count: int) -> Iterator[Trial]:
    """Two commands at once into one output, mostly the same one."""
    wholes: dict[str, Whole] = {}
    names = [name for name in COMMANDS if name not in ("study", "export", "tune", "demo")]
    for _ in range(count):
        first = draw.choice(names)
        pair = [first, first if draw.random() < 0.7 else draw.choice(names)]
        for name in set(pair) - wholes.keys():
            wholes[name] = whole_run(server, name, inputs, output)
        shutil.rmtree(output, ignore_errors=True)
        started = [server.start(COMMANDS[first](inputs, output))]
        delay = draw.choice([0.0, draw.random()])
        time.sleep(delay * wholes[first].seconds)
        started.append(server.start(COMMANDS[pair[1]](inputs, output)))
        ends = [server.end(*one) for one in started]
        yield Trial(", ".join(pair), "two at once", *_both(pair, ends, output, wholes), f"{delay:.2f} of the run later")


def _both(pair: list[str], ends: list[Outcome], output: Path, wholes: dict[str, Whole]) -> tuple[str, str | None]:
    """Each that succeeded left what it leaves alone, but for files that both write."""
    if faults := [fault for end in ends if (fault := end.fault())]:
        return "fault", faults[0]
    done = [wholes[name].digests for name, end in zip(pair, ends, strict=True) if end.code in (0, 3)]
    if not done:
        return "fault", f"both failed: {ends[0].reason} {ends[1].reason}"
    found = digests(output)
    wrong = [name for one in done for name in one if found.get(name) not in [other.get(name) for other in done]]
    wrong += sorted(found.keys() - {name for one in done for name in one})
    if wrong:
        return "another result", f"{', '.join(wrong[:4])} of neither; {[end.code for end in ends]}"
    return ("one told" if len(done) == 1 else "both done"), None


def clocks(server: Server, inputs: Inputs, output: Path, *, draw: random.Random, count: int) -> Iterator[Trial]:
    """The clock jumps by hours or years, during a run or between a kill and the next try."""
    names = ["pretrain", "pretrain final", "finetune", "refresh", "baseline", "blend", "prepare", "evaluate", "tune"]
    for _ in range(count):
        name = draw.choice(names)
        whole = whole_run(server, name, inputs, output)
        words = COMMANDS[name](inputs, output)
        shutil.rmtree(output)
        jump = draw.choice([-3600.0, 3600.0, -1e9, 1e9])
        if draw.random() < 0.5:
            calls = draw.randrange(40)
            outcome = server.run(words, clock=[jump, calls])
            detail = f"{jump} s after {calls} calls"
            yield Trial(name, "clock jumps during a run", *_told_or(outcome, output, whole), detail)
            continue
        point = draw.choice(["sealed", "sealed:2", "drafted", "moving"])
        server.run(words, environment={"HFREC_FAULT_POINT": point})
        for path in [path for path in output.rglob("*") if output.is_dir()]:
            moment = path.stat().st_mtime + jump
            os.utime(path, (moment, moment))
        yield again(server, name, words, output, whole, "clock jumps after a kill", f"{jump} s after {point}")


def _whole(server: Server, words: list[Any], output: Path) -> Whole:
    shutil.rmtree(output, ignore_errors=True)
    outcome = server.run(words)
    if outcome.code:
        raise RuntimeError(f"{words}: {outcome}")
    return Whole(digests(output), (), 0.0)


def _used(server: Server, what: str, words: list[Any], output: Path, whole: Whole, fault: str, detail: str) -> Trial:
    shutil.rmtree(output, ignore_errors=True)
    return Trial(what, fault, *_told_or(server.run(words), output, whole), detail)


def _told_or(outcome: Outcome, output: Path, whole: Whole) -> tuple[str, str | None]:
    """A refusal in words, or the result of a whole run."""
    if outcome.code not in (0, 3) and outcome.fault() is None:
        return "told", None
    return judge(outcome, output, whole)
