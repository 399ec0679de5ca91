"""The page in a real browser: typed, clicked, tabbed through and looked at on a phone.

The first test is in the default suite, so that the page is opened with every change; the others are slow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hfrec
from tests.app.conftest import HOSTILE, ITEMS, TITLES, USERS

Visit = Callable[..., Any]


def shown_titles(page: Any, model: int = 0) -> list[str]:
    """Titles of one list, in its order."""
    titles: list[str] = page.locator(".model").nth(model).locator(".card .title").all_inner_texts()
    return titles


ALL_TITLES = "[...document.querySelectorAll('.card .title')].map(title => title.textContent)"


def history(page: Any) -> list[str]:
    titles: list[str] = page.locator("#history .title").all_inner_texts()
    return titles


def expect(page: Any, condition: str, *values: Any) -> None:
    """Wait until a condition on the document holds."""
    page.wait_for_function(f"(values) => {condition}", arg=list(values))


def wait_for_history(page: Any, number: int) -> None:
    expect(page, "document.querySelectorAll('#history .title').length === values[0]", number)


def expected_titles(folder: Path, items: list[str]) -> list[str]:
    """What the Python function gives for a history."""
    model, tokenizer = hfrec.load_checkpoint(folder)
    return [row["title"] for row in hfrec.recommend(model, tokenizer, [items], top_k=10)[0]]


def test_a_title_is_typed_and_ten_come_back(visit: Visit, page_address: str, checkpoints: tuple[Path, Path]) -> None:
    """The page must show what `recommend` gives for the history on it, by either model."""
    page = visit(page_address)
    expect(page, "document.querySelectorAll('.card').length === 20")
    assert history(page) == [TITLES[int(item[3:])] for item in reversed(USERS["ann"])]
    assert shown_titles(page, 0) == expected_titles(checkpoints[0], USERS["ann"])
    page.get_by_role("button", name="Clear").click()
    wait_for_history(page, 0)
    page.get_by_label("Add a title").first.fill("film 17")
    page.get_by_role("option").first.click()
    wait_for_history(page, 1)
    expect(page, "document.querySelectorAll('.card').length === 20")
    assert history(page) == ["Film 17"]
    assert shown_titles(page, 0) == expected_titles(checkpoints[0], ["id 17"])
    page.locator("#model label", has_text="Masked").click()
    expect(page, "document.querySelectorAll('.card').length === 10")
    assert page.locator(".model h3").inner_text() == "Masked <i>"
    assert shown_titles(page) == expected_titles(checkpoints[1], ["id 17"])
    assert page.locator("footer").count() == 0


@pytest.mark.slow
def test_reasons_popularity_and_the_sliders(visit: Visit, page_address: str) -> None:
    """A slider that moves and changes nothing looks as if the lists could not be more varied."""
    page = visit(page_address)
    page.locator("#model label", has_text="Causal").click()
    expect(page, "document.querySelectorAll('.card').length === 10")
    assert page.locator(".why .reason").count() > 0
    assert set(page.locator(".why .reason span").all_inner_texts()) <= set(history(page))
    assert "history: top" in page.locator(".key").inner_text()
    before = shown_titles(page)
    page.locator("#popularity input[type=range]").focus()
    page.keyboard.press("End")
    expect(page, f"{ALL_TITLES}.join() !== values.join()", *before)
    popular = shown_titles(page)
    places = [[TITLES.index(title) for title in titles] for titles in (before, popular)]
    assert sum(places[1]) < sum(places[0]), "an item with a smaller number has more interactions"
    page.locator("#diversity input[type=range]").focus()
    page.keyboard.press("End")
    expect(page, f"{ALL_TITLES}.join() !== values.join()", *popular)
    assert len(shown_titles(page)) == 10


@pytest.mark.slow
def test_the_keyboard_alone_is_enough(visit: Visit, page_address: str) -> None:
    """Tab, letters, arrows, Enter and Space: a page that needs a pointer locks people out."""
    page = visit(page_address)
    expect(page, "document.querySelectorAll('.card').length === 20")

    def tab_to(condition: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate(f"(() => {{ const at = document.activeElement; return Boolean({condition}); }})()"):
                return
        raise AssertionError(f"Tab never reached {condition}")

    tab_to("at.id === 'user'")
    page.keyboard.type("bob")
    expect(page, "document.querySelector('#user-list [aria-selected=true]')?.innerText.startsWith('bob')")
    page.keyboard.press("Enter")
    wait_for_history(page, 12)
    tab_to("at.id === 'titles'")
    page.keyboard.type("film 2")
    expect(page, "document.querySelectorAll('#titles-list li').length > 2")
    page.keyboard.press("ArrowDown")
    chosen = page.locator("#titles-list [aria-selected=true] span").inner_text()
    assert page.locator("#titles").get_attribute("aria-activedescendant") == "titles-list-1"
    page.keyboard.press("Enter")
    expect(page, "document.querySelector('#history .title').textContent === values[0]", chosen)
    tab_to("at.getAttribute('aria-label') === 'Remove ' + document.querySelector('#history .title').textContent")
    page.keyboard.press("Enter")
    expect(page, "document.querySelector('#history .title').textContent !== values[0]", chosen)
    tab_to("at.value === 'Causal' && at.type === 'radio'")
    page.keyboard.press("Space")
    expect(page, "document.querySelectorAll('.card').length === 10")
    page.keyboard.press("Escape")


@pytest.mark.slow
def test_the_map_tells_titles_and_marks_the_list(visit: Visit, page_address: str) -> None:
    """Points that lose their titles, or marks of another history, make the map a decoration."""
    page = visit(page_address)
    page.locator("#map .dot").first.wait_for()
    expect(page, "document.querySelectorAll('.marks circle').length === 10")
    assert sorted(page.locator("#map .dot title").evaluate_all("nodes => nodes.map(n => n.textContent)")) == sorted(
        TITLES
    )
    assert page.locator("#map .dot.history").count() == len(USERS["ann"])
    assert page.locator(".legend li").all_inner_texts() == ["Comedy", "Drama", "Horror", "other"]
    free = page.locator("#map .dot:not(.history):not(.recommended)").last
    free.scroll_into_view_if_needed()
    free.dispatch_event("pointermove")
    tip = page.locator(".tip")
    tip.wait_for(state="visible")
    assert tip.locator("strong").inner_text() == free.locator("title").evaluate("node => node.textContent")
    assert "interactions" in tip.inner_text()


@pytest.mark.slow
def test_titles_are_text_and_nothing_else(visit: Visit, page_address: str) -> None:
    """A title of a catalogue is anybody's text: run as HTML or as a template, it would act in the reader's name."""
    page = visit(page_address)
    expect(page, "document.querySelectorAll('.card').length === 20")
    assert HOSTILE in history(page)
    page.get_by_label("Add a title").first.fill("img src")
    expect(page, "document.querySelectorAll('#titles-list li').length === 1")
    assert page.locator("#titles-list li span").inner_text() == HOSTILE
    page.keyboard.press("Enter")
    wait_for_history(page, 3)
    page.locator("#map .dot").first.wait_for()
    assert page.locator("#history img, .card img, #map img, .search img").count() == 0


@pytest.mark.slow
def test_a_phone_needs_no_scrolling_to_the_side(visit: Visit, page_address: str) -> None:
    """At 390 pixels a part that is wider than the screen hides what it says."""
    page = visit(page_address, width=390)
    page.locator("#map .dot").first.wait_for()
    page.get_by_label("Add a title").first.fill("film 3")
    page.get_by_role("option").first.click()
    wait_for_history(page, 4)
    widths = page.evaluate(
        "() => [document.documentElement.scrollWidth, ...[...document.querySelectorAll('.card, .canvas, #controls, "
        "#history ol, .scale')].map(node => Math.ceil(node.getBoundingClientRect().right))]"
    )
    assert max(widths) <= 390
    assert len(ITEMS) == page.locator("#map .dot").count()
