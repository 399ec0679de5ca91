"""Recommendations from an exported model: NumPy and ONNX Runtime, neither torch nor transformers.

`hfrec export` puts a copy of this file beside the graph, as `onnx_recommender.py`: a service needs the folder alone, so
this module imports nothing of ours.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnxruntime

MODEL_FILE = "model.onnx"
INT8_FILE = "model_int8.onnx"
SETTINGS_FILE = "recommender.json"
VECTORS_FILE = "item_vectors.safetensors"
VECTORS = "vectors"  # their name in it
SEAL_FILE = "sha256.json"  # hashes of the files of the folder
_UNK = 2  # token id of [UNK]
_NUM_SPECIAL_TOKENS = 3  # [PAD] [MASK] [UNK], then the items


class OnnxRecommender:
    """What `recommend` and `similar_items` do, on ONNX Runtime; without a prior, which the graph does not know.

    Args:
        session: The graph: `input_ids` int64 `(batch, length)`, whole histories filled up with 0 on the left,
            `filter_seen` bool `()`, `excluded` int64 `(num_excluded,)`, tokens that nobody gets, and `top_k` int64
            `(1,)`, to `item_ids` int64 and `scores` float `(batch, top_k)`; token id 0 where a user has no further one.
        settings: `objective`, `top_k`, `filter_seen`, `item_ids` and, where there are any, `titles`, `counts` and
            `metadata`.
        folder: Where the vectors of the items lie; None without.

    Example:
        >>> recommender = OnnxRecommender.from_pretrained("exported")  # doctest: +SKIP
        >>> recommender.recommend([["item 1", "item 2"]], top_k=5)  # doctest: +SKIP
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, settings: dict[str, Any], folder: Path | None = None
    ) -> None:
        self.session, self.settings, self.folder = session, settings, folder
        self._takes = {place.name for place in session.get_inputs()}  # of older graphs neither `excluded` nor `top_k`
        self.objective: str = settings["objective"]
        self.top_k: int = settings["top_k"]
        self.filter_seen: bool = settings.get("filter_seen", True)  # older exports do not say
        self.item_ids: list[str] = settings["item_ids"]
        self.titles: list[str | None] | None = settings.get("titles")
        self._tokens = {item: token for token, item in enumerate(self.item_ids, start=_NUM_SPECIAL_TOKENS)}

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, int8: bool = False, num_threads: int = 1
    ) -> OnnxRecommender:
        """Load what `hfrec export` wrote.

        Args:
            folder: Its output folder.
            int8: The quantised graph, where it was exported.
            num_threads: Threads of one call; a small model gains nothing from more than one.

        Raises:
            FileNotFoundError: There is no such graph.
            ImportError: onnxruntime is not installed.
            ValueError: The graph or its settings are damaged, or of two exports.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError("serving an export needs ONNX Runtime: `pip install onnxruntime`.") from error
        path = Path(folder) / (INT8_FILE if int8 else MODEL_FILE)
        if not path.is_file():
            raise FileNotFoundError(
                f"no {path.name} in {folder}: expected the output of `hfrec export{' --int8 true' if int8 else ''}`."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        # Its pool is one of each session, and grows with every swap of a service; no faster at these sizes.
        options.enable_cpu_mem_arena = False
        settings = _read_settings(path.parent)
        _check_hash(path, settings)
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no parent
            raise ValueError(f"{path} is no whole graph ({error}): export the checkpoint again.") from error
        return cls(session, settings, path.parent)

    def recommend(
        self,
        histories: Sequence[Sequence[Any]],
        top_k: int = 10,
        *,
        filter_seen: bool | None = None,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        unknown_items: Literal["error", "drop", "unk"] = "error",
        batch_size: int = 256,
    ) -> list[list[dict[str, Any]]]:
        """The `top_k` items that each history's next item most likely is; equal scores are ordered by token id.

        Args:
            histories: Raw item ids of each user, oldest first, of any length; ids that are not strings are turned into
                strings.
            top_k: Items for each history, no more than were exported.
            filter_seen: Leave out the items of the history; a user with fewer unseen items gets a shorter list. None
                does as the exported checkpoint said.
            allow: Raw ids that may be recommended; all when None.
            deny: Raw ids that may not be recommended.
            unknown_items: What becomes of an id of a history outside the vocabulary: an error, left out (`drop`) or
                read as `[UNK]` (`unk`).
            batch_size: Histories scored at a time; `(batch_size, vocab_size)` scores are held.

        Returns:
            For each history its items, best first: `item_id`, `score` (logit), `rank` from 1 and, where titles are
            known, `title`.

        Raises:
            ValueError: An unknown or null item, `top_k` or `batch_size` out of range, or an empty history with a
                causal model.
            TypeError: A history that is not a list of ids.
        """
        if not 1 <= top_k <= self.top_k:
            raise ValueError(
                f"`top_k` must be between 1 and the {self.top_k} items that the graph gives, found {top_k}. Export it "
                "again with a larger `top_k`."
            )
        filter_seen = self.filter_seen if filter_seen is None else filter_seen
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, found {batch_size}.")
        if unknown_items not in ("error", "drop", "unk"):
            raise ValueError(f"`unknown_items` must be 'error', 'drop' or 'unk', found {unknown_items!r}.")
        rows = [self._encode(history, index, unknown_items) for index, history in enumerate(histories)]
        allowed = self._allowed(allow, deny)
        found: list[list[dict[str, Any]]] = []
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            item_ids, scores = self.best(part, top_k, filter_seen=filter_seen, allowed=allowed)
            found += map(self._named, item_ids.tolist(), scores.tolist())
        return found

    def best(
        self, rows: Sequence[Sequence[int]], top_k: int, *, filter_seen: bool, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """One call of the graph.

        Args:
            rows: Token ids of one or more histories.
            top_k: Items for each, no more than were exported.
            filter_seen: Leave out the items of each history.
            allowed: Which tokens may be found `(vocab_size,)`; all when None.

        Returns:
            Token ids and scores, `(batch, top_k)` each, token id 0 where there is no further item.

        Raises:
            ValueError: `allowed` with a graph that was exported without it.
        """
        width = max(1, max(map(len, rows)))
        input_ids = np.zeros((len(rows), width), dtype=np.int64)
        for place, row in enumerate(rows):
            input_ids[place, width - len(row) :] = row
        inputs = {"input_ids": input_ids, "filter_seen": np.array(filter_seen)}
        if "top_k" in self._takes:
            inputs["top_k"] = np.array([top_k])
        if "excluded" in self._takes:
            inputs["excluded"] = np.zeros(1, np.int64) if allowed is None else np.flatnonzero(~allowed)
        elif allowed is not None:
            raise ValueError("this graph knows no `allow` and `deny`: export it again with this version of hfrec.")
        item_ids, scores = self.session.run(["item_ids", "scores"], inputs)
        return item_ids[:, :top_k], scores[:, :top_k]

    @cached_property
    def vectors(self) -> NDArray[np.float32] | None:
        """Vectors of the tokens, whose products are the cosines of items `(vocab_size, width)`; None without.

        Raises:
            ImportError: safetensors is not installed.
            ValueError: They are of another export.
        """
        path = None if self.folder is None else self.folder / VECTORS_FILE
        if path is None or not path.is_file():
            return None
        try:
            from safetensors.numpy import load_file
        except ImportError as error:
            raise ImportError("similar items need the vectors' format: `pip install safetensors`.") from error
        _check_hash(path, self.settings)
        vectors: NDArray[np.float32] = load_file(path)[VECTORS]
        if len(vectors) != len(self.item_ids) + _NUM_SPECIAL_TOKENS:
            raise ValueError(
                f"{path} holds {len(vectors)} vectors, expected those of {len(self.item_ids)} items and three special "
                "tokens: copy the whole folder of one export."
            )
        return vectors

    def similar(
        self,
        items: Sequence[Any],
        top_k: int = 10,
        *,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """The `top_k` items most like each of some items, by the cosine of their embeddings; never the item itself.

        Args:
            items: Raw item ids.
            top_k: Items for each of them.
            allow: Raw ids that may be found; all when None.
            deny: Raw ids that may not be found.

        Returns:
            For each item those like it, best first, as `recommend` gives them.

        Raises:
            ValueError: An unknown item, `top_k` out of range, or an export without vectors.
        """
        if not 1 <= top_k <= len(self.item_ids):
            raise ValueError(f"`top_k` must be between 1 and the {len(self.item_ids)} items, found {top_k}.")
        tokens = self._known("items", items)
        found = self.alike(tokens, top_k, self._allowed(allow, deny))
        return [self._named(row.tolist(), scores.tolist()) for row, scores in found]

    def alike(
        self, tokens: Sequence[int], top_k: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Token ids and cosines of the items most like each token, best first, equal ones by token id.

        Raises:
            ValueError: An export without vectors.
        """
        vectors = self.vectors
        if vectors is None:
            raise ValueError(
                "this export has no vectors of its items, of which similar ones are found: export the checkpoint "
                "again with this version of hfrec. A blend without a network has none."
            )
        found = []
        for token in tokens:
            scores = vectors @ vectors[token]  # (vocab_size,)
            if allowed is not None:
                scores[~allowed] = -np.inf
            scores[:_NUM_SPECIAL_TOKENS] = scores[token] = -np.inf
            best = np.argpartition(-scores, min(top_k, len(scores) - 1))[:top_k]
            border = scores[best].min()
            best = np.flatnonzero(scores >= border)  # all that tie at the border
            best = best[np.lexsort((best, -scores[best]))][:top_k]
            best = best[scores[best] > -np.inf]
            found.append((best, scores[best]))
        return found

    def _allowed(self, allow: Iterable[Any] | None, deny: Iterable[Any] | None) -> NDArray[np.bool_] | None:
        """Which tokens may be found; None for all."""
        if allow is None and deny is None:
            return None
        allowed = np.full(len(self.item_ids) + _NUM_SPECIAL_TOKENS, allow is None)
        if allow is not None:
            allowed[self._known("allow", allow)] = True
        allowed[self._known("deny", deny or ())] = False
        return allowed

    def _known(self, name: str, items: Iterable[Any]) -> list[int]:
        """Token ids of items that must be known."""
        if isinstance(items, (str, bytes)):
            raise TypeError(f"`{name}` must be a list of item ids, found {items!r}. Pass [{items!r}].")
        ids = [str(item) for item in items]
        unknown = [item for item in ids if item not in self._tokens]
        if unknown:
            raise ValueError(
                f"`{name}` must hold items of the vocabulary, found {len(unknown)} others: {', '.join(unknown[:5])}. "
                "Leave them out."
            )
        return [self._tokens[item] for item in ids]

    def _encode(self, history: Sequence[Any], index: int, unknown: str) -> list[int]:
        """Token ids of a history."""
        if not isinstance(history, (list, tuple, np.ndarray)):
            raise TypeError(
                f"`histories` must hold one list of item ids a user, found {history!r} as history {index}. For a "
                "single user pass [history]."
            )
        tokens = [None if item is None else self._tokens.get(str(item), _UNK) for item in history]
        if None in tokens:
            raise ValueError(f"`histories` must hold item ids, found a null in history {index}. Leave it out.")
        if unknown == "error" and _UNK in tokens:
            raise ValueError(
                f"`histories` must hold items of the vocabulary, found {str(history[tokens.index(_UNK)])!r} in history "
                f"{index}. Leave such items out (unknown_items='drop') or read them as [UNK] (unknown_items='unk')."
            )
        known = [token for token in tokens if token is not None and (token != _UNK or unknown == "unk")]
        if not known and self.objective == "causal":
            raise ValueError(
                f"`histories` must each hold a known item for a causal model, found history {index} empty. Leave "
                "it out, or use a masked model."
            )
        return known

    def _named(self, tokens: list[int], scores: list[float]) -> list[dict[str, Any]]:
        """The items of one user; token id 0 fills the end of a row."""
        items: list[dict[str, Any]] = []
        for rank, (token, score) in enumerate(zip(tokens, scores, strict=True), start=1):
            if token:
                place = token - _NUM_SPECIAL_TOKENS
                item = {"item_id": self.item_ids[place], "score": score, "rank": rank}
                items.append(item if self.titles is None else {**item, "title": self.titles[place]})
        return items


def _read_settings(folder: Path) -> dict[str, Any]:
    """What `recommender.json` holds.

    Raises:
        ValueError: It is damaged, or not as it was exported.
    """
    path = folder / SETTINGS_FILE
    try:
        content = path.read_bytes()
        sealed = json.loads((folder / SEAL_FILE).read_bytes()) if (folder / SEAL_FILE).is_file() else {}
        settings = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}): export again.") from error
    if not isinstance(sealed, dict) or not isinstance(settings, dict):
        raise ValueError(
            f"{path}, or {SEAL_FILE} beside it, is damaged: expected objects. Export the checkpoint again."
        )
    expected = sealed.get(SETTINGS_FILE)  # older exports have none
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(f"{path} is not as it was exported: copy the whole folder again, or export again.")
    _check_settings(path, settings)
    return settings


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuse settings that do not fit each other.

    Raises:
        ValueError: With the name of what does not fit.
    """
    kinds = {"objective": str, "top_k": int, "filter_seen": bool, "item_ids": list, "sha256": dict, "metadata": dict}
    needed = ("objective", "top_k", "item_ids")
    wrong = [
        name for name in kinds if (name in settings or name in needed) and type(settings.get(name)) is not kinds[name]
    ]
    items = settings["item_ids"] if "item_ids" not in wrong else []
    columns: dict[str, tuple[Any, tuple[type, ...]]] = {
        "item_ids": (items, (str,)),
        "titles": (settings.get("titles"), (str, type(None))),
        "counts": (settings.get("counts"), (int,)),
    }
    if "metadata" not in wrong:
        metadata = settings.get("metadata", {}).items()
        columns |= {f"metadata {name}": (values, (str, list, type(None))) for name, values in metadata}
    for name, (values, allowed) in columns.items():
        whole = isinstance(values, list) and len(values) == len(items)
        if values is not None and not (whole and all(type(value) in allowed for value in values)):
            wrong.append(name)
    if len(set(map(str, items))) < len(items):
        wrong.append("item_ids")
    if wrong:
        raise ValueError(f"{path} is damaged: {', '.join(dict.fromkeys(wrong))} cannot be used. Export again.")


def _check_hash(path: Path, settings: dict[str, Any]) -> None:
    """Refuse a file of another export than the settings."""
    expected = settings.get("sha256", {}).get(path.name)  # older exports have none
    if expected is not None and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise ValueError(
            f"{path} is not of the export that {SETTINGS_FILE} beside it names the items of: copy the whole folder of "
            "one export."
        )
