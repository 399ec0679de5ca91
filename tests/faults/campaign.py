"""The long campaign: thousands of trials, each with one fault, and a table of how they ended.

    make faults                                       # an hour or two on two cores
    .venv/bin/python -m tests.faults.campaign --share .1 --parts "kills of pretrain" logs
    .venv/bin/python -m tests.faults.campaign --table

Each part writes its counts into `--output_dir` when it ends; the same command goes on with the parts that are missing.
Exits with 1 where a trial ended in a traceback, hung, or was silently wrong. Every number depends on the seed alone.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from .commands import COMMANDS, Inputs, make_inputs, run_whole
from .foreign import foreign_files
from .harness import Server
from .kills import Trial, kill_trials
from .logs import Log, logs, verdict
from .requests import fuzzed_requests, killed_services, reloads
from .trials import (
    DATA,
    clocks,
    full_disks,
    mutated_checkpoints,
    mutated_data,
    mutated_runs,
    mutated_settings,
    races,
)

SLOW = ("export", "tune", "study", "demo")  # seconds a trial
KILLS = 8  # of a command, at changes of files; besides, every scripted point and a quarter as many random moments
COUNTS = {
    "logs": 900, "requests": 500, "checkpoints": 250, "unsealed": 150, "blends": 80, "adopted": 80, "priors": 40,
    "sequences": 80, "runs": 60, "settings": 120, "disks": 60, "races": 50, "clocks": 30, "foreign": 60,
    "reloads": 60, "services": 12, "exports": 60, "prepared": 80, "ranks": 60,
}  # fmt: skip
PARTS = [*COUNTS, *(f"kills of {name}" for name in COMMANDS)]


def trials(part: str, count: int, server: Server, inputs: Inputs, folder: Path, seed: int) -> Iterator[Trial]:
    """The trials of one part."""
    draw, output = random.Random(f"{part} {seed}"), folder / f"{part.replace(' ', '-')}-out"
    damaged: dict[str, dict[str, Any]] = {
        "checkpoints": {"model": inputs.model},
        "unsealed": {"model": inputs.content, "readers": ("recommend", "evaluate", "items adopt"), "sealed": False},
        "adopted": {"model": inputs.content, "readers": ("recommend zero-shot", "items adopt", "finetune adopted")},
        "priors": {"model": inputs.prior, "readers": ("recommend",), "names": ["prior.json"]},
    }
    known = {
        "runs": mutated_runs, "settings": mutated_settings, "disks": full_disks,
        "races": races, "clocks": clocks, "foreign": foreign_files,
    }  # fmt: skip
    if part == "logs":
        yield from fuzzed_logs(folder, count, seed)
    elif part == "requests":
        yield from fuzzed_requests(inputs.model, folder, draw=draw, count=count)
    elif part == "reloads":
        yield from reloads(inputs.model, folder, draw=draw, count=count)
    elif part == "exports":
        run_whole(server, COMMANDS["export"](inputs, folder / "export"))
        yield from reloads(folder / "export", folder, draw=draw, count=count)
    elif part in DATA:
        yield from mutated_data(server, inputs, output, draw=draw, count=count, kind=part)
    elif part == "services":
        yield from killed_services(inputs.model, folder, draw=draw, count=count)
    elif part == "blends":
        blend = folder / "blend"
        run_whole(server, COMMANDS["blend"](inputs, blend))
        yield from mutated_checkpoints(server, inputs, blend, output, draw=draw, count=count, readers=("recommend",))
    elif part in damaged:
        yield from mutated_checkpoints(server, inputs, output=output, draw=draw, count=count, **damaged[part])
    elif part in known:
        yield from known[part](server, inputs, output, draw=draw, count=count)
    else:
        name = part.removeprefix("kills of ")
        events, moments = (2, 1) if name in SLOW else (count, max(1, count // 4))
        yield from kill_trials(server, name, inputs, output, draw=draw, events=events, moments=moments)


def fuzzed_logs(folder: Path, count: int, seed: int) -> Iterator[Trial]:
    """Logs by hypothesis, each read twice, until so many different cases were tried.

    Hypothesis makes most examples from earlier ones: only in short runs are they no near-copies of each other.
    """
    found: list[Trial] = []
    for run in range(seed * 10**6, seed * 10**6 + count):

        @seeded(run)
        @settings(
            max_examples=20, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(logs())
        def read(log: Log) -> None:
            ended, wrong = verdict(folder, log)
            said = None if wrong is None else f"{wrong} on {log.content[:400]!r}"
            found.append(Trial("load_interactions", "a fuzzed log", ended, said, log.case))

        read()
        if len({(trial.detail, trial.outcome) for trial in found}) >= count:
            break
    yield from found


def run_part(part: str, server: Server, inputs: Inputs, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What becomes of one part, as its file holds it."""
    began, counted, cases = time.monotonic(), Counter[tuple[str, str]](), dict[str, set[str]]()
    wrong: list[list[str]] = []
    count = max(1, round(COUNTS.get(part, KILLS) * arguments.share))
    for trial in trials(part, count, server, inputs, folder, arguments.seed):
        counted[trial.fault, trial.outcome] += 1
        cases.setdefault(trial.fault, set()).add(f"{trial.command} {trial.detail} {trial.outcome}")
        if trial.wrong is not None:
            wrong.append([trial.fault, trial.command, trial.detail, trial.wrong])
            print(f"WRONG {': '.join(wrong[-1])}", flush=True)
    return {
        "seed": arguments.seed,
        "share": arguments.share,
        "counted": [[*key, number] for key, number in sorted(counted.items())],
        "cases": {fault: len(found) for fault, found in sorted(cases.items())},
        "wrong": wrong,
        "seconds": round(time.monotonic() - began),
    }


def table(found: list[dict[str, Any]]) -> str:
    """Faults and outcomes of the parts as Markdown."""
    counted, cases, wrong = Counter[tuple[str, str]](), Counter[str](), Counter[str]()
    for part in found:
        for fault, ended, number in part["counted"]:
            counted[fault, ended] += number
        cases.update(part["cases"])
        wrong.update(fault for fault, *_ in part["wrong"])
    lines = ["| Fault | Trials | Different | How they ended | Wrong |", "|---|---|---|---|---|"]
    for fault in sorted(cases):
        ends = {ended: number for (one, ended), number in counted.items() if one == fault}
        told = ", ".join(f"{number:,} {ended}" for ended, number in sorted(ends.items()))
        lines.append(f"| {fault} | {sum(ends.values()):,} | {cases[fault]:,} | {told} | {wrong[fault]} |")
    every = f"**{sum(counted.values()):,}** | **{sum(cases.values()):,}**"
    return "\n".join([*lines, f"| **All** | {every} | | **{sum(wrong.values())}** |"])


def main() -> int:
    """Run the parts that were asked for and are not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="Of the usual number of trials.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/faults"), help="A file of each part.")
    parser.add_argument("--table", action="store_true", help="Run nothing, print the table of what lies there.")
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    files = {part: arguments.output_dir / f"{part.replace(' ', '-')}.json" for part in PARTS}
    missing = [part for part in arguments.parts if not files[part].exists()]
    if missing and not arguments.table:
        with tempfile.TemporaryDirectory(prefix="hfrec-faults-") as name:
            folder = Path(name)
            server = Server(folder / "server")
            inputs = make_inputs(server, folder / "inputs")
            for part in missing:
                print(f"{part}: begins", file=sys.stderr, flush=True)
                done = run_part(part, server, inputs, folder, arguments)
                files[part].write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
                print(f"{part}: {done['seconds']} s", file=sys.stderr, flush=True)
            server.close()
    found = [json.loads(path.read_text(encoding="utf-8")) for path in files.values() if path.exists()]
    print(table(found))
    return 1 if any(part["wrong"] for part in found) else 0


if __name__ == "__main__":
    sys.exit(main())
