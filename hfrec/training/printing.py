"""What a run says while it trains: a line for each evaluation, one bar, and everything else in a file."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers import TrainingArguments as Arguments
from transformers.trainer_utils import IntervalStrategy

from ..data.files import LOG_FILE
from ..evaluation.table import METRICS
from ..evaluation.verdict import short

SHOWN = ("ndcg@10", "hit_rate@10")


def print_like_a_tool(trainer: Trainer) -> None:
    """Put [`ProgressLines`] in the place of the Trainer's own printing."""
    for stock in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(stock)
    trainer.add_callback(ProgressLines())


class ProgressLines(TrainerCallback):
    """Prints a line for each evaluation, shows one bar on a terminal, and writes every log entry whole into a file.

    It acts in `on_evaluate` (the line), in `on_log` (the file `_training_log.jsonl` of the output folder; the line of a
    run that is not evaluated) and in `on_step_end` (the bar). A run that goes on adds to the file.

    Example:
        >>> print(ProgressLines.line(epoch=3, epochs=40, loss=2.9663, left=130))
        epoch   3/40  loss 2.966  left 0:02:10
    """

    def __init__(self) -> None:
        self.bar: Any = None
        self.began: float | None = None
        self.first_step = 0
        self.loss: float | None = None
        self.best: float | None = None

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Opens the bar, on a terminal."""
        self.began, self.first_step = time.perf_counter(), state.global_step
        terminal = sys.stdout.isatty() and sys.stderr.isatty()
        if state.is_world_process_zero and terminal and not args.disable_tqdm:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", leave=False)

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Moves the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Writes the entry, and prints it where no evaluation will."""
        logs: dict[str, Any] = kwargs.get("logs") or {}
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir or ".")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG_FILE).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": state.global_step, **logs}, default=str) + "\n")
        if "loss" in logs:
            self.loss = float(logs["loss"])
            if args.eval_strategy == IntervalStrategy.NO:
                self._say(self.line(**self._place(args, state), loss=self.loss, left=self._left(state)))

    def on_evaluate(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Prints the line."""
        if self.began is None or not state.is_world_process_zero:
            return  # the evaluation of the best checkpoint, after training
        found: dict[str, float] = kwargs.get("metrics") or {}
        deciding = (args.metric_for_best_model or "loss").removeprefix("eval_")
        value = found.get(f"eval_{deciding}")
        before = state.best_metric if self.best is None else self.best
        if value is not None:
            better = max if args.greater_is_better else min
            self.best = value if before is None else better(value, before)
        prefix = "eval_unfiltered_" if deciding.startswith("unfiltered_") else "eval_"
        metrics = {METRICS[name]: found[prefix + name] for name in SHOWN if prefix + name in found}
        settings: dict[str, Any] = {"loss": self.loss, "metrics": metrics, "best": self.best, "left": self._left(state)}
        self._say(self.line(**self._place(args, state), **settings, is_best=self.best != before))

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Closes the bar."""
        self.began = None
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    @staticmethod
    def line(
        *,
        epoch: float,
        epochs: float,
        loss: float | None = None,
        metrics: dict[str, float] | None = None,
        best: float | None = None,
        left: float | None = None,
        step: tuple[int, int] | None = None,
        is_best: bool = False,
    ) -> str:
        """The line of an evaluation; what is None is left out."""
        width = len(f"{epochs:g}")
        parts = [f"epoch {epoch:>{width + 1}.{0 if step is None else 1}f}/{epochs:g}"]
        parts += [] if step is None else [f"step {step[0]:>{len(str(step[1]))},}/{step[1]:,}"]
        parts += [] if loss is None else [f"loss {loss:.3f}"]
        parts += [f"{name} {short(value)}" for name, value in (metrics or {}).items()]
        parts += [] if best is None else [f"best {short(best)}{'*' if is_best and best is not None else ' '}"]
        parts += [] if left is None else [f"left {_clock(left)}"]
        return "  ".join(parts)

    def _place(self, args: Arguments, state: TrainerState) -> dict[str, Any]:
        epoch, epochs = float(state.epoch or 0.0), float(state.num_train_epochs)
        if args.max_steps > 0 or abs(epoch - round(epoch)) > 1e-3:
            return {"epoch": epoch, "epochs": epochs, "step": (state.global_step, state.max_steps)}
        return {"epoch": epoch, "epochs": epochs}

    def _left(self, state: TrainerState) -> float | None:
        done = state.global_step - self.first_step
        if self.began is None or done < 1:
            return None
        return (time.perf_counter() - self.began) / done * (state.max_steps - state.global_step)

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text)
        else:
            print(text, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
