"""`hfrec export`: the folder serves what the checkpoint recommends."""

import json
from pathlib import Path

import pytest

from hfrec import OnnxRecommender, load_checkpoint, recommend
from hfrec_command import main


def test_export_checks_on_the_log(
    checkpoint: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A graph that was checked on random histories alone has not met a real one."""
    words = ["export", "--model_name_or_path", str(checkpoint), "--history_file", str(log_file), "--top_k", "5"]
    assert main([*words, "--max_histories", "50", "--int8", "true", "--output_dir", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "export_results.json").read_text())
    assert results["histories"] == 50 and results["same_items"] > 0.9
    printed = capsys.readouterr().out
    assert f"{results['int8_overlap@10']:.1%} of the ten best items" in printed and "on 50 histories" in printed
    model, tokenizer = load_checkpoint(checkpoint)
    history = tokenizer.items["item_id"].to_pylist()[:4]
    (found,) = OnnxRecommender.from_pretrained(tmp_path / "out").recommend([history], 5)
    (expected,) = recommend(model, tokenizer, [history], 5, filter_seen=None)
    assert [item["item_id"] for item in found] == [item["item_id"] for item in expected]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model_name_or_path", "./nowhere"], "nowhere"),
        (["--model_name_or_path", "{model}", "--history_file", "{other}"], "the log of another catalogue"),
        (["--model_name_or_path", "{model}", "--top_k", "99999"], "`--top_k`"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: list[str], expected: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback says nothing to a newcomer, and a half-written folder would be served."""
    (tmp_path / "other.csv").write_text("user_id,item_id,timestamp\nu,never seen,1\n")
    filled = [word.format(model=checkpoint, other=tmp_path / "other.csv") for word in words]
    assert main(["export", *filled, "--output_dir", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("hfrec export: ") and expected in message
    assert not (tmp_path / "out").exists()
