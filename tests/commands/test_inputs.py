"""`--inputs`: a model that reads time gaps and ratings, through all commands, or refused in one line."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pytest

from hfrec import leave_one_out, load_checkpoint, load_interactions, recommend, to_evaluation_sequences, to_requests
from hfrec.data.inputs import refuse_inputs
from hfrec.evaluation.protocol import evaluation_collator
from hfrec.evaluation.ranking import rank_dataset
from hfrec_command import main
from tests.commands.conftest import QUIET, TINY

READS = ["--inputs", "time_gap", "rating"]


def pretrain(log: Path, folder: Path, objective: str, *words: str) -> int:
    shape = [*TINY, "--objective", objective, "--num_train_epochs", "2", "--recipe", "none"]
    return main(["pretrain", str(log), "--output_dir", str(folder), *shape, *QUIET, *words])


@pytest.fixture(scope="module")
def rated(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log with a rating of each interaction, and pauses of seconds to days."""
    table, draw = pyarrow.csv.read_csv(log_file), np.random.default_rng(0)
    times = 1_600_000_000 + np.cumsum(2 ** draw.integers(0, 18, len(table)))
    table = table.set_column(2, "timestamp", pyarrow.array(times))
    table = table.append_column("rating", pyarrow.array(draw.integers(1, 6, len(table))))
    path = tmp_path_factory.mktemp("log") / "rated.csv"
    pyarrow.csv.write_csv(table, path)
    return path


@pytest.fixture(scope="module", params=["masked", "causal"])
def trained(request: pytest.FixtureRequest, rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs") / "out"
    assert pretrain(rated, folder, request.param, *READS) == 0
    return folder


def test_recommended_is_what_was_evaluated(trained: Path, rated: Path, tmp_path: Path) -> None:
    """Two ways to make rows would recommend by other gaps than those that the test measured."""
    model, tokenizer = load_checkpoint(trained)
    assert [entry["name"] for entry in model.config.inputs] == ["time_gap", "rating"]
    assert all(bool(table.weight.any()) for table in model.base_model.embeddings.input_tables)
    assert main(["evaluate", str(trained), str(rated), "--output_dir", str(tmp_path / "evaluated")]) == 0
    measured = json.loads((tmp_path / "evaluated" / "eval_results.json").read_text())
    assert measured["protocol"]["inputs"].startswith("time_gap, rating; the time of a target")
    trained_results = json.loads((trained / "all_results.json").read_text())
    assert measured["filter_seen"]["ndcg@10"] == trained_results["test"]["filter_seen"]["ndcg@10"]
    split = leave_one_out(load_interactions(rated))
    inputs = model.config.inputs
    rows = to_evaluation_sequences(split.history, split.test_targets, tokenizer, inputs=inputs)
    ranks = rank_dataset(model, rows, evaluation_collator(model, tokenizer), top_k=5)["recommended"]
    user, when = rows[0]["user_id"], split.test_targets.table["timestamp"][0].as_py()
    asked = to_requests(split.history, tokenizer, [user], inputs=inputs, now=when)
    found = [item["item_id"] for item in recommend(model, tokenizer, asked, 5)[0]]
    assert found == tokenizer.decode_items(ranks[0])


def test_recommend_reads_the_time_of_the_request(trained: Path, rated: Path, tmp_path: Path) -> None:
    """A time that is dropped on the way gives the lists of an unknown one."""
    words = ["recommend", str(trained), str(rated), "--top_k", "20"]
    last = int(np.max(pyarrow.csv.read_csv(rated)["timestamp"].to_numpy()))
    for name, more in (("unknown", []), ("now", ["--now", str(last + 60)]), ("later", ["--now", str(last + 10**9)])):
        assert main([*words, "--output_file", str(tmp_path / f"{name}.csv"), *more]) == 0
    found = [
        pyarrow.csv.read_csv(tmp_path / f"{name}.csv")["score"].to_pylist() for name in ("unknown", "now", "later")
    ]
    assert found[0] != found[1] != found[2]


def test_a_log_without_the_column_is_refused(
    trained: Path, rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ratings that are all read as unknown give other scores, and no error."""
    path = tmp_path / "plain.csv"
    pyarrow.csv.write_csv(pyarrow.csv.read_csv(rated).drop_columns(["rating"]), path)
    for words in (
        ["evaluate", str(trained), str(path), "--output_dir", str(tmp_path / "a")],
        ["recommend", str(trained), str(path), "--output_file", str(tmp_path / "b.csv")],
        ["finetune", str(trained), str(path), "--output_dir", str(tmp_path / "c"), *QUIET],
    ):
        assert main(words) == 1
        assert "a further column of the log, found 'rating'" in capsys.readouterr().err.splitlines()[-1]


def test_finetuning_reads_what_the_checkpoint_does_and_more(
    checkpoint: Path, trained: Path, rated: Path, tmp_path: Path
) -> None:
    """A checkpoint of items alone can learn to read more; one that reads more goes on to."""
    train = ["--num_train_epochs", "1", "--l2sp_alpha", "0.01", *QUIET]
    folder = tmp_path / "more"
    words = ["finetune", str(checkpoint), str(rated), "--output_dir", str(folder), *train, *READS]
    assert main([*words, "--freeze", "embeddings"]) == 0
    model, _ = load_checkpoint(folder)
    assert [entry["name"] for entry in model.config.inputs] == ["time_gap", "rating"]
    items = load_checkpoint(checkpoint)[0].get_input_embeddings().weight
    assert model.get_input_embeddings().weight.equal(items), "frozen"
    assert all(bool(table.weight.any()) for table in model.base_model.embeddings.input_tables), "new, so not frozen"
    again = ["finetune", str(trained), str(rated), "--output_dir", str(tmp_path / "again"), *train]
    assert main([*again, "--inputs", "rating"]) == 0
    assert load_checkpoint(tmp_path / "again")[0].config.inputs == load_checkpoint(trained)[0].config.inputs


def test_what_gives_no_inputs_refuses(
    trained: Path, checkpoint: Path, rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Export, blend and the others hand on items alone: half of what the model reads would be missing."""
    log, out = str(rated), str(tmp_path / "out")
    blend = ["blend", log, "--model_name_or_path", str(trained), "--methods", "popularity"]
    for words, message in (
        (["export", str(trained), "--output_dir", out], "an export to ONNX gives a model nothing but items"),
        ([*blend, "--output_dir", out], "a blend gives a model"),
        (["pretrain", log, "--streaming", "true", "--output_dir", out, *READS], "fits into memory"),
        (["pretrain", log, f"{out}.csv", "--output_dir", out, *READS], "fits into memory"),
        (
            ["recommend", str(checkpoint), log, "--now", "5", "--output_file", f"{out}.csv"],
            "`--now` is for a checkpoint",
        ),
        (["pretrain", log, "--output_dir", out, "--inputs", "colour"], "found 'colour'; the log has rating"),
    ):
        assert main(words) == 1, words
        assert message in capsys.readouterr().err.splitlines()[-1]
    model, tokenizer = load_checkpoint(trained)
    with pytest.raises(ValueError, match="reads time_gap, rating beside the items, found items alone"):
        recommend(model, tokenizer, [["1"]])
    with pytest.raises(ValueError, match="this checkpoint reads time_gap, rating"):
        refuse_inputs(model, "the service")
    refuse_inputs(load_checkpoint(checkpoint)[0], "the service")


def test_a_finished_run_says_what_it_reads(trained: Path) -> None:
    """A card that shows the call for items alone shows one that fails."""
    card = (trained / "README.md").read_text()
    assert "time_gap" in card and "hfrec recommend" in card
