"""`pipeline("recommendation", checkpoint, trust_remote_code=True)` where hfrec is not installed.

This file and its neighbours travel with every checkpoint, so they import only torch, transformers and each other. With
`import hfrec`, its own pipeline takes the place of this one: it knows titles, priors, allowed and denied items too.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Pipeline

_CHUNK = 64  # histories scored at a time


class HistoryPipeline(Pipeline):
    """Recommends items for histories of item ids, oldest first.

    Args of a call:
        inputs: One history (a list of ids) or several (a list of lists).
        top_k: Items of each history; 10 unless given.
        filter_seen: Leave out the items of the history; as the checkpoint says unless given.
        unknown_items: What becomes of ids that the checkpoint does not know: `error` or `drop`.

    Returns:
        For a history its items, best first: `item_id`, `score` and `rank` from 1.
    """

    model: Any  # a Bert4RecForMaskedLM, a Bert4RecForCausalLM or a Blend
    tokenizer: Any
    parameters: tuple[str, ...] = ("top_k", "filter_seen", "unknown_items")
    further_parameters: str = " (`import hfrec` knows more)"
    _load_tokenizer: Any = True
    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        single = bool(inputs) and isinstance(inputs[0], (str, int))
        _, forward, _ = self._sanitize_parameters(**kwargs)
        found = self.run_single([inputs] if single else inputs, {}, {**self._forward_params, **forward}, {})
        return found[0] if single else found

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        wrong = sorted(set(kwargs) - set(self.parameters))
        if wrong:
            known = ", ".join(self.parameters) + self.further_parameters
            raise TypeError(f"Expected the parameters {known}, found {wrong}.")
        return {}, kwargs, {}

    def preprocess(self, input_: Any, **_: Any) -> Any:
        return {"histories": input_}

    def _forward(self, input_tensors: Any, **settings: Any) -> Any:
        histories = [
            self._tokens(history, settings.get("unknown_items", "error")) for history in input_tensors["histories"]
        ]
        found: list[list[dict[str, Any]]] = []
        for start in range(0, len(histories), _CHUNK):
            found += self._recommend(
                histories[start : start + _CHUNK],
                settings.get("top_k", 10),
                settings.get("filter_seen", getattr(self.model.config, "filter_seen", True)),
            )
        return found

    def postprocess(self, model_outputs: Any, **_: Any) -> Any:
        return model_outputs

    def _tokens(self, history: Sequence[Any], unknown_items: str) -> list[int]:
        vocabulary = self.tokenizer.backend_tokenizer.token_to_id
        tokens = [vocabulary(str(item)) for item in history]
        unknown = [str(item) for item, token in zip(history, tokens, strict=True) if token is None]
        if unknown and unknown_items != "drop":
            raise ValueError(
                f"Expected items of the checkpoint, found {unknown[:5]}: leave them out (unknown_items='drop')."
            )
        return [token for token in tokens if token is not None]

    def _prompt(self, history: list[int]) -> list[int]:
        """The newest tokens that the model reads: the masked one is asked by a `[MASK]` at the end."""
        name = type(self.model).__name__
        if name.endswith("ForMaskedLM"):
            history = [*history, self.tokenizer.mask_token_id]
        elif not history:
            if name.endswith("ForCausalLM"):
                raise ValueError("Expected a history with an item that the checkpoint knows, found none.")
            history = [self.tokenizer.pad_token_id]
        return history[-self.model.config.max_position_embeddings :]

    @torch.no_grad()
    def _recommend(self, histories: list[list[int]], top_k: int, filter_seen: bool) -> list[list[dict[str, Any]]]:
        prompts = [self._prompt(history) for history in histories]
        longest = max(map(len, prompts))
        device = next(self.model.parameters()).device
        ids = torch.zeros(len(prompts), longest, dtype=torch.long, device=device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt, device=device)
            mask[row, longest - len(prompt) :] = 1
        scores = self.model.score_items(self.model.encode_history(ids, mask)).float()  # (batch, vocab_size)
        scores[:, : self.model.config.num_special_tokens] = -torch.inf
        for row, history in enumerate(histories if filter_seen else ()):
            scores[row, history] = -torch.inf
        best, tokens = scores.sort(dim=1, descending=True, stable=True)  # equal scores by token id
        found = []
        for values, row in zip(best[:, :top_k].tolist(), tokens[:, :top_k].tolist(), strict=True):
            items = self.tokenizer.convert_ids_to_tokens(row)
            ranked = zip(range(1, top_k + 1), items, values, strict=False)
            found.append([{"item_id": i, "score": s, "rank": rank} for rank, i, s in ranked if s != float("-inf")])
        return found


__all__ = ["HistoryPipeline"]
