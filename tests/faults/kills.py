"""Kills: a command dies at a change of a file, at a scripted point or at any moment, and is given again."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .commands import COMMANDS, Inputs, digests
from .harness import Outcome, Server

POINTS = ("locked", "written", "drafted", "moving:1", "moving:2", "moving:5", "moved", "checkpoint", "sealed")


@dataclass(frozen=True)
class Whole:
    """What a command writes when nothing happens: digests of its files, changes of files and seconds."""

    digests: dict[str, str]
    changes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Trial:
    """One trial: the command, the fault, how it ended, what is wrong with it, if anything, and which case it was."""

    command: str
    fault: str
    outcome: str
    wrong: str | None
    detail: str = ""


def whole_run(server: Server, name: str, inputs: Inputs, output: Path) -> Whole:
    """Run a command undisturbed."""
    shutil.rmtree(output, ignore_errors=True)
    began = time.monotonic()
    outcome = server.run(COMMANDS[name](inputs, output), events=str(output))
    if outcome.code not in (0, 3):
        raise RuntimeError(f"{name}: {outcome}")
    return Whole(digests(output), outcome.events, time.monotonic() - began)


def kill_trials(
    server: Server, name: str, inputs: Inputs, output: Path, *, draw: random.Random, events: int, moments: int
) -> Iterator[Trial]:
    """Kill a command at some of its changes of files, at every scripted point, and at random moments."""
    whole = whole_run(server, name, inputs, output)
    words = COMMANDS[name](inputs, output)
    for place in sorted(draw.sample(range(1, len(whole.changes) + 1), min(events, len(whole.changes)))):
        shutil.rmtree(output, ignore_errors=True)
        server.run(words, events=str(output), kill_at=place)
        change = whole.changes[place - 1]
        yield again(server, name, words, output, whole, "kill at a change of a file", f"{place}: {change}")
    for point in POINTS if events else ():
        shutil.rmtree(output, ignore_errors=True)
        died = server.run(words, environment={"HFREC_FAULT_POINT": point})
        if died.code == -9:  # not every command comes by every point
            yield again(server, name, words, output, whole, "kill at a scripted point", point)
    for _ in range(moments):
        shutil.rmtree(output, ignore_errors=True)
        moment = draw.uniform(0.05, 1.1)
        server.run(words, seconds=moment * whole.seconds)
        yield again(server, name, words, output, whole, "kill at a random moment", f"{moment:.3f} of the run")


def again(
    server: Server, name: str, words: list[Any], output: Path, whole: Whole, fault: str, detail: str = ""
) -> Trial:
    """Give the command again: it ends as if nothing had been, or says in one line that its work was done."""
    outcome = server.run(words)
    return Trial(name, fault, *judge(outcome, output, whole), detail)


def judge(outcome: Outcome, output: Path, whole: Whole) -> tuple[str, str | None]:
    """How the second try ended, and what is wrong with it."""
    if fault := outcome.fault():
        return "fault", fault
    found = digests(output)
    names = whole.digests.keys() | found.keys()
    differing = sorted(name for name in names if whole.digests.get(name) != found.get(name))
    if differing:
        return "another result", f"{', '.join(differing[:4])} differ; exit code {outcome.code}: {outcome.reason}"
    return ("same result" if outcome.code in (0, 3) else "told: already done"), None
