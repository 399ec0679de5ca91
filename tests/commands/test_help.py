"""Help is quick, short and complete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hfrec.commands.help import help_text
from hfrec.commands.parsing import parse_arguments
from hfrec.training.arguments import CardArguments, FinetuneArguments, TrainingFlags
from hfrec_command import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]


def test_help_of_all_commands_imports_no_library() -> None:
    """Help would wait seconds for torch; and `hfrec serve` of an exported model must parse its flags without it."""
    code = """
import sys
from hfrec_command import COMMANDS, main
for command in COMMANDS:
    try:
        main([command, "--help"])
    except SystemExit as end:
        assert end.code == 0, command
    loaded = {"torch", "transformers", "numpy", "pyarrow", "datasets", "huggingface_hub"} & set(sys.modules)
    assert not loaded, f"{command} --help loads {sorted(loaded)}: import in functions, or name its classes in FLAGS"
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert process.returncode == 0, process.stderr


def test_help_is_read_in_part() -> None:
    """As by `hfrec pretrain --help | head`; the pipe is closed before the first word."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from hfrec_command import main; sys.exit(main(['pretrain', '--help']))"
    process = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, check=False
    )
    os.close(writing)
    assert (process.returncode, process.stderr) == (0, b"")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_groups(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newcomer copies an example; a wall of flags is not read."""
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert f"usage: hfrec {command}" in text
    if command not in ("env", "items"):
        examples = [line for line in text.splitlines() if line.startswith("  hfrec ")]
        assert len(examples) >= 2, text
    assert len(text.splitlines()) <= 150


def test_every_flag_is_shown_and_help_all_adds_those_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that help leaves out is never found."""
    monkeypatch.setenv("COLUMNS", "100")
    text = help_text("finetune", (FinetuneArguments, CardArguments, TrainingFlags), everything=False)
    assert "--l2sp_alpha X" in text and "--layerwise_lr_decay X" in text and "--license TEXT" in text
    assert "--model_name_or_path TEXT" in text and "(required)" in text
    assert "coupled | decoupled; default coupled" in " ".join(text.split())
    assert "--warmup_steps" not in text and "--help_all" in text
    assert all(len(line) <= 100 for line in text.splitlines() if line.startswith("  --"))
    everything = help_text("finetune", (TrainingFlags,), everything=True)
    assert "--warmup_steps" in everything and everything.count("--learning_rate ") == 1


def test_an_optional_word_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody would guess that the checkpoint needs no flag."""
    with pytest.raises(SystemExit):
        parse_arguments("finetune", (CardArguments, FinetuneArguments), ["out", "--help"])
    assert "usage: hfrec finetune [MODEL_NAME_OR_PATH] [--flags" in capsys.readouterr().out
