"""From the shell: a model whose items are made of content goes to a shop that sells nothing it was trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from hfrec import ItemTokenizer
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


def test_no_item_of_a_catalogue_without_a_log_is_called_popular(
    universal: Path, shops: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user without a known item gets something, and must not be told that others buy it."""
    history = tmp_path / "history.csv"
    known = pd.read_csv(shops["shop_items"])["item_id"][0]
    rows = f"user_id,item_id,timestamp\nstranger,of another shop,1\nguest,{known},1\n"
    history.write_text(rows, encoding="utf-8")
    words = [
        "recommend",
        str(universal),
        str(history),
        "--items_file",
        str(shops["shop_items"]),
        "--unknown_items",
        "drop",
    ]
    assert main([*words, "--output_file", str(tmp_path / "lists.csv")]) == 0
    said = capsys.readouterr().err
    assert "no popularity is known" in said and "what is popular" not in said
    assert len(pd.read_csv(tmp_path / "lists.csv")) == 2 * 10


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


def test_columns_of_another_name_are_the_checkpoints(
    universal: Path, shops: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shop that calls its titles names had to write its file anew; and a title of its own must not be read as one."""
    renamed = tmp_path / "items.csv"
    table = pd.read_csv(shops["shop_items"]).rename(columns={"title": "name"})
    table.assign(title="Ms").to_csv(renamed, index=False)
    found = []
    for number, there in enumerate([[shops["shop_items"]], [renamed, "--content_columns", "title=name"]]):
        words = ["evaluate", universal, shops["shop"], "--output_dir", tmp_path / str(number), "--items_file", *there]
        assert main([*map(str, words)]) == 0
        found.append(json.loads((tmp_path / str(number) / "eval_results.json").read_text())["filter_seen"])
    assert found[0] == found[1]
    table.to_csv(renamed, index=False)
    start = ["--items_file", str(renamed), "--output_dir", str(tmp_path / "tuned"), *QUIET]
    assert main(["finetune", str(universal), str(shops["shop"]), *start]) == 1
    assert "what one is called: `--content_columns title=yours`" in capsys.readouterr().err
    there = ["--content_columns", "title=nam"]
    assert main(["finetune", str(universal), str(shops["shop"]), *start, *there]) == 1
    assert "`--content_columns` names nam of the items file. Found: item_id, name." in capsys.readouterr().err
    grown = ["items", "adopt", str(universal), "--items_file", str(renamed), "--output_dir", str(tmp_path / "adopted")]
    assert main([*grown, "--content_columns", "title=name"]) == 0
    assert "title" in ItemTokenizer.from_pretrained(tmp_path / "adopted").items.column_names


@pytest.fixture(scope="module")
def sequences(shops: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sequences")
    for name in ("source", "shop"):
        assert main(["prepare", str(shops[name]), str(folder / name), "--layout", "sequences"]) == 0
    return {name: folder / name for name in ("source", "shop")}


def test_streamed_items_are_made_of_the_items_file(
    universal: Path, shops: dict[str, Path], sequences: dict[str, Path], tmp_path: Path
) -> None:
    """Features in another order than the tokens of the sequences would give each item the content of another."""
    words = ["pretrain", sequences["source"], "--streaming", "true", "--items_file", shops["source_items"]]
    words += ["--item_representation", "content", "--text_column", "title", "--max_steps", "2"]
    assert main([*map(str, words), "--output_dir", str(tmp_path / "one"), *TINY, *QUIET]) == 0
    features = "model.embeddings.content.features"
    whole = load_file(universal / "model.safetensors")[features]
    assert whole.any() and load_file(tmp_path / "one" / "model.safetensors")[features].equal(whole)


def test_streamed_sources_are_made_of_their_items_files(
    shops: dict[str, Path], sequences: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Titles of one source at the items of the other; a log streamed without titles that trains on nothing."""
    made_of = ["--item_representation", "content+id", "--text_column", "title", "--max_steps", "2"]
    words = ["pretrain", "--train_file", *map(str, sequences.values()), "--streaming", "true", *made_of, *TINY, *QUIET]
    assert main([*words, "--output_dir", str(tmp_path / "none")]) == 1
    assert "no column 'title', found item_id, source, source_item_id, count. Give" in capsys.readouterr().err
    tables = [str(shops[f"{name}_items"]) for name in sequences]
    words += ["--items_file", *tables, "--output_dir", str(tmp_path / "two")]
    assert main([*words, "--missing_items", "refuse"]) == 0
    items = ItemTokenizer.from_pretrained(tmp_path / "two").items.to_pylist()
    assert {(item["source"], item["title"].split()[0]) for item in items} == {("source", "cup"), ("shop", "plate")}
    short = tmp_path / "short.csv"
    short.write_text("".join(shops["shop_items"].read_text().splitlines(keepends=True)[:9]))
    words = [str(short) if word == tables[1] else word for word in words]
    words[words.index("--output_dir") + 1] = str(tmp_path / "three")
    assert main([*words, "--missing_items", "unknown"]) == 1
    assert "whose sequences hold tokens of these items" in capsys.readouterr().err
    assert main([*words, "--missing_items", "refuse"]) == 1
    assert "of 48 items are not in the items file" in capsys.readouterr().err


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


@pytest.mark.parametrize("command", ["pretrain", "evaluate", "finetune", "items adopt"])
def test_a_table_without_texts_is_named_with_its_column(
    command: str, universal: Path, shops: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of several tables that a command reads, which one is to be filled, and where?"""
    bare = tmp_path / "bare.csv"
    pd.read_csv(shops["shop_items"]).assign(title="").to_csv(bare, index=False)
    words = {
        "pretrain": [shops["shop"], "--item_representation", "content", "--text_column", "title", *TINY],
        "evaluate": [universal, shops["shop"]],
        "finetune": [universal, shops["shop"]],
        "items adopt": [universal],
    }[command]
    given = ["--items_file", bare, "--output_dir", tmp_path / "out"]
    assert main([*command.split(), *map(str, [*words, *given])]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{bare}: " in said and "title" in said and "Fill" in said


@pytest.mark.parametrize("command", ["evaluate", "items adopt"])
def test_a_catalogue_of_one_item_is_named(
    command: str, universal: Path, shops: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the files of a command, which one has nothing to choose from?"""
    alone = tmp_path / "alone.csv"
    pd.read_csv(shops["shop_items"]).head(1).to_csv(alone, index=False)
    words = [universal, shops["shop"]] if command == "evaluate" else [universal]
    given = ["--items_file", alone, "--output_dir", tmp_path / "out"]
    assert main([*command.split(), *map(str, [*words, *given])]) == 1
    assert f"{alone}: A catalogue must hold at least two items, found 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
