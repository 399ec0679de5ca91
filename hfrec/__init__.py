"""hfrec: sequential recommendation with Hugging Face models, pretrained on large logs and fine-tuned with L2-SP."""

import ast
from importlib import import_module
from pathlib import Path

from .registration import register_when_loaded

__version__ = "0.1.0"


def _public_names() -> dict[str, str]:
    """The module of each public name. `__init__.pyi` lists them, once for editors, type checkers and this file."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = (node for node in stub.body if isinstance(node, ast.ImportFrom))
    return {alias.name: f".{node.module}" for node in imports for alias in node.names}


_MODULES = _public_names()
__all__ = sorted([*_MODULES, "__version__"])
register_when_loaded()


def __getattr__(name: str) -> object:
    """Load the module of a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name], __name__), name)
    return value


def __dir__() -> list[str]:
    """All public names, loaded or not."""
    return sorted({*globals(), *__all__})
