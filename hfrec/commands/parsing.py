"""Flags, a YAML or JSON file, or a YAML file and flags, into the dataclasses of a command."""

from __future__ import annotations

import json
import os
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, cast

from ..training.arguments import TrainingFlags
from .help import HELP_ALL, asked_for_help, help_text, positional
from .parser import Parser
from .settings import read_settings

T = TypeVar("T")
SETTINGS_SUFFIXES = (".yaml", ".yml")


def parse_arguments(
    name: str, classes: Sequence[Any], words: Sequence[str], *, defaults: dict[str, Any] | None = None
) -> tuple[Any, ...]:
    """Parse `words` into one instance of each dataclass.

    The values of a settings file go through the same checks as flags; `null` is None, whatever the default. The
    fields that a dataclass names in `words` (a class variable) take the words that stand before all flags; one that is
    a list takes the rest of them. Words that ask for help print it and exit.

    Args:
        name: Subcommand, for the usage line.
        classes: The dataclasses.
        words: Words and flags; or a settings file, `.yaml` or `.yml`, and flags that go before its values; or a `.json`
            file alone, which with flags is a log.
        defaults: Values in place of the dataclasses' own defaults.

    Raises:
        ValueError: A value of another type or outside its range, an unknown flag or key, an unreadable settings file.
        FileNotFoundError: No such settings file.
    """
    if asked_for_help(words):
        print_help(help_text(name, classes, everything=any(word in HELP_ALL for word in words)))
        raise SystemExit(0)
    parser = _parser(name, classes)
    parser.set_defaults(**(defaults or {}))
    flags, nulls = _flags(parser, name, classes, words)
    parser.set_defaults(**dict.fromkeys(nulls))
    return parser.fill(flags)


def print_help(text: str) -> None:
    """Print a help text; a reader that has enough of it, such as `head`, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest when it ends


def parse_into(name: str, kind: type[T]) -> Callable[[Sequence[str]], T]:
    """The `parse` of a command whose flags are one dataclass."""

    def parse(words: Sequence[str]) -> T:
        (arguments,) = parse_arguments(name, (kind,), words)
        return cast(T, arguments)

    return parse


def given_values(name: str, classes: Sequence[Any], words: Sequence[str]) -> dict[str, Any]:
    """The fields that `words` set, of those that `parse_arguments` takes, with their values as they were given."""
    parser = _parser(name, classes)
    flags, nulls = _flags(parser, name, classes, words)
    for action in parser._actions:
        action.default, action.required = SUPPRESS, False
    return {**vars(parser.parse_args(flags)), **dict.fromkeys(nulls)}


def _flags(parser: Parser, name: str, classes: Sequence[Any], words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words as flags alone, and the names that a settings file sets to null. All names are checked."""
    known, nulls = {action.dest: action for action in parser._actions}, []
    suffix = Path(words[0]).suffix if words else ""
    if suffix in SETTINGS_SUFFIXES or (suffix == ".json" and len(words) == 1):
        settings = read_settings(Path(words[0]))
        _check_names(name, settings, known, where=f"{words[0]}: ")
        given = {_key(word) for word in words[1:] if word.startswith("--")}
        settings = {key: value for key, value in settings.items() if _key(key) not in given}
        nulls = [key for key, value in settings.items() if value is None]
        flags = [word for key, value in settings.items() if value is not None for word in _as_flag(key, value)]
        flags += words[1:]
    else:
        flags = flagged_words(classes, words)
    _, unknown = parser.parse_known_args(flags)
    _check_names(name, [word for word in unknown if word.startswith("--")], known)
    if unknown:
        raise ValueError(f"expected flags or one settings file, found {unknown[0]!r} alone: put its flag before it.")
    return flags, nulls


def flagged_words(classes: Sequence[Any], words: Sequence[str]) -> list[str]:
    """Put the flag of its field before each leading word.

    Raises:
        ValueError: A field has a word and its flag.
    """
    left = list(words)
    flagged: list[str] = []
    for place in positional(classes):
        if not left or left[0].startswith("-"):
            break
        end = 1
        if str(place.type).startswith("list"):
            end = next((index for index, word in enumerate(left) if word.startswith("-")), len(left))
        flagged += [f"--{place.name}", *left[:end]]
        left = left[end:]
        if any(word.partition("=")[0] == f"--{place.name}" for word in left):
            raise ValueError(f"`{place.name}` is given twice: as the word {flagged[-1]!r} and as `--{place.name}`.")
    return flagged + left if not left or left[0].startswith("-") else [*left, *flagged]


def _parser(name: str, classes: Sequence[Any]) -> Parser:
    return Parser(name, [_filled(kind) for kind in classes], [place.name for place in positional(classes)])


def _filled(kind: Any) -> Any:
    """The dataclass that is filled: that of transformers' `Trainer` where a command names its flags."""
    if kind is not TrainingFlags:
        return kind
    from ..training.trainer_arguments import RecommenderTrainingArguments

    return RecommenderTrainingArguments


def _key(word: str) -> str:
    """The field that a flag, with or without its value, or a key of a settings file names."""
    return word.removeprefix("--").partition("=")[0].replace("-", "_")


def _as_flag(key: str, value: Any) -> list[str]:
    if isinstance(value, list):
        return [f"--{key}", *(_as_word(element) for element in value)]
    return [f"--{key}={_as_word(value)}"]


def _as_word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _check_names(name: str, found: Sequence[str] | dict[str, Any], known: dict[str, Any], where: str = "") -> None:
    for word in found:
        key = _key(word)
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"`hfrec {name} --help` lists them."
            raise ValueError(f"{where}unknown flag {word!r}. {hint}")
