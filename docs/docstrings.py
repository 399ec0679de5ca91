"""Docstrings as the site shows them: `Example:` is code, and the signature alone says the types."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Changes the docstrings while they are read: griffe knows the section of examples by its plural alone."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"^( +[\w, ]+) \(`[^\n]*?\):", r"\1:", text, flags=re.MULTILINE)
