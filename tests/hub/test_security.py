"""A malicious repository runs no code, writes nothing outside its folder and cannot ask for all memory."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, pipeline

from hfrec import Bert4RecForMaskedLM, Bert4RecModel, ItemTokenizer, load_checkpoint, load_prior
from hfrec.inference.pipeline import CheckpointLoader
from hfrec.training.l2sp import L2SPCallback
from hfrec.training.run import save_checkpoint
from tests.hub.conftest import Client, ClientError
from tests.hub.loopback import Hub


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.marker,))


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint, tmp_path / "films")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that exists when foreign code ran."""
    return tmp_path / "owned"


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_pickled_weights_are_refused_and_never_opened(folder: Path, marker: Path) -> None:
    """Unpickling runs whatever the author of the file wrote."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(OSError, match=r"no whole safetensors weights. Pickled weights .* are not read"):
        load_checkpoint(folder)
    refusal = r"expected model\.safetensors, found pytorch_model\.bin\. Pickled weights may run code"
    for load in (Bert4RecForMaskedLM.from_pretrained, Bert4RecModel.from_pretrained, AutoModel.from_pretrained):
        with pytest.raises(OSError, match=refusal):
            load(folder)
    with pytest.raises(ValueError, match="`use_safetensors` must not be False"):
        Bert4RecForMaskedLM.from_pretrained(folder, use_safetensors=False)
    with pytest.raises(ValueError, match=refusal):  # of transformers, around ours
        pipeline("recommendation", model=str(folder))
    with pytest.raises(FileNotFoundError):
        L2SPCallback(str(folder), alpha=1.0)
    assert not marker.exists()


def test_pickled_shards_and_pickles_of_a_hub_are_refused(
    folder: Path, hub: Hub, client: Client, tmp_path: Path
) -> None:
    """The stock loader takes them in silence, and on a hub asks for a conversion."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    del files["model.safetensors"]
    hub.seed("ann/pickled", {**files, "pytorch_model.bin": b"pickle"})
    hub.seed("ann/pickled-shards", {**files, "pytorch_model.bin.index.json": b"{}"})
    hub.seed("ann/weightless", files)
    with pytest.raises(ClientError, match=r"expected model.safetensors, found pytorch_model.bin\."):
        client("load_directly", "ann/pickled")
    with pytest.raises(ClientError, match=r"found pytorch_model.bin.index.json"):
        client("load_directly", "ann/pickled-shards")
    with pytest.raises(ClientError, match=r"model\.safetensors") as caught:
        client("load_directly", "ann/weightless")
    assert "Pickled" not in caught.value.message, "there is none"
    assert not [request for request in hub.requests if request.method == "GET" and "pytorch_model" in request.path]
    with pytest.raises(ClientError, match=r"expected model.safetensors, found pytorch_model.bin\."):
        client("pipeline_recommendations", "ann/pickled", [])


def test_a_config_that_names_other_weights_is_refused(folder: Path) -> None:
    """transformers reads the file that the config names, a pickle too, whatever else was checked."""
    edit(folder / "config.json", transformers_weights="adapter_model.bin")
    torch.save(load_file(folder / "model.safetensors"), folder / "adapter_model.bin")
    for load in (load_checkpoint, Bert4RecForMaskedLM.from_pretrained):
        with pytest.raises(ValueError, match="`transformers_weights` must not be given"):
            load(folder)


def test_a_pickle_named_safetensors_is_not_run(folder: Path, marker: Path) -> None:
    """A loader that looks at the content and not at the name would unpickle it."""
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(OSError, match="damaged"):
        load_checkpoint(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 2**40),
        ("vocab_size", 2**40),
        ("num_hidden_layers", 10**9),
        ("intermediate_size", 2**50),
        ("max_position_embeddings", 2**40),
        ("embedding_size", 2**40),
    ],
)
def test_a_config_of_absurd_size_is_refused_at_once(name: str, value: int, folder: Path) -> None:
    """A model of a billion layers is built for hours before its weights are found missing."""
    edit(folder / "config.json", **{name: value})
    start = time.monotonic()
    with pytest.raises(ValueError, match=f"{name}|tokenizer of 23 tokens"):
        load_checkpoint(folder)
    assert time.monotonic() - start < 5


def test_shards_outside_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    """The index of the shards is a list of paths that somebody else wrote."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(weights, tmp_path / "outside.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "../outside.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="outside its folder"):
        load_checkpoint(folder)


EVIL = "from pathlib import Path\nPath({marker!r}).touch()\nclass Evil:\n    pass\n"


def test_code_of_a_repository_does_not_run_unasked(folder: Path, marker: Path) -> None:
    """`auto_map` names code to import; without `trust_remote_code=True` nobody said that it may run."""
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
    names = ("AutoConfig", "AutoModel", "AutoModelForMaskedLM")
    edit(folder / "config.json", auto_map=dict.fromkeys(names, "evil.Evil"))
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    load_checkpoint(folder)  # the code of hfrec, not that of the folder
    pipeline("recommendation", model=str(folder), device=-1)
    edit(folder / "config.json", model_type="evil")
    with pytest.raises(ValueError, match="'evil', expected one of 'bert4rec'"):
        load_checkpoint(folder)
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=False)
    assert not marker.exists()


EMPTY = '{"model": {"type": "WordLevel", "vocab": {}}, "added_tokens": []}'


@pytest.mark.parametrize(
    "content", ["\x80\x04\x95 a pickle", "{}", "[]", '{"model": {"type": "Evil"}, "added_tokens": []}', EMPTY, ""]
)
def test_a_tokenizer_file_that_is_none_is_refused(content: str, folder: Path) -> None:
    """A tokenizer that loads as something else gives other items than those that were meant."""
    (folder / "tokenizer.json").write_bytes(content.encode("latin-1"))
    for load in (ItemTokenizer.from_pretrained, load_checkpoint):
        with pytest.raises(ValueError, match=r"The tokenizer.json of .* is no tokenizer"):
            load(folder)


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    """The parent would make an empty one."""
    (folder / "tokenizer.json").unlink()
    for load in (ItemTokenizer.from_pretrained, load_checkpoint):
        with pytest.raises(OSError, match=r"has no tokenizer\.json"):
            load(folder)


@pytest.mark.parametrize("first", [["[UNK]", "the", "a"], ["[PAD]", "[MASK]", "[UNK]"]])
def test_a_tokenizer_of_text_is_refused(first: list[str], folder: Path) -> None:
    """A text tokenizer loads well, and maps item ids to pieces of words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel, WordPiece

    kind = WordLevel if first[0] == "[UNK]" else WordPiece
    vocabulary = {token: index for index, token in enumerate([*first, "of"])}
    Tokenizer(kind(vocabulary, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    with pytest.raises(ValueError, match="Expected an item tokenizer"):
        ItemTokenizer.from_pretrained(folder)


def test_items_that_are_no_parquet_are_refused(folder: Path) -> None:
    """Titles of another file would stand beside the wrong items."""
    (folder / "items.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises((OSError, ValueError)):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["../../outside.py", "a/../../outside.py", "..\\outside.py", "/etc/outside.py"])
def test_names_that_leave_the_folder_are_refused(
    name: str, hub: Hub, client: Client, checkpoint: Path, tmp_path: Path
) -> None:
    """A downloader that trusts the names of a repository writes wherever its author likes."""
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.is_file()}
    hub.seed("ann/traversal", {**files, name: b"evil"})
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ClientError, match="leaves its folder"):
        client("pull", "ann/traversal", output_dir=str(tmp_path / "deep" / "films"))
    assert set(tmp_path.rglob("*")) == before


def test_pull_takes_the_checkpoint_and_nothing_else(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> None:
    """Pickles, scripts in folders and whatever else lies there stay there."""
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.is_file()}
    hub.seed("ann/mixed", {**files, "pytorch_model.bin": b"pickle", "last-checkpoint/optimizer.pt": b"pickle"})
    folder = Path(client("pull", "ann/mixed", output_dir=str(tmp_path / "films")))
    pulled = {path.name for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts}
    assert "model.safetensors" in pulled
    assert not pulled & {"pytorch_model.bin", "optimizer.pt", "training_args.bin"}
    hub.seed("ann/pickles", {"config.json": files["config.json"], "pytorch_model.bin": b"pickle"})
    with pytest.raises(ClientError, match=r"no safetensors weights, found config.json, pytorch_model.bin"):
        client("pull", "ann/pickles")
    assert "Pickled weights" in client("load_error", "ann/pickles") or "tokenizer" in client(
        "load_error", "ann/pickles"
    )


def test_a_forged_weight_file_of_other_shapes_is_refused(folder: Path) -> None:
    """Weights that do not fit would be left out with a warning, and new random ones used in their place."""
    weights = load_file(folder / "model.safetensors")
    weights["model.embeddings.item_embeddings.weight"] = torch.zeros(23, 8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="embedding_size"):
        load_checkpoint(folder)


def test_items_that_unfold_to_all_memory_are_refused(folder: Path) -> None:
    """Some kilobytes of a repeated text are gigabytes in memory."""
    path = folder / "items.parquet"
    items = pq.read_table(path)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * len(items), pa.int32()), pa.array(["x" * (1 << 23)]))
    lists = pa.ListArray.from_arrays(
        [0, *[1 << 20] * len(items)],
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(1 << 20, dtype=np.int32)), pa.array(["x" * 100])),
    )
    for column in (text, lists):
        pq.write_table(items.append_column("title", column), path, compression="zstd")
        assert path.stat().st_size < 100_000
        with pytest.raises(ValueError, match=r"items\.parquet unfolds to .* bytes"):
            load_checkpoint(folder)
    pq.write_table(pa.table({"item_id": pa.array(np.zeros(1 << 24, dtype=np.int64))}), path)
    with pytest.raises(ValueError, match="lists 16777216 items"):
        load_checkpoint(folder)


def test_a_billion_labels_are_refused_at_once(folder: Path) -> None:
    """The parent makes a name for each of them, whatever the weights are."""
    edit(folder / "config.json", num_labels=30_000_000)
    start = time.monotonic()
    for load in (load_checkpoint, Bert4RecForMaskedLM.from_pretrained):
        with pytest.raises(Exception, match="`num_labels` must be at most"):
            load(folder)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("content", ["[]", "{", '"text"', "\x80", "3"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "prior.json", "items.parquet"])
def test_files_of_another_structure_are_refused(name: str, content: str, folder: Path) -> None:
    """A traceback out of the middle of a loader names no file."""
    (folder / name).write_bytes(content.encode("latin-1"))
    if name.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    with pytest.raises((ValueError, OSError), match=name):
        load_prior(folder, load_checkpoint(folder)[1])


def test_items_without_ids_are_refused(folder: Path) -> None:
    """A KeyError says nothing of the file."""
    pq.write_table(pa.table({"title": ["a"] * 20}), folder / "items.parquet")
    with pytest.raises(ValueError, match="in the columns title, expected `item_id`"):
        load_checkpoint(folder)


def test_a_stored_kernel_of_a_hub_is_refused(folder: Path) -> None:
    """transformers downloads the repository and runs its code."""
    for name in ("attn_implementation", "_attn_implementation"):
        edit(folder / "config.json", **{name: "evil/kernel"})
        for load in (load_checkpoint, Bert4RecForMaskedLM.from_pretrained, AutoModel.from_pretrained):
            with pytest.raises(ValueError, match=f"`{name}` of a stored config must not name a repository"):
                load(folder)
        edit(folder / "config.json", **{name: None})
    edit(folder / "config.json", attn_implementation="eager")
    load_checkpoint(folder)


def test_links_out_of_a_folder_are_not_published(folder: Path, hub: Hub, client: Client, tmp_path: Path) -> None:
    """A README.md that is a link to a key would be on the hub; the cache of a hub is made of links and is fine."""
    client("push", str(folder), "ann/linked")
    client("push", client("pull", "ann/linked"), "ann/linked-again")
    (tmp_path / "secret").write_text("key")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(ClientError, match=r"README\.md in .* is a link to .*secret, outside it"):
        client("push", str(folder), "ann/linked")


def test_a_file_that_failed_verification_loses_its_name(folder: Path, hub: Hub, client: Client, tmp_path: Path) -> None:
    """After the error the damaged weights lay there under their name and were what loaded next."""
    client("push", str(folder), "ann/flipped")
    for output in (str(tmp_path / "pulled"), None):
        weights = Path(client("pull", "ann/flipped", output_dir=output)) / "model.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ClientError, match=r"model\.safetensors in .* renamed to \*\.damaged"):
            client("pull", "ann/flipped", output_dir=output, verify=True)
        assert not weights.exists()
        client("pull", "ann/flipped", output_dir=output, verify=True)
        assert weights.read_bytes() == content


@pytest.mark.parametrize("kind", [np.int32, np.float16])
def test_a_tensor_of_another_kind_of_number_is_refused(kind: Any, folder: Path) -> None:
    """It was cast in silence: whole numbers are other weights."""
    weights = {name: tensor.numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    weights["model.final_norm.weight"] = weights["model.final_norm.weight"].astype(kind)
    save_numpy(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"hold model\.final_norm\.weight as [IF]\d\d, expected floats, of one kind"):
        load_checkpoint(folder)


def test_zeros_in_the_place_of_weights_are_refused(folder: Path) -> None:
    """After a power cut a page of a file may be zeros, which are weights like any others."""
    model, tokenizer = load_checkpoint(folder)
    save_checkpoint(model, tokenizer, folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-4096:] = bytes(4096)
    (folder / "model.safetensors").write_bytes(content)
    for load in (load_checkpoint, CheckpointLoader.from_pretrained):
        with pytest.raises(ValueError, match=r"not as it was saved: model\.safetensors damaged"):
            load(folder)
    model.save_pretrained(folder)  # of whoever means it
    load_checkpoint(folder)


def test_a_damaged_items_file_is_named(folder: Path) -> None:
    """Arrow's own words name no file."""
    content = bytearray((folder / "items.parquet").read_bytes())
    content[4:60] = bytes(56)
    (folder / "items.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"items\.parquet"):
        load_checkpoint(folder)


def test_a_page_that_claims_two_gigabytes_is_refused(folder: Path) -> None:
    """The footer says little, the header of a page 2 GB: they are asked for, but never touched."""
    path = folder / "items.parquet"
    content = bytearray(path.read_bytes())
    place = content.index(0x15, 6)  # thrift: the type of the page, then its size unfolded
    end = next(index for index in range(place - 2, len(content)) if content[index] < 0x80) + 1
    claimed = bytes([0xFE, 0xFF, 0xFF, 0xFF, 0x0F])
    forged = content[:6] + claimed + content[end:]
    middle = len(forged) // 4
    del forged[middle : middle + len(forged) - len(content)]  # the footer finds its page where it was
    path.write_bytes(forged)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"items\.parquet is no whole Parquet file"):
        load_checkpoint(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB


@pytest.mark.parametrize(("name", "token"), [("mask_token", "[PAD]"), ("unk_token", "[MASK]"), ("pad_token", "[UNK]")])
def test_special_tokens_of_other_names_are_refused(name: str, token: str, folder: Path) -> None:
    """A model that was asked at a padded place gave other lists, with exit code 0."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: token}))
    (folder / "sha256.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"tokenizer_config.json of .* names .* it was changed"):
        load_checkpoint(folder)
