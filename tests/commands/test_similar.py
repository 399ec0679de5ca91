"""`hfrec similar`: ids and titles in, a table and a file out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hfrec import load_checkpoint, similar_items
from hfrec_command import main


def test_ids_and_titles_in_table_and_file_out(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command must say what the function says, whichever way the item was named."""
    item = load_checkpoint(checkpoint)[1].items["item_id"][3].as_py()
    output = tmp_path / "pairs.jsonl"
    words = ["similar", "--model_name_or_path", str(checkpoint), "--top_k", "3", "--output_file", str(output)]
    assert main([*words, "--items", item, "--titles", item]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    expected = similar_items(*load_checkpoint(checkpoint), [item], 3)[0]
    assert [row["item_id"] for row in rows] == [row["item_id"] for row in expected] * 2
    printed = capsys.readouterr().out
    assert printed.count(f"like {item}:") == 2
    assert expected[0]["item_id"] in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name ids with `--items` or titles with `--titles`"),
        (["--titles", "no such film"], "no item of the checkpoint is called 'no such film'"),
        (["--items", "no such id"], "not in the vocabulary"),
        (["--items", "0", "--output_file", "x.txt"], "`--output_file` must end in"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(
    flags: list[str], message: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list for an item that nobody meant reads like an answer."""
    assert main(["similar", "--model_name_or_path", str(checkpoint), *flags]) == 1
    assert message in capsys.readouterr().err
