"""Runs that push: with every strategy of the stock `Trainer`, and when the hub fails them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hfrec import load_checkpoint
from tests.hub.conftest import BAD_TOKEN, READ_TOKEN, ROOT, TOKEN, Client, client_environment
from tests.hub.loopback import Hub

SHAPE = ["--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1"]
RUN = ["--num_train_epochs", "2", "--per_device_train_batch_size", "64", "--disable_tqdm", "true"]
SLOW = pytest.mark.slow  # one case of each kind is enough for every day
WHOLE = {"README.md", "all_results.json", "config.json", "items.parquet", "model.safetensors", "modeling_bert4rec.py"}


def pretrain(log_file: Path, folder: Path, repo_id: str, *words: str) -> list[str]:
    data = ["--train_file", str(log_file), "--output_dir", str(folder)]
    return ["pretrain", *data, *SHAPE, *RUN, "--push_to_hub", "true", "--hub_model_id", repo_id, *words]


def check_whole(folder: Path) -> None:
    """The run left what a run without a hub leaves."""
    assert {path.name for path in folder.iterdir()} >= WHOLE
    assert list(folder.glob("checkpoint-*"))
    load_checkpoint(folder)


@pytest.mark.parametrize(
    "strategy", ["checkpoint", *(pytest.param(name, marks=SLOW) for name in ("end", "every_save", "all_checkpoints"))]
)
def test_every_strategy_ends_in_a_whole_checkpoint(
    strategy: str, hub: Hub, client: Client, log_file: Path, tmp_path: Path
) -> None:
    """The stock Trainer pushes no remote code, no items, no results, but its pickled arguments."""
    name = f"ann/run-{strategy}"
    words = pretrain(log_file, tmp_path / "run", name, "--hub_strategy", strategy, "--hub_revision", "trial")
    words += ["--hub_always_push", "true"]  # else a push is left out while the one before runs
    assert client("command", *words) == 0
    files, titles = set(hub.files(name, "trial")), hub.log(name, "trial")
    assert files >= WHOLE
    assert not {"training_args.bin", "test_ranks.parquet"} & files
    assert (tmp_path / "run" / "test_ranks.parquet").exists()
    assert hub.files(name) == [".gitattributes"]
    assert hub.content(name, "model.safetensors", "trial") == (tmp_path / "run" / "model.safetensors").read_bytes()
    assert name.encode() in hub.content(name, "README.md", "trial")
    assert titles[0] == "Upload checkpoint with hfrec"
    assert ("Training in progress" in " ".join(titles)) == (strategy != "end")
    # Of every commit: what the last one removes, those before it gave away.
    pushed = {path for commit in hub.repository(name).commits.values() for path in commit.files}
    assert not [path for path in pushed if path.endswith("training_args.bin")]
    folders = {path.split("/")[0] for path in files if "/" in path and not path.startswith(".")}
    wanted = {"checkpoint": {"last-checkpoint"}, "all_checkpoints": {"checkpoint-1", "checkpoint-2"}}
    assert folders == wanted.get(strategy, set())
    assert TOKEN not in client.printed()


def test_ranks_of_an_earlier_test_are_not_pushed_by_the_trainer(
    hub: Hub, client: Client, log_file: Path, tmp_path: Path
) -> None:
    """The stock Trainer pushes the whole folder of a run that goes on, and with it the user ids of the last test."""
    folder = tmp_path / "run"
    words = pretrain(log_file, folder, "ann/again", "--push_to_hub", "false")
    assert client("command", *words) == 0
    assert (folder / "test_ranks.parquet").exists()
    more = ["--resume_from_checkpoint", str(folder / "checkpoint-1"), "--hub_always_push", "true"]
    assert client("command", *pretrain(log_file, folder, "ann/again", *more)) == 0
    assert "Training in progress" in " ".join(hub.log("ann/again"))
    # Of every commit: the last one would remove what those before it gave away.
    assert not [
        commit for commit in hub.repository("ann/again").commits.values() if "test_ranks.parquet" in commit.files
    ]


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (BAD_TOKEN, "401, the hub knows no such token"),
        pytest.param(READ_TOKEN, "403, the token may not do this", marks=SLOW),
    ],
)
def test_a_token_that_cannot_push_costs_no_run(
    token: str, status: str, hub: Hub, client: Client, log_file: Path, tmp_path: Path
) -> None:
    """Hours of training would end at a token that somebody revoked meanwhile."""
    before = len(client.printed())
    client("environment", HF_TOKEN=token)
    try:
        assert client("command", *pretrain(log_file, tmp_path / "run", "ann/refused")) == 1
    finally:
        client("environment", HF_TOKEN=TOKEN)
    check_whole(tmp_path / "run")
    printed = client.printed()[before:]
    assert f"Step 0: nothing can be pushed to ann/refused: {status}" in printed
    assert f"Push it again: hfrec push --folder {tmp_path / 'run'} --repo_id ann/refused" in printed
    assert token not in printed


FAULTS = {
    "quota": (("POST", r"/info/lfs/objects/batch"), {"status": 413}, "413, the hub takes no file of this size"),
    "stale parent": (("POST", r"/commit/"), {"status": 412}, "412, somebody committed meanwhile"),
    "forbidden": (("POST", r"/commit/"), {"status": 403}, "403, the token may not do this"),
    "broken upload": (("PUT", r"/upload/"), {"action": "corrupt"}, "sha256 mismatch"),
    "dropped commit": (("POST", r"/commit/"), {"action": "drop"}, "cannot be reached or broke off"),
}


@pytest.mark.parametrize("fault", [pytest.param(name, marks=() if name == "quota" else SLOW) for name in FAULTS])
def test_a_push_that_fails_in_the_background_is_told_and_made_good(
    fault: str, hub: Hub, client: Client, log_file: Path, tmp_path: Path
) -> None:
    """The stock Trainer ends as if everything had been pushed."""
    before, name = len(client.printed()), f"ann/{fault.replace(' ', '-')}"
    where, rule, said = FAULTS[fault]
    hub.fail(*where, **rule, times=1)
    words = pretrain(log_file, tmp_path / "run", name, "--hub_always_push", "true")
    assert client("command", *words) == 0
    check_whole(tmp_path / "run")
    printed = client.printed()[before:]
    assert "Step 1: the push failed: " in printed
    assert said in printed
    assert "1 pushes failed. The checkpoints are whole in" in printed
    assert f"Push again: hfrec push --folder {tmp_path / 'run'} --repo_id {name}" in printed
    assert TOKEN not in printed
    assert "signature=secret" not in "".join(line for line in printed.splitlines() if "push failed" in line)
    assert set(hub.files(name)) >= WHOLE


def test_a_last_push_that_fails_leaves_the_command_that_makes_it_good(
    hub: Hub, client: Client, log_file: Path, tmp_path: Path
) -> None:
    """What failed last is what the user waits for: the exit code must say so, and the way out must work."""
    before = len(client.printed())
    hub.fail("POST", r"/commit/", status=403, times=99)
    assert client("command", *pretrain(log_file, tmp_path / "run", "ann/late", "--hub_strategy", "end")) == 1
    check_whole(tmp_path / "run")
    line = next(line for line in client.printed()[before:].splitlines() if "Push it again: " in line)
    hub.clear()
    assert client("command", *line.split("Push it again: hfrec ")[1].split()) == 0
    assert set(hub.files("ann/late")) >= WHOLE


@SLOW
def test_fine_tuning_starts_from_a_pinned_revision(hub: Hub, client: Client, log_file: Path, tmp_path: Path) -> None:
    """A start from a branch that moved, or L2-SP held to another commit than the start, cannot be repeated."""
    assert client("command", *pretrain(log_file, tmp_path / "base", "ann/base")) == 0
    client("tag", "ann/base", "v1")
    assert client("command", *pretrain(log_file, tmp_path / "moved", "ann/base", "--seed", "7")) == 0
    data = ["--train_file", str(log_file), "--output_dir", str(tmp_path / "tuned"), *RUN]
    start = ["--model_name_or_path", "ann/base", "--model_revision", "v1", "--l2sp_alpha", "0.1"]
    assert client("command", "finetune", *data, *start) == 0
    card = (tmp_path / "tuned" / "README.md").read_text()
    assert "base_model: ann/base" in card
    assert "| Started from | ann/base, revision v1 |" in card
    state = next((tmp_path / "tuned").glob("checkpoint-*/trainer_state.json")).read_text()
    assert client("reference_fingerprint", str(tmp_path / "base")) in state


def test_a_token_among_the_arguments_is_refused(client: Client, log_file: Path, tmp_path: Path) -> None:
    """The Trainer pickles its arguments, token included, and pushes the pickle."""
    words = pretrain(log_file, tmp_path / "run", "ann/leak", "--hub_token", "hf_leakleakleakleak")
    before = len(client.printed())
    assert client("command", *words) == 1
    printed = client.printed()[before:]
    assert "`--hub_token` must not be given" in printed
    assert "leakleak" not in printed


@pytest.mark.slow
def test_two_processes_push_once(hub: Hub, log_file: Path, tmp_path: Path) -> None:
    """Every process would make the same commits, and the second would find the parent stale."""
    words = pretrain(log_file, tmp_path / "run", "ann/pair", "--hub_strategy", "end", "--use_cpu", "true")
    launch = ["-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = {**client_environment(hub, tmp_path / "home"), "PATH": os.environ["PATH"]}
    command = [sys.executable, *launch, str(ROOT / "scripts" / "pretrain.py"), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert hub.log("ann/pair") == ["Upload checkpoint with hfrec", "initial commit"]
    assert len([request for request in hub.requests if "/commit/" in request.path]) == 1
