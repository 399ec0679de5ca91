"""Push and pull as they are typed: what a folder holds afterwards, and what the line on stderr says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hfrec import load_checkpoint
from tests.hub.conftest import ITEMS, Client, make_checkpoint
from tests.hub.loopback import Hub

Shell = Callable[..., tuple[int, str]]


@pytest.fixture
def shell(client: Client) -> Shell:
    """Runs `hfrec WORDS` in the client process; exit code and what it said."""

    def run(*words: object) -> tuple[int, str]:
        before = len(client.printed())
        code = client("command", *map(str, words))
        said = client.printed()[before:]
        assert "Traceback" not in said
        return code, said

    return run


def as_shards(source: Path, target: Path) -> Path:
    """The checkpoint of a folder with its weights in shards."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("model.safetensors", "sha256.json"))
    load_checkpoint(source)[0].save_pretrained(target / "shards", max_shard_size="5KB")
    for path in (target / "shards").glob("*.safetensors*"):
        shutil.move(path, target)
    shutil.rmtree(target / "shards")
    return target


def names_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_versions_of_other_shapes_into_one_folder(hub: Hub, shell: Shell, tmp_path: Path) -> None:
    """Whole weights beside shards, or shards beside whole weights: what loads is of another version."""
    one, other, folder = tmp_path / "one", tmp_path / "other", tmp_path / "films"
    make_checkpoint(one, seed=0)
    make_checkpoint(other, seed=1)
    for version, source in (("v1", one), ("v2", as_shards(other, tmp_path / "sharded")), ("v3", other)):
        assert shell("push", source, "ann/shapes", "--tag", version)[0] == 0
    for version in ("v1", "v2", "v1", "v3", "v2"):
        assert shell("pull", "ann/shapes", folder, "--revision", version, "--verify")[0] == 0
        whole = "model.safetensors" in names_of(folder)
        assert whole == (version != "v2") == (not list(folder.glob("model-*")))
        weights = load_checkpoint(folder)[0].state_dict()
        expected = load_checkpoint(one if version == "v1" else other)[0].state_dict()
        assert all(weights[name].equal(expected[name]) for name in expected)
    shutil.copy(one / "model.safetensors", folder)  # as an earlier hfrec left it
    code, said = shell("pull", "ann/shapes", folder, "--revision", "v2", "--verify")
    assert code == 1 and "holds model.safetensors, which no pull of ann/shapes wrote" in said
    (folder / ".hfrec_pull.json").unlink()
    code, said = shell("pull", "ann/shapes", folder, "--revision", "v2")
    assert code == 1 and "which no pull of ann/shapes wrote: choose another folder" in said


def test_a_prior_comes_and_goes_with_its_version(hub: Hub, shell: Shell, tmp_path: Path) -> None:
    """A prior that stays behind mixes the popularity of other times into every short history."""
    home, folder = tmp_path / "home", tmp_path / "films"
    make_checkpoint(home, seed=0)
    (home / "prior.json").write_text("{}")
    assert shell("push", home, "ann/priors", "--tag", "with")[0] == 0
    (home / "prior.json").unlink()
    assert shell("push", home, "ann/priors", "--tag", "without")[0] == 0
    assert "prior.json" not in hub.files("ann/priors") and "prior.json" in hub.files("ann/priors", "with")
    for version in ("with", "without", "with", "without"):
        assert shell("pull", "ann/priors", folder, "--revision", version)[0] == 0
        assert ("prior.json" in names_of(folder)) == (version == "with")
    (folder / "prior.json").write_text('{"weights": [1.0]}')
    for more in ((), ("--verify",), ("--revision", "with")):
        code, said = shell("pull", "ann/priors", folder, *more)
        assert code == 1 and "holds prior.json, which no pull of ann/priors wrote" in said
    assert json.loads((folder / "prior.json").read_text()) == {"weights": [1.0]}


@pytest.mark.parametrize("name", ["README.md", "model.safetensors", "prior.json", ".eval_results/hfrec.yaml"])
def test_links_out_of_the_folder_stay_at_home(name: str, hub: Hub, shell: Shell, tmp_path: Path) -> None:
    """Whatever a link points at would be on the hub for everybody."""
    folder, secret = tmp_path / "films", tmp_path / "secret"
    make_checkpoint(folder, seed=0)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    secret.write_bytes(path.read_bytes() if path.exists() else b"key")
    path.unlink(missing_ok=True)
    path.symlink_to(secret)
    repo_id = f"ann/links-{path.stem.lower()}"
    code, said = shell("push", folder, repo_id)
    assert code == 1 and f"{name} in {folder} is a link to {secret}, outside it" in said
    assert ("models", repo_id) not in hub.repositories
    path.unlink()
    (folder / "inside").write_bytes(secret.read_bytes())
    path.symlink_to(folder / "inside")
    assert shell("push", folder, repo_id)[0] == 0
    assert hub.content(repo_id, name) == secret.read_bytes()


def test_what_failed_verification_is_not_used(hub: Hub, shell: Shell, tmp_path: Path) -> None:
    """A file that is known to be damaged lay there under its name, and was what loaded next."""
    home, log, lists = tmp_path / "home", tmp_path / "log.csv", tmp_path / "lists.csv"
    make_checkpoint(home, seed=0)
    assert shell("push", home, "ann/verified")[0] == 0
    log.write_text("user_id,item_id,timestamp\n" + "".join(f"u,{item},{time}\n" for time, item in enumerate(ITEMS[:4])))
    for name in ("model.safetensors", "items.parquet", "config.json", "tokenizer.json"):
        folder = tmp_path / name
        assert shell("pull", "ann/verified", folder)[0] == 0
        content, written = (folder / name).read_bytes(), (folder / name).stat()
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(folder / name, ns=(written.st_atime_ns, written.st_mtime_ns))  # what is newer is downloaded again
        code, said = shell("pull", "ann/verified", folder, "--verify")
        assert code == 1 and f"{name} in {folder} differ from the checksums" in said
        assert name not in names_of(folder) and f"{name}.damaged" in names_of(folder)
        code, said = shell("recommend", folder, log, "--output_file", lists)
        assert code == 1 and "hfrec recommend: " in said and not lists.exists()
        assert shell("pull", "ann/verified", folder, "--verify")[0] == 0
        assert (folder / name).read_bytes() == content
        assert shell("recommend", folder, log, "--output_file", lists)[0] == 0
        lists.unlink()
