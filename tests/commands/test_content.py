"""From the shell: a model whose items are made of content goes to a shop that sells nothing it was trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hfrec.data.catalogs import synthetic_tables
from hfrec.data.files import RUN_FILE
from hfrec_command import main

from .conftest import QUIET, TINY

COLOURS = ["red", "blue", "green", "black", "white", "pink"]


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two logs and their items; what is bought together is of one colour, and no id is in both."""
    folder = tmp_path_factory.mktemp("shops")
    found = {}
    for seed, (name, words) in enumerate({"source": "cup of", "shop": "plate in"}.items()):
        sizes = {"num_users": 80, "num_items": 48, "num_groups": 6, "min_length": 6, "max_length": 10}
        log, items = (table.to_pandas() for table in synthetic_tables(**sizes, seed=seed))
        log["item_id"] = name + log["item_id"].astype(str)
        items["item_id"] = name + items["item_id"].astype(str)
        colours = items["genres"].map(dict(zip(sorted(items["genres"].unique()), COLOURS, strict=True)))
        items["title"] = words + " " + colours
        found[name], found[f"{name}_items"] = folder / f"{name}.csv", folder / f"{name}_items.csv"
        log.to_csv(found[name], index=False)
        items[["item_id", "title"]].to_csv(found[f"{name}_items"], index=False)
    return found


@pytest.fixture(scope="module")
def universal(shops: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("universal") / "out"
    words = ["pretrain", "--train_file", shops["source"], "--items_file", shops["source_items"], "--output_dir", folder]
    words += ["--item_representation", "content", "--text_column", "title", "--max_steps", "4"]
    assert main([*map(str, words), *TINY, *QUIET]) == 0
    return folder


def test_another_shop_is_ranked_without_a_step_and_after_some(
    universal: Path, shops: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words alone say what goes together: no encoder is fetched, no id is shared, and the new shop is above its
    popularity."""
    there = ["--items_file", str(shops["shop_items"])]
    words = ["evaluate", str(universal), str(shops["shop"]), *there, "--output_dir", str(tmp_path / "zero")]
    assert main(words) == 0
    results = json.loads((tmp_path / "zero" / "eval_results.json").read_text())
    popularity = results["baselines"]["popularity"]["filter_seen"]["ndcg@10"]
    assert results["filter_seen"]["ndcg@10"] > 1.5 * popularity
    words = ["finetune", str(universal), str(shops["shop"]), *there, "--output_dir", str(tmp_path / "tuned")]
    assert main([*words, "--l2sp_alpha", "0.01", "--max_steps", "4", *QUIET]) == 0
    assert "48 items: 0 known, 48 new" in capsys.readouterr().err
    lists = tmp_path / "lists.csv"
    assert main(["recommend", str(tmp_path / "tuned"), str(shops["shop"]), "--output_file", str(lists)]) == 0
    assert lists.read_text().splitlines()[1].count("shop") > 0


def test_other_rows_of_items_are_no_resumption(
    universal: Path, shops: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was cut off went on with other words of its items, half trained on the ones and half on the others."""
    items = tmp_path / "items.csv"
    text = shops["source_items"].read_text()
    titles = ["--items_file", str(items), "--item_representation", "content", "--text_column", "title"]
    starts = {"pretrain": titles, "finetune": ["--model_name_or_path", str(universal), "--items_file", str(items)]}
    steps = ["--max_steps", "4", "--save_strategy", "steps", "--save_steps", "2", "--eval_strategy", "steps"]
    for name, start in starts.items():
        items.write_text(text)
        folder = tmp_path / name
        words = [name, "--train_file", str(shops["source"]), *start, "--output_dir", str(folder), *QUIET, *steps]
        words += ["--eval_steps", "2", *(TINY if name == "pretrain" else [])]
        assert main(words) == 0
        for path in folder.iterdir():  # as if it had been killed behind its first checkpoint
            if path.name not in (RUN_FILE, "checkpoint-2"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        items.write_text(text.replace(f"cup of {COLOURS[0]}", f"cup of {COLOURS[1]}"))
        capsys.readouterr()
        assert main(words) == 1
        assert "interrupted run that differs: other rows of items." in capsys.readouterr().err
        items.write_text(text)
        assert main(words) == 0
