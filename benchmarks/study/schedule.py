"""All runs of a study: several at a time, each written down when it ends, so that an interrupted study goes on."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hfrec.data.files import RUN_FILE, read_json_object, write_json
from hfrec.hub.checkpoint import load_network
from hfrec.training.runfile import begin_in, of_nobody_knows_what, weights_digest

from .arguments import StudyArguments
from .arms import ARMS, Arm, Trial
from .runner import METRIC, StudyData, run_once

# Strengths of the trade-off, and the learning rate of all its runs; 0 is plain fine-tuning.
TRADEOFF_RATE = 1e-3
TRADEOFF = {
    "finetune": (0.0,),
    "l2sp_coupled": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    "l2sp_decoupled": (3.0, 10.0, 30.0, 100.0, 300.0),
}
# Settings that every row depends on; the others choose which rows there are, and stand in the names of their files.
_OF_EVERY_ROW = (
    "test_fraction", "validation_fraction", "max_steps", "batch_size", "forgetting_users", "filter_seen",
)  # fmt: skip
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One run: an arm at a share with a seed and settings."""

    arm: Arm
    fraction: float
    seed: int
    trial: Trial

    @property
    def file_name(self) -> str:
        """Where its row is written."""
        settings = "".join(f"-{name}{value:g}" for name, value in self.trial.items())
        return f"{self.arm.name}-{self.fraction:g}-{self.seed}{settings}.json"


def run_study(arguments: StudyArguments) -> tuple[list[Row], list[Row]]:
    """Tune each arm at each share on validation with the first seed, then run the choice with every seed.

    Every run is a file under `runs/`, written when it ends: an interrupted study goes on after the last one.

    Returns:
        The rows of the chosen settings, and those of the trade-off.

    Raises:
        ValueError: The folder holds the runs of another study.
    """
    begin_study(arguments)
    cells = list(planned(arguments))
    first = arguments.seeds[0]
    trials = [[Job(arm, share, first, trial) for trial in arm.trials] for arm, share in cells]
    tried = iter(rows_of([job for jobs in trials for job in jobs], arguments))
    finals, chosen = [], []
    for (arm, share), jobs in zip(cells, trials, strict=True):
        scores = [next(tried)[f"validation_{METRIC}"] for _ in jobs]
        best = jobs[int(np.argmax(scores))].trial
        seeds = arguments.seeds if arm.trained else arguments.seeds[:1]
        chosen.append([Job(arm, share, seed, best) for seed in seeds])
    found = iter(rows_of([job for jobs in chosen for job in jobs], arguments))
    for jobs in chosen:
        rows = [next(found) for _ in jobs]
        mean = float(np.mean([row[METRIC] for row in rows]))
        print(f"{jobs[0].arm.name:<16} {jobs[0].fraction:>5.0%}  {METRIC} {mean:.4f}  {jobs[0].trial}", flush=True)
        finals += rows
    return finals, rows_of(list(tradeoff_jobs(arguments)), arguments)


def begin_study(arguments: StudyArguments) -> None:
    """Write what a study is about into its folder, or compare that with the study whose runs lie there.

    Raises:
        ValueError: They are of other logs, another checkpoint or other settings, or of nobody knows which.
    """
    folder, data = Path(arguments.output_dir), data_of(json.dumps(vars(arguments)))
    target = {"pool": data.pool, "validation": data.validation, "test": data.test}
    study = {
        "log": {"source": data.source.fingerprint, **{name: part.fingerprint for name, part in target.items()}},
        "checkpoint": {"weights": weights_digest(load_network(arguments.model_name_or_path)[0])},
        "study": {name: getattr(arguments, name) for name in _OF_EVERY_ROW},
    }
    if not (folder / RUN_FILE).is_file() and any((folder / "runs").glob("*.json")):
        raise of_nobody_knows_what(folder, "runs")
    begin_in(folder, study)


def planned(arguments: StudyArguments) -> Iterator[tuple[Arm, float]]:
    """Arms and shares in order, small shares first."""
    for fraction in sorted(arguments.fractions):
        for name in arguments.arms:
            yield ARMS[name], fraction


def tradeoff_jobs(arguments: StudyArguments) -> Iterator[Job]:
    """Plain fine-tuning and a row of L2-SP strengths at one share and one learning rate, with every seed."""
    if arguments.tradeoff_fraction is None:
        return
    for name, strengths in TRADEOFF.items():
        for strength in strengths:
            trial = {"learning_rate": TRADEOFF_RATE, **({"alpha": strength} if strength else {})}
            for seed in arguments.seeds:
                yield Job(ARMS[name], arguments.tradeoff_fraction, seed, trial)


def rows_of(jobs: Sequence[Job], arguments: StudyArguments) -> list[Row]:
    """The rows of the runs in their order; those that were done before come from their files."""
    folder = Path(arguments.output_dir) / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    missing = list({job.file_name: job for job in jobs if not (folder / job.file_name).exists()}.values())
    if arguments.num_processes == 1 or len(missing) < 2:
        for job in missing:
            do(job, arguments)
    else:
        # A fresh interpreter: threads of the libraries do not survive a fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(arguments.num_processes, context, initializer=one_thread) as pool:
            try:
                for number, done in enumerate(as_completed([pool.submit(do, job, arguments) for job in missing]), 1):
                    done.result()
                    print(f"{number} of {len(missing)} runs", end="\r", flush=True)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [read_row(folder / job.file_name) for job in jobs]


def read_row(path: Path) -> Row:
    """The row of a run that was done.

    Raises:
        ValueError: It is damaged.
    """
    row: Row = read_json_object(path)
    if not isinstance(row.get("ranks"), list) or not isinstance(row.get(f"validation_{METRIC}"), float):
        raise ValueError(f"{path} is damaged, no row of a run: remove it, and the same command does the run again.")
    return row


def one_thread() -> None:
    """As many processes as cores leave each of them one."""
    torch.set_num_threads(1)


def do(job: Job, arguments: StudyArguments) -> None:
    """Do a run and write its row."""
    row = run_once(data_of(json.dumps(vars(arguments))), job.arm, job.fraction, job.seed, job.trial)
    write_json(Path(arguments.output_dir) / "runs" / job.file_name, row)


@cache
def data_of(arguments: str) -> StudyData:
    """The data of a study, read once in a process."""
    return StudyData(StudyArguments(**json.loads(arguments)))
