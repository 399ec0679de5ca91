"""A checkpoint as an ONNX graph that recommends: history in, items and scores out, checked against PyTorch."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..data.collators import objective_of
from ..data.files import check_new_folder, read_json_object, seal, sha256_of, whole_files, write_json
from ..data.inputs import refuse_inputs
from ..data.repeats import filters_seen
from ..models import Bert4RecForCausalLM, Bert4RecForMaskedLM
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer, check_pair
from .recommend import recommend
from .serving import INT8_FILE, MODEL_FILE, SETTINGS_FILE, VECTORS, VECTORS_FILE, OnnxRecommender
from .similar import item_directions

if TYPE_CHECKING:
    import pyarrow as pa

LIBRARIES = ("onnx", "onnxruntime", "onnxscript")
RESULTS_FILE = "export_results.json"
SERVING_FILE = "onnx_recommender.py"
TOP_K = 100
TOLERANCE = 1e-4
Lists = list[list[dict[str, Any]]]
_LONGEST = 400  # items of a random history
_CHECKED_ALONE = 32  # histories that are checked in a batch of their own


def export_onnx(
    model: Any,
    tokenizer: ItemTokenizer,
    output_dir: str | os.PathLike[str],
    *,
    top_k: int | None = None,
    int8: bool = False,
    histories: Sequence[Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """Write the function that [`recommend`] computes as an ONNX graph, with all that serving it needs.

    The graph takes whole histories of token ids and holds the rest: the `[MASK]` of a masked model, the newest tokens
    that the model has positions for, the scores, the filters and the top k. Before the folder is there, its lists
    are compared with PyTorch's: scores within 1e-4, the same items except where their scores are as close.

    Args:
        model: `Bert4RecForMaskedLM`, `Bert4RecForCausalLM` or `Blend` in float32 on the CPU.
        tokenizer: The tokenizer of this model.
        output_dir: A new or empty folder. It gets `model.onnx`, `recommender.json` (items and settings),
            `item_vectors.safetensors` (for similar items; not of a blend without a network), `onnx_recommender.py`
            (serves them: [`OnnxRecommender`]) and `export_results.json` (what is returned).
        top_k: Most items that can be asked for; 100, or all items where there are fewer.
        int8: Also write `model_int8.onnx`, its weights quantised to 8 bits.
        histories: Histories of raw ids to check on; 256 random ones when None.

    Returns:
        `histories` checked, `same_items` (share of equal lists), `max_score_difference` and, with `int8`,
        `int8_overlap@10`: the share of the ten best items, seen ones left out, that it finds too.

    Raises:
        ImportError: onnx, onnxruntime or onnxscript is not installed.
        TypeError: A model of another kind.
        ValueError: A folder in use, a number out of range, another device or precision, or a graph that differs from
            the model.
    """
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise ImportError(f"exporting needs {', '.join(missing)}: `pip install 'hfrec[onnx]'`.")
    folder = Path(output_dir)
    check_new_folder(folder)
    refuse_inputs(model, "an export to ONNX")
    objective = objective_of(model)
    check_pair(model, tokenizer)
    num_items = len(tokenizer) - NUM_SPECIAL_TOKENS
    top_k = min(TOP_K, num_items) if top_k is None else top_k
    if not 1 <= top_k <= num_items:
        raise ValueError(f"`top_k` must be between 1 and the {num_items} items of the model, found {top_k}.")
    if int8 and objective == "blend":
        raise ValueError(
            "`int8` is not for a blend, most of which is tables: leave it out, or export its network alone."
        )
    weight = next(model.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise ValueError(
            f"`model` must be in float32 on the CPU, found {weight.dtype} on {weight.device}. Load it again with "
            "`load_checkpoint`."
        )
    if histories is None:
        histories = random_histories(tokenizer, 256, longest=min(2 * model.config.max_position_embeddings, _LONGEST))
    if not len(histories):
        raise ValueError("`histories` is empty: expected at least one to check the graph on. Or leave it out.")
    was_training = model.training
    model.eval()
    try:
        # First of all, as it refuses histories and models that nothing can be recommended for.
        expected = {seen: recommend(model, tokenizer, histories, top_k, filter_seen=seen) for seen in (True, False)}
        with whole_files(folder) as draft:
            fixed = with_fixed_items(model)
            with _attention_written_out(fixed):
                _write_graph(_Recommender(fixed, objective, top_k), draft / MODEL_FILE)
            _write_serving(draft, model, tokenizer, top_k)
            results = _check(draft, histories, expected)
            if int8:
                _quantise(draft)
                _bind(draft)
                results["int8_overlap@10"] = _overlap(draft, histories, min(10, top_k))
            write_json(draft / RESULTS_FILE, results)
            seal(draft)
    finally:
        model.train(was_training)
    return results


def random_histories(tokenizer: ItemTokenizer, count: int, *, longest: int, seed: int = 0) -> list[list[str]]:
    """Histories of 1 to `longest` items drawn at random, to check an export on."""
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(NUM_SPECIAL_TOKENS, len(tokenizer), size) for size in rng.integers(1, longest + 1, count)]
    return [tokenizer.decode_items(row) for row in tokens]


def with_fixed_items(model: Any) -> Any:
    """The model or, where items are made of content, a copy of it with their embeddings worked out."""
    scorers = (Bert4RecForMaskedLM, Bert4RecForCausalLM)
    parts = [part for part in model.modules() if isinstance(part, scorers)]
    if all(part.config.item_representation == "id" for part in parts):
        return model
    copy = deepcopy(model)
    for part in copy.modules():
        if isinstance(part, scorers):
            part.fix_items()
    return copy


@contextmanager
def _attention_written_out(model: nn.Module) -> Iterator[None]:
    """Eager attention meanwhile: of torch's fused one the exporter makes a longer graph, with a guard of each row."""
    configs = {id(config): config for part in model.modules() if (config := getattr(part, "config", None)) is not None}
    before = {name: config._attn_implementation for name, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = "eager"
        yield
    finally:
        for name, config in configs.items():
            config._attn_implementation = before[name]


class _Recommender(nn.Module):
    """`recommend` on token ids, for tracing: the whole catalogue at once and no branch on values."""

    def __init__(self, model: Any, objective: str, top_k: int) -> None:
        super().__init__()
        self.model = model
        self.masked = objective == "masked"
        self.top_k = top_k

    def forward(self, input_ids: Tensor, filter_seen: Tensor, excluded: Tensor) -> tuple[Tensor, Tensor]:
        """Item ids and scores `(batch, top_k)`.

        Args:
            input_ids: Histories `(batch, length)`, filled up with 0 on the left.
            filter_seen: Whether the items of the histories are left out `()`.
            excluded: Tokens that nobody gets `(num_excluded,)`; 0 is none.
        """
        config = self.model.config
        read = input_ids
        if self.masked:
            newest = input_ids.new_full((input_ids.shape[0], 1), config.mask_token_id)
            read = torch.cat([input_ids, newest], dim=1)  # (batch, length + 1)
        first = torch.sym_max(read.shape[1] - config.max_position_embeddings, 0)  # type: ignore[no-untyped-call]
        read = read[:, first:]
        representation = self.model.encode_history(read, (read != config.pad_token_id).long(), newest_last=True)
        scores = self.model.score_items(representation)  # (batch, vocab_size)
        # [PAD], as all specials, has no score to lose. `topk` becomes ONNX's, which orders equal scores by place.
        seen = torch.where(filter_seen, input_ids, config.pad_token_id)
        barred = torch.cat([seen, excluded.expand(seen.shape[0], -1)], dim=1)  # (batch, length + num_excluded)
        scores, item_ids = scores.scatter(1, barred, float("-inf")).topk(self.top_k, dim=1)
        return item_ids.masked_fill(scores == float("-inf"), 0), scores


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of the exporter and the quantiser on their own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _write_graph(recommender: nn.Module, path: Path) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    example = (torch.tensor([[0, 3, 3], [3, 3, 3]]), torch.tensor(True), torch.tensor([0, 0, 0, 0]))
    with _quiet(), torch.no_grad():
        program = torch.export.export(
            recommender, example, dynamic_shapes=({0: dynamic, 1: dynamic}, None, {0: dynamic}), strict=False
        )
        graph = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["input_ids", "filter_seen", "excluded"],
            output_names=["item_ids", "scores"],
            verbose=False,
        )
        cast(torch.onnx.ONNXProgram, graph).save(path, external_data=False)
    _finish(path)


def _finish(path: Path) -> None:
    """Make the number of items an input, as ten take a third of a hundred's time; take out the exporter's notes.

    They are stack traces with the paths of this machine, other ones in each export, and shapes of what lies between.
    """
    import onnx

    def strip(message: Any) -> None:
        for field, value in message.ListFields():
            if field.name in ("metadata_props", "doc_string"):
                message.ClearField(field.name)
            elif field.message_type is not None:
                for part in value if field.is_repeated else [value]:
                    strip(part)

    model = onnx.load(str(path))
    graph = model.graph
    best = next(node for node in graph.node if "scores" in node.output)
    known = next(value for value in graph.initializer if value.name == best.input[1])
    if sum(known.name in node.input for node in graph.node) == 1:
        graph.initializer.remove(known)
    best.input[1] = "top_k"
    graph.input.append(onnx.helper.make_tensor_value_info("top_k", onnx.TensorProto.INT64, [1]))
    for output in graph.output:
        output.type.tensor_type.shape.dim[1].Clear()
    graph.ClearField("value_info")
    strip(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _write_serving(folder: Path, model: Any, tokenizer: ItemTokenizer, top_k: int) -> None:
    """Items, settings and the code that serves them."""
    items = tokenizer.items
    settings: dict[str, Any] = {"objective": objective_of(model), "top_k": top_k}
    settings |= {"filter_seen": filters_seen(model.config), "item_ids": items["item_id"].to_pylist()}
    if "title" in items.column_names:
        settings["titles"] = items["title"].to_pylist()
    if "count" in items.column_names:
        settings["counts"] = items["count"].fill_null(0).to_pylist()
    settings["metadata"] = {name: items[name].to_pylist() for name in text_columns(items)}
    write_json(folder / SETTINGS_FILE, settings)
    vectors = item_directions(model)
    if vectors is not None:
        save_file({VECTORS: vectors.contiguous()}, folder / VECTORS_FILE)
    _bind(folder)
    shutil.copyfile(Path(__file__).with_name("serving.py"), folder / SERVING_FILE)


def text_columns(items: pa.Table) -> list[str]:
    """Columns of the items that can hold categories: text, or lists of it; without ids and titles."""
    import pyarrow as pa

    found = []
    for name in items.column_names:
        kind = items.schema.field(name).type
        kind = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
        if name not in ("item_id", "title") and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            found.append(name)
    return found


def _bind(folder: Path) -> None:
    """Write the hashes of graphs and vectors beside the item ids: those of another export would name other items."""
    settings = read_json_object(folder / SETTINGS_FILE)
    graphs = [folder / name for name in (MODEL_FILE, INT8_FILE, VECTORS_FILE) if (folder / name).is_file()]
    write_json(folder / SETTINGS_FILE, {**settings, "sha256": {path.name: sha256_of(path) for path in graphs}})


def _quantise(folder: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(folder / MODEL_FILE, folder / INT8_FILE, weight_type=QuantType.QInt8)


def _check(folder: Path, histories: Sequence[Sequence[Any]], expected: dict[bool, Lists]) -> dict[str, Any]:
    """Compare the graph's lists with PyTorch's, with the seen filter and without.

    Raises:
        ValueError: They differ by more than the tolerance.
    """
    graph = OnnxRecommender.from_pretrained(folder)
    same, largest = 0, 0.0
    for filter_seen, lists in expected.items():
        found = graph.recommend(histories[:_CHECKED_ALONE], graph.top_k, filter_seen=filter_seen, batch_size=1)
        found += graph.recommend(histories[_CHECKED_ALONE:], graph.top_k, filter_seen=filter_seen)
        for row, (ours, theirs) in enumerate(zip(found, lists, strict=True)):
            difference = list_difference(ours, theirs)
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"the ONNX graph gives other recommendations than the model: history {row} differs by "
                    f"{difference:g} in score, expected at most {TOLERANCE:g} (relative above 1). Nothing was written; "
                    "please report it with the model's config and the versions that `hfrec env` prints."
                )
            same += [item["item_id"] for item in ours] == [item["item_id"] for item in theirs]
            largest = max(largest, difference)
    lists_compared = sum(map(len, expected.values()))
    return {"histories": len(histories), "same_items": same / lists_compared, "max_score_difference": largest}


def list_difference(found: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> float:
    """Largest difference in score between two lists of recommendations, relative where scores are above 1.

    Place by place and item by item: two items that changed places, or one that took another's at the end, count by how
    far their scores lie apart. Infinity for lists of different length.

    Example:
        >>> a, b = {"item_id": "a", "score": 0.5}, {"item_id": "b", "score": 0.4}
        >>> list_difference([a, b], [a, b]), round(list_difference([b, a], [a, b]), 6), list_difference([a], [a, b])
        (0.0, 0.1, inf)
    """
    if len(found) != len(expected):
        return float("inf")
    by_item = {item["item_id"]: item["score"] for item in expected}
    pairs = [(ours["score"], theirs["score"]) for ours, theirs in zip(found, expected, strict=True)]
    # An item that the other list lacks has a score of at most the last one there.
    pairs += [(item["score"], by_item.get(item["item_id"], expected[-1]["score"])) for item in found]
    return max((abs(ours - theirs) / max(1.0, abs(theirs)) for ours, theirs in pairs), default=0.0)


def _overlap(folder: Path, histories: Sequence[Sequence[Any]], top_k: int) -> float:
    """Share of the graph's `top_k` items that its quantised twin finds too."""
    lists = [
        [{item["item_id"] for item in items} for items in recommender.recommend(histories, top_k, filter_seen=True)]
        for recommender in (OnnxRecommender.from_pretrained(folder, int8=int8) for int8 in (False, True))
    ]
    shares = [len(one & other) / len(one) for one, other in zip(*lists, strict=True) if one]
    return sum(shares) / len(shares) if shares else 1.0
