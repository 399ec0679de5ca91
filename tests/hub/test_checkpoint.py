"""What `load_checkpoint` and `from_pretrained` refuse of a folder on the disk."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hfrec import Bert4RecForMaskedLM, Bert4RecForSequenceClassification, Bert4RecModel, load_checkpoint
from hfrec.commands import run

LAYER = "model.layers.0.mlp.output.weight"
CHANGES: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "one missing": (lambda weights: weights.pop(LAYER), f"lack: {LAYER}"),
    "head missing": (lambda weights: weights.pop("decoder.bias"), r"lack: decoder\.bias"),
    "most missing": (
        lambda weights: [weights.pop(name) for name in sorted(weights) if "norm" in name or "bias" in name],
        r"lack: decoder\.bias, .* and \d+ more",
    ),
    "one too many": (lambda weights: weights.update(extra=torch.zeros(2)), "beside those of the config: extra"),
    "another shape": (
        lambda weights: weights.update({"model.layers.0.mlp.input.bias": torch.zeros(3)}),
        r"in another shape: model\.layers\.0\.mlp\.input\.bias",
    ),
}


def damage(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", CHANGES)
def test_weights_are_all_that_the_config_describes(name: str, checkpoint: Path, tmp_path: Path) -> None:
    """Layers that the file lacks were filled with random numbers, and every command went on with them."""
    folder = shutil.copytree(checkpoint, tmp_path / "films")
    change, message = CHANGES[name]
    damage(folder, change)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder)
    with pytest.raises(ValueError, match=message):
        Bert4RecForMaskedLM.from_pretrained(folder)


def test_a_new_head_may_be_missing_and_the_body_may_not(checkpoint: Path, tmp_path: Path) -> None:
    """A check that is too strict would end the use of checkpoints in other classes."""
    folder = shutil.copytree(checkpoint, tmp_path / "films")
    for model_class in (Bert4RecModel, Bert4RecForSequenceClassification):
        model, info = model_class.from_pretrained(folder, output_loading_info=True)
        assert isinstance(model, model_class) and info["unexpected_keys"]
    damage(folder, lambda weights: weights.pop(LAYER))
    for model_class in (Bert4RecModel, Bert4RecForSequenceClassification):
        with pytest.raises(ValueError, match=r"lack: .*layers\.0\.mlp\.output\.weight"):
            model_class.from_pretrained(folder)


def test_a_command_says_it_in_one_line(
    checkpoint: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that recommends with random layers ends with exit code 0."""
    folder = shutil.copytree(checkpoint, tmp_path / "films")
    damage(folder, lambda weights: weights.pop(LAYER))
    words = ["--model_name_or_path", str(folder), "--history_file", str(log_file)]
    assert run("recommend", [*words, "--output_file", str(tmp_path / "lists.csv")]) == 1
    assert LAYER in capsys.readouterr().err.splitlines()[-1]
