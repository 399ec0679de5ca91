"""A fast part of the campaign of `docs/reliability.md`: some trials of each kind, and its oracle on what is known."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from .campaign import COUNTS, table
from .commands import COMMANDS, Inputs, make_inputs
from .foreign import foreign_files
from .harness import Outcome, Server
from .kills import Trial, Whole, again, judge, whole_run
from .logs import Log, logs, verdict
from .requests import fuzzed_requests, reloads
from .trials import clocks, full_disks, mutated_checkpoints, mutated_data, mutated_runs, races

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("faults") / "server")
    yield server
    server.close()


@pytest.fixture(scope="module")
def inputs(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(server, tmp_path_factory.mktemp("inputs") / "inputs")


def assert_none_wrong(trials: Iterator[Trial]) -> None:
    found = list(trials)
    assert found and not [trial for trial in found if trial.wrong]


@settings(max_examples=120, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(log=logs())
def test_a_log_is_read_as_pandas_reads_it_or_refused(tmp_path: Path, log: Log) -> None:
    """A row, an id or a time that is read otherwise than it stands there is another user's history."""
    assert verdict(tmp_path, log)[1] is None


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("prepare", "moving:2"),
        ("items add", "drafted"),
        ("baseline", "moving:5"),
        ("pretrain", "checkpoint"),
        ("pretrain final", "drafted"),
        ("recommend", "written"),
        pytest.param("demo", "sealed:2", marks=pytest.mark.slow),  # commands that were killed, one by one, are above
    ],
)
def test_a_command_that_was_killed_is_given_again(
    name: str, point: str, server: Server, inputs: Inputs, tmp_path: Path
) -> None:
    """What a killed command leaves must neither pass for its result nor keep the next one from it."""
    output = tmp_path / "out"
    whole = whole_run(server, name, inputs, output)
    shutil.rmtree(output)
    words = COMMANDS[name](inputs, output)
    assert server.run(words, environment={"HFREC_FAULT_POINT": point}).code == -9
    assert_none_wrong(iter([again(server, name, words, output, whole, point)]))


def test_a_kill_at_any_change_of_a_file(server: Server, inputs: Inputs, tmp_path: Path) -> None:
    """Scripted points are where somebody thought of a fault; a kill asks nobody."""
    output = tmp_path / "out"
    whole = whole_run(server, "items add", inputs, output)
    words = COMMANDS["items add"](inputs, output)
    for place in (1, len(whole.changes) // 2, len(whole.changes)):
        shutil.rmtree(output, ignore_errors=True)
        server.run(words, events=str(output), kill_at=place)
        assert_none_wrong(iter([again(server, "items add", words, output, whole, "kill")]))


def test_one_mutation_of_a_checkpoint(server: Server, inputs: Inputs, tmp_path: Path) -> None:
    """A damaged file is told, or makes no difference."""
    draw = random.Random(3)
    assert_none_wrong(
        mutated_checkpoints(server, inputs, inputs.model, tmp_path / "out", draw=draw, count=12, readers=("recommend",))
    )


def test_strange_and_sound_requests(inputs: Inputs, tmp_path: Path) -> None:
    """A service that fails at one request is one that anybody can stop; one that refuses all has not failed."""
    found = list(fuzzed_requests(inputs.model, tmp_path, draw=random.Random(0), count=80))
    assert sum(trial.fault == "a sound request" for trial in found) > 20
    assert_none_wrong(iter(found))


def test_damaged_checkpoints_under_a_running_service(inputs: Inputs, tmp_path: Path) -> None:
    """A reload that takes what it gets goes over to random lists."""
    assert_none_wrong(reloads(inputs.model, tmp_path, draw=random.Random(0), count=6))


def test_an_adopted_catalogue_of_a_damaged_checkpoint(server: Server, inputs: Inputs, tmp_path: Path) -> None:
    """What items are made of stands in the config, and any other content would give any other list."""
    readers = ("recommend zero-shot",)
    draw = random.Random(1)
    assert_none_wrong(
        mutated_checkpoints(server, inputs, inputs.content, tmp_path / "out", draw=draw, count=4, readers=readers)
    )


def test_files_of_others(server: Server, inputs: Inputs, tmp_path: Path) -> None:
    """What lies there already is neither lost nor taken for the command's own."""
    assert_none_wrong(foreign_files(server, inputs, tmp_path / "out", draw=random.Random(2), count=4))


@pytest.mark.parametrize("kind", ["prepared", "ranks"])
def test_one_mutation_of_what_a_command_wrote(kind: str, server: Server, inputs: Inputs, tmp_path: Path) -> None:
    """A row of a prepared log or a rank that was changed is like any other."""
    assert_none_wrong(mutated_data(server, inputs, tmp_path / "out", draw=random.Random(0), count=5, kind=kind))


def test_one_mutation_of_an_interrupted_run(server: Server, inputs: Inputs, tmp_path: Path) -> None:
    """A damaged checkpoint is left out, a damaged run file told."""
    assert_none_wrong(mutated_runs(server, inputs, tmp_path / "out", draw=random.Random(0), count=2))


@pytest.mark.parametrize("kind", [full_disks, races, clocks])
def test_full_disks_races_and_clocks(kind: object, server: Server, inputs: Inputs, tmp_path: Path) -> None:
    """Each once; `make faults` does more."""
    assert callable(kind)
    assert_none_wrong(kind(server, inputs, tmp_path / "out", draw=random.Random(1), count=1))


def test_the_oracle_sees_what_is_wrong(tmp_path: Path) -> None:
    """A campaign whose judge says yes to everything finds nothing."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "a.bin").write_bytes(b"right")
    whole = Whole({"a.bin": "another digest"}, (), 1.0)
    good = Outcome(0, "", "")
    assert judge(good, output, whole)[0] == "another result"
    for bad in (replace(good, code=None), replace(good, code=-11), replace(good, code=1, err="KeyError: 'x'\n")):
        assert judge(bad, output, whole)[0] == "fault"
    assert "traceback" in str(judge(replace(good, code=1, err="Traceback (most recent call last)\n"), output, whole))
    assert replace(good, code=1, err="hfrec prepare: the log is empty: give another.\n").fault() is None


def test_the_report_names_every_kind_of_fault_and_tests_that_there_are() -> None:
    """A fault that is tested and not written down helps nobody, nor does the name of a test that is gone."""
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert all(f"`{part}`" in text for part in COUNTS)
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 40
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


def test_a_trial_again_is_no_other_trial() -> None:
    """Near-copies of one trial would make any number of trials."""
    part = {"counted": [["kill", "told", 3]], "cases": {"kill": 2}, "wrong": [["kill", "pretrain", "1", "hangs"]]}
    assert table([part, part]).splitlines()[-1] == "| **All** | **6** | **4** | | **2** |"
