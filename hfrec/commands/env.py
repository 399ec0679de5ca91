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

    facts = {
        **versions(),
        "platform": platform.platform(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": str(torch.get_num_threads()),
        "cpu": ", ".join([torch.backends.cpu.get_cpu_capability(), *low_precision()]),
    }
    for name, value in facts.items():
        print(f"{name}: {value}")
    return facts


def low_precision() -> list[str]:
    """What the CPU multiplies fast in bfloat16 (`--bf16 true --use_cpu true`) and in 8 bits; only Linux tells."""
    from pathlib import Path

    source = Path("/proc/cpuinfo")
    flags = set(source.read_text(encoding="utf-8").split()) if source.is_file() else set()
    return [flag for flag in ("avx512_bf16", "amx_bf16", "avx512_vnni", "avx_vnni", "amx_int8") if flag in flags]
