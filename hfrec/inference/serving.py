"""Recommendations from an exported model: NumPy and ONNX Runtime, neither torch nor transformers.

`hfrec export` puts a copy of this file beside the graph, as `onnx_recommender.py`: a service needs the folder alone, so
this module imports nothing of ours.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

MODEL_FILE = "model.onnx"
INT8_FILE = "model_int8.onnx"
SETTINGS_FILE = "recommender.json"
_UNK = 2  # token id of [UNK]
_NUM_SPECIAL_TOKENS = 3  # [PAD] [MASK] [UNK], then the items


class OnnxRecommender:
    """What `recommend` does, on ONNX Runtime; without `allow`, `deny` and a prior, which the graph does not know.

    Args:
        session: The graph: `input_ids` int64 `(batch, length)`, whole histories filled up with 0 on the left, and
            `filter_seen` bool `()` to `item_ids` int64 and `scores` float `(batch, top_k)`, token id 0 where a user has
            no further item.
        settings: `objective`, `top_k`, `filter_seen`, `item_ids` and, where there are any, `titles`.

    Example:
        >>> recommender = OnnxRecommender.from_pretrained("exported")  # doctest: +SKIP
        >>> recommender.recommend([["item 1", "item 2"]], top_k=5)  # doctest: +SKIP
    """

    def __init__(self, session: onnxruntime.InferenceSession, settings: dict[str, Any]) -> None:
        self.session = session
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
            ValueError: The graph is damaged or of another export than the item ids.
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
        settings = json.loads((path.parent / SETTINGS_FILE).read_text(encoding="utf-8"))
        expected = settings.get("sha256", {}).get(path.name)  # older exports have none
        if expected is not None and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise ValueError(
                f"{path} is not the graph that {SETTINGS_FILE} beside it names the items of: copy the whole folder of "
                "one export."
            )
        return cls(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]), settings)

    def recommend(
        self,
        histories: Sequence[Sequence[Any]],
        top_k: int = 10,
        *,
        filter_seen: bool | None = None,
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
        found: list[list[dict[str, Any]]] = []
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            width = max(1, max(map(len, batch)))
            input_ids = np.zeros((len(batch), width), dtype=np.int64)
            for place, row in enumerate(batch):
                input_ids[place, width - len(row) :] = row
            inputs = {"input_ids": input_ids, "filter_seen": np.array(filter_seen)}
            item_ids, scores = self.session.run(["item_ids", "scores"], inputs)  # each (batch, exported top_k)
            found += map(self._named, item_ids[:, :top_k].tolist(), scores[:, :top_k].tolist())
        return found

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
