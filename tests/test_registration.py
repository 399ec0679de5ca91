"""transformers knows hfrec's classes after `import hfrec`, whichever is imported first and from where."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import hfrec

CHECK = """
import transformers.models.auto.modeling_auto as auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY
assert {"bert4rec", "hfrec_blend"} <= set(CONFIG_MAPPING.keys())
config = hfrec.Bert4RecConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
assert type(auto.AutoModelForMaskedLM.from_config(config)) is hfrec.Bert4RecForMaskedLM
assert type(auto.AutoModelForCausalLM.from_config(config)) is hfrec.Bert4RecForCausalLM
assert hfrec.BlendConfig in auto.MODEL_MAPPING
assert "recommendation" in PIPELINE_REGISTRY.get_supported_tasks()
"""


def slow(first: str) -> object:
    return pytest.param(first, marks=pytest.mark.slow)  # each is a new interpreter that loads torch


@pytest.mark.parametrize(
    "first",
    [
        "import transformers.pipelines, hfrec",  # the tables are there before
        slow("import hfrec; hfrec.Bert4RecForMaskedLM"),  # a table is loaded when the classes are half loaded
        slow("import hfrec"),
        slow("import hfrec; from transformers import AutoTokenizer, AutoModel"),
        slow("import hfrec; from transformers import Trainer"),
        slow("import hfrec; import hfrec.models.packing"),
        slow("import hfrec; import transformers.modeling_layers"),
        slow("import hfrec; hfrec.RecommendationPipeline"),
    ],
)
def test_classes_are_registered_in_every_order(first: str) -> None:
    """`AutoModel` would say that it does not know `bert4rec`, or the import would be circular, in one order only."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    process = subprocess.run(
        [sys.executable, "-c", f"{first}\nimport hfrec{CHECK}"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_again_after_an_import(
    collects: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed import, or one within another, would leave a long training without collections."""
    (tmp_path / "outer.py").write_text("import gc, hfrec.inner\nduring = gc.isenabled()\n", encoding="utf-8")
    (tmp_path / "inner.py").write_text("", encoding="utf-8")
    (tmp_path / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.setattr(hfrec, "__path__", [*hfrec.__path__, str(tmp_path)])
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        assert not import_module("hfrec.outer").during
        assert gc.isenabled() == collects
        with pytest.raises(ZeroDivisionError):
            import_module("hfrec.broken")
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()
        for name in ("outer", "inner"):
            sys.modules.pop(f"hfrec.{name}", None)
