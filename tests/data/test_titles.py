"""Title search: what is typed finds what is meant, in an order that a person expects."""

from __future__ import annotations

import pyarrow as pa
import pytest

from hfrec import ItemTokenizer, TitleIndex
from hfrec.data.titles import plain_words

FILMS = {
    "1": ("Star Wars (1977)", 500),
    "2": ("Star Trek: The Wrath of Khan (1982)", 300),
    "3": ("Stargate (1994)", 100),
    "4": ("Amélie (2001)", 80),
    "5": ("Schindler's List (1993)", 200),
    "6": ("A Star", 10),
    "7": (None, 5),
    "8": ("Wars of the Stars", 90),
    "9": ("Casablanca (1942)", 400),
    "10": ("Star", 1),
}


@pytest.fixture(scope="module")
def index() -> TitleIndex:
    ids = list(FILMS)
    table = pa.table({"item_id": ids, "title": [FILMS[item][0] for item in ids]})
    counts = {item: FILMS[item][1] for item in ids}
    return TitleIndex.from_table(ItemTokenizer.from_items(ids, metadata=table, counts=counts).items)


def ids(index: TitleIndex, query: str, limit: int = 10) -> list[str]:
    return [hit["item_id"] for hit in index.search(query, limit)]


def test_order_is_by_how_well_the_title_fits_then_by_popularity(index: TitleIndex) -> None:
    """A search that only filters shows the long tail first and the film that was meant on page three."""
    # The title itself; titles that begin so, popular first; the word in whole; the word as a beginning of another.
    assert ids(index, "star") == ["10", "1", "2", "3", "6", "8"]
    assert ids(index, "star wars") == ["1", "8"]
    assert ids(index, "star", limit=2) == ["10", "1"]


@pytest.mark.parametrize("query", ["amelie", "AMÉLIE", "ame\u0301lie", "  amelie, 2001 ", "Amelie!"])
def test_case_accents_and_punctuation_do_not_count(index: TitleIndex, query: str) -> None:
    """Nobody types the accent, and a composed and a decomposed é look the same."""
    assert ids(index, query) == ["4"]


def test_words_fit_in_any_order_and_as_parts(index: TitleIndex) -> None:
    """Half a word, a word from the middle and another order are how people type."""
    assert ids(index, "khan tre") == ["2"]
    assert ids(index, "blanca") == ["9"]
    assert ids(index, "schindlers") == ids(index, "schindler's") == ids(index, "schindler’s li") == ["5"]


def test_one_letter_finds_beginnings_only(index: TitleIndex) -> None:
    """A letter stands inside nearly every title: autocomplete would start with noise."""
    assert ids(index, "c") == ["9"]


def test_nothing_typed_and_nothing_found_are_empty(index: TitleIndex) -> None:
    """An empty query that matched all would page through the catalogue."""
    for query in ("", "   ", "!?", "xyz", "star xyz"):
        assert ids(index, query) == []


def test_an_id_finds_its_item_and_items_without_title_have_only_that(index: TitleIndex) -> None:
    """Who copies an id out of a log must find the item, and a title of None must not be searched as 'none'."""
    assert ids(index, "7") == ["7"]
    assert ids(index, "none") == []
    assert index.title_of("7") is None
    assert index.title_of("9") == "Casablanca (1942)"


def test_without_titles_the_ids_are_searched() -> None:
    """A catalogue of product codes has nothing else to search."""
    assert ids(TitleIndex(["sku-12 red", "sku-13 blue"]), "sku blue") == ["sku-13 blue"]


def test_special_characters_are_no_pattern(index: TitleIndex) -> None:
    """A query that reaches a regular expression as it is fails on `(` or matches all on `.`."""
    for query in (".*", "(", "[zz", "\\"):
        assert ids(index, query) == []
    assert plain_words("a.b") == ["a", "b"]


def test_the_index_agrees_with_a_plain_scan() -> None:
    """The inverted lists, their bounds and the one text of all words are easy to get wrong by one."""
    import random

    random.seed(0)
    words = ["".join(random.choices("abc", k=random.randint(1, 5))) for _ in range(60)]
    titles = [" ".join(random.choices(words, k=random.randint(1, 4))) for _ in range(300)]
    index = TitleIndex([f"#{number}" for number in range(300)], titles)
    for query in [*words, "ab", "bca", "a b", "ab ca", "cc aa"]:
        parts = query.split()
        expected = {
            f"#{place}"
            for place, title in enumerate(titles)
            if all(
                any((part in word if len(part) > 1 else word.startswith(part)) for word in title.split())
                for part in parts
            )
        }
        assert set(ids(index, query, 300)) == expected, query


def test_wrong_sizes_and_limits_are_refused() -> None:
    """Titles of another catalogue would name other items."""
    with pytest.raises(ValueError, match="`titles` must be one for each of 2 items, found 1"):
        TitleIndex(["a", "b"], ["A"])
    with pytest.raises(ValueError, match="`limit` must be at least 1"):
        TitleIndex(["a"]).search("a", 0)
