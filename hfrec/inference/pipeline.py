"""`pipeline("recommendation")` of transformers: raw histories in, recommendations out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ..data.collators import objective_of
from ..data.files import check_seal
from ..data.inputs import refuse_inputs
from ..models import Bert4RecForCausalLM, Bert4RecForMaskedLM, Blend
from ..models.recommendation_pipeline import HistoryPipeline
from ..tokenization import HUB_PARAMETERS, ItemTokenizer
from .prior import PopularityPrior, load_prior
from .recommend import recommend


class CheckpointLoader:
    """Loads a checkpoint with the class that wrote it: a causal model read as a masked one gives wrong scores silently.

    Example:
        >>> CheckpointLoader.from_pretrained("folder")  # doctest: +SKIP
    """

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Bert4RecForMaskedLM | Bert4RecForCausalLM | Blend:
        """Load a masked model, a causal one or a blend.

        Args:
            pretrained_model_name_or_path: Folder or hub id.
            kwargs: Those of the model's own `from_pretrained`.

        Raises:
            ValueError: The checkpoint is none of them.
        """
        hub = {name: kwargs[name] for name in HUB_PARAMETERS if kwargs.get(name) is not None}
        config, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub)
        architectures = config.get("architectures") or []
        check_seal(Path(pretrained_model_name_or_path))
        for model_class in (Bert4RecForMaskedLM, Bert4RecForCausalLM, Blend):
            if model_class.__name__ in architectures:
                model: Bert4RecForMaskedLM | Bert4RecForCausalLM | Blend = model_class.from_pretrained(
                    pretrained_model_name_or_path, **kwargs
                )
                # transformers keeps no revision, and the items must be of the same one as the weights.
                model.hub_revision = kwargs.get("revision")  # type: ignore[assignment]  # modules hold strings too
                return model
        raise ValueError(
            f"Expected a checkpoint of Bert4RecForMaskedLM, Bert4RecForCausalLM or Blend, found {architectures} in "
            f"`{pretrained_model_name_or_path}`: pass a model that `hfrec pretrain`, `finetune` or `blend` wrote."
        )


class RecommendationPipeline(HistoryPipeline):
    """What [`recommend`] does, behind `transformers.pipeline`.

    Seen items are filtered as the checkpoint says, unless `filter_seen` is given. The prior that lies beside the
    weights, as `hfrec evaluate --fit_prior true` leaves it, is used unless another or `prior=None` is given.

    Args:
        model: Folder, hub id or model.
        tokenizer: Needed with a model object only; a folder's own otherwise.
        kwargs: `top_k`, `filter_seen`, `allow`, `deny`, `unknown_items` and `batch_size` of [`recommend`], and `prior`,
            as defaults of the calls.

    Example:
        >>> import hfrec
        >>> from transformers import pipeline
        >>> tokenizer = ItemTokenizer.from_items(["a", "b"])
        >>> model = Bert4RecForMaskedLM(hfrec.Bert4RecConfig(vocab_size=len(tokenizer)))
        >>> recommender = RecommendationPipeline(model, tokenizer, task="recommendation", top_k=1, device=-1)
        >>> recommender(["a"])[0]["item_id"]
        'b'
    """

    parameters = ("top_k", "filter_seen", "allow", "deny", "unknown_items", "prior")
    further_parameters = " and batch_size"

    def __init__(self, model: Any, tokenizer: Any = None, **kwargs: Any) -> None:
        refuse_inputs(model, "a pipeline")
        objective_of(model)  # transformers falls back to the class that a foreign checkpoint names
        items: Any = _item_tokenizer(model, tokenizer)  # the parent declares the slow tokenizer only
        kwargs.setdefault("filter_seen", None)
        if "prior" not in kwargs:
            kwargs["prior"] = _prior_beside(model, items)
        super().__init__(model=model, tokenizer=items, **kwargs)

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Recommend to one user or to several.

        Args:
            inputs: One history (a list of raw item ids, oldest first), or several (a list of lists or an Arrow list
                array). `[]` is no history at all, `[[]]` a user without one.
            batch_size: Histories scored at a time; 256 unless given here or to the pipeline.
            kwargs: `top_k`, `filter_seen`, `allow`, `deny` and `unknown_items` as in [`recommend`], and `prior`.

        Returns:
            A list of `{"item_id", "score", "rank"[, "title"]}` for one history, a list of such lists for several.
        """
        single = _is_single_history(inputs)
        preprocess, forward, postprocess = self._sanitize_parameters(**kwargs)
        size = batch_size or self._batch_size
        forward = {**self._forward_params, **forward, **({} if size is None else {"batch_size": size})}
        histories = [list(inputs)] if single else inputs
        found = self.run_single(histories, preprocess, forward, postprocess)  # type: ignore[no-untyped-call]  # of transformers
        return found[0] if single else found

    def _forward(self, input_tensors: Any, **forward_parameters: Any) -> Any:
        prior = forward_parameters.pop("prior")
        model = self.model if prior is None else prior.over(self.model)
        return recommend(model, self.tokenizer, input_tensors["histories"], **forward_parameters)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save model and tokenizer. The parent would add this file as remote code, which cannot stand alone."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.tokenizer.save_pretrained(save_directory)


def _item_tokenizer(model: Any, tokenizer: Any) -> ItemTokenizer:
    """The tokenizer with its items: transformers hands over the stock class, which knows no titles."""
    if isinstance(tokenizer, ItemTokenizer):
        return tokenizer
    if tokenizer is None:
        raise ValueError("`tokenizer` must be given with a model object, found None. Pass its ItemTokenizer.")
    name = tokenizer.name_or_path
    same = name == model.name_or_path
    revision = getattr(model, "hub_revision", None) if same else None
    return ItemTokenizer.from_pretrained(name, **({} if revision is None else {"revision": revision}))


def _prior_beside(model: Any, tokenizer: ItemTokenizer) -> PopularityPrior | None:
    """The prior of the folder or repository that the weights came from; a model made in memory has none."""
    if not model.name_or_path or tokenizer.name_or_path != model.name_or_path:
        return None
    return load_prior(model.name_or_path, tokenizer, revision=getattr(model, "hub_revision", None))


def _is_single_history(inputs: Any) -> bool:
    import numpy as np
    import pyarrow as pa

    if isinstance(inputs, (pa.Array, pa.ChunkedArray)):
        return not (pa.types.is_list(inputs.type) or pa.types.is_large_list(inputs.type))
    if isinstance(inputs, (str, bytes)) or not hasattr(inputs, "__len__"):
        raise TypeError(f"`inputs` must be a list of item ids or a list of such lists, found {inputs!r}.")
    return len(inputs) > 0 and not isinstance(inputs[0], (list, tuple, np.ndarray, pa.Array))
