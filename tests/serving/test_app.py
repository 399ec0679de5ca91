"""The routes: what the library says, over HTTP; every error a problem document; limits; a swap of the model."""

from __future__ import annotations

import gc
import json
import re
import shlex
import weakref
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from hfrec import load_checkpoint, recommend, similar_items
from hfrec.serving.catalogue import Catalogue
from tests.serving.conftest import TOKEN, Films, Opens

HISTORIES = [["3", "17", "5"], ["42"], [str(number) for number in range(1, 31)]]
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["item_id"] for item in items]


def refused(response: Any, status: int, words: str) -> dict[str, Any]:
    """The problem document of an answer."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance"} <= set(document)
    assert document["status"] == status
    assert words in document["detail"]
    return document


@pytest.mark.parametrize("kind", ["onnx", "pytorch"])
def test_lists_are_those_of_the_library(kind: str, films: Films, opened: Opens) -> None:
    """Batches, padding, filters and names all happen once more in the service; any of them can shift a list."""
    model, tokenizer = load_checkpoint(films.checkpoint)
    comedies = [str(item) for item in range(1, 201) if item % 2 and item % 5]
    with opened(films.exported if kind == "onnx" else films.checkpoint) as client:
        for body, options in (
            ({}, {}),
            ({"filter_seen": False}, {"filter_seen": False}),
            ({"deny": ["1", "2"], "allow": [str(n) for n in range(60)]}, {"deny": ["1", "2"], "allow": range(1, 60)}),
            ({"categories": ["Comedy"]}, {"allow": comedies}),
        ):
            answer = client.post("/recommend", json={"histories": HISTORIES, "top_k": 7, **body}).json()
            expected = recommend(model, tokenizer, HISTORIES, 7, **options)
            assert [names(items) for items in answer["recommendations"]] == [names(items) for items in expected]
            best = answer["recommendations"][0][0]
            assert best["title"] == expected[0][0]["title"]
            assert best["rank"] == 1
            assert best["score"] == pytest.approx(expected[0][0]["score"], abs=1e-4)
            assert answer["unknown_items"] == [0, 0, 0]
        for body, options in (({}, {}), ({"categories": ["Comedy"]}, {"allow": comedies})):
            answer = client.post("/similar", json={"items": ["7", "8"], "top_k": 5, **body}).json()
            expected = similar_items(model, tokenizer, ["7", "8"], 5, **options)
            assert [names(items) for items in answer["similar"]] == [names(items) for items in expected]
        assert client.get("/readyz").json()["kind"] == kind


@pytest.mark.parametrize("kind", ["onnx", "pytorch"])
def test_an_empty_history_gets_what_is_popular(kind: str, films: Films, opened: Opens) -> None:
    """What a model says of no history at all is noise; a new user would see it first."""
    with opened(films.exported if kind == "onnx" else films.checkpoint) as client:
        body = {"histories": [[], ["9"], ["nobody knows this"]], "top_k": 3, "deny": ["2"]}
        answer = client.post("/recommend", json=body).json()
        assert names(answer["recommendations"][0]) == names(answer["recommendations"][2]) == ["1", "3", "4"]
        assert names(answer["recommendations"][1]) != ["1", "3", "4"]
        assert answer["unknown_items"] == [0, 0, 1]


def test_unknown_items_do_as_they_are_told(films: Films, opened: Opens) -> None:
    """An unknown item read as something else gives a list for somebody else."""
    with opened(films.exported) as client:

        def ask(history: list[str], policy: str) -> Any:
            return client.post("/recommend", json={"histories": [history], "unknown_items": policy})

        assert ask(["5", "new"], "drop").json()["recommendations"] == ask(["5"], "drop").json()["recommendations"]
        assert ask(["5", "new"], "unk").json()["recommendations"] != ask(["5"], "drop").json()["recommendations"]
        refused(ask(["5", "new"], "error"), 422, "history 0: expected items of the catalogue, found 'new'")


def test_a_list_is_as_long_as_there_are_items(films: Films, opened: Opens) -> None:
    """A filter that leaves three items gives three, not an error and no item that was filtered."""
    with opened(films.exported) as client:
        body = {"histories": [["1"], []], "allow": ["4", "5", "1", "unheard of"], "top_k": 10}
        first, second = client.post("/recommend", json=body).json()["recommendations"]
        assert set(names(first)) == {"4", "5"}
        assert names(second) == ["1", "4", "5"]


def test_search_by_title(films: Films, opened: Opens) -> None:
    """The ids that every other route takes are found by what a person knows."""
    with opened(films.exported) as client:
        answer = client.get("/items", params={"q": "film 12", "limit": 2}).json()
        assert names(answer["items"]) == ["12", "120"]
        assert answer["items"][0]["title"] == "Film 12 (1912)"
        refused(client.get("/items"), 422, "/q: Field required")


def test_histories_of_the_store(films: Films, opened: Opens, tmp_path: Path) -> None:
    """A user's list must be that of the history that was sent in events, in the order of their times."""
    events = [
        {"event_id": "b", "user_id": "anna", "item_id": "17", "timestamp": 20},
        {"event_id": "a", "user_id": "anna", "item_id": "3", "timestamp": 10},
    ]
    with opened(films.exported, history_store=f"sqlite:///{tmp_path / 'events.db'}") as client:
        assert client.post("/events", json={"events": events}).json() == {"accepted": 2, "duplicates": 0}
        assert client.post("/events", json={"events": events[:1]}).json() == {"accepted": 0, "duplicates": 1}
        stored = client.post("/recommend", json={"user_ids": ["anna", "nobody"], "top_k": 5}).json()
        sent = client.post("/recommend", json={"histories": [["3", "17"], []], "top_k": 5}).json()
        assert stored == sent
        refused(client.post("/events", json={"events": [{**events[0], "timestamp": "NaN"}]}), 422, "finite number")


def test_without_a_store_user_ids_are_refused(films: Films, opened: Opens) -> None:
    """Everybody as a new user would be an answer, and a wrong one."""
    with opened(films.exported) as client:
        refused(client.post("/recommend", json={"user_ids": ["anna"]}), 422, "keeps no histories")
        event = {"event_id": "1", "user_id": "u", "item_id": "1"}
        refused(client.post("/events", json={"events": [event]}), 422, "keeps no histories")


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/recommend", {"histories": [["1"]], "user_ids": ["a"]}, "either `histories` or `user_ids`"),
        ("/recommend", {}, "either `histories` or `user_ids`"),
        ("/recommend", {"histories": [["1"]], "filterseen": True}, "/filterseen: Extra inputs are not permitted"),
        ("/recommend", {"histories": ["1"]}, "/histories/0: Input should be a valid array"),
        ("/recommend", {"histories": [[None]]}, "/histories/0/0"),
        ("/recommend", {"histories": [["1"]], "top_k": 0}, "/top_k: Input should be greater than or equal to 1"),
        ("/recommend", {"histories": [["1"]], "top_k": 101}, "/top_k: expected at most 100, found 101"),
        ("/recommend", {"histories": [["1"]], "top_k": 51}, "at most the 50 items that the model was exported for"),
        ("/recommend", {"histories": [["1"] * 1001]}, "/histories/0: expected at most 1000 items, found 1001"),
        ("/recommend", {"histories": [["1"]] * 257}, "/histories: expected at most 256 a request, found 257"),
        ("/recommend", {"histories": [["1"]], "categories": ["Western"]}, "found 'Western'. Known: Comedy, Drama"),
        ("/similar", {"items": ["new"]}, "found 'new'. `GET /items?q=`"),
    ],
)
def test_what_is_wrong_is_said(path: str, body: Any, words: str, films: Films, opened: Opens) -> None:
    """A request that is answered although it says something else is a bug that nobody sees."""
    with opened(films.exported) as client:
        document = refused(client.post(path, json=body), 422, words)
        assert document["instance"] == path


def test_every_error_is_a_problem_document(films: Films, opened: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reads problem documents would stumble over the framework's own errors."""
    with opened(films.exported) as client:
        refused(client.get("/nowhere"), 404, "Not Found")
        refused(client.get("/recommend"), 405, "Method Not Allowed")
        headers = {"content-type": "application/json"}
        refused(client.post("/recommend", content=b"{nope", headers=headers), 422, "Invalid JSON")
        refused(
            client.post("/recommend", content=b'{"histories": [["1"]]}', headers={"content-type": "text/plain"}),
            415,
            "text/plain",
        )

        def broken(*_: Any) -> Any:
            raise RuntimeError("a secret of the inside")

        monkeypatch.setattr(client.service.model, "best", broken)
        document = refused(client.post("/recommend", json={"histories": [["1"]]}), 500, "its log says how")
        assert "secret" not in json.dumps(document)
        monkeypatch.undo()
        assert client.post("/recommend", json={"histories": [["1"]]}).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_refused(chunked: bool, films: Films, opened: Opens) -> None:
    """A body that does not say how large it is would fill the memory."""
    content = json.dumps({"histories": [["1"] * 400]}).encode()
    with opened(films.exported, max_body_bytes=1000) as client:
        sent: Any = iter([content[:600], content[600:]]) if chunked else content
        response = client.post("/recommend", content=sent, headers={"content-type": "application/json"})
        refused(response, 413, "at most 1000 bytes")
        assert client.post("/recommend", json={"histories": [["1"] * 10]}).status_code == 200


def test_the_examples_of_the_documentation_work(films: Films, opened: Opens, tmp_path: Path) -> None:
    """The page of examples is what people copy."""
    with opened(films.exported, history_store=f"sqlite:///{tmp_path / 'e.db'}") as client:
        document = client.get("/openapi.json").json()
        tried = 0
        for path, routes in document["paths"].items():
            for route in routes.values():
                reference = json.dumps(route.get("requestBody", {})).partition("schemas/")[2].partition('"')[0]
                if path == "/reload" or not reference:
                    continue
                for example in document["components"]["schemas"][reference]["examples"]:
                    assert client.post(path, json=example).status_code == 200, (path, example)
                    tried += 1
        assert tried >= 4
        answers = document["paths"]["/recommend"]["post"]["responses"]
        assert {"200", "413", "422", "503"} <= set(answers)
        assert "application/problem+json" in answers["422"]["content"]


def test_the_page_of_the_routes_needs_no_other_server(films: Films, opened: Opens, tmp_path: Path) -> None:
    """Where no network leads out, a page of scripts from elsewhere stays white; each of its examples must work."""
    with opened(films.exported, history_store=f"sqlite:///{tmp_path / 'e.db'}") as client:
        page = client.get("/docs").text
        routes = client.get("/openapi.json").json()["paths"]
        assert not re.findall(r"<script|<link|src=|href=.?http|@import|url\(", page)
        assert client.get("/redoc").status_code == 404
        commands = [
            shlex.split(line)
            for line in unescape(page).replace("<pre>", "\n").replace("</pre>", "\n").splitlines()
            if line.startswith("curl ")
        ]
        for words in commands:
            url = words[2].removeprefix("http://testserver")
            given = dict(zip(words[3::2], words[4::2], strict=True))
            method = given.get("-X", "POST" if "-d" in given else "GET")
            answer = client.request(method, url, content=given.get("-d"), headers={"content-type": "application/json"})
            assert answer.status_code == (401 if url == "/reload" else 200), (words, answer.text)
        assert {words[2].removeprefix("http://testserver").partition("?")[0] for words in commands} == set(routes)
        assert all(name in page for name in ("filter_seen", "list of list of string", "needed", "The queue is full"))


def test_reload_goes_over_to_another_model(films: Films, other_films: Films, opened: Opens) -> None:
    """A swap that keeps the old catalogue, or says that it swapped and did not, serves yesterday's model for ever."""
    body = {"histories": [["3", "17"]], "top_k": 5}
    with opened(films.exported) as client:
        before = client.post("/recommend", json=body).json()
        refused(client.post("/reload"), 401, "Expected `Authorization: Bearer`")
        refused(client.post("/reload", headers={"Authorization": "Bearer wrong"}), 401, "Expected")
        wanted = {"model_name_or_path": str(other_films.exported)}
        swapped = client.post("/reload", json=wanted, headers=BEARER).json()
        after = client.post("/recommend", json=body).json()
        assert swapped["model_version"] == after["model_version"] != before["model_version"]
        assert after["recommendations"] != before["recommendations"]
        back = client.post("/reload", json={"model_name_or_path": str(films.checkpoint)}, headers=BEARER).json()
        assert back["kind"] == "pytorch"
        assert client.post("/reload", headers=BEARER).json() == back, "what is left out stays as it is"


def test_what_stays_is_not_collected_again_and_again(films: Films, opened: Opens) -> None:
    """A tenth of the service's time went into looking through loaded libraries for garbage; frozen for ever, an old
    model would never be freed."""
    with opened(films.exported) as client:
        frozen = gc.get_freeze_count()
        assert frozen > 10_000
        old = weakref.ref(client.service.model)
        client.post("/reload", headers=BEARER)
        assert gc.get_freeze_count() > 10_000 and old() is None
    assert gc.get_freeze_count() == 0


def test_a_model_that_cannot_be_loaded_changes_nothing(films: Films, opened: Opens, tmp_path: Path) -> None:
    """A half-copied folder must not take the service down."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in films.exported.iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[:-1] if path.suffix == ".onnx" else path.read_bytes())
    body = {"histories": [["3", "17"]], "top_k": 5}
    with opened(films.exported) as client:
        before = client.post("/recommend", json=body).json()
        wanted = {"model_name_or_path": str(broken)}
        words = f"the model {before['model_version']} goes on serving"
        refused(client.post("/reload", json=wanted, headers=BEARER), 422, words)
        assert client.post("/recommend", json=body).json() == before
        assert 'hfrec_reloads_total{result="refused"} 1.0' in client.get("/metrics").text


def test_without_a_token_nobody_reloads(films: Films, opened: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty token would equal an empty header."""
    monkeypatch.setenv("HFREC_SERVE_TOKEN", "")
    with opened(films.exported) as client:
        client.service._token = ""
        refused(client.post("/reload", headers={"Authorization": "Bearer "}), 403, "switched off")


def test_ready_says_no_while_draining_or_without_store(films: Films, opened: Opens, tmp_path: Path) -> None:
    """A load balancer that is told "ready" goes on sending."""
    with opened(films.exported, history_store=f"sqlite:///{tmp_path / 'e.db'}") as client:
        assert client.get("/readyz").status_code == 200
        client.service.draining = True
        refused(client.get("/readyz"), 503, "about to stop")
        response = client.post("/recommend", json={"histories": [["1"]]})
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        client.service.draining = False
        client.service.store._connection.execute("DROP TABLE events")
        refused(client.get("/readyz"), 503, "history store cannot be used")
        assert client.get("/healthz").json() == {"status": "alive"}


def test_a_full_disk_under_the_store_is_told_and_nothing_is_half_kept(
    films: Films, opened: Opens, tmp_path: Path
) -> None:
    """It was a failure of the service, which told nobody to send the events again."""
    store = tmp_path / "histories.db"

    def events(first: int, size: int) -> dict[str, Any]:
        names = range(first, first + size)
        return {"events": [{"event_id": str(name), "user_id": "u", "item_id": "1" * 900} for name in names]}

    with opened(films.exported, history_store=f"sqlite:///{store}") as client:
        assert client.post("/events", json=events(0, 1)).json() == {"accepted": 1, "duplicates": 0}
        connection = client.service.store._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        answer = client.post("/events", json=events(0, 200))
        assert answer.status_code == 503 and answer.headers["Retry-After"]
        assert "The history store cannot be used: database or disk is full" in answer.json()["detail"]
        assert client.post("/recommend", json={"user_ids": ["u"]}).status_code == 200
        connection.execute("PRAGMA max_page_count = 100000")
        assert client.post("/events", json=events(0, 200)).json() == {"accepted": 199, "duplicates": 1}


def test_metrics_count_by_route(films: Films, opened: Opens) -> None:
    """Counting by what was asked for would grow without end; not counting refusals hides them."""
    with opened(films.exported) as client:
        for _ in range(3):
            client.post("/recommend", json={"histories": [["1", "unheard of"], ["2"]]})
        client.post("/recommend", json={})
        client.get("/a/b/c")
        text = client.get("/metrics").text
        assert 'hfrec_requests_total{path="/recommend",status="200"} 3.0' in text
        assert 'hfrec_requests_total{path="/recommend",status="422"} 1.0' in text
        assert 'hfrec_requests_total{path="other",status="404"} 1.0' in text
        assert "hfrec_recommendations_total 6.0" in text
        assert "hfrec_unknown_items_total 3.0" in text
        assert f'hfrec_model_info{{kind="onnx",version="{client.service.model.version}"}} 1.0' in text
        assert "a/b/c" not in text


def test_categories_are_found_under_their_usual_names() -> None:
    """The page finds genres without being told; a service that needs a flag for the same items looks broken."""
    films = Catalogue(["1", "2"], metadata={"genres": ["Drama|Sci-Fi", "Drama"]})
    mask = films.allowed(None, None, ["Sci-Fi"], None)
    assert mask is not None and mask.tolist() == [False, False, False, True, False]
    with pytest.raises(ValueError, match="no column 'brand' of categories, only genres"):
        films.allowed(None, None, ["Sci-Fi"], "brand")


def test_a_checkpoint_is_loaded_without_a_bar(films: Films, opened: Opens) -> None:
    """The log of a service is for lines."""
    from transformers.utils import logging

    logging.enable_progress_bar()
    with opened(films.checkpoint):
        assert not logging.is_progress_bar_enabled()
