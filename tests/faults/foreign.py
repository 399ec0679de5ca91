"""Files of somebody else, links and leftovers where a command reads or writes: nothing of theirs is lost or taken."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from .commands import COMMANDS, Inputs, hash_of
from .harness import Server
from .kills import Trial, Whole, judge, whole_run
from .mutations import copy_of

PLACES: dict[str, Callable[[Path, Path], None]] = {
    "a note": lambda o, _: _write(o / "notes.txt"),
    "a card": lambda o, _: _write(o / "README.md"),
    "results": lambda o, _: _write(o / "all_results.json", "{}"),
    "a run file": lambda o, _: _write(o / "_run.json", "{}"),
    "a run file that is none": lambda o, _: _write(o / "_run.json", "\0"),
    "a lock": lambda o, _: _write(o / "_lock"),
    "a lock that is a folder": lambda o, _: _write(o / "_lock" / "x"),
    "a study": lambda o, _: _write(o / "study.db"),
    "a checkpoint of a run": lambda o, _: _write(o / "checkpoint-3" / "model.safetensors"),
    "an empty checkpoint": lambda o, _: (o / "checkpoint-3").mkdir(parents=True),
    "a file named checkpoint": lambda o, _: _write(o / "checkpoint-3"),
    "a validation run": lambda o, _: _write(o / "validation" / "all_results.json", "{}"),
    "a file named validation": lambda o, _: _write(o / "validation"),
    "a file in its place": lambda o, _: _write(o),
    "a link to a folder": lambda o, e: (_write(e / "kept" / "x"), (e / "new").mkdir(), _link(o, e / "new"))[-1],
    "a link to nothing": lambda o, e: _link(o, e / "missing"),
    "a link to itself": lambda o, _: _link(o, o),
    "a link for the weights": lambda o, e: (_write(e / "kept"), _link(o / "model.safetensors", e / "kept"))[-1],
    "a link for the lock": lambda o, e: (_write(e / "kept"), _link(o / "_lock", e / "kept"))[-1],
    "a link for the lists": lambda o, e: (_write(e / "kept"), _link(o / "lists.csv", e / "kept"))[-1],
    "a draft": lambda o, _: _write(o / ".hfrec-draft-x" / "model.safetensors"),
    "a hidden file": lambda o, _: _write(o / ".DS_Store"),
}
BESIDE: dict[str, Callable[[Path, Path], None]] = {
    "a pickle": lambda m, _: _write(m / "pytorch_model.bin"),
    "pickled arguments": lambda m, _: _write(m / "training_args.bin"),
    "an index": lambda m, _: _write(m / "model.safetensors.index.json", '{"weight_map": {"x": "../x.safetensors"}}'),
    "an empty index": lambda m, _: _write(m / "model.safetensors.index.json", "{}"),
    "a shard": lambda m, _: shutil.copy(m / "model.safetensors", m / "model-00001-of-00002.safetensors"),
    "an adapter": lambda m, _: _write(m / "adapter_config.json", '{"base_model_name_or_path": "x"}'),
    "an adapter that is none": lambda m, _: _write(m / "adapter_config.json", "[]"),
    "code": lambda m, _: _write(m / "modeling_bert4rec.py", "raise SystemExit('ran')\n"),
    "a prior": lambda m, _: _write(m / "prior.json", '{"weights": [1.0], "segments": {}}'),
    "a generation config": lambda m, _: _write(m / "generation_config.json", "[1]"),
    "a hidden copy": lambda m, _: shutil.copytree(m, m / ".ipynb_checkpoints"),
    "linked weights": lambda m, e: _move_and_link(m / "model.safetensors", e / "w"),
    "a link to nothing for weights": lambda m, e: (
        (m / "model.safetensors").unlink(),
        _link(m / "model.safetensors", e / "w"),
    )[-1],
    "linked items": lambda m, e: _move_and_link(m / "items.parquet", e / "i"),
    "a folder for the tokenizer": lambda m, _: (
        (m / "tokenizer.json").unlink(),
        (m / "tokenizer.json").mkdir(),
    )[-1],
    "special tokens": lambda m, _: _write(m / "special_tokens_map.json", '{"mask_token": "[X]"}'),
    "added tokens": lambda m, _: _write(m / "added_tokens.json", '{"[X]": 3}'),
    "a chat template": lambda m, _: _write(m / "chat_template.jinja", "{{ 1/0 }}"),
    "a vocabulary": lambda m, _: _write(m / "vocab.txt", "x\n"),
}
WRITERS = [name for name in COMMANDS if name not in ("study", "tune", "export", "demo")]
READERS = ("recommend", "evaluate", "finetune", "items add", "blend", "compare")


def foreign_files(server: Server, inputs: Inputs, output: Path, *, draw: random.Random, count: int) -> Iterator[Trial]:
    """A command whose folder, or whose checkpoint, holds what is not its own."""
    elsewhere, model = (output.with_name(f"{output.name}-{name}") for name in ("elsewhere", "model"))
    wholes: dict[str, Whole] = {}
    for _ in range(count):
        _clear(output), _clear(elsewhere)
        elsewhere.mkdir()
        beside = draw.random() < 0.5
        name = draw.choice(READERS if beside else WRITERS)
        given = Inputs(**{**vars(inputs), "model": model})
        words = COMMANDS[name](given, output)
        copy_of(inputs.model, model)
        if name not in wholes:
            wholes[name] = whole_run(server, name, given, output)
            _clear(output)
        thing = draw.choice(sorted(BESIDE if beside else PLACES))
        BESIDE[thing](model, elsewhere) if beside else PLACES[thing](output, elsewhere)
        before = {**_contents(elsewhere), **({} if beside else _contents(output))}
        outcome = server.run(words)
        after = {**_contents(elsewhere), **_contents(output)}
        lost = [path.name for path, content in before.items() if after.get(path) != content]
        fault = "a file of others in the checkpoint" if beside else "a file of others in the output"
        if (wrong := outcome.fault()) is not None or outcome.code not in (0, 3):
            ended = "fault" if wrong else "told"
            wrong = wrong or (f"told, and {', '.join(lost)} changed" if lost else None)
            yield Trial(name, fault, ended, wrong, thing)
            continue
        own = set(wholes[name].digests)
        if lost := [
            lost_name
            for lost_name in lost
            if lost_name not in own and lost_name not in ("_lock", "_run.json") and thing != "a draft"
        ]:
            yield Trial(name, fault, "fault", f"changed {', '.join(lost)} of others", thing)
            continue
        for path in before:  # what stays of others is no part of the result
            if path != output and path.name not in own and path.is_relative_to(output):
                path.unlink(missing_ok=True)
        yield Trial(name, fault, *judge(outcome, output, wholes[name]), thing)


def _write(path: Path, text: str = "of somebody else") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _move_and_link(path: Path, target: Path) -> None:
    path.rename(target)
    path.symlink_to(target)


def _clear(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _contents(folder: Path) -> dict[Path, str]:
    """Hashes of all files below a folder, which may be a file, by their paths without following links."""
    if folder.is_symlink():
        return {folder: os.readlink(folder)}
    paths = [folder] if folder.is_file() else folder.rglob("*") if folder.is_dir() else []
    return {path: hash_of(path.read_bytes().hex()) for path in paths if path.is_file()}
