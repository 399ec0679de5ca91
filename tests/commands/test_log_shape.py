"""A log of a shop: its own column names, semicolons and names of products, said once when training."""

import json
from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from hfrec import LogColumns, load_checkpoint, load_interactions
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
    log = load_interactions(shop, columns=LogColumns("customer", "sku", "when"))
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


def test_a_delimiter_is_said_once(log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A character that no first line gives away was no character at all: the whole line was one column."""
    odd = tmp_path / "odd.csv"
    odd.write_text(log_file.read_text().replace(",", "^"))
    words = ["pretrain", "--train_file", str(odd), "--output_dir", str(tmp_path / "out"), "--num_train_epochs", "1"]
    assert main([*words, *TINY, *QUIET]) == 1
    assert "or what separates the columns with `--delimiter`" in capsys.readouterr().err
    assert main([*words, *TINY, *QUIET, "--delimiter", "^"]) == 0
    words = ["--model_name_or_path", str(tmp_path / "out"), "--history_file", str(odd)]
    assert main(["recommend", *words, "--output_file", str(tmp_path / "r.csv")]) == 0
    assert main(["recommend", *words, "--output_file", str(tmp_path / "r.csv"), "--delimiter", ","]) == 1
    usual = ["--model_name_or_path", str(tmp_path / "out"), "--history_file", str(log_file)]
    assert main(["recommend", *usual, "--output_file", str(tmp_path / "r.csv")]) == 1
    assert "trained with `--delimiter ^`" in capsys.readouterr().err
    words = ["prepare", "--train_file", str(odd), "--delimiter", "^", "--layout"]
    for layout in ("table", "sequences"):
        assert main([*words, layout, "--output_dir", str(tmp_path / layout)]) == 0
    assert main([*words, "table", "--output_dir", str(tmp_path / "no"), "--delimiter", "ab"]) == 1
    assert "`--delimiter` must be one character" in capsys.readouterr().err


def test_a_tab_is_written_as_a_word(log_file: Path, tmp_path: Path) -> None:
    """A shell gives none; a column name with commas hides it from the first line."""
    path = tmp_path / "log.csv"
    path.write_text(log_file.read_text().replace(",", "\t").replace("rating", "stars, of five"))
    one, other = (load_interactions(path, columns=LogColumns(delimiter=tab)) for tab in ("tab", "\t"))
    assert one.table.equals(other.table)
    assert len(one) == len(load_interactions(log_file))


def test_the_refresh_takes_names_from_the_same_column(
    shop: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Items that came since the last training had no names on any page."""
    table = pyarrow.csv.read_csv(shop, parse_options=pyarrow.csv.ParseOptions(delimiter=";"))
    times = sorted(table["when"].to_pylist())
    newest = table.slice(0, 1).set_column(1, "sku", pyarrow.array(["just in"]))
    newest = newest.set_column(3, "product", pyarrow.array(["Just in, large"]))
    newest = newest.set_column(2, "when", pyarrow.array([times[len(times) // 2]]))
    pyarrow.csv.write_csv(pyarrow.concat_tables([table, newest]), tmp_path / "log.csv")
    pyarrow.csv.write_csv(table.drop_columns("product"), tmp_path / "nameless.csv")
    words = ["refresh", "--model_name_or_path", str(trained), "--test_start", str(times[len(times) * 3 // 4])]
    words += ["--num_train_epochs", "1", "--n_bootstrap", "20", "--min_user_interactions", "1", *QUIET]
    folder = tmp_path / "r"
    assert main([*words, "--train_file", str(tmp_path / "log.csv"), "--output_dir", str(folder)]) in (0, 3)
    items = load_checkpoint(folder)[1].items
    assert (
        dict(zip(items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True))["just in"] == "Just in, large"
    )
    words += ["--train_file", str(tmp_path / "nameless.csv"), "--output_dir", str(tmp_path / "no")]
    assert main(words) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "trained with" in line and "`--title_column product`" in line


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
