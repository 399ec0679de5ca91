"""What is published works where it is installed: a file that the wheel lacks is missed by nobody's checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRY = """
import sys
from pathlib import Path
import hfrec, hfrec_command
assert Path(hfrec.__file__).is_relative_to(sys.argv[1]), hfrec.__file__
words = ["pretrain", "--dataset", "synthetic", "--output_dir", "run", "--num_train_epochs", "1", "--hidden_size", "16"]
sys.exit(hfrec_command.main([*words, "--disable_tqdm", "true"]))
"""


def run(*words: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(words, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_an_installed_wheel_trains(tmp_path: Path) -> None:
    """Templates, remote code and the marker of types must be in the wheel, and nothing of the tests."""
    (wheel,) = (ROOT / "dist").glob("*.whl") if (ROOT / "dist").is_dir() else (None,)
    if wheel is None:
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
        run(*build, folder=tmp_path)
        (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    assert {"hfrec/py.typed", "hfrec/hub/card_template.md.jinja", "hfrec_command.py"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]
    target = tmp_path / "installed"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel), folder=tmp_path)
    environment = {"PYTHONPATH": str(target), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run(sys.executable, "-c", TRY, str(target), folder=tmp_path, **environment)
    ask = [sys.executable, "-c", "import sys, hfrec_command; sys.exit(hfrec_command.main(['study', '--help']))"]
    told = subprocess.run(ask, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True)
    assert told.returncode == 1 and "pip install -e '.[study]'" in told.stderr  # the harness is not in the wheel
    assert (tmp_path / "run" / "README.md").is_file()
    for name in ("modeling_bert4rec.py", "model.safetensors", "items.parquet"):
        assert (tmp_path / "run" / name).is_file()
