"""Progress bars on the terminal."""

from __future__ import annotations


def hide_short_bars() -> None:
    """No bars of transformers for what takes a moment here, such as writing weights; those of downloads stay."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    hidden = are_progress_bars_disabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if not hidden:
        enable_progress_bars()
