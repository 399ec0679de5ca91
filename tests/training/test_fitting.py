"""What fits a checkpoint to a log says which rows L2-SP may pull, and where to."""

from __future__ import annotations

import pyarrow as pa
import pytest

from hfrec import load_interactions
from hfrec.training.arguments import FinetuneArguments
from hfrec.training.fitting import adopt_log
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
