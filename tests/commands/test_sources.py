"""Several logs at once from the shell: what is written names all of them, and an interrupted run goes on exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest
import yaml
from safetensors.torch import load_file

from hfrec import ItemTokenizer
from hfrec.commands.pretrain import parse
from hfrec_command import main

from .conftest import QUIET, TINY

RUN = [*TINY, *QUIET, "--recipe", "none", "--objective", "causal", "--num_train_epochs", "2"]
SOURCES = {
    "beauty": {"num_users": 40, "num_items": 30, "seed": 0},
    "toys": {"num_users": 20, "num_items": 20, "seed": 1},
}


@pytest.fixture(scope="module")
def logs(write_log: Callable[..., Path]) -> list[str]:
    return [str(write_log(f"{name}.csv", min_length=5, **sizes)) for name, sizes in SOURCES.items()]


@pytest.fixture(scope="module")
def run(logs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "out"
    words = ["pretrain", "--train_file", *logs, "--output_dir", str(folder), "--source_temperature", "2"]
    assert main([*words, *RUN]) == 0
    return folder


def test_results_and_items_name_every_source(run: Path) -> None:
    """A checkpoint that does not say what it was trained on cannot be judged, or taken apart again."""
    results = json.loads((run / "all_results.json").read_text())
    assert results["data"]["source"] == "beauty + toys"
    for name in SOURCES:
        test = results["test"]["sources"][name]
        assert {"popularity", "item_knn"} <= set(test["baselines"])
        assert f"eval_{name}/ndcg@10" in results["validation"]
        assert results["sources"][name]["train_fingerprint"]
    assert results["test"]["n_users"] == 60
    validation = results["validation"]
    each = [validation[f"eval_{name}/unfiltered_ndcg@10"] for name in SOURCES]
    assert validation["eval_unfiltered_ndcg@10"] == pytest.approx(sum(each) / 2)
    mean = results["test"]["mean"]["model"]["filter_seen"]["ndcg@10"]
    parts = [results["test"]["sources"][name]["filter_seen"]["ndcg@10"] for name in SOURCES]
    assert mean == pytest.approx(sum(parts) / 2)
    items = ItemTokenizer.from_pretrained(run).items.to_pylist()
    assert {f"{item['source']}:{item['source_item_id']}" == item["item_id"] for item in items} == {True}
    card = (run / "README.md").read_text()
    assert "| toys | not stated | not stated | 20 users, " in card
    assert "Items of different sources were never compared" in card
    assert "The licence of beauty, toys is not stated" in card


def test_an_interrupted_run_ends_as_the_uninterrupted_one(run: Path, logs: list[str], tmp_path: Path) -> None:
    """Another order of sources after a restart is another model under the same seed."""
    folder = tmp_path / "out"
    folder.mkdir()
    (first,) = [path for path in run.glob("checkpoint-*") if json_of(path / "trainer_state.json")["epoch"] == 1.0]
    shutil.copytree(first, folder / first.name)
    shutil.copy(run / "_run.json", folder)
    words = ["pretrain", "--train_file", *logs, "--output_dir", str(folder), "--source_temperature", "2", *RUN]
    assert main(words) == 0
    whole, again = load_file(run / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(weight.equal(again[name]) for name, weight in whole.items())
    assert json_of(folder / "all_results.json")["validation"]["eval_ndcg@10"] == pytest.approx(
        json_of(run / "all_results.json")["validation"]["eval_ndcg@10"]
    )


def test_final_trains_on_all_rows_of_every_source(logs: list[str], run: Path, tmp_path: Path) -> None:
    """What is shipped must know every item, and rank each source's among its own as the run that was measured."""
    folder = tmp_path / "out"
    words = ["pretrain", "--train_file", *logs, "--output_dir", str(folder), "--source_temperature", "2", *RUN]
    assert main([*words, "--final", "true"]) == 0
    results = json_of(folder / "all_results.json")
    rows = {name: pyarrow.csv.read_csv(path) for name, path in zip(SOURCES, logs, strict=True)}
    sizes = {name: table.num_rows for name, table in rows.items()}
    assert {name: found["interactions"] for name, found in results["sources"].items()} == sizes
    assert results["sizes"]["interactions"] == sum(sizes.values()) and results["final"]["steps"] > 0
    assert "test" not in results
    test = results["validation_run"]["test"]
    assert test["mean"] == json_of(run / "all_results.json")["test"]["mean"]
    items = ItemTokenizer.from_pretrained(folder).items["item_id"].to_pylist()
    assert set(items) == {f"{name}:{item}" for name, table in rows.items() for item in table["item_id"].to_pylist()}
    assert (
        f"| toys | not stated | not stated | 20 users, 20 items, {sizes['toys']} interactions |"
        in (folder / "README.md").read_text()
    )


def json_of(path: Path) -> Any:
    return json.loads(path.read_text())


def test_sources_of_a_settings_file_have_columns_and_filters_of_their_own(logs: list[str], tmp_path: Path) -> None:
    """A filter of one source must not reach the other, and each name stands for its own file."""
    sources = [
        {"train_file": logs[0], "where": ["item_id!=1"], "license": "cc0-1.0", "domain": "cosmetics"},
        {"train_file": logs[1], "name": "games", "min_item_interactions": 2},
    ]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"sources": sources, "output_dir": str(tmp_path / "out")}))
    found = parse([str(path)]).data.log_sources()
    assert [(source.name, source.min_item_interactions, list(source.where)) for source in found] == [
        ("beauty", 1, ["item_id!=1"]),
        ("games", 2, []),
    ]
    assert found[0].domain == "cosmetics"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("one value for each of the 2 logs .* found 1: give 'none'", ["--items_file", "a.csv"]),
        ("one value for each of the 2 logs .* found 3", ["--source_names", "a", "b", "c"]),
        ("without ':', found 'a:b'", ["--source_names", "a:b", "c"]),
        ("must be above 0, found 0", ["--source_temperature", "0"]),
        ("`--sources` say where the logs lie", ["--sources", '{"train_file": "a"}']),
    ],
)
def test_flags_that_do_not_fit_are_refused(message: str, words: list[str], logs: list[str]) -> None:
    """A list that is too short would pair a log with the items of another."""
    with pytest.raises(ValueError, match=message):
        parse(["--train_file", *logs, *words])


def test_one_file_is_one_log_as_before(logs: list[str]) -> None:
    """Settings, results and resumed runs know one file as a path."""
    data = parse(["--train_file", logs[0]]).data
    assert (data.train_file, data.source, data.several) == (logs[0], logs[0], False)
    with pytest.raises(ValueError, match="2 files for one log"):
        parse(["--train_file", logs[0], "--items_file", "a.csv", "b.csv"])
    with pytest.raises(ValueError, match="for several sources, found one"):
        parse(["--train_file", logs[0], "--source_names", "a"])


@pytest.mark.parametrize("policy", ["keep", "refuse", "unknown"])
def test_items_that_the_items_file_lacks(
    policy: str, logs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Items without content are counted, whatever becomes of them."""
    from hfrec.training.sources import load_sources

    table = tmp_path / "items.csv"
    pyarrow.csv.write_csv(pa.table({"item_id": [f"i{n}" for n in range(10)], "title": ["t"] * 10}), table)
    arguments = parse(["--train_file", *logs, "--items_file", str(table), "none", "--missing_items", "keep"])
    arguments.data.missing_items = policy  # type: ignore[assignment]
    if policy != "keep":
        with pytest.raises(ValueError, match="needs an items file, toys has none" if policy == "unknown" else "not in"):
            load_sources(arguments.data, arguments.protocol)
        arguments.data.items_file = [str(table), str(table)]  # type: ignore[assignment]
        if policy == "refuse":
            return
    _, joined = load_sources(arguments.data, arguments.protocol)
    known = set(joined.tokenizers["beauty"].items["item_id"].to_pylist())
    assert "beauty: " in capsys.readouterr().err
    assert (len(known) > 10) == (policy == "keep")


def test_a_source_that_cannot_be_used_is_named(logs: list[str], tmp_path: Path) -> None:
    """An error of one of ten logs that names none of them sends people through all."""
    from hfrec.training.sources import load_sources

    tiny = tmp_path / "tiny.csv"
    tiny.write_text("user_id,item_id,timestamp\n1,a,1\n1,a,2\n1,a,3\n")
    arguments = parse(["--train_file", logs[0], str(tiny)])
    with pytest.raises(ValueError, match="'tiny' has 1 item"):
        load_sources(arguments.data, arguments.protocol)
    short = tmp_path / "short.csv"
    short.write_text("user_id,item_id,timestamp\n1,a,1\n1,b,2\n")
    arguments = parse(["--train_file", logs[0], str(short)])
    with pytest.raises(ValueError, match="source short: no user has 3 interactions"):
        load_sources(arguments.data, arguments.protocol)
