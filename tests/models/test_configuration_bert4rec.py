"""The config refuses what no model can be, in the constructor, and survives a round trip."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError

from hfrec.models import Bert4RecConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 0),
        ("hidden_size", 15),
        ("hidden_size", "64"),
        ("embedding_size", -1),
        ("num_hidden_layers", 0),
        ("num_attention_heads", 3),
        ("intermediate_size", 0),
        ("max_position_embeddings", 0),
        ("hidden_act", "gleu"),
        ("gated_mlp", "yes"),
        ("norm_position", "middle"),
        ("position_embedding_type", "relative"),
        ("classifier_pooling", "first"),
        ("hidden_dropout_prob", 1.0),
        ("attention_probs_dropout_prob", -0.1),
        ("classifier_dropout", 2.0),
        ("vocab_size", 3),
        ("pad_token_id", 3),
        ("mask_token_id", 0),
        ("unk_token_id", 7),
        ("rotary_base", 0.0),
        ("layer_norm_eps", 0.0),
        ("initializer_range", -0.02),
        ("loss", "bpr"),
        ("loss_chunk_size", 0),
        ("num_negatives", 0),
        ("num_hard_negatives", -1),
        ("negative_sampling", "popular"),
        ("gbce_t", 1.5),
    ],
)
def test_a_wrong_value_fails_in_the_constructor_and_is_named(name: str, value: Any) -> None:
    """A wrong value that is accepted fails hours later, or trains another model than the one asked for."""
    with pytest.raises(StrictDataclassError, match=name):
        Bert4RecConfig(**{name: value})


def test_rotary_needs_an_even_head() -> None:
    """An odd head would lose its last dimension when it is halved."""
    with pytest.raises(StrictDataclassError, match="even"):
        Bert4RecConfig(hidden_size=6, num_attention_heads=2, position_embedding_type="rotary")


def test_gbce_takes_uniform_negatives_only() -> None:
    """Its calibration is derived for uniform negatives and would be wrong for others."""
    with pytest.raises(StrictDataclassError, match="uniform"):
        Bert4RecConfig(loss="gbce", negative_sampling="in_batch")


@pytest.mark.parametrize(
    "other", [{"loss": "gbce"}, {"item_representation": "content", "item_content": {"blocks": [{"width": 5}]}}]
)
def test_hard_negatives_are_for_a_softmax_over_ids(other: dict[str, Any]) -> None:
    """They would be left out in silence, or the embeddings of a whole catalogue be made in each step."""
    assert Bert4RecConfig(loss="sampled_softmax", num_hard_negatives=8).num_hard_negatives == 8
    with pytest.raises(StrictDataclassError, match="num_hard_negatives"):
        Bert4RecConfig(**{"loss": "sampled_softmax", "num_hard_negatives": 8, **other})


def test_sizes_left_out_follow_hidden_size() -> None:
    """A fixed default would give a narrow bottleneck in every wide model."""
    config = Bert4RecConfig(hidden_size=32)
    assert (config.embedding_size, config.intermediate_size) == (32, 128)


def test_save_and_load_keep_every_value(tmp_path: Path) -> None:
    """A value lost on saving comes back as its default, silently."""
    config = Bert4RecConfig.sasrec(vocab_size=40, hidden_size=8, embedding_size=4, position_embedding_type="none")
    config.save_pretrained(tmp_path)
    loaded = Bert4RecConfig.from_pretrained(tmp_path)
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert (loaded.hidden_act, loaded.intermediate_size, loaded.head_bias) == ("relu", 8, False)


def test_presets_are_the_originals_and_take_overrides() -> None:
    """A preset that ignores its arguments builds another model than the one asked for."""
    original = Bert4RecConfig.bert4rec(hidden_size=16, attention_probs_dropout_prob=0.0)
    assert (original.norm_position, original.hidden_size, original.attention_probs_dropout_prob) == ("post", 16, 0.0)
    sasrec = Bert4RecConfig.sasrec(hidden_size=16)
    assert (sasrec.intermediate_size, sasrec.num_attention_heads, sasrec.head_transform) == (16, 1, False)
