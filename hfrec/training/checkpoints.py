"""Checkpoints of a run that can be trusted: none with weights of NaN, none half-written."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..data.files import LOCK_FILE, RUN_FILE, VALIDATION_FOLDER, fault_of, fault_point, seal

logger = logging.get_logger(__name__)


class StopOnNaN(TrainerCallback):
    """Ends a run whose loss or weights are no longer numbers, before a checkpoint of it is written over good ones.

    It acts in `on_log` on the loss and the gradient norm, in `on_step_end` and `on_epoch_end` on the weights when an
    evaluation or a checkpoint is due. It must stand behind the Trainer's own callbacks, which decide whether one is.

    Raises:
        FloatingPointError: with the step and the checkpoint that is kept.
    """

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Looks at the loss and the gradient norm."""
        for name in ("loss", "eval_loss", "grad_norm"):
            value = (logs or {}).get(name)
            if isinstance(value, float) and not math.isfinite(value):
                raise _diverged(f"`{name}` became {value}", args, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Looks at the weights before they are ranked with or saved."""
        if control.should_save or control.should_evaluate:
            for name, weight in kwargs["model"].named_parameters():
                if not torch.isfinite(weight).all():
                    raise _diverged(f"weights of `{name}` are no longer finite", args, state)

    on_epoch_end = on_step_end


def _diverged(what: str, args: TrainingArguments, state: TrainerState) -> FloatingPointError:
    last = last_whole_checkpoint(Path(args.output_dir or "."))
    kept = "no checkpoint was written yet" if last is None else f"the last good checkpoint is {last}"
    where = "" if last is None else ", in another `output_dir`"  # a resumed run takes the rate of its checkpoint
    return FloatingPointError(
        f"{what} at step {state.global_step}: training stopped, {kept}. Lower `learning_rate` or set `max_grad_norm`"
        f"{where}."
    )


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest `checkpoint-N` in `folder` that was written to its end; None without one.

    A warning says what is wrong with those that were not.
    """
    for path in reversed(named_checkpoints(folder)):
        fault = fault_of(path)
        if fault is None:
            return path
        logger.warning(f"{path} is left out: {fault}.")
    return None


def named_checkpoints(folder: Path) -> list[Path]:
    """All `checkpoint-N` in `folder`, the oldest first."""
    named = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.split("-")[-1].isdigit()]
    return sorted(named, key=lambda path: int(path.name.split("-")[-1]))


def only_unfinished(folder: Path) -> bool:
    """Whether a folder holds nothing but what a run writes before its first checkpoint is whole."""
    if not folder.is_dir() or (folder / RUN_FILE).is_file():
        return True
    known = {LOCK_FILE, VALIDATION_FOLDER}
    return {path.name for path in folder.iterdir()} <= {*known, *(path.name for path in named_checkpoints(folder))}


class SealCheckpoint(TrainerCallback):
    """Writes the hashes of a checkpoint's files into it when all are there: no damaged one is ever resumed from.

    It acts in `on_step_end` and `on_epoch_end` before a checkpoint is written, and in `on_save` when it is.
    """

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Has the checkpoints' times in the order of their steps: by these the Trainer chooses which to remove.

        A damaged one in the place of the next goes, so that nothing of it stays.
        """
        if control.should_save and state.is_world_process_zero:
            place = Path(args.output_dir or ".") / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            if place.is_dir() and fault_of(place):
                shutil.rmtree(place)
            earlier = named_checkpoints(place.parent)
            times = [path.stat().st_mtime for path in earlier]
            if times != sorted(times) or any(moment >= time.time() for moment in times):  # a clock that jumped, a copy
                for age, path in enumerate(reversed(earlier), start=1):
                    os.utime(path, (time.time() - age, time.time() - age))

    on_epoch_end = on_step_end

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Hashes the checkpoint that was written."""
        if args.world_size > 1:
            torch.distributed.barrier()  # each process writes its own random state
        folder = Path(args.output_dir or ".") / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            fault_point("checkpoint")
            seal(folder)
            fault_point("sealed")


class SaveOnExit(TrainerCallback):
    """Writes a checkpoint when the process is told to stop (SIGTERM, Ctrl-C), and stops then; a second time, at once.

    It notes signals from `on_train_begin` on, asks for the checkpoint in `on_step_end`, and hands the signal on to
    whoever handled it before at the next event, when the checkpoint is sealed. It must stand before `StopOnNaN`.

    Example:
        >>> SaveOnExit().noted is None
        True
    """

    def __init__(self) -> None:
        self.noted: int | None = None
        self.saved = False
        self.before: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begins to note signals, in the main thread, which alone may."""
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: Any) -> None:
        self.noted = number
        self._let_go()

    def _let_go(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Asks for a checkpoint; of several processes, when the first of them was told."""
        told = self.noted or 0
        if args.world_size > 1:
            numbers = torch.tensor(told, device=args.device)
            torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX)
            told = int(numbers)
        if told:
            self.noted, control.should_save = told, True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Takes note of the checkpoint."""
        self.saved = self.noted is not None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stops, if the checkpoint is there."""
        if self.saved and self.noted is not None:
            self._let_go()
            os.kill(os.getpid(), self.noted)

    on_epoch_end = on_step_begin

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ends the noting of signals."""
        self._let_go()
        self.on_step_begin(args, state, control)


@contextmanager
def no_half_checkpoint(trainer: Trainer) -> Iterator[None]:
    """Takes a checkpoint away again that could not be written to its end, as on a full disk.

    Raises:
        OSError: In place of whatever the writer raised; other errors pass.
    """
    folder = Path(trainer.args.output_dir or ".")
    earlier = named_checkpoints(folder)
    try:
        yield
    except Exception as error:
        unfinished = folder / f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}"
        was_there = unfinished in earlier
        if not trainer.is_world_process_zero() or not unfinished.is_dir() or was_there or not fault_of(unfinished):
            raise
        shutil.rmtree(unfinished)
        last = last_whole_checkpoint(unfinished.parent)
        kept = "No earlier one is there" if last is None else f"{last} is whole and the same command goes on from it"
        raise OSError(
            f"{unfinished} could not be written and was removed: {error}. {kept}: free disk space."
        ) from error
