"""A checkpoint is one folder: weights, config, tokenizer, items and the code to load them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils.hub import cached_file, extract_commit_hash

from ..data.collators import objective_of
from ..data.files import check_seal, read_json_object
from ..models import Bert4RecForCausalLM, Bert4RecForMaskedLM, Blend
from ..tokenization import HUB_PARAMETERS, ItemTokenizer

_CLASSES: tuple[type[PreTrainedModel], ...] = (Bert4RecForMaskedLM, Bert4RecForCausalLM, Blend)


def load_checkpoint(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, **kwargs: Any
) -> tuple[PreTrainedModel, ItemTokenizer]:
    """Load the model of a checkpoint, masked, causal or a blend, and its item tokenizer.

    On a hub, the revision is looked up once and all files are read from that commit, so that a push in between cannot
    mix two versions. No code of the checkpoint is run and no pickle is read.

    Args:
        name_or_path: Folder or hub id.
        revision: Branch, tag or commit on the hub.
        kwargs: Handed to `from_pretrained` of the model (`dtype`, `device_map`, …), and to the tokenizer what concerns
            the hub: `subfolder`, `token`, `cache_dir`, `local_files_only`.

    Raises:
        OSError: No such folder or hub id, no safetensors weights, or damaged ones.
        ValueError: Files that are not as they were saved, a checkpoint of another model, a file that is no item
            tokenizer or one of another size, or a config that claims another size than the weights have.
    """
    hub = {name: kwargs.pop(name) for name in HUB_PARAMETERS if name in kwargs}
    try:
        # First, and once: a hub that is away keeps the client waiting at every look-up of a branch or tag.
        found = cached_file(name_or_path, "config.json", revision=revision or "main", **hub)
        hub["revision"] = extract_commit_hash(found, None) or revision or "main"
    except OSError as error:
        raise OSError(
            f"`{name_or_path}` is neither a checkpoint folder nor a model that the hub gives: check the path, or the "
            f"hub id and the connection. {error}"
        ) from error
    if found is None:  # what the look-up answers of a folder without this file
        raise OSError(
            f"`{name_or_path}` is no checkpoint: expected a folder with config.json, found one without. An export of "
            "`hfrec export` is for `hfrec serve` and its own onnx_recommender.py."
        )
    check_seal(Path(found).parent)
    config = read_json_object(Path(found))
    model_class = _model_class(config, name_or_path)
    tokenizer = ItemTokenizer.from_pretrained(name_or_path, **hub)
    if len(tokenizer) != config.get("vocab_size"):
        raise ValueError(
            f"`{name_or_path}` has a tokenizer of {len(tokenizer)} tokens and a model of {config.get('vocab_size')}: "
            "the folder mixes two checkpoints. Save model and tokenizer into it again."
        )
    try:
        check_sizes(config, weight_shapes(name_or_path, **hub), name_or_path)
        model = model_class.from_pretrained(name_or_path, **hub, **kwargs)
    except SafetensorError as error:
        raise OSError(f"The weights of `{name_or_path}` are damaged: {error}. Copy or save them again.") from error
    model.train(False)
    return model, tokenizer


def read_results(name_or_path: str | os.PathLike[str], *, revision: str | None = None) -> dict[str, Any]:
    """What training wrote into `all_results.json` of a checkpoint; nothing where there is no such file.

    Args:
        name_or_path: Folder or hub id.
        revision: Branch, tag or commit on the hub.

    Raises:
        ValueError: The file is damaged.
    """
    path = cached_file(name_or_path, "all_results.json", revision=revision, _raise_exceptions_for_missing_entries=False)
    found: dict[str, Any] = {} if path is None else read_json_object(Path(path))
    for name in ("settings", "split", "data"):
        if not isinstance(found.get(name, {}), dict):
            raise ValueError(
                f"{path}: expected an object as `{name}`, found {found[name]!r:.60}: the file is damaged. Copy it "
                "again, or remove it and give the log's columns and filters as flags."
            )
    return found


def load_network(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, **kwargs: Any
) -> tuple[PreTrainedModel, ItemTokenizer]:
    """`load_checkpoint` for what trains a model or changes its catalogue, which a blend is not made for.

    Raises:
        ValueError: The checkpoint is a blend; else as `load_checkpoint`.
    """
    model, tokenizer = load_checkpoint(name_or_path, revision=revision, **kwargs)
    if objective_of(model) == "blend":
        raise ValueError(
            f"`{name_or_path}` is a blend, whose parts were fitted apart: expected a masked or causal model. Train or "
            "change that and make the blend again with `hfrec blend`, or `hfrec baseline` where it has no network."
        )
    return model, tokenizer


def _model_class(config: dict[str, Any], name_or_path: str | os.PathLike[str]) -> type[PreTrainedModel]:
    """The class that wrote a checkpoint: a causal model read as a masked one gives wrong scores silently."""
    if config.get("model_type") not in ("bert4rec", "hfrec_blend"):
        raise ValueError(
            f"`{name_or_path}` is a checkpoint of {config.get('model_type')!r}, expected one of 'bert4rec' or "
            "'hfrec_blend'."
        )
    architecture = (config.get("architectures") or ["none"])[0]
    candidates = [kind for kind in _CLASSES if (config["model_type"] == "hfrec_blend") == (kind is Blend)]
    for model_class in (*candidates, *(own for kind in candidates for own in _own_classes(kind))):
        if architecture == model_class.__name__:
            return model_class
    raise ValueError(
        f"`{name_or_path}` holds a {architecture}, expected one of "
        f"{', '.join(model_class.__name__ for model_class in _CLASSES)}. A class of your own loads where it is "
        "imported: in a script, not by `hfrec` commands."
    )


def _own_classes(kind: type[PreTrainedModel]) -> Iterator[type[PreTrainedModel]]:
    """Subclasses that this process has imported: whoever trains one evaluates it in the same script."""
    for own in kind.__subclasses__():
        yield own
        yield from _own_classes(own)


def weight_shapes(name_or_path: str | os.PathLike[str], **hub: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the safetensors weights of a checkpoint, whole or in shards, without reading them.

    Raises:
        OSError: There are none; pickled weights are not read, because they run code when they are loaded.
        ValueError: The index of the shards names a file outside the folder.
    """

    def find(name: str) -> str | None:
        path: str | None = cached_file(name_or_path, name, _raise_exceptions_for_missing_entries=False, **hub)
        return path

    files = [find("model.safetensors")]
    index = find("model.safetensors.index.json") if files[0] is None else None
    if index is not None:
        weight_map = read_json_object(Path(index)).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise ValueError(f"{index} is damaged: expected a `weight_map` of names. Save the model again.")
        names = set(weight_map.values())
        outside = sorted(name for name in names if Path(name).name != name or "\\" in name)
        if outside:
            raise ValueError(
                f"`{name_or_path}` lists the weights {outside[0]!r}, which lie outside its folder: do not use it."
            )
        files = [find(name) for name in sorted(names)]
    shapes: dict[str, tuple[int, ...]] = {}
    kinds: dict[str, str] = {}
    for path in files:
        if path is None:
            raise OSError(
                f"`{name_or_path}` has no whole safetensors weights. Pickled weights (.bin, .pt) run code when they "
                "are loaded and are not read: ask its author to save the model again."
            )
        with safe_open(path, framework="pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
        shapes |= {name: tuple(part.get_shape()) for name, part in slices.items()}
        kinds |= {name: part.get_dtype() for name, part in slices.items()}
    _check_kinds(kinds, name_or_path)
    return shapes


def _check_kinds(kinds: dict[str, str], name_or_path: str | os.PathLike[str]) -> None:
    """Refuse a network of which some tensors are of another kind of number: they would be cast in silence.

    Raises:
        ValueError: With the tensor that stands out.
    """
    network = {name: kind for name, kind in kinds.items() if name.endswith((".weight", ".bias"))}
    usual = max(network.values(), key=list(network.values()).count, default="")
    for name, kind in network.items():
        if kind != usual or not kind.startswith(("F", "BF")):
            raise ValueError(
                f"The weights of `{name_or_path}` hold {name} as {kind}, expected floats, of one kind in all tensors "
                f"({usual}): the file is damaged or mixed. Save the model again."
            )


def check_sizes(
    config: dict[str, Any], shapes: dict[str, tuple[int, ...]], name_or_path: str | os.PathLike[str]
) -> None:
    """Refuse a config whose sizes are not those of the weights, before memory for them is asked for.

    Raises:
        ValueError: With the size that the config claims and the one that the weights have.
    """
    if config.get("model_type") == "hfrec_blend":
        _check_component_sizes(config, shapes, name_or_path)
        return
    layers = {match[1] for name in shapes if (match := re.match(r"model\.layers\.(\d+)\.", name))}
    items = shapes.get("model.embeddings.item_embeddings.weight", shapes.get("decoder.weight", ()))
    found: dict[str, int] = {"num_hidden_layers": len(layers)}
    if len(items) == 2:
        found |= {"vocab_size": items[0], "embedding_size": items[1]}
    for name, key, dimension in (
        ("model.embeddings.position_embeddings.weight", "max_position_embeddings", 0),
        ("model.layers.0.attention.output.weight", "hidden_size", 0),
        ("model.layers.0.mlp.output.weight", "intermediate_size", 1),
    ):
        if name in shapes:
            found[key] = shapes[name][dimension]
    _compare_sizes(config, found, name_or_path)
    tables = {name: shape[0] for name, shape in shapes.items() if name.startswith("model.embeddings.input_tables.")}
    sizes = [tables[name] for name in sorted(tables, key=lambda name: int(name.split(".")[3]))]
    _compare_sizes({"inputs": [entry["size"] for entry in config.get("inputs") or []]}, {"inputs": sizes}, name_or_path)


def _check_component_sizes(
    config: dict[str, Any], shapes: dict[str, tuple[int, ...]], name_or_path: str | os.PathLike[str]
) -> None:
    """`check_sizes` of each part of a blend."""
    tokens = {"vocab_size": shapes.get("popularity", (0,))[0]}
    _compare_sizes(config, tokens, name_or_path)
    for place, component in enumerate(config.get("components") or []):
        prefix = f"components.{place}."
        own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        if component.get("kind") == "network":
            network = {name.removeprefix("network."): shape for name, shape in own.items()}
            check_sizes({**component["config"], "model_type": "bert4rec"}, network, name_or_path)
        elif component.get("kind") == "neighbours":
            entries = {"num_neighbours": own.get("ids", (0,))[0]}
            _compare_sizes(
                {**config, **component}, {**entries, "vocab_size": own.get("offsets", (0,))[0] - 1}, name_or_path
            )
        else:
            _compare_sizes(config, {"vocab_size": own.get("shares", (0,))[0]}, name_or_path)


def _compare_sizes(config: dict[str, Any], found: dict[str, Any], name_or_path: str | os.PathLike[str]) -> None:
    for key, size in found.items():
        claimed = config.get(key)
        if claimed is not None and claimed != size:
            raise ValueError(
                f"The config of `{name_or_path}` claims `{key}` = {claimed}, its weights have {size}: the folder is "
                "damaged or forged."
            )
