"""Push, pin and pull through the unmodified client against a hub on 127.0.0.1."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from hfrec import ItemTokenizer, load_checkpoint
from hfrec.data.files import seal
from tests.hub.conftest import BAD_TOKEN, ITEMS, OTHER_TOKEN, READ_TOKEN, TOKEN, Client, ClientError, make_checkpoint
from tests.hub.loopback import Hub

EXPECTED = [
    ".eval_results/hfrec.yaml",
    ".gitattributes",
    "README.md",
    "all_results.json",
    "body.py",
    "catalogue.py",
    "chunked_loss.py",
    "config.json",
    "configuration_bert4rec.py",
    "content.py",
    "grids.py",
    "hard_negatives.py",
    "item_scorer.py",
    "items.parquet",
    "layers.py",
    "loss_names.py",
    "losses.py",
    "model.safetensors",
    "modeling_bert4rec.py",
    "packing.py",
    "recommendation_pipeline.py",
    "rotary.py",
    "self_contained.py",
    "tokenizer.json",
    "tokenizer_config.json",
]


def test_one_push_is_one_commit_of_exactly_the_checkpoint(hub: Hub, client: Client, checkpoint: Path) -> None:
    """A push in two commits is a repository that for some seconds holds a mixture; a run folder holds pickles too."""
    pushed = client("push", str(checkpoint), "ann/films", commit_message="First")
    assert hub.log("ann/films") == ["First", "initial commit"]
    assert hub.files("ann/films") == EXPECTED
    assert hub.repository("ann/films").branches["main"] == pushed["oid"]
    for name in ("model.safetensors", "tokenizer.json", "items.parquet", ".eval_results/hfrec.yaml"):
        assert hub.content("ann/films", name) == (checkpoint / name).read_bytes()


def test_a_second_push_sends_what_changed_and_removes_what_went(
    hub: Hub, client: Client, checkpoint: Path, tmp_path: Path
) -> None:
    """A shard or a pickle that an earlier push left would be loaded beside the new weights, or in their place."""
    client("push", str(checkpoint), "ann/second")
    stale = {"model-00001-of-00002.safetensors": b"old", "pytorch_model.bin": b"pickle", "notes.txt": b"kept"}
    stale["test_ranks.parquet"] = b"user ids"
    files = {name: hub.content("ann/second", name) for name in hub.files("ann/second")}
    hub.seed("ann/second", {**files, **stale})
    folder = shutil.copytree(checkpoint, tmp_path / "films")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# Films, edited\n")
    hub.requests.clear()
    client("push", str(folder), "ann/second")
    assert hub.files("ann/second") == sorted([*EXPECTED, "notes.txt"])
    assert b"edited" in hub.content("ann/second", "README.md")
    assert not [request for request in hub.requests if request.method == "PUT"]


def test_push_by_command_states_the_licence(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """A licence that is on the hub alone is gone with the next push of the folder."""
    folder = shutil.copytree(checkpoint, tmp_path / "films")
    assert client("command", "push", str(folder), "ann/free", "--license", "mit") == 0
    card = hub.content("ann/free", "README.md").decode()
    assert card == "---\nlicense: mit\n---\n\n# Films\n" == (folder / "README.md").read_text()


def test_branch_pull_request_and_private(hub: Hub, client: Client, checkpoint: Path) -> None:
    """A branch that must exist first fails after the training; a pull request that lands on main is a commit."""
    client("push", str(checkpoint), "ann/private", private=True, revision="v2")
    repository = hub.repository("ann/private")
    assert repository.private
    assert hub.files("ann/private") == [".gitattributes"]
    assert "model.safetensors" in hub.files("ann/private", "v2")
    opened = client("push", str(checkpoint), "ann/private", create_pr=True)
    assert opened["pull_request"].endswith("/discussions/1")
    assert hub.files("ann/private") == [".gitattributes"]
    assert "model.safetensors" in hub.files("ann/private", "refs/pr/1")


def test_a_pull_request_to_a_foreign_repository(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """Creating the repository first, as for a push of one's own, would be refused."""
    client("push", str(checkpoint), "ann/open")
    make_checkpoint(tmp_path / "better", seed=2)
    client("environment", HF_TOKEN=OTHER_TOKEN)
    try:
        assert client("push", str(tmp_path / "better"), "ann/open", create_pr=True)["pull_request"]
        with pytest.raises(ClientError, match="403"):
            client("push", str(tmp_path / "better"), "ann/open")
        with pytest.raises(ClientError, match="needs a repository"):
            client("push", str(checkpoint), "ann/absent", create_pr=True)
    finally:
        client("environment", HF_TOKEN=TOKEN)


def test_models_push_like_folders(hub: Hub, client: Client, checkpoint: Path) -> None:
    """A model pushed without its tokenizer names items that nobody can read."""
    client("push_model", str(checkpoint), "ann/object")
    wanted = {"model.safetensors", "tokenizer.json", "items.parquet", "modeling_bert4rec.py"}
    assert wanted <= set(hub.files("ann/object"))
    assert len(hub.log("ann/object")) == 2
    with pytest.raises(ClientError, match="`tokenizer` must be given"):
        client("push_model", str(checkpoint), "ann/object", with_tokenizer=False)
    client("push_model", str(checkpoint), "ann/stock", stock=True)
    assert {"model.safetensors", "modeling_bert4rec.py", "config.json"} <= set(hub.files("ann/stock"))


def test_revisions_pin_weights_config_and_items(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """A pin that one of model, tokenizer or config ignores mixes two versions without a word."""
    first = client("push", str(checkpoint), "ann/pinned")["oid"]
    client("tag", "ann/pinned", "v1")
    make_checkpoint(tmp_path / "new", seed=1)
    client("push", str(tmp_path / "new"), "ann/pinned")
    old = client("recommendations", str(checkpoint), ITEMS[:3])
    new = client("recommendations", str(tmp_path / "new"), ITEMS[:3])
    assert old != new
    assert client("recommendations", "ann/pinned", ITEMS[:3]) == new
    for revision in ("v1", first):
        assert client("recommendations", "ann/pinned", ITEMS[:3], revision=revision) == old
        assert client("pipeline_recommendations", "ann/pinned", ITEMS[:3], revision=revision) == old
    assert client("pipeline_recommendations", "ann/pinned", ITEMS[:3]) == new


def test_items_are_of_the_revision_of_the_weights(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """Old weights beside new items recommend under wrong names, and a catalogue of equal size fits."""
    client("push", str(checkpoint), "ann/renamed")
    client("tag", "ann/renamed", "v1")
    make_checkpoint(tmp_path / "new", seed=0)
    renamed = [f"{item} (renamed)" for item in ITEMS]
    ItemTokenizer.from_items(renamed).save_pretrained(tmp_path / "new")
    client("push", str(tmp_path / "new"), "ann/renamed")
    old = client("recommendations", str(checkpoint), ITEMS[:3])
    assert client("recommendations", "ann/renamed", ITEMS[:3], revision="v1") == old
    assert client("pipeline_recommendations", "ann/renamed", ITEMS[:3], revision="v1") == old
    new = [[f"{item} (renamed)", score] for item, score in old]
    assert client("recommendations", "ann/renamed", renamed[:3]) == new
    assert client("pipeline_recommendations", "ann/renamed", renamed[:3]) == new


def test_pull_by_command_and_verify(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """The client compares sizes only: a flipped bit in the weights passes without `verify`."""
    client("push", str(checkpoint), "ann/pulled")
    words = ["pull", "ann/pulled", str(tmp_path / "films"), "--verify"]
    assert client("command", *words) == 0
    pulled = sorted(path.relative_to(tmp_path / "films").as_posix() for path in (tmp_path / "films").rglob("*.*"))
    assert set(EXPECTED) - {".gitattributes"} <= set(pulled)
    weights = tmp_path / "films" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ClientError, match=r"model\.safetensors in .* differ"):
        client("pull", "ann/pulled", output_dir=str(tmp_path / "films"), verify=True)
    client("pull", "ann/pulled", output_dir=str(tmp_path / "films"), verify=True, force_download=True)
    assert weights.read_bytes() == content


def test_a_read_token_reads(hub: Hub, client: Client, checkpoint: Path) -> None:
    """The token of a deployment should not be able to write."""
    client("push", str(checkpoint), "ann/deployed", private=True)
    client("environment", HF_TOKEN=READ_TOKEN)
    try:
        assert Path(client("pull", "ann/deployed")).is_dir()
        with pytest.raises(ClientError, match="403, the token may not do this"):
            client("push", str(checkpoint), "ann/deployed")
    finally:
        client("environment", HF_TOKEN=TOKEN)


def test_a_subfolder_is_read_whole_and_a_token_may_be_an_argument(hub: Hub, client: Client, tmp_path: Path) -> None:
    """One file of the top level among those of the subfolder is a mixture of two models."""
    files = {}
    for seed, folder in enumerate(("", "small/")):
        make_checkpoint(tmp_path / str(seed), seed=seed)
        files |= {folder + path.name: path.read_bytes() for path in (tmp_path / str(seed)).iterdir()}
    hub.seed("ann/sizes", files)
    hub.repository("ann/sizes").private = True
    small = client("recommendations", str(tmp_path / "1"), ITEMS[:3])
    assert client("recommendations", str(tmp_path / "0"), ITEMS[:3]) != small
    client("environment", HF_TOKEN=BAD_TOKEN)
    try:
        assert "neither a checkpoint" in client("load_error", "ann/sizes", subfolder="small")
        assert client("recommendations", "ann/sizes", ITEMS[:3], subfolder="small", token=READ_TOKEN) == small
        assert client("pull", "ann/sizes", token=READ_TOKEN)
    finally:
        client("environment", HF_TOKEN=TOKEN)
    assert {request.token for request in hub.requests if request.status == 200 and request.server == "api"} == {
        READ_TOKEN
    }


def test_no_request_to_the_storage_server_had_a_token(hub: Hub, client: Client, checkpoint: Path) -> None:
    """Storage belongs to somebody else; a token sent there is given away."""
    client("push", str(checkpoint), "ann/storage", private=True)
    client("pull", "ann/storage")
    storage = [request for request in hub.requests if request.server == "blobs"]
    assert storage
    assert not [request for request in storage if request.token or request.status >= 400]
    assert all(request.token for request in hub.requests if request.server == "api" and "/commit/" in request.path)


def test_a_pull_leaves_nothing_of_an_earlier_one(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """Whole weights of the earlier version are what loads where the new version has shards, and every checksum fits."""
    client("push", str(checkpoint), "ann/shards")
    client("tag", "ann/shards", "v1")
    folder, new = tmp_path / "films", tmp_path / "new"
    make_checkpoint(new, seed=1)
    load_checkpoint(new)[0].save_pretrained(tmp_path / "sharded", max_shard_size="5KB")
    (new / "model.safetensors").unlink()
    for path in (tmp_path / "sharded").glob("*.safetensors*"):
        shutil.copy(path, new)
    client("push", str(new), "ann/shards")
    client("pull", "ann/shards", revision="v1", output_dir=str(folder))
    client("pull", "ann/shards", output_dir=str(folder), verify=True)
    assert not (folder / "model.safetensors").exists()
    assert client("recommendations", str(folder), ITEMS[:3]) == client("recommendations", str(new), ITEMS[:3])
    client("pull", "ann/shards", revision="v1", output_dir=str(folder))
    assert not list(folder.glob("model-*"))
    assert client("recommendations", str(folder), ITEMS[:3]) == client("recommendations", str(checkpoint), ITEMS[:3])


def test_a_pull_touches_no_other_model(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """A model of one's own was overwritten by a pull into its folder; a foreign prior there was used."""
    client("push", str(checkpoint), "ann/one")
    client("push", str(checkpoint), "ann/two")
    own = shutil.copytree(checkpoint, tmp_path / "own")
    make_checkpoint(own, seed=3)
    content = (own / "model.safetensors").read_bytes()
    with pytest.raises(ClientError, match=r"`output_dir` .*own holds .*README\.md.* choose another"):
        client("pull", "ann/one", output_dir=str(own))
    assert (own / "model.safetensors").read_bytes() == content
    client("pull", "ann/one", output_dir=str(tmp_path / "films"))
    with pytest.raises(ClientError, match=r"holds a pull of ann/one, not of ann/two"):
        client("pull", "ann/two", output_dir=str(tmp_path / "films"))
    (tmp_path / "films" / "prior.json").write_text("{}")
    with pytest.raises(ClientError, match=r"holds prior\.json, which no pull of ann/one wrote"):
        client("pull", "ann/one", output_dir=str(tmp_path / "films"))


def test_verify_names_what_the_revision_lacks(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """Every listed file fits its checksum, and beside them lies one that is read too."""
    client("push", str(checkpoint), "ann/added")
    folder = Path(client("pull", "ann/added"))
    (folder / "prior.json").write_text("{}")
    with pytest.raises(ClientError, match=r"holds prior\.json, which ann/added lacks"):
        client("pull", "ann/added", verify=True)


def test_a_prior_removed_at_home_goes_with_the_next_push(
    hub: Hub, client: Client, checkpoint: Path, tmp_path: Path
) -> None:
    """It stayed in the repository and went on mixing popularity into the lists of whoever pulled."""
    folder = shutil.copytree(checkpoint, tmp_path / "films")
    (folder / "prior.json").write_text("{}")
    client("push", str(folder), "ann/prior")
    assert "prior.json" in hub.files("ann/prior")
    (folder / "prior.json").unlink()
    client("push", str(folder), "ann/prior")
    assert "prior.json" not in hub.files("ann/prior")


def test_a_pull_that_did_not_end_is_no_checkpoint(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """Config and items of the new version stood beside weights of the old one, and loaded."""
    client("push", str(checkpoint), "ann/half")
    folder, new = tmp_path / "films", tmp_path / "new"
    client("pull", "ann/half", output_dir=str(folder))
    make_checkpoint(new, seed=1)
    client("push", str(new), "ann/half")
    hub.fail("GET", r"^/blob/", status=403, times=99)
    with pytest.raises(ClientError, match="Could not pull"):
        client("pull", "ann/half", output_dir=str(folder))
    hub.rules.clear()
    with pytest.raises(ValueError, match=r"holds a pull that did not end.*pull again"):
        load_checkpoint(folder)
    client("pull", "ann/half", output_dir=str(folder))
    assert client("recommendations", str(folder), ITEMS[:3]) == client("recommendations", str(new), ITEMS[:3])


def test_a_damaged_checkpoint_is_not_published(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """Whoever pulls it has no hashes but those of the damage."""
    folder = shutil.copytree(checkpoint, tmp_path / "films")
    seal(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    with pytest.raises(ClientError, match=r"is not as it was saved: model\.safetensors damaged"):
        client("push", str(folder), "ann/damaged")


def test_without_a_hub_a_folder_is_the_revision_that_was_pulled(
    client: Client, checkpoint: Path, tmp_path: Path
) -> None:
    """The client of the hub gave the folder of another revision for the one that was asked for."""
    client("push", str(checkpoint), "ann/away", revision="v1")
    folder, asked = tmp_path / "films", {"output_dir": str(tmp_path / "films"), "local_files_only": True}
    client("pull", "ann/away", output_dir=str(folder), revision="v1")
    assert client("pull", "ann/away", revision="v1", **asked) == str(folder)
    with pytest.raises(ClientError, match=r"holds a pull of v1, expected a whole one of ann/away at main"):
        client("pull", "ann/away", **asked)
    with pytest.raises(ClientError, match=r"holds no pull, expected a whole one of ann/away at v1"):
        client("pull", "ann/away", revision="v1", **{**asked, "output_dir": str(tmp_path / "new")})


def test_a_push_during_a_pull_is_told(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """The names of one commit were fetched from the next, which had more of them."""
    client("push", str(checkpoint), "ann/live")
    hub.fail("GET", r"^/blob/", action="delay", seconds=0.5, times=99)
    hub.requests.clear()

    def push() -> None:
        while not any("/tree/" in request.path for request in list(hub.requests)):
            time.sleep(0.01)
        repository = hub.repository("ann/live")
        files = dict(repository.commits[repository.branches["main"]].files)
        repository.add({**files, "prior.json": files["config.json"]}, "more", "main")

    other = threading.Thread(target=push)
    other.start()
    try:
        with pytest.raises(ClientError, match=r"Somebody pushed to ann/live during the pull"):
            client("pull", "ann/live", output_dir=str(tmp_path / "films"))
    finally:
        other.join()
        hub.rules.clear()
    client("pull", "ann/live", output_dir=str(tmp_path / "films"))
    assert (tmp_path / "films" / "prior.json").is_file()
