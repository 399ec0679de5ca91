"""The examples train what the commands train, every other script is its command, and settings files are taken."""

import ast
import runpy
from pathlib import Path

import pytest
from safetensors.torch import load_file

import hfrec.commands
from hfrec.commands.pretrain import parse
from hfrec_command import COMMANDS, main

SCRIPTS = sorted((Path(__file__).parent.parent / "scripts").glob("*.py"))
EXAMPLES = ("pretrain", "finetune")  # which show how the pieces are put together
COMMAND_SCRIPTS = [path for path in SCRIPTS if path.stem not in EXAMPLES]
TINY = ["--dataset", "synthetic", "--max_length", "12", "--num_train_epochs", "1", "--disable_tqdm", "true"]
SHAPE = ["--objective", "causal", "--hidden_size", "16", "--num_hidden_layers", "1"]
CONFIGS = sorted((Path(__file__).parent.parent / "scripts" / "configs").glob("*.yaml"))


def run_script(name: str, *words: str) -> None:
    (path,) = (path for path in SCRIPTS if path.stem == name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [str(path), *words])
        runpy.run_path(str(path), run_name="__main__")


def test_the_examples_train_what_the_commands_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An example that leaves a piece out, such as the seen items of the best checkpoint, is copied with its fault."""
    folders = {name: str(tmp_path / name) for name in ("command", "script", "tuned", "tuned_by_script")}
    words, shown = [*TINY, *SHAPE], ["--filter_seen", "true"]
    assert main(["pretrain", *words, *shown, "--recipe", "none", "--output_dir", folders["command"]]) == 0
    run_script("pretrain", *words, "--output_dir", folders["script"])
    start = ["--model_name_or_path", folders["command"], "--l2sp_alpha", "0.1"]
    assert main(["finetune", *TINY, *start, *shown, "--output_dir", folders["tuned"]]) == 0
    run_script("finetune", *TINY, *start, "--output_dir", folders["tuned_by_script"])
    for one, other in (("command", "script"), ("tuned", "tuned_by_script")):
        first, second = (load_file(Path(folders[name]) / "model.safetensors") for name in (one, other))
        assert all(weight.equal(second[name]) for name, weight in first.items()), other
    assert capsys.readouterr().out.count("users, 0 targets outside the vocabulary") == 4


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path.stem in EXAMPLES], ids=lambda path: path.stem)
def test_an_example_is_short_enough_to_be_copied(path: Path) -> None:
    """Nobody reads an example that is longer than what it is an example of."""
    tree = ast.parse(path.read_text())
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    assert function.end_lineno is not None and function.end_lineno - function.lineno <= 40
    assert f"python scripts/{path.name} " in (ast.get_docstring(tree) or "")


@pytest.mark.parametrize("path", COMMAND_SCRIPTS, ids=lambda path: path.stem)
def test_script_is_its_command(path: Path) -> None:
    """A script that drifts from its command gives two tools of one name."""
    called: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hfrec.commands, "run", lambda name, words: called.extend([name, words]))
        patch.setattr("sys.argv", [path.name, "--flag"])
        with pytest.raises(SystemExit):
            runpy.run_path(str(path), run_name="__main__")
    assert called[0] in COMMANDS and called[1] == ["--flag"]
    assert f"python scripts/{path.name} " in (ast.get_docstring(ast.parse(path.read_text())) or "")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_settings_file_parses(path: Path) -> None:
    """A key that no dataclass has would be found only by whoever follows the file."""
    arguments = parse([str(path)])
    assert arguments.data.source and arguments.training.output_dir
