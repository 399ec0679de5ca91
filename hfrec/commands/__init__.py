"""The subcommands of `hfrec`; each is a module with `parse(words) -> arguments` and `main(arguments) -> results`."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..data.files import RUN_FILE, STUDY_FILE, VALIDATION_FOLDER
from .flags import FLAGS
from .help import asked_for_help
from .homes import HarnessMissing, package_of
from .parser import as_flags
from .parsing import parse_arguments

REFUSALS = (ValueError, OSError, TypeError, ImportError, FloatingPointError, MemoryError)
_LESS_MEMORY = (
    "Lower `--per_device_train_batch_size` or `--max_length`, or take `--loss sampled_softmax`; `hfrec estimate` says "
    "what a training run needs."
)

_WITHOUT_MODELS = ("compare", "env", "prepare", "pull", "push", "serve")  # which load no transformers for it


class _Terminated(KeyboardInterrupt):
    """SIGTERM, so that files that are being written go away as after Ctrl-C."""


def run(name: str, words: Sequence[str]) -> int:
    """Run a subcommand; a refusal is one line on stderr and exit code 1, an interruption one line and 128 + the signal.

    Results may hold an `exit_code` of their own, such as the verdict of `hfrec refresh`.
    """
    if asked_for_help(words) and name in FLAGS:
        parse_arguments(name, FLAGS[name], words)  # prints and exits
    try:
        module = import_module(f"{package_of(name)}.{name}")
    except HarnessMissing as error:
        _say(name, str(error))
        return 1
    if not gc.get_freeze_count():  # modules stay, and each full collection would take a third of a second to see it
        gc.freeze()
    folder, names = None, {place.name for kind in FLAGS.get(name, ()) for place in fields(kind)}
    try:
        with _told_to_stop(), _warned_in_flags(names):
            arguments = module.parse(words)
            folder = _output_folder(arguments)
            names |= _flag_names(arguments)
            if name not in _WITHOUT_MODELS:
                from ..hub.bars import hide_short_bars

                hide_short_bars()
            with _held(folder):
                results = module.main(arguments)
    except _refusals() as error:
        # A strict dataclass names its validator; the refusal itself is the cause.
        reason = error if isinstance(error, REFUSALS) else (error.__cause__ or error)
        text = as_flags(str(reason), names) or type(reason).__name__
        _say(name, f"out of memory: {text} {_LESS_MEMORY}" if isinstance(reason, MemoryError) else text)
        return 1
    except RuntimeError as error:
        if not _is_memory(error):
            raise
        _say(name, f"out of memory: {error} {_LESS_MEMORY}")
        return 1
    except KeyboardInterrupt as error:
        _say(name, f"interrupted. {_what_is_left(folder)}")
        return 128 + (signal.SIGTERM if isinstance(error, _Terminated) else signal.SIGINT)
    return int(results.get("exit_code", 0)) if isinstance(results, dict) else 0


def _refusals() -> tuple[type[Exception], ...]:
    """What ends a command with one line; the error of a strict dataclass only once its module is loaded."""
    module = sys.modules.get("huggingface_hub.errors")
    return REFUSALS if module is None else (*REFUSALS, module.StrictDataclassError)


def _held(folder: Path | None) -> AbstractContextManager[None]:
    """The folder of a command that writes one, for this process alone."""
    if folder is None:
        return nullcontext()
    from ..data.locks import locked_folder

    return locked_folder(folder)


def _say(name: str, text: str) -> None:
    """One line on stderr, below the progress bars that are still open."""
    from tqdm import tqdm

    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()
    print(f"hfrec {name}: {' '.join(text.split())}", file=sys.stderr)


@contextmanager
def _warned_in_flags(names: set[str]) -> Iterator[None]:
    """What the package logs in the block names flags, as its refusals do; `names` may grow in the block."""
    before = logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = before(*args, **kwargs)
        if made.name.startswith("hfrec."):
            made.msg, made.args = as_flags(made.getMessage(), names), ()
        return made

    logging.setLogRecordFactory(record)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)


def _is_memory(error: RuntimeError) -> bool:
    """Whether torch found no memory: on an accelerator it has a class for it, on the CPU a text."""
    return type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)


@contextmanager
def _told_to_stop() -> Iterator[None]:
    """SIGTERM raises in the block; only the main thread may say what a signal does."""

    def stop(number: int, frame: Any) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _what_is_left(folder: Path | None) -> str:
    """Where an interrupted run goes on from."""
    if folder is not None and (folder / STUDY_FILE).exists():
        return f"The same command goes on with the study in {folder}."
    if folder is not None and (folder / VALIDATION_FOLDER).is_dir() and not any(folder.glob("checkpoint-*")):
        folder = folder / VALIDATION_FOLDER
    if folder is None or not any(folder.glob("checkpoint-*")):
        if folder is not None and (folder / RUN_FILE).is_file() and any(folder.glob("*/*.json")):  # of several runs
            return f"The same command goes on with what lies in {folder}."
        return "Nothing was written; give the same command to start anew."
    from ..training.checkpoints import last_whole_checkpoint

    last = last_whole_checkpoint(folder)
    if last is None:
        return "No checkpoint was written yet; the same command starts anew."
    return f"The last checkpoint is {last}; the same command goes on from it."


def _flag_names(arguments: Any) -> set[str]:
    """The names of a command's flags, from its dataclass or dataclasses."""
    if is_dataclass(arguments):
        return {place.name for place in fields(arguments)}
    return {name for part in arguments for name in _flag_names(part)} if isinstance(arguments, tuple) else set()


def _output_folder(arguments: Any) -> Path | None:
    """The folder that a command writes, from its dataclass or dataclasses."""
    parts = arguments if isinstance(arguments, tuple) else (arguments,)
    folder = next((part.output_dir for part in parts if hasattr(part, "output_dir")), None)
    return None if folder is None else Path(folder)
