"""A study on a small log: arms, resumption, tables."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch

from benchmarks.study.arms import ARMS, shuffle_items, start_arm
from benchmarks.study.report import difference, grouped
from benchmarks.study.runner import (
    StudyArguments,
    StudyData,
    rename_to_source,
    run_once,
    way_from_checkpoint,
)
from benchmarks.study.schedule import TRADEOFF, Job, rows_of
from hfrec import leave_one_out, load_checkpoint, load_interactions, synthetic_tables
from hfrec.commands import homes
from hfrec_command import main

QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A source with a checkpoint, and a target of other users that has two items more."""
    folder = tmp_path_factory.mktemp("study")
    source, _ = synthetic_tables(num_users=40, num_items=24, num_groups=4, min_length=5, max_length=12)
    target, _ = synthetic_tables(num_users=40, num_items=24, num_groups=4, min_length=5, max_length=12, seed=0)
    extra = {"user_id": ["u1", "u2"], "item_id": ["new1", "new2"], "timestamp": [10**6, 10**6]}
    extra_rows = pa.table(extra).cast(target.select(["user_id", "item_id", "timestamp"]).schema)
    target = pa.concat_tables([target.select(["user_id", "item_id", "timestamp"]), extra_rows])
    pyarrow.csv.write_csv(source, folder / "source.csv")
    pyarrow.csv.write_csv(target, folder / "target.csv")
    words = ["pretrain", "--train_file", str(folder / "source.csv"), "--output_dir", str(folder / "checkpoint")]
    words += ["--num_train_epochs", "1", "--max_length", "10", "--hidden_size", "16", "--num_hidden_layers", "1"]
    assert main([*words, *QUIET]) == 0
    return {name: folder / name for name in ("source.csv", "target.csv", "checkpoint")}


def arguments(files: dict[str, Path], output: Path, **kwargs: object) -> StudyArguments:
    return StudyArguments(
        model_name_or_path=str(files["checkpoint"]),
        source_file=str(files["source.csv"]),
        target_file=str(files["target.csv"]),
        output_dir=str(output),
        **kwargs,  # type: ignore[arg-type]
    )


def test_study_writes_tables_and_goes_on_after_an_interrupt(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study of hours that starts again from nothing is never finished; a repeated run must give the same row."""
    words = ["study", "--model_name_or_path", str(files["checkpoint"]), "--source_file", str(files["source.csv"])]
    words += ["--target_file", str(files["target.csv"]), "--output_dir", str(tmp_path), "--max_steps", "3"]
    words += ["--fractions", "1.0", "--seeds", "0", "1", "--arms", "scratch", "l2sp_decoupled", "popularity"]
    words += ["--num_processes", "1"]
    assert main(words) == 0
    runs = sorted((tmp_path / "runs").glob("*.json"))
    assert len(runs) == 2 * (4 + 1) + 2
    first = json.loads(runs[0].read_text())
    untouched = runs[1].stat().st_mtime_ns
    for damaged in ("{", '{"ranks": 1}'):
        runs[0].write_text(damaged)
        assert main(words) == 1
        assert f"{runs[0]} is damaged" in capsys.readouterr().err
    runs[0].unlink()
    assert main(words) == 0
    again = json.loads(runs[0].read_text())
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    assert runs[1].stat().st_mtime_ns == untouched
    assert "| l2sp_decoupled | " in (tmp_path / "study.md").read_text()
    assert pyarrow.csv.read_csv(tmp_path / "study.csv").num_rows == 3 * 2
    assert (tmp_path / "learning-curves.png").stat().st_size > 5000
    assert (tmp_path / "forgetting.png").stat().st_size > 5000


def test_runs_of_another_study_are_not_taken(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows were found by the names of their files: those of another log or of other settings filled the new table."""
    words = ["study", "--model_name_or_path", str(files["checkpoint"]), "--source_file", str(files["source.csv"])]
    words += ["--target_file", str(files["target.csv"]), "--output_dir", str(tmp_path / "out"), "--arms", "popularity"]
    words += ["--fractions", "1.0", "--num_processes", "1"]
    assert main(words) == 0
    rows = files["target.csv"].read_text().splitlines()
    (tmp_path / "other.csv").write_text("\n".join(rows[:-9]) + "\n")
    for change, told in (
        (["--target_file", str(tmp_path / "other.csv")], "another log"),
        (["--max_steps", "7"], "`--max_steps` 600 there, 7 now"),
    ):
        assert main([*words, *change]) == 1
        assert told in capsys.readouterr().err
    assert main([*words, "--seeds", "0", "1"]) == 0  # another table of the same study
    (tmp_path / "out" / "_run.json").unlink()
    assert main(words) == 1
    assert "nobody knows" in capsys.readouterr().err


def test_repeats_of_the_target_decide_on_all_arms(files: dict[str, Path], tmp_path: Path) -> None:
    """Arms ranked under two protocols would differ by the protocol, not by the transfer."""
    data = StudyData(arguments(files, tmp_path, filter_seen="auto"))
    filtered = StudyData(arguments(files, tmp_path, filter_seen="true"))
    assert (data.decided_by, filtered.decided_by) == ("unfiltered", "filter_seen"), "the synthetic log repeats items"
    rows = [run_once(one, ARMS["popularity"], 1.0, 0, {}) for one in (data, filtered)]
    assert [row["decided_by"] for row in rows] == ["unfiltered", "filter_seen"]
    misses = [row["ranks"].count(0) for row in rows]
    assert misses[0] < misses[1], "repeats are misses under the filter alone"


def test_no_test_or_validation_user_trains(files: dict[str, Path], tmp_path: Path) -> None:
    """A test user among the training ones would make every arm look better, the larger shares most."""
    data = StudyData(arguments(files, tmp_path))
    parts = [set(part.table["user_id"].to_pylist()) for part in (data.pool, data.validation, data.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    small, large = (set(data.training_users(share, 3).table["user_id"].to_pylist()) for share in (0.2, 0.6))
    assert small < large <= parts[0]


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.pretrained and arm.trained])
def test_every_pretrained_arm_starts_at_the_checkpoint(name: str, files: dict[str, Path]) -> None:
    """An arm that starts elsewhere is another method under its name."""
    start = start_arm(ARMS[name], str(files["checkpoint"]), ["new1"], seed=0)
    reference, tokenizer = load_checkpoint(files["checkpoint"])
    assert len(start.tokenizer) == len(tokenizer) + 1
    weights = {
        key.replace("base_layer.", "").removeprefix("base_model.model."): value
        for key, value in start.model.state_dict().items()
    }
    key = "model.layers.0.attention.query_key_value.weight"
    assert weights[key].equal(reference.state_dict()[key])


def test_shuffled_source_is_a_permutation_of_items_only(files: dict[str, Path]) -> None:
    """A control that also loses the specials or the body would be too weak a control."""
    model, _ = load_checkpoint(files["checkpoint"])
    before = model.get_input_embeddings().weight.detach().clone()
    shuffle_items(model, seed=1)
    after = model.get_input_embeddings().weight.detach()
    assert before[:3].equal(after[:3]) and not before.equal(after)
    assert torch.sort(before.sum(1)).values.allclose(torch.sort(after.sum(1)).values)


def test_frozen_body_trains_new_rows_only(files: dict[str, Path]) -> None:
    """A hook that is lost would let the old rows move."""
    start = start_arm(ARMS["frozen_body"], str(files["checkpoint"]), ["new1"], seed=0)
    tokens = torch.tensor([[3, 4, 1]])
    start.model(input_ids=tokens, labels=torch.tensor([[-100, -100, len(start.tokenizer) - 1]])).loss.backward()
    gradient = start.model.get_input_embeddings().weight.grad
    assert gradient[:-1].abs().max() == 0 and gradient[-1].abs().max() > 0


def test_popularity_of_the_study_counts_its_training_users(files: dict[str, Path], tmp_path: Path) -> None:
    """A baseline fitted on other users, test users among them, would be no baseline of the arms beside it."""
    data = StudyData(arguments(files, tmp_path, filter_seen="true"))
    row = run_once(data, ARMS["popularity"], 0.5, 0, {})
    counts = Counter(data.training_users(0.5, 0).table["item_id"].to_pylist())
    rows = leave_one_out(data.test)
    seen: dict[str, set[str]] = defaultdict(set)
    for user, item in zip(*(rows.history.table[name].to_pylist() for name in ("user_id", "item_id")), strict=True):
        seen[user].add(item)
    expected = []
    for user, item in zip(*(rows.test.table[name].to_pylist() for name in ("user_id", "item_id")), strict=True):
        others = [other for other in data.items if other != item and other not in seen[user]]
        ahead = sum(counts[other] >= counts[item] for other in others)
        expected.append(0 if item in seen[user] or item not in data.items else 1 + ahead)
    assert row["ranks"] == expected and row["arm"] == "popularity"


def test_paired_difference_by_hand() -> None:
    """A difference of means over different users would hide what pairing shows."""
    runs = [
        {"arm": "a", "fraction": 1.0, "ranks": [1, 1, 0, 2]},
        {"arm": "b", "fraction": 1.0, "ranks": [1, 0, 0, 2]},
    ]
    mean, low, high = difference(grouped(runs), "a", "b", 1.0)
    assert mean == pytest.approx(0.25) and low == 0.0 and high <= 1.0
    assert np.isclose(mean, (0 + 1 + 0 + 0) / 4)


def test_mapping_onto_one_item_twice_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    """Two items under one id would merge without a word."""
    (tmp_path / "pairs.csv").write_text("source,target\na,x\na,y\n")
    with pytest.raises(ValueError, match="one target item"):
        rename_to_source(load_interactions(files["target.csv"]), str(tmp_path / "pairs.csv"))


def test_tradeoff_runs_every_strength_and_measures_the_way(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strength that is not applied, or a distance to other weights, would make a flat or a wrong curve."""
    for name in ("l2sp_coupled", "l2sp_decoupled"):
        monkeypatch.setitem(TRADEOFF, name, (TRADEOFF[name][0], TRADEOFF[name][-1]))
    words = ["study", "--model_name_or_path", str(files["checkpoint"]), "--source_file", str(files["source.csv"])]
    words += ["--target_file", str(files["target.csv"]), "--output_dir", str(tmp_path), "--max_steps", "20"]
    words += ["--fractions", "1.0", "--seeds", "0", "--arms", "finetune", "--tradeoff_fraction", "1.0"]
    words += ["--filter_seen", "true"]
    words += ["--num_processes", "1"]
    assert main(words) == 0
    rows = pyarrow.csv.read_csv(tmp_path / "tradeoff.csv").to_pylist()
    assert [(row["arm"], row["alpha"]) for row in rows[:2]] == [("finetune", None), ("l2sp_coupled", 1e-3)]
    assert len(rows) == 1 + sum(len(strengths) for name, strengths in TRADEOFF.items() if name != "finetune")
    way = [sum(row[name] for name in row if name.startswith("distance/")) for row in rows]
    assert 0 < way[-1] < 0.8 * way[0]
    study = (tmp_path / "study.md").read_text()
    assert "| source NDCG@10 after |" in study and "| decoupled | 300 |" in study
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in ("distance", "tradeoff"))


def test_way_from_checkpoint_by_hand(files: dict[str, Path]) -> None:
    """New items' rows, or rows that only moved to another place, must not count as a way."""
    start = start_arm(ARMS["finetune"], str(files["checkpoint"]), ["new1"], seed=0)
    way = way_from_checkpoint(start.model, str(files["checkpoint"]), start.tokenizer)
    assert set(way.values()) == {0.0}
    with torch.no_grad():
        start.model.get_input_embeddings().weight[4, :4] += 1.0
    moved = way_from_checkpoint(start.model, str(files["checkpoint"]), start.tokenizer)
    assert moved["distance/model.embeddings"] == pytest.approx(2.0)


def test_unknown_arm_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    """A mistyped arm must not be left out silently."""
    with pytest.raises(ValueError, match="fine"):
        arguments(files, tmp_path, arms=["fine"])


@pytest.mark.slow
def test_two_processes_do_the_runs_of_one(files: dict[str, Path], tmp_path: Path) -> None:
    """Runs side by side must not share random numbers, files or folders."""
    words = ["study", "--model_name_or_path", str(files["checkpoint"]), "--source_file", str(files["source.csv"])]
    words += ["--target_file", str(files["target.csv"]), "--max_steps", "3", "--fractions", "1.0", "--seeds", "0"]
    words += ["--arms", "l2sp_coupled", "popularity"]
    for number in ("1", "2"):
        assert main([*words, "--num_processes", number, "--output_dir", str(tmp_path / number)]) == 0
    one, two = (
        {path.name: {**json.loads(path.read_text()), "seconds": 0} for path in (tmp_path / number / "runs").iterdir()}
        for number in ("1", "2")
    )
    assert len(one) == 5 and one == two


@pytest.mark.slow
def test_a_run_that_fails_ends_the_study_with_its_reason(files: dict[str, Path], tmp_path: Path) -> None:
    """A worker's error that is swallowed leaves a study without an end or without a row."""
    broken = arguments(files, tmp_path, arms=["finetune"], fractions=[1.0], num_processes=2, max_steps=2)
    broken.model_name_or_path = str(tmp_path / "nothing")
    with pytest.raises(Exception, match="nothing"):
        rows_of([Job(ARMS["finetune"], 1.0, seed, {"learning_rate": 1e-3}) for seed in (0, 1)], broken)


@pytest.mark.parametrize("words", [["study", "--arms", "scratch"], ["study", "--help"], ["cold_items", "log.csv"]])
def test_without_a_checkout_the_command_says_what_it_needs(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback of a module that an installed package lacks says nothing of where it is."""
    monkeypatch.setattr(homes, "ROOT", tmp_path)
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hfrec {words[0]}: `hfrec {words[0]}` is part of hfrec's repository")
    assert str(tmp_path) in line and "pip install -e '.[study]'" in line
