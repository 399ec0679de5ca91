"""Configuration of the BERT4Rec family."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .loss_names import SAMPLED_LOSSES, LossName

MAX_LABELS = 100_000


def check_inputs(inputs: list[dict[str, Any]]) -> None:
    """Refuse inputs without a name, a kind or a table of at least two rows, of which the first is unknown.

    Raises:
        ValueError: One of another form, or two of one name.
    """
    for entry in inputs:
        sized = isinstance(entry.get("size"), int) and entry["size"] > 1
        values = entry.get("values")
        fits = values is None or (isinstance(values, list) and sized and len(values) == entry["size"] - 1)
        if not (sized and fits and entry.get("name") and entry.get("kind") in ("column", "time")):
            raise ValueError(
                "`inputs` must each have a `name`, a `kind` ('column' or 'time'), a `size` above 1 and one value less "
                f"in `values`, found {str(entry)[:200]}."
            )
    names = [entry["name"] for entry in inputs]
    if len(set(names)) < len(names):
        raise ValueError(f"`inputs` must have different names, found {', '.join(names)}.")


@strict
class CatalogueConfig(PreTrainedConfig):
    """What the configs of all models have in common: the tokens of a catalogue, and what a stored one must not say."""

    vocab_size: int = 1003
    filter_seen: bool = True
    pad_token_id: int | None = 0
    mask_token_id: int = 1
    unk_token_id: int = 2
    num_special_tokens: int = 3
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if kwargs.get("transformers_weights") is not None:
            raise ValueError(
                f"`transformers_weights` must not be given, found {kwargs['transformers_weights']!r}: the parent would "
                "read this file in place of model.safetensors, a pickle too. Take it out of config.json."
            )
        # Where hfrec is imported, transformers would run the checkpoint's pipeline in place of hfrec's own.
        if not __name__.startswith("transformers_modules"):
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    def validate_vocabulary(self) -> None:
        """Refuse a vocabulary without an item, and special tokens that share an id or lie among the items."""
        if self.vocab_size <= self.num_special_tokens:
            raise ValueError(
                f"`vocab_size` must be above `num_special_tokens` ({self.num_special_tokens}), found {self.vocab_size}."
            )
        ids = [self.mask_token_id, self.unk_token_id, *([] if self.pad_token_id is None else [self.pad_token_id])]
        if len(set(ids)) != len(ids) or not all(0 <= token < self.num_special_tokens for token in ids):
            raise ValueError(
                "`pad_token_id`, `mask_token_id` and `unk_token_id` must differ and lie in "
                f"[0, {self.num_special_tokens}), found {self.pad_token_id}, {self.mask_token_id}, {self.unk_token_id}."
            )


@strict
class Bert4RecConfig(CatalogueConfig):
    r"""Configuration of [`Bert4RecModel`] and its heads.

    The defaults are a pre-norm encoder of 64 units with a transformed, tied output. The two originals are presets:
    `Bert4RecConfig.bert4rec()` (Sun et al., CIKM 2019) and `Bert4RecConfig.sasrec()` (Kang and McAuley, ICDM 2018).

    Args:
        vocab_size (`int`): Items plus the three special tokens `[PAD] [MASK] [UNK]`, which come first.
        hidden_size (`int`): Width of the layers.
        embedding_size (`int`, *optional*): Width of the item embeddings; `hidden_size` unless given (factorised). With
            content, the axes of content that are kept and, for `"content+id"`, `hidden_size` more.
        item_representation (`"id"`, `"content"` or `"content+id"`): What an item is to the model: an embedding of its
            own; its content under a learnt adapter, so that an item which was never trained can be ranked; or that plus
            a residual of its own, which starts at zero.
        item_content (`dict`, *optional*): What the content is made of: `{"blocks": [{"width": …, …}, …]}`, as
            `hfrec.ContentSpecification.to_dict` gives it.
        content_rank (`int`): Main axes of each block of content that are kept.
        content_adapter (`"none"` or `"linear"`): What is learnt between whitened content and item embeddings: nothing,
            or a linear map that starts as the identity.
        content_similarity (`"cosine"` or `"dot"`): Whether embeddings by content are brought to length 1.
        num_hidden_layers (`int`): Number of layers.
        num_attention_heads (`int`): Heads of a layer; divides `hidden_size`.
        intermediate_size (`int`, *optional*): Width of the feed-forward part; `4 * hidden_size` unless given.
        hidden_act (`str`): Activation of the feed-forward part and of the output transform.
        gated_mlp (`bool`): Gated feed-forward part.
        norm_position (`"pre"` or `"post"`): Layer norm before or after each block.
        position_embedding_type (`"absolute"`, `"rotary"` or `"none"`): Positions count from the newest item.
        max_position_embeddings (`int`): Longest sequence of tokens, the `[MASK]` of the masked model included.
        rotary_base (`float`): Base of the rotary angles.
        hidden_dropout_prob (`float`): Dropout on the embeddings and on what each block adds.
        attention_probs_dropout_prob (`float`): Dropout on the attention weights; above 0 the CPU path is unfused.
        classifier_dropout (`float`): Dropout before the head of the sequence classifier.
        head_transform (`bool`): Dense layer, activation and norm between the body and the item scores, as BERT has it.
        head_bias (`bool`): A learnt bias for each item.
        classifier_pooling (`"last"` or `"mean"`): How the history is pooled for the sequence classifier.
        loss (`"full"`, `"chunked"`, `"sampled_softmax"` or `"gbce"`): Training loss; the first two are the same
            function. With the others than `"full"` a model in training mode returns no logits.
        loss_chunk_size (`int`): Scores held at a time by the chunked loss.
        loss_candidates (`"all"` or `"unseen"`): Which items compete with a target in training: all of them, or those
            that the model does not see in the history. The latter is for models that recommend unseen items, and does
            nothing where `filter_seen` is off.
        num_negatives (`int`): Negatives that all positions of a batch share (sampled softmax, gBCE).
        num_hard_negatives (`int`): Items that score highest for some positions that are alike, and compete beside the
            negatives drawn (sampled softmax over items of ids): nearer to the exact softmax.
        negative_sampling (`"uniform"`, `"log_uniform"`, `"in_batch"` or `"mixed"`): How they are drawn; log-uniform
            wants token ids in order of frequency. gBCE knows uniform ones only.
        gbce_t (`float`): Calibration of gBCE, from 0 (plain binary cross-entropy) to 1.
        label_smoothing (`float`): Share of each training target that is spread evenly over the catalogue, in [0, 1).
        inputs (`list[dict]`, *optional*): What the model reads of an interaction beside its item, each with its `name`,
            `kind` and `size`, as `hfrec pretrain --inputs` declares it; each has a table of its own, which starts at
            zero and is added to the item embeddings.
        filter_seen (`bool`): Whether recommending leaves out the items of the history where nothing else is asked for;
            training sets it by how often the log's users take an item again.
        initializer_range (`float`): Standard deviation of the initial weights.
        layer_norm_eps (`float`): Epsilon of the layer norms.

    Example:
        >>> Bert4RecConfig(vocab_size=103, hidden_size=32).intermediate_size
        128
    """

    model_type = "bert4rec"

    hidden_size: int = 64
    embedding_size: int | None = None
    item_representation: Literal["id", "content", "content+id"] = "id"
    item_content: dict[str, Any] | None = None
    content_rank: int = 256
    content_adapter: Literal["none", "linear"] = "none"
    content_similarity: Literal["cosine", "dot"] = "cosine"
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    intermediate_size: int | None = None
    hidden_act: str = "gelu"
    gated_mlp: bool = False
    norm_position: Literal["pre", "post"] = "pre"
    position_embedding_type: Literal["absolute", "rotary", "none"] = "absolute"
    max_position_embeddings: int = 100
    rotary_base: float = 10_000.0
    hidden_dropout_prob: float = 0.2
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout: float = 0.1
    head_transform: bool = True
    head_bias: bool = True
    classifier_pooling: Literal["last", "mean"] = "last"
    loss: LossName = "full"
    loss_chunk_size: int = 1_048_576
    loss_candidates: Literal["all", "unseen"] = "all"
    num_negatives: int = 1024
    num_hard_negatives: int = 0
    negative_sampling: Literal["uniform", "log_uniform", "in_batch", "mixed"] = "uniform"
    gbce_t: float = 0.75
    label_smoothing: float = 0.0
    inputs: list[dict[str, Any]] | None = None
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(labels := kwargs.get("num_labels"), int) and labels > MAX_LABELS:
            raise ValueError(
                f"`num_labels` must be at most {MAX_LABELS:,}, found {labels:,}: the parent would name each of them."
            )
        if kwargs.pop("item_features", False):
            raise ValueError(
                "`item_features` is no more: the checkpoint is of an earlier version. Pretrain it again with "
                "`item_representation='content'`."
            )
        if self.embedding_size is None:
            own = 0 if self.item_representation == "content" else self.hidden_size
            self.embedding_size = sum(self.content_ranks()) + own
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make the config of a stored one, which must not name code of a hub.

        Raises:
            ValueError: It asks for an attention kernel of a repository, which would be downloaded and run; or for an
                adapter of an earlier version.
        """
        if (adapter := config_dict.get("content_adapter")) in ("whitening", "mlp", "moe"):
            raise ValueError(
                f"`content_adapter` {adapter!r} is no more: the checkpoint is of an earlier version. Pretrain it again "
                "with 'none' or 'linear'."
            )
        for name in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
            if "/" in str(config_dict.get(name) or ""):
                raise ValueError(
                    f"`{name}` of a stored config must not name a repository, found {config_dict[name]!r}: its code "
                    "would run. Take it out of config.json; whoever trusts it hands it to `from_pretrained`."
                )
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As the parent's; a model that reads items alone does not speak of inputs."""
        settings: dict[str, Any] = super().to_dict()
        return {name: value for name, value in settings.items() if name != "inputs" or value is not None}

    def content_widths(self) -> list[int]:
        """Columns of features of each block of content; none for `item_representation="id"`."""
        blocks = (self.item_content or {}).get("blocks", []) if self.item_representation != "id" else []
        return [block["width"] for block in blocks]

    def content_ranks(self) -> list[int]:
        """Main axes of each block of content that are kept."""
        return [min(width, self.content_rank) for width in self.content_widths()]

    def validate_content(self) -> None:
        """Refuse items that are made of nothing, and embeddings without room for what they are made of."""
        if self.content_rank < 1:
            raise ValueError(f"`content_rank` must be above 0, found {self.content_rank}.")
        if (self.item_representation == "id") != (self.item_content is None):
            raise ValueError(
                "`item_content` says what the items are made of, for `item_representation` 'content' and 'content+id' "
                f"alone: found {self.item_representation!r} with {self.item_content!r}."
            )
        if self.item_representation == "id":
            return
        widths = self.content_widths()
        if not widths or not all(isinstance(width, int) and width > 0 for width in widths):
            raise ValueError(f"`item_content` must have blocks of widths above 0, found the widths {widths}.")
        if self.embedding_size is not None and self.embedding_size < sum(self.content_ranks()):
            raise ValueError(
                f"`embedding_size` must be at least {sum(self.content_ranks())}, the axes of content that are kept, "
                f"found {self.embedding_size}. Raise it, or lower `content_rank`."
            )

    def validate_inputs(self) -> None:
        """Refuse inputs of another form, or two of one name."""
        check_inputs(self.inputs or [])

    def validate_shape(self) -> None:
        """Refuse sizes that no model can have."""
        positive = ("hidden_size", "embedding_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        for name in (*positive, "max_position_embeddings", "rotary_base", "layer_norm_eps", "initializer_range"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be above 0, found {getattr(self, name)}.")
        if self.hidden_act != "gelu":  # the table costs 2.5 CPU seconds to import, more than torch itself
            from transformers.activations import ACT2FN

            if self.hidden_act not in ACT2FN:
                raise ValueError(f"`hidden_act` must be one of {sorted(ACT2FN)}, found {self.hidden_act!r}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `num_attention_heads` "
                f"({self.num_attention_heads})."
            )
        if self.position_embedding_type == "rotary" and (self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError("Rotary positions need an even `hidden_size / num_attention_heads`.")

    def validate_probabilities(self) -> None:
        """Refuse a dropout outside [0, 1)."""
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"`{name}` must be in [0, 1), found {getattr(self, name)}.")

    def validate_loss(self) -> None:
        """Refuse a loss that cannot be calculated."""
        for name in ("loss_chunk_size", "num_negatives"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be above 0, found {getattr(self, name)}.")
        if self.num_hard_negatives < 0:
            raise ValueError(f"`num_hard_negatives` must be 0 or above, found {self.num_hard_negatives}.")
        takes_none = self.loss in SAMPLED_LOSSES and self.loss != "sampled_softmax"  # the exact ones score every item
        if self.num_hard_negatives and (takes_none or self.item_representation != "id"):
            raise ValueError(
                "`num_hard_negatives` is for sampled_softmax over items of ids, found "
                f"{self.num_hard_negatives} with {self.loss!r} and {self.item_representation!r}: set it to 0."
            )
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"`label_smoothing` must be in [0, 1), found {self.label_smoothing}.")
        if self.label_smoothing and self.loss == "gbce":
            raise ValueError(f"`label_smoothing` must be 0 for the gbce loss, found {self.label_smoothing}.")
        if not 0.0 <= self.gbce_t <= 1.0:
            raise ValueError(f"`gbce_t` must be in [0, 1], found {self.gbce_t}.")
        if self.loss == "gbce" and self.negative_sampling != "uniform":
            raise ValueError(
                f"`negative_sampling` must be 'uniform' for the gbce loss, found {self.negative_sampling!r}: its "
                "calibration holds for uniform negatives only."
            )
        if self.loss == "gbce" and self.vocab_size < self.num_special_tokens + 2:
            raise ValueError("The gbce loss needs at least two items: `vocab_size` leaves no negative.")

    @classmethod
    def bert4rec(cls, **kwargs: Any) -> "Bert4RecConfig":
        """The original BERT4Rec: post-norm, absolute positions, dropout on the attention weights too."""
        return cls(**{"norm_position": "post", "attention_probs_dropout_prob": 0.2, **kwargs})

    @classmethod
    def sasrec(cls, **kwargs: Any) -> "Bert4RecConfig":
        """SASRec, for `Bert4RecForCausalLM`: one narrow ReLU block a layer, scores by plain dot product."""
        original = {"hidden_act": "relu", "head_transform": False, "head_bias": False, "num_attention_heads": 1}
        width = kwargs.get("hidden_size", cls.hidden_size)
        return cls(**{**original, "intermediate_size": width, **kwargs})


__all__ = ["Bert4RecConfig"]
