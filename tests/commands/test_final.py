"""`--final true`: the model that is shipped is trained on every row and item, and says that it was never tested."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pytest
from safetensors.torch import load_file

from hfrec import load_checkpoint
from hfrec_command import main
from tests.commands.conftest import QUIET, TINY

EPOCHS = ["--num_train_epochs", "3", "--recipe", "none", "--windows", "newest", "--final", "true"]


def read(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "all_results.json").read_text())
    return results


@pytest.fixture(scope="module")
def log(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log with an item that is some users' last one only: every split holds it out."""
    rows = pyarrow.csv.read_csv(log_file).to_pylist()
    newest = {row["user_id"]: max(r["timestamp"] for r in rows if r["user_id"] == row["user_id"]) for row in rows}
    users = sorted(newest)[:3]
    rows += [{**rows[0], "user_id": user, "item_id": "just in", "timestamp": newest[user] + 1} for user in users]
    path = tmp_path_factory.mktemp("log") / "log.csv"
    pyarrow.csv.write_csv(pyarrow.Table.from_pylist(rows), path)
    return path


def pretrain(log: Path, folder: Path, *words: str) -> int:
    shape = [*TINY, "--objective", "causal", "--hidden_dropout_prob", "0.1"]
    return main(["pretrain", "--train_file", str(log), "--output_dir", str(folder), *shape, *QUIET, *EPOCHS, *words])


@pytest.fixture(scope="module")
def final(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("final") / "out"
    assert pretrain(log, folder) == 0
    return folder


def test_every_item_can_be_shown_and_no_test_is_claimed(final: Path, log: Path, tmp_path: Path) -> None:
    """A run held out each user's last two items: what is new in the log could never be recommended."""
    results, validation = read(final), read(final / "validation")
    rows = pyarrow.csv.read_csv(log)
    assert "just in" in load_checkpoint(final)[1].get_vocab()
    assert "just in" not in load_checkpoint(final / "validation")[1].get_vocab()
    assert results["sizes"]["interactions"] == len(rows) and results["split"] == {"strategy": "all_rows"}
    assert "test" not in results and results["validation_run"] == validation
    assert (final / "validation" / "test_ranks.parquet").exists() and not (final / "test_ranks.parquet").exists()
    card, tested = (folder / "README.md" for folder in (final, final / "validation"))
    assert "No figure below is of these very weights" in card.read_text()
    assert "model-index" not in card.read_text() and "model-index" in tested.read_text()
    words = ["--model_name_or_path", str(final), "--history_file", str(log), "--output_file", str(tmp_path / "r.csv")]
    assert main(["recommend", *words, "--filter_seen", "false", "--top_k", "31"]) == 0
    assert "just in" in (tmp_path / "r.csv").read_text()


def test_it_trains_as_long_as_validation_was_best(final: Path, log: Path) -> None:
    """As many epochs, of more rows; the learning rate is planned for as many as it was."""
    results, validation = read(final), read(final / "validation")["schedule"]
    assert results["final"]["epochs"] == validation["best_epoch"]
    state = json.loads((checkpoints(final)[-1] / "trainer_state.json").read_text())
    steps_an_epoch = -(-60 // 16)  # a row of each user
    assert results["final"]["steps"] == round(validation["best_epoch"] * steps_an_epoch) == state["global_step"]
    assert state["max_steps"] == 3 * steps_an_epoch


def test_what_was_best_early_ends_early() -> None:
    """Stopping at the planned end is another model than the one that was chosen."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from hfrec.training.final import StopAfterEpochs, chosen_length

    facts = {"best_step": 6, "best_epoch": 2.0, "max_steps": 30, "metric": "ndcg@10", "best_value": 0.25}
    chosen = chosen_length(facts)
    assert (chosen.epochs, chosen.of_epochs) == (2.0, 10.0)
    callback, control = StopAfterEpochs(2.0), TrainerControl()
    for epoch, over in ((1.75, False), (1.9999999, True)):
        callback.on_step_end(TrainingArguments("unused"), TrainerState(epoch=epoch, global_step=3), control)
        assert control.should_training_stop is over and control.should_save is over
    resumed = TrainerControl()
    callback.on_train_begin(TrainingArguments("unused"), TrainerState(epoch=2.0, global_step=8), resumed)
    assert resumed.should_training_stop


def cut(whole: Path, folder: Path) -> None:
    """A run as it was when its first kept checkpoint had been written."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(whole / "_run.json", folder)
    first = checkpoints(whole)[0]
    shutil.copytree(first, folder / first.name)


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


@pytest.mark.parametrize("where", ["validation", "between", "final"])
def test_the_same_command_goes_on(where: str, final: Path, log: Path, tmp_path: Path) -> None:
    """An interruption in either run must not lose the other, nor change a bit."""
    folder = tmp_path / "out"
    cut(final / "validation", folder / "validation") if where == "validation" else shutil.copytree(
        final / "validation", folder / "validation"
    )
    if where == "final":
        cut(final, folder)
    assert pretrain(log, folder) == 0
    first, second = (load_file(run / "model.safetensors") for run in (final, folder))
    assert all(first[name].equal(second[name]) for name in first)
    assert read(folder)["final"] == read(final)["final"]


def test_another_run_is_no_resumption(
    final: Path, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What validation chose under other settings says nothing of these."""
    folder = shutil.copytree(final, tmp_path / "out")
    (folder / "all_results.json").unlink()
    for path in checkpoints(folder / "validation"):
        shutil.rmtree(path)
    assert pretrain(log, folder, "--learning_rate", "0.5") == 1
    assert "`--learning_rate`" in capsys.readouterr().err
    assert pretrain(log, folder, "--final", "false") == 1
    assert "holds a run of `--final true`" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", [["leave_one_out"], ["temporal"]])
def test_finetuning(protocol: list[str], log: Path, checkpoint: Path, tmp_path: Path) -> None:
    """It starts again at the pretrained checkpoint, new items included, and L2-SP pulls towards that."""
    words = ["finetune", "--model_name_or_path", str(checkpoint), "--train_file", str(log), "--num_train_epochs", "2"]
    words += ["--output_dir", str(tmp_path / "out"), "--l2sp_alpha", "900", "--l2sp_mode", "decoupled", *QUIET]
    words += ["--protocol", *protocol, "--final", "true", "--per_device_train_batch_size", "16", "--warmup_steps", "0"]
    assert main(words) == 0
    model, tokenizer = load_checkpoint(tmp_path / "out")
    before, known = load_checkpoint(checkpoint)
    assert "just in" in tokenizer.get_vocab()
    old, new = (m.get_input_embeddings().weight for m in (before, model))
    row = known.get_vocab()["i0"]
    assert (old[row] - new[tokenizer.get_vocab()["i0"]]).abs().max() < 1e-2
    assert read(tmp_path / "out")["finetuning"]["l2sp_alpha"] == 900
    assert read(tmp_path / "out")["validation_run"]["split"]["strategy"] == protocol[0]


@pytest.fixture(scope="module")
def blended(final: Path, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seen items are not filtered, so that the newest item of a history can be its own answer."""
    folder = tmp_path_factory.mktemp("blend") / "blended"
    words = ["--model_name_or_path", str(final), "--train_file", str(log), "--output_dir", str(folder)]
    assert main(["blend", *words, "--final", "true", "--filter_seen", "false"]) == 0
    return folder


def test_a_blend_is_fitted_again_on_all_rows(blended: Path, final: Path, log: Path, tmp_path: Path) -> None:
    """The network of the validation run and tables without the newest rows would be shipped."""
    results, tested = read(blended), read(blended / "validation")
    assert "test" not in results and results["validation_run"] == tested
    assert results["split"] == {"strategy": "all_rows"}
    assert results["sizes"]["interactions"] == len(pyarrow.csv.read_csv(log)) > tested["sizes"]["interactions"]
    (shipped, vocabulary), (kept, _) = load_checkpoint(blended), load_checkpoint(blended / "validation")
    assert "just in" in vocabulary.get_vocab()
    chosen = [{name: part[name] for name in ("name", "weight")} for part in kept.config.components]
    assert chosen == [{name: part[name] for name in ("name", "weight")} for part in shipped.config.components]
    assert {name: part["weight"] for name, part in results["final"].items()} == {
        part["name"]: part["weight"] for part in chosen
    }
    trained = load_checkpoint(final)[0].state_dict()
    networks = [part.network for part in shipped.components if hasattr(part, "network")]
    tables = [part for part in shipped.components if hasattr(part, "offsets")]
    assert networks or tables
    assert all(network.state_dict()[name].equal(trained[name]) for network in networks for name in trained)
    assert all(len(part.offsets) == len(vocabulary) + 1 for part in tables)
    card = (blended / "README.md").read_text()
    assert "No figure below is of these very weights" in card and "chose the settings and weights" in card
    assert "model-index" not in card and "model-index" in (blended / "validation" / "README.md").read_text()
    words = ["--history_file", str(log), "--output_file", str(tmp_path / "r.csv"), "--top_k", "31"]
    assert main(["recommend", "--model_name_or_path", str(blended), *words]) == 0
    assert "just in" in (tmp_path / "r.csv").read_text()


def test_classical_methods_are_fitted_on_all_rows_too(log: Path, tmp_path: Path) -> None:
    """What is newest in the log is what a shop sells today."""
    words = ["--train_file", str(log), "--method", "item_knn", "--final", "true", "--output_dir", str(tmp_path / "out")]
    assert main(["baseline", *words]) == 0
    model, vocabulary = load_checkpoint(tmp_path / "out")
    known = load_checkpoint(tmp_path / "out" / "validation")[1].get_vocab()
    (table,) = model.components
    row = vocabulary.get_vocab()["just in"]
    assert "just in" not in known and table.offsets[row + 1] > table.offsets[row], "it has neighbours"
    settings = read(tmp_path / "out" / "validation")["blend"]["components"][0]["settings"]
    assert read(tmp_path / "out")["final"]["item_knn"] == {"weight": 1.0, **settings}


def test_what_has_seen_the_answers_is_not_weighed(
    final: Path, checkpoint: Path, log: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network that was trained on the validation items gets the weight of one that guesses them."""
    words = ["--train_file", str(log), "--output_dir", str(tmp_path / "out"), "--model_name_or_path"]
    assert main(["blend", *words, str(final)]) == 1
    assert "was trained on all rows" in capsys.readouterr().err
    assert main(["blend", *words, str(checkpoint), "--final", "true"]) == 1
    assert "expects folders of `hfrec pretrain|finetune --final true`" in capsys.readouterr().err
    other = ["--train_file", str(log_file), *words[2:]]
    assert main(["blend", *other, str(final), "--final", "true"]) == 1
    assert "was trained on another log" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_prepared_sequences_are_refused(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They leave out what the final model is for, and would be trained on as if they were all."""
    words = ["--streaming", "true", "--output_dir", str(tmp_path / "out"), "--final", "true"]
    assert main(["pretrain", "--train_file", str(log), *words]) == 1
    assert "`--final true` is not for `--streaming true`" in capsys.readouterr().err
