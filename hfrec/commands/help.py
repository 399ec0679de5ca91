"""The help of a command on one or two screens: examples and its own flags in groups, from its dataclasses."""

from __future__ import annotations

import ast
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from ..training.arguments import TrainingFlags
from .homes import package_of
from .parser import allowed_values, plain_type

HELP, HELP_ALL = ("-h", "--help"), ("--help_all", "--help-all")
_COLUMN = 32  # where what a flag means begins
_WIDEST = 120
_VALUES = {int: "N", float: "X", str: "TEXT"}


def asked_for_help(words: Sequence[str]) -> bool:
    """Whether a flag among the words asks for help."""
    return any(word in HELP + HELP_ALL for word in words)


def help_text(name: str, classes: Sequence[Any], *, everything: bool) -> str:
    """What `hfrec NAME --help` prints.

    Args:
        name: Subcommand, with its action where it has one.
        classes: Its dataclasses; the first line of a docstring is the title of a group.
        everything: Also the flags of transformers' `TrainingArguments`, which takes seconds to import.
    """
    about, examples = _described(name)
    words = "".join(f" [{place.name.upper()}]" for place in positional(classes))
    lines = [f"usage: hfrec {name}{words} [--flags] | settings.yaml [--flags]", "", about, "", *examples]
    for kind in classes:
        title = str(kind.__doc__).strip().split("\n")[0].split(";")[0].split(". ")[0].rstrip(".")
        lines += ["", f"{title}:", *_flags(kind, _own_first(kind))]
    if TrainingFlags in classes and everything:
        lines += ["", "All else of transformers' TrainingArguments:", *_flags(*_inherited())]
    elif TrainingFlags in classes:
        lines += ["", f"hfrec {name} --help_all adds the flags of transformers' TrainingArguments."]
    return "\n".join(lines)


def positional(classes: Sequence[Any]) -> list[Field[Any]]:
    """The fields that words before all flags stand for, in their order: a checkpoint comes before a log."""
    named = [({place.name: place for place in fields(kind)}, getattr(kind, "words", ())) for kind in classes]
    places = [by_name[word] for by_name, words in named for word in words]
    return sorted(places, key=lambda place: place.name != "model_name_or_path")


def _described(name: str) -> tuple[str, list[str]]:
    """What a command is for and its examples, from the docstring of its module, which is read and not run."""
    command = name.split()[0]
    spec = find_spec(f"{package_of(command)}.{command}")
    source = None if spec is None or spec.origin is None else Path(spec.origin).read_text(encoding="utf-8")
    text = (ast.get_docstring(ast.parse(source)) or "") if source is not None else ""
    about, _, rest = text.partition("\n\n")
    return about.strip(), [f"  {line}" for line in rest.splitlines() if line.strip()]


def _own_first(kind: Any) -> list[Field[Any]]:
    """The fields of a dataclass, those of its parents after its own."""
    places = [place for place in fields(kind) if place.init]
    return sorted(places, key=lambda place: place.name not in kind.__annotations__)


def _inherited() -> tuple[Any, list[Field[Any]]]:
    from ..training.trainer_arguments import RecommenderTrainingArguments

    own = {place.name for place in fields(TrainingFlags)}
    places = [p for p in fields(RecommenderTrainingArguments) if p.init and p.name not in own]
    return RecommenderTrainingArguments, places


def _flags(kind: Any, places: Sequence[Field[Any]]) -> Iterator[str]:
    """A line or more for each flag: its name, its values, what it means, its default."""
    hints = get_type_hints(kind)
    width = max(min(shutil.get_terminal_size((100, 24)).columns, _WIDEST), 60)
    for place in places:
        flag, meaning = f"  --{place.name} {_value(plain_type(hints[place.name]))}", _meaning(place, hints[place.name])
        wrapped = textwrap.wrap(meaning, width - _COLUMN) or [""]
        if len(flag) >= _COLUMN:
            yield flag
            flag = ""
        yield f"{flag:<{_COLUMN}}{wrapped[0]}"
        yield from (" " * _COLUMN + line for line in wrapped[1:])


def _value(kind: Any) -> str:
    """What stands after the flag."""
    if kind is bool:
        return "BOOL"
    if get_origin(kind) is list:
        return "A B ..."
    return "NAME" if allowed_values(kind) else _VALUES.get(kind, "TEXT")


def _meaning(place: Field[Any], hint: Any) -> str:
    """The help of the field, its choices and its default."""
    text = " ".join(str(place.metadata.get("help", "")).split())
    choices = " | ".join(str(value) for value in allowed_values(plain_type(hint)))
    notes = [choices] if choices else []
    if place.default is MISSING and place.default_factory is MISSING:
        notes.append("required")
    elif place.default not in (MISSING, None):
        notes.append(f"default {str(place.default).lower() if isinstance(place.default, bool) else place.default}")
        if place.default is True:
            notes.append(f"--no_{place.name} turns it off")
    return f"{text} ({'; '.join(notes)})" if notes else text
