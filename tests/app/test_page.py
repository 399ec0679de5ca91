"""What the page says, without a browser: the lists of `recommend`, their reasons, and catalogues that lack things."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hfrec import ItemTokenizer, MarkovBaseline, PopularityBaseline, explain, item_vectors, recommend
from hfrec.app import cards
from hfrec.app.catalogue import Catalogue, Item
from hfrec.app.item_map import item_map, to_canvas
from hfrec.app.page import SIDE_BY_SIDE, Page
from hfrec.app.recommender import Recommender
from hfrec.blending.parts import make_blend
from tests.app.conftest import HOSTILE, ITEMS, TITLES, USERS, film_tokenizer, network

TITLE = re.compile(r'<span class="title" title="[^"]*">([^<]*)</span>')


@pytest.fixture(scope="module")
def causal() -> Recommender:
    return Recommender("Causal", network("Bert4RecForCausalLM", 0), film_tokenizer())


@pytest.fixture(scope="module")
def masked() -> Recommender:
    return Recommender("Masked", network("Bert4RecForMaskedLM", 1), film_tokenizer())


def blend(**parts: Callable[[], Any]) -> Any:
    rows = np.random.default_rng(0).integers(3, 43, (60, 8)).tolist()
    fitted = {name: part().fit(rows, 43) for name, part in parts.items()}
    return make_blend(fitted, [1.0] * len(fitted), counts=np.bincount(np.concatenate(rows), minlength=43))


def test_recommendations_and_reasons_are_those_of_the_functions(causal: Recommender) -> None:
    """The page has no arithmetic of its own that could drift from what a service answers."""
    rows = causal.recommend(USERS["bob"])
    (found,) = recommend(causal.model, causal.tokenizer, [USERS["bob"]], 10)
    assert [(row.item.item_id, row.score, row.rank) for row in rows] == [
        (item["item_id"], item["score"], item["rank"]) for item in found
    ]
    reasons = explain(causal.model, causal.tokenizer, USERS["bob"], [found[0]["item_id"]])[0]
    shown = [(item.item_id, factor) for item, factor in rows[0].reasons]
    assert shown == [
        (reason["item_id"], pytest.approx(np.exp(reason["contribution"])))
        for reason in reasons
        if reason["contribution"] > 0.02
    ]


@pytest.mark.parametrize(
    "parts", [{"markov": lambda: MarkovBaseline(k=10, smoothing=1.0)}, {"popularity": PopularityBaseline}]
)
def test_blends_recommend_and_say_what_they_cannot(parts: Any) -> None:
    """A blend of popularity alone knows of no likeness: a diversity slider for it would fail when it is moved."""
    recommender = Recommender("Blend", blend(**parts), film_tokenizer())
    page = Page([recommender])
    _, _, lists, _ = page.answer(["id 3", "id 4"], "Blend", 0.0, 0.5)
    assert len(TITLE.findall(lists)) == 10
    assert page.related == ("markov" in parts)
    assert ("because of" in lists) == ("markov" in parts)
    if page.related:
        assert len(page.answer(["id 3"], "Blend", 0.5, 0.0)) == 4
        assert len(page.item_map("Blend")["items"]) == 40


def test_lists_side_by_side_mark_what_they_share(causal: Recommender, masked: Recommender) -> None:
    page = Page([causal, masked], USERS)
    assert page.choices == [SIDE_BY_SIDE, "Causal", "Masked"]
    _, examples, lists, marks = page.answer(USERS["bob"], SIDE_BY_SIDE, 0.0, 0.0)
    titles = TITLE.findall(lists)
    assert len(titles) == 20
    assert lists.count("in both lists") == 2 * len(set(titles[:10]) & set(titles[10:])) > 0
    assert examples == ""
    told = json.loads(marks)
    assert told["label"] == "Causal"
    assert [TITLES[ITEMS.index(item)] for item in told["recommended"]] == titles[:10]
    assert "in both lists" not in page.answer(USERS["bob"], "Masked", 0.0, 0.0)[2]


def test_a_catalogue_of_ids_alone_works() -> None:
    """No titles, no categories, no counts: ids are shown, and nothing is claimed of popularity."""
    tokenizer = ItemTokenizer.from_items(ITEMS)
    page = Page([Recommender("Bare", network("Bert4RecForMaskedLM", 0), tokenizer)])
    past, _, lists, _ = page.answer(["id 3"], "Bare", 0.3, 0.0)
    assert TITLE.findall(past) == ["id 3"]
    assert len(TITLE.findall(lists)) == 10
    assert not page.counted
    assert "interactions" not in lists
    assert "niche" not in lists
    assert page.find_titles("id 7")[0] == {"item_id": "id 7", "title": "id 7", "note": ""}
    drawn = page.item_map("Bare")
    assert drawn["categories"] == []
    assert {item["category"] for item in drawn["items"]} == {0}


def test_unknown_items_are_told_and_an_empty_history_is_no_error(causal: Recommender) -> None:
    """A causal model has nothing to say of nobody: the page offers popular items to start from."""
    page = Page([causal], {"stranger": ["nothing", "id 1"]})
    past, _, lists, _ = page.answer(["nothing", "id 1"], "Causal", 0.0, 0.0)
    assert "nothing" in TITLE.findall(past)
    assert "1 of 2 items of the history are unknown to this model." in lists
    assert not page.knows("nothing")
    past, examples, lists, marks = page.answer([], "Causal", 0.0, 0.0)
    assert "Nothing yet" in past
    assert examples.count("<button") == 6
    assert "Film 0" in examples
    assert "as soon as" in lists
    assert json.loads(marks)["recommended"] == []
    assert "Film" not in page.answer(["nothing"], "Causal", 0.0, 0.0)[2]


def test_users_are_found_by_the_beginning_of_their_id(causal: Recommender) -> None:
    page = Page([causal], USERS)
    assert [row["title"] for row in page.find_users("an")] == ["ann", "anton"]
    assert [row["title"] for row in page.find_users("bob")] == ["bob", "ann", "anton"], "Enter takes the first"
    assert page.find_users("zoe") == []
    assert page.find_users("a")[0]["note"] == "3 items"


def test_labels_of_their_own(causal: Recommender) -> None:
    """Two models of one name cannot be told apart, and the choice of both needs a name too."""
    clash = Recommender(SIDE_BY_SIDE, causal.model, causal.tokenizer)
    for wrong in ([], [causal, causal], [causal, clash]):
        with pytest.raises(ValueError, match="labels of their own"):
            Page(wrong)


def test_items_tell_year_categories_and_popularity() -> None:
    catalogue = Catalogue(film_tokenizer())
    assert catalogue.items["id 0"].detail == "1950 · Drama · War"
    assert catalogue.items["id 0"].popularity == "80 interactions · top 2 %"
    assert catalogue.items["id 39"].popularity == "2 interactions · top 100 %"
    assert catalogue.items["id 3"].categories == ()
    assert [item.item_id for item in catalogue.popular(2)] == ["id 0", "id 1"]
    assert catalogue.leading_categories(2) == ["Comedy", "Drama", "other"]
    with pytest.raises(ValueError, match="`category_column` 'mood' is not among the items' columns"):
        Catalogue(film_tokenizer(), category_column="mood")
    lists = ItemTokenizer.from_items(["a"], metadata=_table(item_id=["a"], tags=[["x", "y "]]))
    assert Catalogue(lists, category_column="tags").items["a"].categories == ("x", "y")


def test_cards_escape_what_they_show() -> None:
    """Titles and labels come from catalogues and folders of others."""
    item = Item("<b>", HOSTILE, categories=("<u>",))
    texts = [
        cards.history_cards([item]),
        cards.example_buttons([item]),
        cards.recommendation_list("<s>", [], note="<q>"),
    ]
    for text in texts:
        assert not re.search(r"<(img|u|s|q|b)>|<img", text.replace("<b></b>", ""))


def test_a_long_history_unfolds() -> None:
    text = cards.history_cards([Item(item, item) for item in ITEMS])
    assert "32 earlier" in text
    assert TITLE.findall(text) == ITEMS[::-1]
    assert "earlier" not in cards.history_cards([Item(item, item) for item in ITEMS[:9]])


def test_factors_read_well() -> None:
    """“×1.0” is no reason, and “+300 %” is hard to read."""
    assert [cards.factor_text(value) for value in (1.04, 1.5, 2.0, 12.34)] == ["+4 %", "+50 %", "×2.0", "×12.3"]


def test_the_map_puts_like_items_together(causal: Recommender) -> None:
    """Neighbours in the model are neighbours on the map, inside its frame; every item has its own title."""
    rng = np.random.default_rng(0)
    centres = np.eye(4)[np.arange(40) % 4]
    vectors = np.zeros((43, 4), dtype=np.float32)
    vectors[3:] = centres + rng.normal(scale=0.01, size=(40, 4))
    drawn = item_map(causal.catalogue, vectors)
    spots = {item["item_id"]: np.array([item["x"], item["y"]]) for item in drawn["items"]}
    assert all(0 <= x <= 1000 and 0 <= y <= 520 for x, y in spots.values())
    inside = np.mean([np.linalg.norm(spots["id 0"] - spots[f"id {place}"]) for place in range(4, 40, 4)])
    outside = np.mean([np.linalg.norm(spots["id 0"] - spots[f"id {place}"]) for place in range(1, 40, 4)])
    assert inside < outside / 2
    assert drawn["categories"] == ["Comedy", "Drama", "Horror", "other"]
    assert {item["item_id"]: item["category"] for item in drawn["items"]}["id 3"] == 3
    again = item_map(causal.catalogue, vectors)
    assert again == drawn


def test_a_map_of_few_items_is_drawn_too() -> None:
    tokenizer = ItemTokenizer.from_items(["a", "b", "c"])
    vectors = np.eye(6, 4, dtype=np.float32)
    assert len(item_map(Catalogue(tokenizer), vectors)["items"]) == 3
    assert to_canvas(np.zeros((2, 2))).tolist() == [[14, 14], [14, 14]]


def test_diversity_takes_the_vectors_of_the_model(causal: Recommender) -> None:
    assert np.array_equal(causal.vectors, item_vectors(causal.model))
    plain = [row.item.item_id for row in causal.recommend(USERS["bob"])]
    varied = [row.item.item_id for row in causal.recommend(USERS["bob"], diversity=1.0)]
    assert plain[0] == varied[0]
    assert plain != varied


def _table(**columns: Any) -> Any:
    import pyarrow as pa

    return pa.table(columns)
