"""Settings files as they stand there; words without a flag: only where a command says so, never two for one field."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hfrec.commands import compare, pretrain, pull, push
from hfrec.commands.flags import FLAGS
from hfrec.commands.parsing import flagged_words, parse_arguments
from hfrec.commands.settings import read_settings


@dataclass
class Plain:
    folder: str = field(default="x")
    verbose: bool = field(default=False)


def test_words_stand_for_their_flags() -> None:
    """A folder taken for the repository would be pushed over somebody's model."""
    assert push.parse(["out", "me/films", "--revision", "v2"]) == push.parse(
        ["--repo_id", "me/films", "--folder", "out", "--revision", "v2"]
    )
    assert push.parse(["out", "--repo_id", "me/films"]).folder == "out"
    found = pull.parse(["me/films", "films", "--verify"])
    assert (found.repo_id, found.output_dir, found.verify) == ("me/films", "films", True)
    assert pull.parse(["me/films"]).output_dir is None
    assert pull.parse(["--repo_id", "me/films", "--output_dir", "films"]).output_dir == "films"


def test_a_list_takes_all_words_before_the_flags() -> None:
    """The second run would be lost, or taken for a setting."""
    assert compare.parse(["a", "b=c,d", "e", "--cohorts", "false"]).runs == ["a", "b=c,d", "e"]
    assert compare.parse(["--runs", "a", "b"]).runs == ["a", "b"]


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        (push, ["out", "me/films", "extra"], "found 'extra' alone"),
        (push, ["out", "me/films", "--folder", "other"], "`folder` is given twice: as the word 'out' and as"),
        (push, ["out", "me/films", "--folder=other"], "`folder` is given twice"),
        (push, ["--revision", "v2", "out", "me/films"], "FOLDER REPO_ID may stand before all flags"),
        (pull, ["--verify", "me/films"], "REPO_ID OUTPUT_DIR may stand before all flags"),
        (push, ["out"], "required: --repo_id"),
        (compare, [], "required: --runs"),
    ],
)
def test_words_too_many_or_twice_are_refused(module: object, words: list[str], message: str) -> None:
    """A word that goes nowhere leaves its user in the belief that it was heard."""
    with pytest.raises(ValueError, match=message):
        module.parse(words)  # type: ignore[attr-defined]


def test_a_command_without_positional_fields_takes_no_words() -> None:
    """The old rule stays: a forgotten `--` is told."""
    with pytest.raises(ValueError, match="found 'out' alone: put its flag before it"):
        parse_arguments("plain", (Plain,), ["out", "--verbose", "true"])


def test_the_checkpoint_comes_before_the_log() -> None:
    """`finetune LOG MODEL` would read the log as a checkpoint."""
    words = flagged_words(FLAGS["finetune"], ["out", "log.csv", "--seed", "1"])
    assert words == ["--model_name_or_path", "out", "--train_file", "log.csv", "--seed", "1"]
    assert flagged_words(FLAGS["pretrain"], ["log.csv"]) == ["--train_file", "log.csv"]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["a", "a"], "names 'a' twice"), (["=b"], "found '=b'"), (["a="], "found 'a='"), (["a=b", "a=c"], "twice")],
)
def test_arms_that_cannot_be_told_apart_are_refused(words: list[str], message: str) -> None:
    """One arm would silently take the place of the other."""
    with pytest.raises(ValueError, match=message):
        compare.named_arms(words)


def test_arms_have_names_and_seeds() -> None:
    assert compare.named_arms(["out/a", "b=out/b1,out/b2"]) == {"out/a": ["out/a"], "b": ["out/b1", "out/b2"]}


def test_values_of_a_settings_file_are_what_stands_there(tmp_path: Path) -> None:
    """YAML reads 010 as 8, 1:30 as 90 and a date as what no flag takes; a truth value in a list is a country."""
    lines = ["seed: 010", "learning_rate: 1e-3", "protocol: temporal", "test_start: 2024-02-01", "where: [country=NO]"]
    lines += ["validation_start: 2024-01-01 10:00:00", "time_budget: 1:30", "label_names: [NO, 1.50]", "fp16: off"]
    lines += ["lr_scheduler_kwargs: {num_cycles: 2}", "train_file: log.csv", "items_file: null", "disable_tqdm: yes"]
    path = tmp_path / "run.yaml"
    path.write_text("\n".join(lines))
    found = read_settings(path)
    assert found["seed"] == "010" and found["test_start"] == "2024-02-01" and found["label_names"] == ["NO", "1.50"]
    assert found["validation_start"] == "2024-01-01 10:00:00" and found["time_budget"] == "1:30"
    assert found["lr_scheduler_kwargs"] == {"num_cycles": 2} and found["items_file"] is None
    path.write_text("\n".join(line for line in lines if not line.startswith(("time_budget", "where"))))
    parsed = pretrain.parse([str(path)])
    assert parsed.training.seed == 10 and parsed.training.learning_rate == 1e-3 and not parsed.training.fp16
    assert parsed.protocol.test_start == "2024-02-01" and parsed.training.lr_scheduler_kwargs == {"num_cycles": 2}


def test_flags_go_before_the_values_of_a_settings_file(tmp_path: Path) -> None:
    """A run over seeds is one file and a flag; if the file won, one seed would be trained thrice."""
    path = tmp_path / "run.yaml"
    path.write_text(
        "train_file: log.csv\nseed: 3\ncontent_columns: [title=name]\nlearning_rate: 1e-3\nitems_file: null"
    )
    parsed = pretrain.parse([str(path), "--seed", "5", "--content_columns", "title=t", "--items_file=titles.csv"])
    assert (
        parsed.training.seed == 5
        and parsed.data.content_columns == ["title=t"]
        and parsed.data.items_file == "titles.csv"
    )
    assert parsed.training.learning_rate == 1e-3 and parsed.data.train_file == "log.csv"
    with pytest.raises(ValueError, match="alone"):
        pretrain.parse([str(path), "log.csv"])
    with pytest.raises(ValueError, match="sed"):
        pretrain.parse([str(path), "--sed", "5"])
    assert pretrain.parse(["lines.json", "--seed", "5"]).data.train_file == "lines.json"  # a log, as before
