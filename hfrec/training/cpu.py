"""What a CPU computes fast, and a warning where it is asked for what it does slowly."""

from __future__ import annotations

from pathlib import Path

from transformers.utils import logging

logger = logging.get_logger(__name__)
CPU_INFO = Path("/proc/cpuinfo")
_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # the last one on ARM
_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm")


def low_precision() -> list[str] | None:
    """What the CPU multiplies fast in bfloat16 (`--bf16 true --use_cpu true`) and in 8 bits; only Linux tells."""
    if not CPU_INFO.is_file():
        return None
    flags = set(CPU_INFO.read_text(encoding="utf-8").split())
    return [flag for flag in (*_BF16, *_INT8) if flag in flags]


def warn_of_slow_bf16() -> None:
    """Say once that bfloat16 is slow here, where it is known to be."""
    found = low_precision()
    if found is not None and not set(_BF16) & set(found):
        logger.warning_once(
            f"`--bf16 true` makes a step about 8 times slower on this CPU, which computes in bfloat16 with none of "
            f"{', '.join(_BF16[:2])} (`hfrec env` found: {', '.join(found) or 'nothing'}). Leave the flag out."
        )
