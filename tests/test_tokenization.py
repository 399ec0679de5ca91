"""Item ids keep their token ids, whatever is in them, through every way of saving."""

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hfrec.tokenization import ItemTokenizer

ITEMS = ["b 1", "a", " lead", "[pad]", "Ünï", "10", "a,b"]


@pytest.fixture
def tokenizer() -> ItemTokenizer:
    metadata = pa.table({"item_id": ["a", "elsewhere", "b 1"], "title": ["Alien", "Nowhere", "Brazil"]})
    return ItemTokenizer.from_items(ITEMS, metadata=metadata, counts={"a": 4, "b 1": 7})


def test_ids_with_spaces_and_marks_are_one_token_each(tokenizer: ItemTokenizer) -> None:
    """A pre-tokenizer or normaliser would cut or merge ids, and with them the items."""
    assert tokenizer.encode_column(ITEMS).to_pylist() == list(range(3, 10))
    assert [tokenizer(item)["input_ids"] for item in ITEMS] == [[token] for token in range(3, 10)]
    assert tokenizer.decode_items(range(3, 10)) == ITEMS
    assert len(tokenizer) == tokenizer.vocab_size == 10


def test_specials_come_first(tokenizer: ItemTokenizer) -> None:
    """Collators and models take the first three ids for specials."""
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.decode_items([0, 1, 2]) == ["[PAD]", "[MASK]", "[UNK]"]
    assert (tokenizer.padding_side, tokenizer.truncation_side) == ("left", "left")


@pytest.fixture(params=[0, 10**6], ids=["one by one", "by Arrow"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few items are looked up one by one, many by Arrow."""
    monkeypatch.setattr("hfrec.tokenization._ITEMS_PER_LOOKUP", request.param)


@pytest.mark.usefixtures("either_way")
def test_unknown_items_follow_the_policy(tokenizer: ItemTokenizer) -> None:
    """An unknown item that turns into some known one is a wrong history without a trace."""
    assert tokenizer.encode_column(pa.array(["a", None]), unknown="drop").to_pylist() == [ITEMS.index("a") + 3, None]
    column = pa.array(["a", "x", "10", "y"])
    with pytest.raises(ValueError, match=r"2 item ids .*'x', 'y'.*unknown='drop'"):
        tokenizer.encode_column(column)
    assert tokenizer.encode_column(column, unknown="drop").to_pylist() == [4, None, 8, None]
    assert tokenizer.encode_column(column, unknown="unk").to_pylist() == [4, 2, 8, 2]
    with pytest.raises(ValueError, match="`unknown` must be"):
        tokenizer.encode_column(column, unknown="skip")  # type: ignore[arg-type]


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("special", ["[PAD]", "[MASK]", "[UNK]"])
def test_the_name_of_a_special_token_is_not_looked_up_as_an_item(tokenizer: ItemTokenizer, special: str) -> None:
    """A raw id `[MASK]` in a history would ask the model a question."""
    assert tokenizer.encode_column([special], unknown="unk").to_pylist() == [2]


@pytest.mark.parametrize(
    "column",
    [
        ["10", "a"],
        pa.array(["10", "a"], pa.large_string()),
        pa.array(["10", "a"]).dictionary_encode(),
        pa.chunked_array([["10"], ["a"]]),
    ],
    ids=lambda column: type(column).__name__,
)
def test_every_kind_of_column_gives_the_same_int32(tokenizer: ItemTokenizer, column: Any) -> None:
    """polars and pandas hand over other string types than pyarrow's own."""
    tokens = tokenizer.encode_column(column)
    assert (tokens.type, tokens.to_pylist()) == (pa.int32(), [8, 4])


def test_integers_are_their_strings(tokenizer: ItemTokenizer) -> None:
    """The id 10 of a CSV reader that guesses types is the item "10"."""
    assert tokenizer.encode_column(pa.array([10])).to_pylist() == [8]
    assert tokenizer.encode_column([10]).to_pylist() == [8]  # type: ignore[list-item]
    assert tokenizer.encode_column([]).to_pylist() == []
    assert ItemTokenizer.from_items(pa.array([10, 7])).decode_items([3, 4]) == ["10", "7"]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "empty"),
        (["a", "b", "a"], "'a' twice"),
        (["1", 1], "'1' twice"),
        (["a", None], "null"),
        (["a", "[MASK]"], r"\[MASK\]"),
    ],
)
def test_bad_item_ids_are_named(items: list[Any], message: str) -> None:
    """A vocabulary with a hole gives every later item the token of its neighbour."""
    with pytest.raises(ValueError, match=message):
        ItemTokenizer.from_items(items)


def test_metadata_without_ids_is_an_error() -> None:
    """A KeyError would not say which table lacks what."""
    with pytest.raises(ValueError, match="`metadata` needs a column 'item_id', found"):
        ItemTokenizer.from_items(["a"], metadata=pa.table({"movie": ["a"], "title": ["Alien"]}))


def test_items_hold_metadata_and_counts_in_token_order(tokenizer: ItemTokenizer) -> None:
    """A title in the order of the metadata stands beside another film."""
    items = tokenizer.items
    assert items.column_names == ["item_id", "title", "count"]
    assert items["item_id"].to_pylist() == ITEMS
    assert items["title"].to_pylist() == ["Brazil", "Alien", None, None, None, None, None]
    assert items["count"].to_pylist() == [7, 4, 0, 0, 0, 0, 0]


def test_save_and_load_keep_everything(tokenizer: ItemTokenizer, tmp_path: Path) -> None:
    """Titles or counts lost on the way make recommendations nameless and the popularity baseline empty."""
    files = tokenizer.save_pretrained(tmp_path)
    assert str(tmp_path / "items.parquet") in files
    loaded = ItemTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, ItemTokenizer)
    assert loaded.items.equals(tokenizer.items)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.encode_column(ITEMS).equals(tokenizer.encode_column(ITEMS))
    assert (loaded.padding_side, loaded.truncation_side) == ("left", "left")
    loaded.save_pretrained(tmp_path / "again")
    assert ItemTokenizer.from_pretrained(tmp_path / "again").items.equals(tokenizer.items)


def test_plain_auto_tokenizer_agrees(tokenizer: ItemTokenizer, tmp_path: Path) -> None:
    """A reader without hfrec would otherwise score other items."""
    tokenizer.save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert not isinstance(plain, ItemTokenizer)
    assert plain.get_vocab() == tokenizer.get_vocab()
    for item in [*ITEMS, "never seen"]:
        assert plain(item)["input_ids"] == tokenizer(item)["input_ids"]
    assert (plain.pad_token_id, plain.mask_token_id, plain.unk_token_id) == (0, 1, 2)


def test_a_folder_without_items_still_loads(tokenizer: ItemTokenizer, tmp_path: Path) -> None:
    """A tokenizer that plain transformers saved has no items.parquet; the ids are all in the vocabulary."""
    tokenizer.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "plain")
    loaded = ItemTokenizer.from_pretrained(tmp_path / "plain")
    assert loaded.items["item_id"].to_pylist() == ITEMS
    assert loaded.encode_column(ITEMS).to_pylist() == list(range(3, 10))


def test_a_folder_of_two_checkpoints_is_an_error(tokenizer: ItemTokenizer, tmp_path: Path) -> None:
    """Items of another run give every recommendation the wrong name."""
    tokenizer.save_pretrained(tmp_path)
    pq.write_table(tokenizer.items.slice(1), tmp_path / "items.parquet")
    with pytest.raises(ValueError, match="mixes two checkpoints"):
        ItemTokenizer.from_pretrained(tmp_path)


def test_another_tokenizer_is_an_error(tmp_path: Path) -> None:
    """A text tokenizer in the place of ours would take words for items."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"[UNK]": 0, "word": 1}, unk_token="[UNK]")), unk_token="[UNK]"
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Expected an item tokenizer"):
        ItemTokenizer.from_pretrained(tmp_path)


def test_encoding_a_column_is_vectorised() -> None:
    """A Python loop over a million interactions takes longer than an epoch; the bound is five times a usual run."""
    items = [f"item {index}" for index in range(5_000)]
    tokenizer = ItemTokenizer.from_items(items)
    column = pa.array(items).take(pa.array([index % 5_000 for index in range(1_000_000)]))
    started = time.process_time()
    tokens = tokenizer.encode_column(column)
    assert time.process_time() - started < 1.0
    assert tokens[4_999].as_py() == 5_002
