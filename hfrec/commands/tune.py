"""Search for better settings of `hfrec pretrain` than the recipe's, on the validation part alone.

hfrec tune interactions.csv --objective causal --output_dir tuned --n_trials 30
hfrec pretrain tuned/best.yaml
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..evaluation.metrics.functions import METRIC as NDCG
from ..training.arguments import TuneArguments
from ..training.durations import parse_duration
from ..training.recipes import BUDGET_FLAGS
from ..training.tuning import (
    VALUES,
    enqueue_own,
    finished_trials,
    open_study,
    own_trial,
    readable_study,
    require_optuna,
    trial_line,
    trials_table,
    write_summary,
)
from .parsing import given_values, parse_arguments
from .trial import CLASSES, Search, run_trial, search_of

if TYPE_CHECKING:
    import optuna

UNFIT = {  # flags of pretrain that a search cannot follow, and why
    **dict.fromkeys(BUDGET_FLAGS, "all trials train for the recipe's steps: shorten them with `--trial_steps`"),
    "streaming": "give a log that fits into memory",
    "rowwise_embeddings": "train the best settings with it",
    "push_to_hub": "push what `hfrec pretrain best.yaml` trains",
    "resume_from_checkpoint": "trials keep no checkpoints; the same command goes on with the study",
}


@dataclass(frozen=True)
class TuneCommand:
    """The parsed flags, and the words that they came from."""

    words: tuple[str, ...]
    output_dir: str
    tune: TuneArguments


def parse(words: Sequence[str]) -> TuneCommand:
    """Flags or a settings file into the dataclasses."""
    *_, training, recipe, tune = parse_arguments("tune", CLASSES, words)
    given = given_values("tune", CLASSES, words)
    for name, remedy in UNFIT.items():
        if given.get(name):
            raise ValueError(f"`--{name}` is not for `hfrec tune`: {remedy}.")
    if not training.greater_is_better:
        raise ValueError(
            f"`--greater_is_better` must be true: trials are compared by a ranking metric, such as {NDCG}."
        )
    if recipe.recipe == "none":
        raise ValueError("`--recipe` none has no budget for a trial: take fast, balanced or best.")
    return TuneCommand(tuple(words), training.output_dir, tune)


def main(arguments: TuneCommand) -> dict[str, Any]:
    """Search, and write `best.yaml` and `trials.csv`; returns the number, the value and the settings of the best."""
    require_optuna()
    with readable_study(Path(arguments.output_dir)):
        return search_and_tell(arguments)


def search_and_tell(arguments: TuneCommand) -> dict[str, Any]:
    """`main` on a study that can be read."""
    folder, search = Path(arguments.output_dir), search_of(arguments.words)
    study = open_study(folder, search.identity)
    missing = arguments.tune.n_trials - len(finished_trials(study))
    print(f"{len(search.space)} settings searched: {', '.join(search.space)}")
    for number in trials(arguments, search, study, missing):
        print(trial_line(study, number), flush=True)
        write_summary(study, folder, search.settings)
    if missing <= 0:
        print(f"The study has its {arguments.tune.n_trials} trials: give a larger `--n_trials` to go on.")
    print(trials_table(study))
    print(f"Train it: hfrec pretrain {folder / 'best.yaml'}")
    best = study.best_trial
    return {"trial": best.number, "value": best.value, "settings": best.user_attrs[VALUES]}


def trials(arguments: TuneCommand, search: Search, study: optuna.Study, missing: int) -> Iterator[int]:
    """Run trials, the recipe's own settings alone and first; yields the number of each that ended."""
    if missing <= 0:
        return
    ran, timeout = len(study.get_trials(deepcopy=False)), arguments.tune.timeout
    deadline = None if timeout is None else time.time() + parse_duration(timeout, "timeout")
    task = partial(run_trial, arguments.words)
    with processes(min(arguments.tune.n_jobs, missing)) as pool:
        if own_trial(study) is None:
            enqueue_own(study, search.own)
            own = partial(task, ran, None, may_diverge=False)
            number = own() if pool is None else pool.submit(own).result()
            yield from () if number is None else (number,)
            ran, missing = ran + 1, missing - 1
        numbers = range(ran, ran + missing)
        if pool is None:
            ended: Iterator[int | None] = (task(number, deadline) for number in numbers)
        else:
            futures = [pool.submit(task, number, deadline) for number in numbers]
            ended = (future.result() for future in as_completed(futures))
        yield from (number for number in ended if number is not None)


@contextmanager
def processes(number: int) -> Iterator[ProcessPoolExecutor | None]:
    """A pool whose processes share the threads of this one; None where this one is enough."""
    if number == 1:
        yield None
        return
    threads = max(1, torch.get_num_threads() // number)
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by the libraries of a new process when they are loaded
    # A fresh interpreter: threads of the libraries do not survive a fork.
    pool = ProcessPoolExecutor(
        number, multiprocessing.get_context("spawn"), initializer=begin_process, initargs=(threads,)
    )
    others = set(multiprocessing.active_children())
    try:
        yield pool
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()  # a trial that is cut off is marked as failed by the next command
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)


def begin_process(threads: int) -> None:
    """What a new process does first: its threads, and an interruption is the first process's matter."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
