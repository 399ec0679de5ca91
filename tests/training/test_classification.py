"""Labels of users: folds, baselines, and what is refused."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForSequenceClassification, pipeline

from hfrec import load_interactions, synthetic_tables
from hfrec.data.files import SEAL_FILE, fault_of
from hfrec.training.arguments import TaskArguments
from hfrec.training.classification import read_labels, scores
from hfrec_command import main

TEXT = {"user_id": pa.string(), "item_id": pa.string()}
QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose users are told apart by the half of the catalogue that they use, and a checkpoint."""
    folder = tmp_path_factory.mktemp("classification")
    log, _ = synthetic_tables(num_users=60, num_items=30, num_groups=4, min_length=6, max_length=12)
    items = log["item_id"].to_pylist()
    users = log["user_id"].to_pylist()
    half = {user: index % 2 for index, user in enumerate(dict.fromkeys(users))}
    moved = [f"{item}-{half[user]}" for item, user in zip(items, users, strict=True)]
    pyarrow.csv.write_csv(log.set_column(log.column_names.index("item_id"), "item_id", [moved]), folder / "log.csv")
    lines = [f"{user},{'ab'[side]}" for user, side in half.items()]
    (folder / "users.csv").write_text("user_id,side\n" + "\n".join(lines) + "\n")
    words = ["pretrain", "--train_file", str(folder / "log.csv"), "--output_dir", str(folder / "checkpoint")]
    words += ["--num_train_epochs", "1", "--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1"]
    assert main([*words, *QUIET]) == 0
    return folder


@pytest.mark.slow
def test_classification_tells_apart_what_can_be(files: Path, tmp_path: Path) -> None:
    """A label that slips by a row, or a test user among the training ones, would show only as odd numbers."""
    words = ["finetune", "--task", "classification", "--model_name_or_path", str(files / "checkpoint")]
    words += [
        "--train_file",
        str(files / "log.csv"),
        "--label_file",
        str(files / "users.csv"),
        "--label_column",
        "side",
    ]
    words += [
        "--cross_validate",
        "true",
        "--folds",
        "2",
        "--num_train_epochs",
        "12",
        "--learning_rate",
        "0.01",
        "--output_dir",
        str(tmp_path / "o"),
    ]
    assert main([*words, "--per_device_train_batch_size", "4"]) == 0
    methods = json.loads((tmp_path / "o" / "classification_results.json").read_text())["methods"]
    expected = ["majority class", "logistic regression", "frozen body", "fine-tuned", "fine-tuned + L2-SP"]
    assert list(methods) == expected
    assert methods["majority class"]["accuracy"] <= 0.55
    assert methods["logistic regression"]["accuracy"] > 0.9
    assert methods["fine-tuned"]["accuracy"] > 0.9


def test_the_classifier_is_a_checkpoint_of_transformers(files: Path, tmp_path: Path) -> None:
    """A head that was trained and thrown away, or classes that are numbers to whoever loads them, are of no use."""
    folder = tmp_path / "classifier"
    words = ["finetune", str(files / "checkpoint"), str(files / "log.csv"), "--task", "classification"]
    words += ["--label_file", str(files / "users.csv"), "--label_column", "side", "--output_dir", str(folder)]
    words += ["--num_train_epochs", "8", "--learning_rate", "0.01", "--per_device_train_batch_size", "4"]
    words += ["--l2sp_alpha", "0.001", "--license", "apache-2.0", "--disable_tqdm", "true"]
    assert main(words) == 0
    results = json.loads((folder / "all_results.json").read_text())
    assert "all_results.json" in json.loads((folder / SEAL_FILE).read_text()) and fault_of(folder) is None
    assert results["split"] == {"strategy": "users", "num_train": 42, "num_validation": 6, "num_test": 12}
    test = results["test"]
    assert test["model"]["accuracy"] > test["majority class"]["accuracy"]
    assert results["l2sp"]["l2sp_penalty"] > 0
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.id2label == {0: "a", 1: "b"} and model.config.architectures == [type(model).__name__]
    histories: dict[str, list[str]] = defaultdict(list)
    log = pyarrow.csv.read_csv(files / "log.csv", convert_options=pyarrow.csv.ConvertOptions(column_types=TEXT))
    for row in log.to_pylist():
        histories[row["user_id"]].append(row["item_id"])
    classify = pipeline("text-classification", model=str(folder))
    sides = dict(line.split(",") for line in (files / "users.csv").read_text().splitlines()[1:])
    asked = [{"text": items[-12:], "is_split_into_words": True} for items in histories.values()]
    guessed = [classify(item)["label"] for item in asked]
    right = sum(guess == sides[user] for guess, user in zip(guessed, histories, strict=True))
    assert right / len(sides) > 0.8
    card = (folder / "README.md").read_text()
    assert "| majority class | " in card and "one of\n`a`, `b`" in card and "license: apache-2.0" in card
    assert main(words) == 1  # a finished run is never written over


def test_scores_are_those_of_scikit_learn() -> None:
    """A macro-F1 averaged otherwise is another number under the same name."""
    generator = np.random.default_rng(0)
    truth, guess = generator.integers(0, 3, 50), generator.integers(0, 3, 50)
    found = scores(truth, guess, 3)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro"))
    assert found["accuracy_ci"][0] < found["accuracy"] < found["accuracy_ci"][1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("user_id,age\nu1,3\n", "side"),
        ("user_id,side\nnobody,a\n", "no `side`"),
        ("user_id,side\nu1,a\nu1,b\n", "twice"),
    ],
)
def test_bad_labels_are_refused(content: str, expected: str, files: Path, tmp_path: Path) -> None:
    """Users without a label, or with two, must not fall out silently."""
    (tmp_path / "users.csv").write_text(content)
    task = TaskArguments(task="classification", label_file=str(tmp_path / "users.csv"), label_column="side")
    with pytest.raises(ValueError, match=expected):
        read_labels(load_interactions(files / "log.csv"), task)


def test_classification_needs_labels() -> None:
    """A task without labels would fall back to recommendation."""
    with pytest.raises(ValueError, match="label_file"):
        TaskArguments(task="classification")
