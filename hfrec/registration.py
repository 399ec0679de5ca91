"""Makes hfrec's classes known to transformers when transformers loads its own tables, so that `import hfrec` need not.

`AutoModel`, `pipeline("recommendation")` and the like work after `import hfrec`, whichever of the two comes first.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def register_configs() -> None:
    """`AutoConfig` reads the `config.json` of our checkpoints."""
    from transformers.models.auto.configuration_auto import AutoConfig

    from .models.configuration_bert4rec import Bert4RecConfig
    from .models.configuration_blend import BlendConfig

    AutoConfig.register("bert4rec", Bert4RecConfig, exist_ok=True)
    AutoConfig.register("hfrec_blend", BlendConfig, exist_ok=True)


def register_models() -> None:
    """`AutoModel` and its kin find the class of a config."""
    from transformers.models.auto import modeling_auto

    from .models import (
        Bert4RecConfig,
        Bert4RecForCausalLM,
        Bert4RecForMaskedLM,
        Bert4RecForSequenceClassification,
        Bert4RecModel,
        Blend,
        BlendConfig,
    )

    modeling_auto.AutoModel.register(Bert4RecConfig, Bert4RecModel, exist_ok=True)
    modeling_auto.AutoModel.register(BlendConfig, Blend, exist_ok=True)
    modeling_auto.AutoModelForMaskedLM.register(Bert4RecConfig, Bert4RecForMaskedLM, exist_ok=True)
    modeling_auto.AutoModelForCausalLM.register(Bert4RecConfig, Bert4RecForCausalLM, exist_ok=True)
    modeling_auto.AutoModelForSequenceClassification.register(
        Bert4RecConfig, Bert4RecForSequenceClassification, exist_ok=True
    )


def register_pipeline() -> None:
    """`pipeline("recommendation")` is a task."""
    from transformers.pipelines import PIPELINE_REGISTRY

    from .inference.pipeline import CheckpointLoader, RecommendationPipeline

    PIPELINE_REGISTRY.register_pipeline("recommendation", RecommendationPipeline, pt_model=CheckpointLoader)


_AUTO = "transformers.models.auto"
_STEPS: dict[str, Callable[[], None]] = {  # by the module that holds the table
    f"{_AUTO}.configuration_auto": register_configs,
    f"{_AUTO}.modeling_auto": register_models,
    "transformers.pipelines": register_pipeline,
}
# Either may load a table on its way, when the classes that the table is to hold are not there yet.
_PACKAGES = ("transformers.", "hfrec.")


class RegisterWhenLoaded(MetaPathFinder):
    """Loads modules as ever; runs the step of a table that is there once no module of the two is half loaded.

    Meanwhile no garbage is collected: what modules are made of stays, and a sixth of the time went into looking at it.
    """

    def __init__(self) -> None:
        self._steps = dict(_STEPS)
        self._half_loaded: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The usual spec of a module of the two, whose loader tells when it is done; None for all others."""
        if not fullname.startswith(_PACKAGES):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            self._half_loaded.add(fullname)
            collects = gc.isenabled()  # not within another module
            gc.disable()
            try:
                load(module)
            finally:
                self._half_loaded.discard(fullname)
                if collects:
                    gc.enable()
            self.run()

        loader.exec_module = exec_module
        return spec

    def run(self) -> None:
        """Run each step that can be."""
        while not self._half_loaded:
            table = next((name for name in self._steps if name in sys.modules), None)
            if table is None:
                return
            self._steps.pop(table)()


def register_when_loaded() -> None:
    """Register now what can be, and the rest when transformers loads it; a second call does nothing more."""
    if not any(isinstance(finder, RegisterWhenLoaded) for finder in sys.meta_path):
        finder = RegisterWhenLoaded()
        sys.meta_path.insert(0, finder)
        finder.run()
