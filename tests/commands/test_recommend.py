"""`hfrec recommend` with wishes for diversity and popularity."""

from __future__ import annotations

from pathlib import Path

import pyarrow.csv
import pytest

from hfrec import item_vectors, load_checkpoint, load_interactions, recommend, rerank
from hfrec.data.interactions import histories_of
from hfrec_command import main


def lists(checkpoint: Path, log_file: Path, output: Path, *flags: str) -> dict[str, list[str]]:
    words = ["--model_name_or_path", str(checkpoint), "--history_file", str(log_file), "--output_file", str(output)]
    assert main(["recommend", *words, "--top_k", "3", "--unknown_items", "drop", *flags]) == 0
    table = pyarrow.csv.read_csv(output)
    found: dict[str, list[str]] = {}
    for user, item in zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True):
        found.setdefault(str(user), []).append(str(item))
    return found


def test_wishes_order_the_lists(checkpoint: Path, log_file: Path, tmp_path: Path) -> None:
    """Flags that are read and not followed leave the plain list, which looks right."""
    plain = lists(checkpoint, log_file, tmp_path / "plain.csv")
    wished = lists(checkpoint, log_file, tmp_path / "wished.csv", "--diversity", "0.5", "--popularity", "-0.8")
    assert wished != plain
    model, tokenizer = load_checkpoint(checkpoint)
    users, histories = histories_of(load_interactions(log_file).table)
    found = recommend(model, tokenizer, histories, 30, unknown_items="drop", filter_seen=None)
    wishes = {"diversity": 0.5, "popularity": -0.8}
    chosen = rerank(found, tokenizer, 3, vectors=item_vectors(model), **wishes)
    expected = {user: [row["item_id"] for row in rows] for user, rows in zip(users, chosen, strict=True)}
    assert wished == expected


def test_wishes_out_of_range_are_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model_name_or_path", "nowhere", "--history_file", "none.csv", "--output_file", str(tmp_path / "a.csv")]
    assert main(["recommend", *words, "--diversity", "2"]) == 1
    assert "`--diversity` must lie between 0 and 1, found 2.0" in capsys.readouterr().err
