"""What fits a checkpoint to a log says which rows L2-SP may pull, and where to."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from hfrec import load_interactions
from hfrec.training.anchors import Plan
from hfrec.training.arguments import FinetuneArguments
from hfrec.training.fitting import adopt_log
from hfrec.training.reference import read_reference
from tests.transfer.test_adoption import catalogue, source

SPECIALS = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2}


@pytest.mark.parametrize("start", ["cooccurrence", "random"])
def test_l2sp_pulls_items_to_what_the_checkpoint_has_of_them(start: str) -> None:
    """By id, an item would be drawn to the bias of its namesake in another shop, and to nothing under another id."""
    model, tokenizer = source()
    kinds = catalogue("s", 20, 0)["kind"].to_pylist()
    sets = [frozenset(kind.split("|")) for kind in kinds]
    alone = [row for row, kind in enumerate(sets) if sets.count(kind) == 1]
    twin, other = alone[0], alone[1]
    # s<other> is the name of another item here: its content is that of s<twin>.
    items = pa.table({"item_id": [f"s{other}", "new"], "kind": [kinds[twin], None]})
    log = {"user_id": ["a", "a", "b"], "item_id": [f"s{other}", "new", f"s{other}"], "timestamp": [1, 2, 3]}
    train = load_interactions(pa.table(log), items=items)
    arguments = FinetuneArguments(model_name_or_path="source", new_item_start=start)  # type: ignore[arg-type]
    fitted = adopt_log(model, tokenizer, train, start=arguments)
    place = fitted.tokenizer.get_vocab()[f"s{other}"]
    assert fitted.anchored == {**SPECIALS, f"s{twin}": place}
    assert len(fitted.tokenizer) == 5


def test_a_new_catalogue_starts_as_its_content_with_the_body_of_the_source(tmp_path: Path) -> None:
    """What the body adds to content holds of the source's items; L2-SP would bring it back."""
    model, tokenizer = source()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    before = {name: weight.detach().clone() for name, weight in model.model.layers.named_parameters()}
    items = catalogue("t", 9, 1)
    ids = items["item_id"].to_pylist()
    log = {"user_id": ["a"] * 9, "item_id": ids, "timestamp": list(range(9))}
    train = load_interactions(pa.table(log), items=items)
    fitted = adopt_log(model, tokenizer, train, start=FinetuneArguments("source"))
    for name, weight in model.model.layers.named_parameters():
        assert weight.equal(before[name]), name
    fresh = type(model)(model.config)
    for path in (model, fresh):
        torch.testing.assert_close(path.head(torch.ones(1, 8)), torch.zeros(1, model.config.embedding_size))
    for name, weight in model.recent.named_parameters():
        torch.testing.assert_close(weight, dict(fresh.recent.named_parameters())[name])
    tokens = {token: row for token, row in fitted.tokenizer.get_vocab().items() if row < 3}
    plan = Plan(model, read_reference(tmp_path, None, None), tokens, alpha=1.0, beta=0.0, residual=0.1)
    pulled = {term.name.split(".")[0] for term in plan.terms(include_vectors=True)}
    assert pulled == {"model", "decoder"}
    known = Plan(model, read_reference(tmp_path, None, None), {**tokens, "s1": 4}, alpha=1.0, beta=0.0)
    assert {"head", "recent"} < {term.name.split(".")[0] for term in known.terms(include_vectors=True)}


def test_a_catalogue_that_started_anew_is_pulled_nowhere() -> None:
    """Residuals of two logs do not fit each other."""
    table = catalogue("s", 20, 0).slice(3, 1)
    items = pa.table({"item_id": ["s3", "x", "y", "z"], "kind": [table["kind"][0].as_py(), None, None, None]})
    log = {"user_id": ["a"] * 4, "item_id": ["s3", "x", "y", "z"], "timestamp": [1, 2, 3, 4]}
    train = load_interactions(pa.table(log), items=items)
    for start, anchored in (("cooccurrence", SPECIALS), ("random", {**SPECIALS, "s3": 3})):
        model, tokenizer = source()
        fitted = adopt_log(model, tokenizer, train, start=FinetuneArguments("source", new_item_start=start))  # type: ignore[arg-type]
        assert fitted.anchored == anchored, start
