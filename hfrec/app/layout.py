"""The page as Gradio lays it out: which parts there are, and what each does when it is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from .item_map import HEIGHT, WIDTH
from .page import Page
from .recommender import Recommender

ASSETS = Path(__file__).parent / "assets"
# Values reach a page as HTML that we escape, or as JSON. The templates below are programs to Gradio: no value of an
# item, a user or a label may stand in them.
_CLICKED_ITEM = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-item]");
  if (button) trigger("click", { item_id: button.dataset.item });
});"""
_MAP = f"""<div class="canvas"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Map of the items"></svg>
<div class="tip" hidden><strong></strong><small></small></div></div>
<ul class="legend"></ul><p class="note"></p>"""
_FIELD = """<label for="NAME">LABEL</label>
<div class="combobox"><input id="NAME" type="text" role="combobox" aria-expanded="false" aria-autocomplete="list"
aria-controls="NAME-list" autocomplete="off" spellcheck="false" placeholder="PLACEHOLDER">
<ul id="NAME-list" role="listbox" aria-label="LABEL" hidden></ul></div>
<p role="status" class="unseen"></p>"""


def build_page(
    recommenders: Sequence[Recommender],
    users: Mapping[str, Sequence[str]] | None = None,
    *,
    title: str = "What comes next?",
) -> gr.Blocks:
    """Lay out the page.

    Args:
        recommenders: One or two checkpoints, with labels of their own.
        users: Histories of a log by user id, oldest item first; None where only titles can be typed.
        title: Heading.

    Returns:
        The page, to be handed to `launch`.

    Raises:
        ValueError: No checkpoint, more than two, or two of one label.
    """
    page = Page(recommenders, users)
    user = next(iter(page.users), "")
    start = list(page.users.get(user, []))
    past, examples, lists, marks = page.answer(start, page.choices[0], 0.0, 0.0)
    blocks: gr.Blocks
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as blocks:
        history = gr.State(start)
        _html(_heading(page, title), elem_id="heading")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=4, min_width=300, elem_id="side"):
                who = _search_field("user", "User of the log", "User id", page.find_users, user) if user else None
                titles = _search_field("titles", "Add a title", "Type a title", page.find_titles)
                cards = _html(past, js_on_load=_CLICKED_ITEM, elem_id="history")
                starters = _html(examples, js_on_load=_CLICKED_ITEM, elem_id="examples")
            with gr.Column(scale=9, min_width=300, elem_id="main"):
                wishes = _controls(page)
                results = _html(lists, elem_id="lists")
        spots: Any = gr.State(marks)
        if page.related:
            _html("<h2>Map of the items</h2>")
            spots = _map_field(page, marks)
        events = {"take": who.select if who else None, "add": [titles.select, starters.click], "remove": cards.click}
        _connect(page, events, [history, *wishes], [cards, starters, results, spots])
    return blocks


def launch(blocks: gr.Blocks, *, host: str | None = None, port: int | None = None, open_browser: bool = False) -> Any:
    """Serve the page until Ctrl-C. Fonts and scripts come from this machine, nothing is reported to anybody.

    Args:
        blocks: From `build_page`.
        host: Address to listen at; 127.0.0.1, this machine alone, when None and `GRADIO_SERVER_NAME` says no other.
        port: Port; the first free one from 7860 on when None.
        open_browser: Open the page in a browser.
    """
    return blocks.launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        theme=_theme(),
        css_paths=ASSETS / "style.css",
    )


def _theme() -> gr.themes.Base:
    # Of the weights that Gradio brings along, these two know more than plain Latin letters.
    font: list[Any] = [gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"]
    mono: list[Any] = [gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "monospace"]
    return gr.themes.Base(primary_hue="indigo", neutral_hue="slate", font=font, font_mono=mono, radius_size="sm")


def _html(value: str, **options: Any) -> gr.HTML:
    return gr.HTML(value, apply_default_css=False, **options)


def _heading(page: Page, title: str) -> str:
    parts = [
        f"<span><b>{escape(recommender.label)}</b> {escape(recommender.description)}</span>"
        for recommender in page.recommenders.values()
    ]
    return f"<h1>{escape(title)}</h1><p>{''.join(parts)}</p>"


def _search_field(name: str, label: str, placeholder: str, search: Callable[[str], Any], value: str = "") -> gr.HTML:
    """A text field with suggestions; its `select` events carry `item_id`. A field with a value keeps what is chosen."""
    template = _FIELD.replace("NAME", name).replace("LABEL", label).replace("PLACEHOLDER", placeholder)

    def find(query: str) -> Any:
        return search(str(query)[:200])

    script = (ASSETS / "combobox.js").read_text(encoding="utf-8")
    return _html(value, html_template=template, js_on_load=script, server_functions=[find], elem_classes="search")


def _controls(page: Page) -> list[Any]:
    """Which model, how varied, how popular; a state in place of what cannot be chosen."""
    with gr.Row(elem_id="controls"):
        shown: Any = gr.State(page.choices[0])
        if len(page.choices) > 1:
            shown = gr.Radio(page.choices, value=page.choices[0], label="Model", elem_id="model", min_width=260)
        diversity: Any = gr.State(0.0)
        if page.related:
            diversity = _slider(0.0, 1.0, 0.05, "Diversity")
        popularity: Any = gr.State(0.0)
        if page.counted:
            popularity = _slider(-1.0, 1.0, 0.1, "Popularity")
    return [shown, diversity, popularity]


def _slider(low: float, high: float, step: float, label: str) -> gr.Slider:
    return gr.Slider(low, high, 0.0, step=step, label=label, elem_id=label.lower(), min_width=150, buttons=[])


def _map_field(page: Page, marks: str) -> gr.HTML:
    def draw(label: str) -> Any:
        return page.item_map(str(label))

    script = (ASSETS / "item_map.js").read_text(encoding="utf-8")
    return _html(marks, html_template=_MAP, js_on_load=script, server_functions=[draw], elem_id="map")


def _connect(page: Page, events: dict[str, Any], inputs: list[Any], parts: list[Any]) -> None:
    """What becomes of the history when something is touched; every part is then written anew."""

    def answer(items: list[str], *wishes: Any) -> tuple[Any, ...]:
        return items, *page.answer(items, *wishes)

    def take(event: gr.EventData, _: list[str], *wishes: Any) -> tuple[Any, ...]:
        return answer(list(page.users.get(str(event.item_id), [])), *wishes)

    def add(event: gr.EventData, items: list[str], *wishes: Any) -> tuple[Any, ...]:
        item = str(event.item_id)
        kept = [other for other in items if other != item]
        return answer([*kept, item] if page.knows(item) else items, *wishes)

    def remove(event: gr.EventData, items: list[str], *wishes: Any) -> tuple[Any, ...]:
        item = str(event.item_id)  # none on the button that removes all
        return answer([other for other in items if other != item] if item else [], *wishes)

    settings: Any = {"inputs": inputs, "outputs": [inputs[0], *parts], "show_progress": "hidden"}
    if events["take"] is not None:
        events["take"](take, **settings)
    for event in events["add"]:
        event(add, **settings)
    events["remove"](remove, **settings)
    for control in inputs[1:]:
        if not isinstance(control, gr.State):
            control.change(answer, trigger_mode="always_last", **settings)
