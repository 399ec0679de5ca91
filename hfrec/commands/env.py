"""Print versions and devices, for bug reports.

hfrec env
"""

from __future__ import annotations

from collections.abc import Sequence

from .parsing import parse_arguments


def parse(words: Sequence[str]) -> None:
    """Takes no flags."""
    parse_arguments("env", (), words)


def main(arguments: None) -> dict[str, str]:
    """Print versions and devices."""
    import platform

    import torch

    from ..evaluation.protocol import versions
    from ..training.cpu import low_precision

    facts = {
        **versions(),
        "platform": platform.platform(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": str(torch.get_num_threads()),
        "cpu": ", ".join([torch.backends.cpu.get_cpu_capability(), *(low_precision() or [])]),
    }
    for name, value in facts.items():
        print(f"{name}: {value}")
    return facts
