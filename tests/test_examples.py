"""The examples run as they stand: they are what a user copies first."""

import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from hfrec import load_checkpoint, recommend
from hfrec_command import main

OWN_TRAINER = Path(__file__).parent.parent / "examples" / "own_trainer.py"


def test_a_trainer_script_with_a_model_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A subclass trained and could not be loaded; what such a script needs was not public."""
    words = ["--dataset", "synthetic", "--output_dir", str(tmp_path / "own"), "--num_train_epochs", "1"]
    words += ["--max_length", "12", "--hidden_size", "16", "--disable_tqdm", "true"]
    monkeypatch.setattr(sys, "argv", [str(OWN_TRAINER), *words])
    script = runpy.run_path(str(OWN_TRAINER), run_name="__main__")
    assert "model - item_knn: " in capsys.readouterr().out
    model, tokenizer = load_checkpoint(tmp_path / "own")
    assert type(model) is script["ZLossModel"]
    assert len(recommend(model, tokenizer, [tokenizer.items["item_id"].to_pylist()[:2]], top_k=3)[0]) == 3


def test_a_class_that_is_not_imported_is_refused(tmp_path: Path) -> None:
    """Loaded as its parent, a model with a head of its own would give wrong scores silently."""
    from hfrec import Bert4RecConfig, Bert4RecForMaskedLM, ItemTokenizer

    tokenizer = ItemTokenizer.from_items(["a", "b"])
    Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=5, hidden_size=8)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"Bert4RecForMaskedLM"\n', '"SomebodysModel"\n'))
    with pytest.raises(ValueError, match="A class of your own loads where it is imported"):
        load_checkpoint(tmp_path)


NOTEBOOKS = sorted(OWN_TRAINER.parent.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run_and_draw(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook that fails in its third cell loses the reader there."""
    nbformat = pytest.importorskip("nbformat")
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setenv("PYTHONPATH", str(OWN_TRAINER.parent.parent))  # of the checkout, whatever is installed
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # and back: the cells go elsewhere
    plt.switch_backend("agg")
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in cells:
        if cell.source.startswith("%%sh\n"):
            for line in cell.source.splitlines()[1:]:
                words = shlex.split(re.split(r"[|>]|2>", line)[0])
                assert words[0] == "ls" or main(words[1:]) == 0, line
        else:
            exec(compile(cell.source, path.name, "exec"), names)
    assert plt.get_fignums()
    plt.close("all")
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_jupyter(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with its shell and its pictures."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient runs the notebooks")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", str(OWN_TRAINER.parent.parent))  # of the checkout, whatever is installed
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
