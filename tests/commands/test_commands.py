"""The commands from a file to a file, and what they refuse."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.csv
import pytest
from safetensors.torch import load_file

from hfrec import load_checkpoint, load_prior, recommend
from hfrec.commands.lists import write_rows
from hfrec.data.files import RUN_FILE
from hfrec.evaluation.table import results_table
from hfrec_command import COMMANDS, main, usage

ROOT = Path(__file__).parents[2]
TINY = ["--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1", "--per_device_train_batch_size", "16"]
QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0"]


def test_pretrain_leaves_a_whole_folder_without_pickle(checkpoint: Path) -> None:
    """A checkpoint that lacks a part, or holds a pickle, would be noticed only by whoever loads it."""
    names = {path.name for path in checkpoint.iterdir() if path.is_file()}
    code = {"configuration_bert4rec.py", "modeling_bert4rec.py", "layers.py", "losses.py", "packing.py"}
    assert {"config.json", "model.safetensors", "tokenizer.json", "items.parquet", *code} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".pth"))]


def test_all_results_say_what_the_number_depends_on(checkpoint: Path) -> None:
    """A number without its protocol, data and versions can't be trusted later."""
    results = json.loads((checkpoint / "all_results.json").read_text())
    assert {"train", "validation", "test", "split", "data", "seed", "versions"} <= set(results)
    assert len(results["data"]["train_fingerprint"]) == 64
    low, high = results["test"]["filter_seen"]["ndcg@10_ci"]
    assert low <= results["test"]["filter_seen"]["ndcg@10"] <= high


def test_evaluate_repeats_the_numbers_of_pretrain(checkpoint: Path, log_file: Path, tmp_path: Path) -> None:
    """Two code paths to one number would drift apart unseen; saving must change nothing either."""
    words = ["evaluate", "--model_name_or_path", str(checkpoint), "--test_file", str(log_file)]
    assert main([*words, "--output_dir", str(tmp_path)]) == 0
    again = json.loads((tmp_path / "eval_results.json").read_text())
    first = json.loads((checkpoint / "all_results.json").read_text())["test"]
    for part in ("filter_seen", "unfiltered", "baselines", "n_users"):
        assert again[part] == first[part], part


def test_the_baselines_stand_beside_the_model_with_their_settings(checkpoint: Path) -> None:
    """An opponent with fixed settings, or one left out in silence, makes any model look good."""
    test = json.loads((checkpoint / "all_results.json").read_text())["test"]
    assert list(test["baselines"]) == ["popularity", "recent_popularity", "markov", "item_knn", "ease"]
    assert test["skipped_baselines"] == {}
    assert set(test["baselines"]["ease"]["settings"]) == {"decay", "l2", "k"}
    assert "at most 4,000 users" in test["protocol"]["baselines_tuned_on"]
    shown = results_table({**test, "skipped_baselines": {"slim": "no time"}}).splitlines()
    assert sum(line.startswith("markov") for line in shown) == 2
    assert shown[-1] == "slim is left out: no time"


def test_evaluate_by_cohort(
    checkpoint: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cohort whose rows are not those of the overall figure would explain another model."""
    words = ["evaluate", "--model_name_or_path", str(checkpoint), "--test_file", str(log_file), "--cohorts", "true"]
    assert main([*words, "--output_dir", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "eval_results.json").read_text())
    for setting in ("filter_seen", "unfiltered"):
        cohorts = results["cohorts"][setting]
        assert set(cohorts["target warm"]) == {"model", *results["baselines"]}
        pairs = [["target cold", "target warm"], ["target head", "target tail"]]
        for names in [*pairs, [name for name in cohorts if name.startswith("history")]]:
            parts = [cohorts[name]["model"] for name in names]
            assert sum(part["n"] for part in parts) == results["n_users"]
            mean = sum(part["n"] * part.get("ndcg@10", 0.0) for part in parts) / results["n_users"]
            assert mean == pytest.approx(results[setting]["ndcg@10"])
    assert "target repeat" not in results["cohorts"]["filter_seen"]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("target warm")]
    low, high = cohorts["target warm"]["model"]["ndcg@10_ci"]
    assert len(lines) == 2 and f"[{low:.4f}, {high:.4f}]" in lines[1]


def test_a_prior_is_fitted_kept_and_used(
    checkpoint: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that are fitted but not read again leave new users where they were."""
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    words = ["evaluate", "--model_name_or_path", str(folder), "--test_file", str(log_file)]
    output = tmp_path / "fitted"
    assert main([*words, "--fit_prior", "true", "--output_dir", str(output)]) == 0
    fitted = json.loads((output / "eval_results.json").read_text())
    weight = json.loads((folder / "prior.json").read_text())["weight"]
    assert fitted["cold_users"]["weight"] == weight
    assert sum(f"  {weight:.3f}  " in line for line in capsys.readouterr().out.splitlines()) == 2
    assert main([*words, "--output_dir", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again" / "eval_results.json").read_text())
    assert again["protocol"] == fitted["protocol"] and again["filter_seen"] == fitted["filter_seen"]

    users = tmp_path / "users.csv"
    users.write_text("user_id\nnew 1\nnew 2\n")
    words = ["recommend", "--model_name_or_path", str(folder), "--history_file", str(log_file)]
    words += ["--users_file", str(users)]
    assert main([*words, "--unknown_items", "drop", "--output_file", str(tmp_path / "out.csv"), "--top_k", "2"]) == 0
    rows = pyarrow.csv.read_csv(tmp_path / "out.csv").to_pylist()
    model, tokenizer = load_checkpoint(folder)
    prior = load_prior(folder, tokenizer)
    assert prior is not None
    found = recommend(prior.over(model), tokenizer, [[], []], 2)
    assert [row["score"] for row in rows] == pytest.approx([item["score"] for items in found for item in items])
    assert [row["user_id"] for row in rows] == ["new 1", "new 1", "new 2", "new 2"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["recommend", "--history_file", "{log}", "--users_file", "{log}", "--user_column", "who"], "'who'"),
        (["recommend", "--history_file", "{log}", "--users_file", "nobody.csv"], "nobody.csv"),
        (["recommend", "--history_file", "{log}", "--users_file", "{items}"], "no column 'user_id', found"),
    ],
)
def test_a_prior_or_users_that_cannot_be(
    words: list[str],
    expected: str,
    log_file: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A flag that does nothing leaves new users with other lists than asked for."""
    filled = [word.format(log=log_file, items=checkpoint / "items.parquet") for word in words]
    output = (
        ["--output_dir", str(tmp_path / "out")]
        if words[0] == "evaluate"
        else ["--output_file", str(tmp_path / "o.csv")]
    )
    assert main([*filled, "--model_name_or_path", str(checkpoint), *output]) == 1
    assert expected in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir()) and not (checkpoint / "prior.json").exists()


def test_validation_metric_is_the_trainers(checkpoint: Path) -> None:
    """Early stopping on a metric that the log does not hold would choose a random checkpoint."""
    state = json.loads((checkpoint / "all_results.json").read_text())
    assert 0.0 <= state["validation"]["eval_ndcg@10"] <= 1.0
    assert state["best_checkpoint"] is not None


def test_recommend_writes_what_the_function_returns(checkpoint: Path, log_file: Path, tmp_path: Path) -> None:
    """The file and the function must not disagree."""
    output = tmp_path / "out.csv"
    words = ["recommend", "--model_name_or_path", str(checkpoint), "--history_file", str(log_file), "--top_k", "3"]
    assert main([*words, "--unknown_items", "drop", "--output_file", str(output)]) == 0
    rows = pyarrow.csv.read_csv(output).to_pylist()
    log = pyarrow.csv.read_csv(log_file).to_pylist()
    user = rows[0]["user_id"]
    history = [row["item_id"] for row in sorted(log, key=lambda row: row["timestamp"]) if row["user_id"] == user]
    model, tokenizer = load_checkpoint(checkpoint)
    expected = recommend(model, tokenizer, [history], top_k=3, unknown_items="drop", filter_seen=None)[0]
    assert [row["item_id"] for row in rows[:3]] == [item["item_id"] for item in expected]
    assert [row["rank"] for row in rows[:3]] == [1, 2, 3]


def test_finetune_with_a_strong_l2sp_stays_at_its_start(checkpoint: Path, log_file: Path, tmp_path: Path) -> None:
    """L2-SP that never reaches the optimiser would look like plain fine-tuning."""
    start = load_file(checkpoint / "model.safetensors")
    moved = {}
    for alpha in ("0", "20"):
        folder = tmp_path / f"alpha{alpha}"
        words = ["finetune", "--model_name_or_path", str(checkpoint), "--train_file", str(log_file)]
        words += ["--output_dir", str(folder), "--num_train_epochs", "2", "--learning_rate", "0.01"]
        words += ["--l2sp_mode", "decoupled", "--per_device_train_batch_size", "16"]
        assert main([*words, "--l2sp_alpha", alpha, *QUIET]) == 0
        end = load_file(folder / "model.safetensors")
        moved[alpha] = sum(float((end[name] - start[name]).square().sum()) for name in start)
    assert moved["20"] < 0.8 * moved["0"]


def test_finetuning_on_longer_histories_with_l2sp(log_file: Path, tmp_path: Path) -> None:
    """A longer position table must keep the old rows anchored, not refuse or lose them."""
    checkpoint = tmp_path / "absolute"
    words = ["pretrain", "--train_file", str(log_file), "--output_dir", str(checkpoint), "--max_steps", "2"]
    assert main([*words, "--position_embedding_type", "absolute", *TINY, *QUIET]) == 0
    words = ["finetune", "--model_name_or_path", str(checkpoint), "--train_file", str(log_file), "--max_length", "20"]
    words += ["--output_dir", str(tmp_path / "long"), "--num_train_epochs", "1", "--l2sp_mode", "decoupled"]
    # A pull of lr * alpha = 1 at each step puts an anchored weight back, so that only the last step shows.
    words += ["--l2sp_alpha", "1000", "--learning_rate", "0.001", "--lr_scheduler_type", "constant", *QUIET]
    assert main(words) == 0
    name = "model.embeddings.position_embeddings.weight"
    start, end = (
        load_file(checkpoint / "model.safetensors")[name],
        load_file(tmp_path / "long" / "model.safetensors")[name],
    )
    assert (len(start), len(end)) == (12, 20)
    assert (end[:12] - start).abs().max() < 0.0011


def test_frozen_embeddings_do_not_move(checkpoint: Path, log_file: Path, tmp_path: Path) -> None:
    """A freeze that is undone later would train what the user wanted kept."""
    words = ["finetune", "--model_name_or_path", str(checkpoint), "--train_file", str(log_file)]
    words += ["--output_dir", str(tmp_path / "frozen"), "--num_train_epochs", "1", "--freeze", "embeddings", *QUIET]
    assert main(words) == 0
    start, end = load_file(checkpoint / "model.safetensors"), load_file(tmp_path / "frozen" / "model.safetensors")
    name = "model.embeddings.item_embeddings.weight"
    assert start[name].equal(end[name])
    assert any(not start[other].equal(end[other]) for other in start)


def test_causal_pretraining_and_settings_file(log_file: Path, tmp_path: Path) -> None:
    """The causal way has its own collator and label layout; a settings file must reach the same dataclasses."""
    settings = {"train_file": str(log_file), "output_dir": str(tmp_path / "causal"), "objective": "causal"}
    settings |= {"max_length": 12, "hidden_size": 16, "num_hidden_layers": 1, "num_train_epochs": 1.0}
    settings |= {"disable_tqdm": True, "early_stopping_patience": 0}
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(settings))
    assert main(["pretrain", str(path)]) == 0
    model, _ = load_checkpoint(tmp_path / "causal")
    assert type(model).__name__ == "Bert4RecForCausalLM"


@pytest.mark.parametrize("cut_at", ["epoch", "middle"])
def test_resume_equals_an_uninterrupted_run(cut_at: str, log_file: Path, tmp_path: Path) -> None:
    """A resumed run that draws other masks gives numbers that nobody can repeat.

    In the middle of an epoch the batch after the checkpoint's has been made before it was written.
    """
    words = ["pretrain", "--train_file", str(log_file), "--load_best_model_at_end", "false", *TINY, *QUIET]
    words += ["--num_train_epochs", "3", "--save_total_limit", "5"]
    words += ["--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "no"] if cut_at == "middle" else []
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*words, "--output_dir", str(whole)]) == 0
    checkpoints = sorted(whole.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    cut.mkdir()
    shutil.copy(whole / RUN_FILE, cut)
    checkpoints[0].rename(cut / checkpoints[0].name)
    assert main([*words, "--output_dir", str(cut)]) == 0
    first, second = load_file(whole / "model.safetensors"), load_file(cut / "model.safetensors")
    assert all(first[name].equal(second[name]) for name in first)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pretrain", "--train_file", "missing.csv"], "missing.csv"),
        (["pretrain", "--train_file", "a.csv", "--dataset", "ml-100k"], "exactly one"),
        (["pretrain", "--train_file", "{log}", "--hidden_size", "15"], "hidden_size"),
        (["pretrain", "--train_file", "{log}", "--mlm_probability", "2"], "mlm_probability"),
        (["pretrain", "--train_file", "{log}", "--item_column", "sku"], "sku"),
        (["pretrain", "--train_file", "{log}", "--min_user_interactions", "999"], "999"),
        (["finetune", "--train_file", "{log}", "--model_name_or_path", "./nowhere"], "nowhere"),
        (["finetune", "--train_file", "{log}", "--model_name_or_path", "{model}", "--freeze", "feet"], "feet"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: list[str],
    expected: str,
    log_file: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A traceback says nothing to a newcomer, and a half-written folder blocks the next try."""
    output = tmp_path / "out"
    filled = [word.format(log=log_file, model=checkpoint) for word in words]
    assert main([*filled, "--output_dir", str(output)]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith(f"hfrec {words[0]}: ") and expected in message
    assert not output.exists()


def test_output_folder_in_use(checkpoint: Path, log_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished run must never be written over."""
    assert main(["pretrain", "--train_file", str(log_file), "--output_dir", str(checkpoint)]) == 1
    assert "finished run" in capsys.readouterr().err


def test_checkpoint_of_another_model(tmp_path: Path, log_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights of another architecture would load as random ones."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    words = ["evaluate", "--model_name_or_path", str(tmp_path / "other"), "--test_file", str(log_file)]
    assert main([*words, "--output_dir", str(tmp_path / "out")]) == 1
    assert "'bert'" in capsys.readouterr().err


def test_usage_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that help does not name is not found."""
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.strip() == usage()
    assert all(name in usage() for name in COMMANDS)
    assert main(["unknown"]) == 2


def test_help_waits_for_neither_torch_nor_transformers() -> None:
    """Help that takes five seconds is asked for once."""
    code = "import sys; from hfrec_command import main; main(['--help'])"
    code += "; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "set()"


def test_formulas_can_be_escaped(tmp_path: Path) -> None:
    """A spreadsheet runs an item id that begins with an equals sign; without the option ids stay as they are."""
    rows = [{"user_id": "=1+1", "item_id": "@a", "score": -1.0}, {"user_id": "u", "item_id": "a-b", "score": 1.0}]
    for escape, expected in ((True, [("'=1+1", "'@a", -1.0), ("u", "a-b", 1.0)]), (False, None)):
        write_rows(rows, tmp_path / "a.csv", escape_formulas=escape)
        found = [tuple(row.values()) for row in pyarrow.csv.read_csv(tmp_path / "a.csv").to_pylist()]
        assert found == (expected or [tuple(row.values()) for row in rows])
