"""The long campaign: thousands of trials, each with one fault, and a table of how they ended.

    make faults                                       # about half an hour on two cores
    .venv/bin/python -m tests.faults.campaign --share .1 --kinds kills logs

Exits with 1 where a trial ended in a traceback, hung, or was silently wrong. Every number hangs on the seed alone.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from .commands import COMMANDS, Inputs, make_inputs, run_whole
from .harness import Server
from .kills import Trial, kill_trials
from .logs import logs, verdict
from .trials import (
    clocks,
    full_disks,
    mutated_checkpoints,
    mutated_runs,
    mutated_sequences,
    mutated_settings,
    races,
)

SLOW = ("export", "tune")  # seconds a trial
COUNTS = {
    "logs": 1500, "checkpoints": 400, "blends": 100, "sequences": 80, "runs": 100, "settings": 120, "kills": 14,
    "disks": 60, "races": 20, "clocks": 20,
}  # fmt: skip  # of kills: for each command


def trials(kind: str, count: int, server: Server, inputs: Inputs, folder: Path, seed: int) -> Iterator[Trial]:
    """The trials of one kind."""
    draw, output = random.Random(f"{kind} {seed}"), folder / f"{kind}-out"
    if kind == "logs":
        yield from fuzzed_logs(folder, count, seed)
    elif kind == "checkpoints":
        yield from mutated_checkpoints(server, inputs, inputs.model, output, draw=draw, count=count)
    elif kind == "blends":
        blend = folder / "blend"
        run_whole(server, COMMANDS["blend"](inputs, blend))
        yield from mutated_checkpoints(server, inputs, blend, output, draw=draw, count=count, readers=("recommend",))
    elif kind == "kills":
        for name in COMMANDS:
            few = name in SLOW
            moments, events = (1, 2) if few else (max(1, count // 4), count)
            yield from kill_trials(server, name, inputs, output, draw=draw, events=events, moments=moments)
    else:
        known = {
            "sequences": mutated_sequences, "runs": mutated_runs, "settings": mutated_settings, "disks": full_disks,
            "races": races, "clocks": clocks,
        }  # fmt: skip
        yield from known[kind](server, inputs, output, draw=draw, count=count)


def fuzzed_logs(folder: Path, count: int, seed: int) -> Iterator[Trial]:
    """Logs by hypothesis, each read twice."""
    found: list[Trial] = []

    @seeded(seed)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(logs())
    def read(log: tuple[str, bytes]) -> None:
        ended, wrong = verdict(folder, *log)
        said = None if wrong is None else f"{wrong} on {log[1][:400]!r}"
        found.append(Trial(f"load_interactions, {log[0]}", "a fuzzed log", ended, said))

    read()
    yield from found


def table(counted: Counter[tuple[str, str]], wrong: Counter[str]) -> str:
    """Faults and outcomes as Markdown."""
    faults = sorted({fault for fault, _ in counted})
    lines = ["| Fault | Trials | How they ended | Wrong |", "|---|---|---|---|"]
    for fault in faults:
        ends = {ended: number for (one, ended), number in counted.items() if one == fault}
        told = ", ".join(f"{number:,} {ended}" for ended, number in sorted(ends.items()))
        lines.append(f"| {fault} | {sum(ends.values()):,} | {told} | {wrong[fault]} |")
    total = sum(counted.values())
    return "\n".join([*lines, f"| **All** | **{total:,}** | | **{sum(wrong.values())}** |"])


def main() -> int:
    """Run the kinds that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="Of the usual number of trials.")
    parser.add_argument("--kinds", nargs="+", choices=list(COUNTS), default=list(COUNTS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counted: Counter[tuple[str, str]] = Counter()
    wrong: Counter[str] = Counter()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hfrec-faults-") as name:
        folder = Path(name)
        server = Server(folder / "server")
        inputs = make_inputs(server, folder / "inputs")
        for kind in arguments.kinds:
            count = max(1, round(COUNTS[kind] * arguments.share))
            for trial in trials(kind, count, server, inputs, folder, arguments.seed):
                counted[trial.fault, trial.outcome] += 1
                if trial.wrong is not None:
                    wrong[trial.fault] += 1
                    print(f"WRONG {trial.fault}: {trial.command}: {trial.wrong}", flush=True)
            print(f"{kind}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        server.close()
    print(table(counted, wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
