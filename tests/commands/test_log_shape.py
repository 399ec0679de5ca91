"""A log of a shop: its own column names, semicolons and names of products, said once when training."""

import json
from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from hfrec import load_checkpoint, load_interactions
from hfrec_command import main
from tests.commands.conftest import QUIET, TINY

COLUMNS = {"user_id": "customer", "item_id": "sku", "timestamp": "when"}
FLAGS = ["--user_column", "customer", "--item_column", "sku", "--timestamp_column", "when"]


@pytest.fixture(scope="module")
def shop(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A semicolon file with the shop's columns, product names among them."""
    table = pyarrow.csv.read_csv(log_file).select(list(COLUMNS)).rename_columns(list(COLUMNS.values()))
    names = pyarrow.array([f"Product {item}; large" for item in table["sku"].to_pylist()])
    path = tmp_path_factory.mktemp("shop") / "orders.csv"
    options = pyarrow.csv.WriteOptions(delimiter=";")
    pyarrow.csv.write_csv(table.append_column("product", names), path, write_options=options)
    return path


@pytest.fixture(scope="module")
def trained(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "out"
    words = ["pretrain", "--train_file", str(shop), *FLAGS, "--title_column", "product", "--duplicates", "consecutive"]
    words += ["--min_user_interactions", "6", "--num_train_epochs", "1", "--output_dir", str(folder)]
    assert main([*words, *TINY, *QUIET]) == 0
    return folder


def test_a_semicolon_file_is_read_with_its_titles(shop: Path, trained: Path) -> None:
    """It was read as one column of everything, and titles needed a second file."""
    log = load_interactions(shop, user_column="customer", item_column="sku", timestamp_column="when")
    assert log.table.column_names == ["user_id", "item_id", "timestamp", "product"]
    items = load_checkpoint(trained)[1].items
    assert items["title"][0].as_py() == f"Product {items['item_id'][0].as_py()}; large"


def test_the_checkpoint_remembers_columns_and_filters(shop: Path, trained: Path, tmp_path: Path) -> None:
    """Every command asked for the columns anew, and tested on users that training had left out."""
    start = ["--model_name_or_path", str(trained)]
    assert main(["evaluate", *start, "--test_file", str(shop), "--output_dir", str(tmp_path / "e")]) == 0
    found, trained_on = (
        json.loads(path.read_text()) for path in (tmp_path / "e" / "eval_results.json", trained / "all_results.json")
    )
    assert found["n_users"] == trained_on["test"]["n_users"] < 60
    assert found["filter_seen"]["ndcg@10"] == pytest.approx(trained_on["test"]["filter_seen"]["ndcg@10"])
    words = ["--test_file", str(shop), "--output_dir", str(tmp_path / "all"), "--min_user_interactions", "1"]
    assert main(["evaluate", *start, *words]) == 0
    assert json.loads((tmp_path / "all" / "eval_results.json").read_text())["n_users"] > found["n_users"]
    (tmp_path / "deny.txt").write_text("i0\nnever seen\n")
    words = [
        "--history_file",
        str(shop),
        "--output_file",
        str(tmp_path / "r.json"),
        "--deny_file",
        str(tmp_path / "deny.txt"),
    ]
    assert main(["recommend", *start, *words, "--top_k", "3", "--filter_seen", "false"]) == 0
    rows = json.loads((tmp_path / "r.json").read_text())
    assert {row["user_id"] for row in rows} == set(
        map(
            str,
            pyarrow.csv.read_csv(shop, parse_options=pyarrow.csv.ParseOptions(delimiter=";"))["customer"].to_pylist(),
        )
    )
    assert "i0" not in {row["item_id"] for row in rows} and rows[0]["title"].startswith("Product ")


def test_the_refresh_remembers_them_too(shop: Path, trained: Path, tmp_path: Path) -> None:
    """The nightly command is the one that is given most often."""
    times = sorted(
        pyarrow.csv.read_csv(shop, parse_options=pyarrow.csv.ParseOptions(delimiter=";"))["when"].to_pylist()
    )
    words = ["refresh", "--model_name_or_path", str(trained), "--train_file", str(shop), "--n_bootstrap", "20", *QUIET]
    words += [
        "--test_start",
        str(times[len(times) * 3 // 4]),
        "--num_train_epochs",
        "1",
        "--output_dir",
        str(tmp_path / "r"),
    ]
    assert main(words) in (0, 3)
    settings = json.loads((tmp_path / "r" / "all_results.json").read_text())["settings"]
    assert settings["user_column"] == "customer" and settings["min_user_interactions"] == 6


def test_a_remembered_column_that_is_missing_is_told(
    log_file: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody who gave no flag knows where the name comes from."""
    words = ["--history_file", str(log_file), "--output_file", str(tmp_path / "r.csv")]
    assert main(["recommend", "--model_name_or_path", str(trained), *words]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "'customer'" in line and "trained with `--user_column customer`" in line
    canonical = [word for name in COLUMNS for word in (f"--{name.removesuffix('_id')}_column", name)]
    assert main(["recommend", "--model_name_or_path", str(trained), *words, *canonical]) == 0


def test_prepare_takes_items_and_titles(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Titles were left behind by the first step, and no later one could give them back."""
    words = ["prepare", "--train_file", str(shop), *FLAGS, "--output_dir", str(tmp_path / "prepared")]
    assert main([*words, "--title_column", "product"]) == 0
    titles = pyarrow.parquet.read_table(tmp_path / "prepared" / "items.parquet")
    assert set(titles.column_names) == {"item_id", "title"} and len(titles) == 30
    assert main([*words[:-1], str(tmp_path / "other"), "--title_column", "nothing"]) == 1
    assert "'nothing' is a column of neither" in capsys.readouterr().err
