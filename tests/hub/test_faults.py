"""One injected fault at a time: what `push_to_hub` and `pull_from_hub` do is what docs/hub.md says."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.hub.conftest import ROOT, Client, ClientError
from tests.hub.loopback import Hub

SLOW = pytest.mark.slow
EVERY_DAY = ("404", "412", "413 quota", "dropped commit", "flipped byte in the upload", "flipped byte", "slow hub")


class Fault(NamedTuple):
    """What is injected, and what comes of it: None is success, else what the error says."""

    method: str
    path: str
    rule: dict[str, Any]
    said: str | None


COMMIT, BATCH, UPLOAD, CREATE = r"/commit/", r"/objects/batch", r"/upload/", r"/repos/create"
TREE, BLOB, FILE = r"/tree/", r"/blob/", r"/resolve-cache/.*config\.json"
PUSH = {
    "401": Fault("POST", COMMIT, {"status": 401}, "401, the hub knows no such token"),
    "403": Fault("POST", COMMIT, {"status": 403}, "403, the token may not do this"),
    "404": Fault(
        "POST", COMMIT, {"status": 404, "code": "RevisionNotFound"}, "404, there is no such repository, revision"
    ),
    "409": Fault("POST", COMMIT, {"status": 409}, "409, the hub is changing this repository just now"),
    "412": Fault("POST", COMMIT, {"status": 412}, "412, somebody committed meanwhile"),
    "413 quota": Fault("POST", BATCH, {"status": 413}, "413, the hub takes no file of this size, or the quota"),
    "429": Fault("POST", COMMIT, {"status": 429}, "429, too many requests"),
    "500": Fault("POST", COMMIT, {"status": 500}, "500, the hub has trouble: try again later"),
    "503": Fault("POST", COMMIT, {"status": 503}, "503, the hub has trouble: try again later"),
    "dropped commit": Fault("POST", COMMIT, {"action": "drop"}, "the hub cannot be reached or broke off"),
    "503 at upload": Fault("PUT", UPLOAD, {"status": 503}, None),
    "dropped upload": Fault("PUT", UPLOAD, {"action": "drop"}, None),
    "flipped byte in the upload": Fault("PUT", UPLOAD, {"action": "corrupt"}, "sha256 mismatch"),
    "slow hub": Fault("POST", COMMIT, {"action": "delay", "seconds": 0.5}, None),
}
PULL = {
    "401": Fault("GET", TREE, {"status": 401}, "401, the hub knows no such token"),
    "403 gated": Fault("GET", TREE, {"status": 403, "code": "GatedRepo"}, "403, the token may not do this"),
    "404": Fault(
        "GET", TREE, {"status": 404, "code": "RevisionNotFound"}, "404, there is no such repository, revision"
    ),
    "429": Fault("GET", TREE, {"status": 429}, None),
    "500": Fault("GET", FILE, {"status": 500}, "500, the hub has trouble: try again later"),
    "503": Fault("GET", BLOB, {"status": 503}, "503, the hub has trouble: try again later"),
    "dropped connection": Fault("GET", BLOB, {"action": "drop"}, None),
    "cut body": Fault("GET", BLOB, {"action": "cut"}, None),
    "flipped byte": Fault("GET", BLOB, {"action": "flip"}, "differ from the checksums"),
    "slow hub": Fault("GET", BLOB, {"action": "delay", "seconds": 0.5}, None),
}


def cases(faults: dict[str, Fault]) -> list[Any]:
    """All faults; those outside `EVERY_DAY` are slow, by number or by the client's waiting."""
    return [pytest.param(name, marks=() if name in EVERY_DAY else SLOW) for name in faults]


@pytest.mark.parametrize("name", cases(PUSH))
def test_push(name: str, hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """After any fault the folder is as it was, the repository holds no half of it, and the next push succeeds."""
    folder = shutil.copytree(checkpoint, tmp_path / "films")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()  # its own bytes in every test, so that there is something to upload
    weights.write_bytes(content[:-4] + hashlib.sha256(name.encode()).digest()[:4])
    repo_id = "ann/push-" + name.replace(" ", "-")
    fault = PUSH[name]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    rule = hub.fail(fault.method, fault.path, **fault.rule)
    if fault.said is None:
        client("push", str(folder), repo_id)
    else:
        with pytest.raises(ClientError) as caught:
            client("push", str(folder), repo_id)
        assert caught.value.kinds[0] == "HubError"
        assert fault.said in caught.value.message
        assert f"Push it again: hfrec push --folder {folder} --repo_id {repo_id}" in caught.value.message
        assert not re.search(r"hf_[a-z]{8}|signature=", caught.value.message)
        assert hub.files(repo_id) == [".gitattributes"], "nothing, rather than half of it"
        client("push", str(folder), repo_id)
    assert rule.hits == 1, "the fault was met"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert hub.content(repo_id, "model.safetensors") == weights.read_bytes()
    assert len(hub.log(repo_id)) == 2


@pytest.fixture
def pulled_from(hub: Hub, client: Client, checkpoint: Path) -> str:
    if ("models", "ann/pull-faults") not in hub.repositories:
        client("push", str(checkpoint), "ann/pull-faults")
        hub.requests.clear()
    return "ann/pull-faults"


@pytest.mark.parametrize("name", cases(PULL))
def test_pull(name: str, hub: Hub, client: Client, checkpoint: Path, pulled_from: str, tmp_path: Path) -> None:
    """After any fault no damaged file passes for a whole one, and the next pull succeeds."""
    fault, folder = PULL[name], str(tmp_path / "films")
    rule = hub.fail(fault.method, fault.path, **fault.rule)
    if fault.said is not None:
        with pytest.raises(ClientError) as caught:
            client("pull", pulled_from, output_dir=folder, verify=True, force_download=True)
        assert caught.value.kinds[0] == "HubError"
        assert fault.said in caught.value.message
    client("pull", pulled_from, output_dir=folder, verify=True, force_download=True)
    assert rule.hits == 1, "the fault was met"
    for file in ("model.safetensors", "config.json", "tokenizer.json", "items.parquet"):
        assert (tmp_path / "films" / file).read_bytes() == (checkpoint / file).read_bytes()


def test_the_table_in_the_docs_names_every_fault() -> None:
    """A fault that is tested and not written down helps nobody; one written down and not tested is a promise."""
    text = (ROOT / "docs" / "hub.md").read_text(encoding="utf-8")
    for title, faults in (("Push", PUSH), ("Pull", PULL)):
        section = text.split(f"### {title}\n")[1].split("\n#")[0]
        rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", section, re.MULTILINE))
        assert set(rows) - {"Fault", "---"} == set(faults)
        for name, fault in faults.items():
            assert rows[name].startswith("recovers" if fault.said is None else "error"), name
