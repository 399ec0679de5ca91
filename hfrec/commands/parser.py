"""An `argparse` parser from the dataclasses of a command, by the rules of transformers' `HfArgumentParser`.

`HfArgumentParser` itself takes a second to import and needs transformers, which a service of an exported model lacks;
`tests/commands/test_parser.py` holds the two together.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, Field, fields
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

# Arguments of functions whose flags have other names.
OTHER_NAMES = {
    "alpha": ("l2sp_alpha",),
    "beta": ("l2sp_beta",),
    "decay": ("layerwise_lr_decay",),
    "every": ("unfreeze_every_steps",),
    "buffer_size": ("shuffle_buffer_size",),
    "model": ("model_name_or_path",),
    "source": ("train_file", "test_file", "history_file"),
}


PATHS = ("_file", "_dir", "_path")  # how flags of files and folders end


class Parser(ArgumentParser):
    """Flags of dataclasses.

    Args:
        name: Subcommand, for the refusals.
        classes: The dataclasses.
        words: Names of the fields that words before all flags stand for, told where one is missing.
    """

    def __init__(self, name: str, classes: Sequence[Any], words: Sequence[str]) -> None:
        super().__init__(prog=f"hfrec {name}", allow_abbrev=False, add_help=False)
        self.classes, self.words = classes, words
        for kind in classes:
            hints = get_type_hints(kind)
            for place in fields(kind):
                if place.init:
                    add_flag(self, place, plain_type(hints[place.name]))

    def error(self, message: str) -> NoReturn:
        """One line in place of the usage of a hundred flags and an exit."""
        hint = ""
        if self.words and ("required" in message or "expected true or false" in message):
            hint = f" {' '.join(self.words).upper()} may stand before all flags, in the place of their own."
        raise ValueError(f"{message}.{hint} `{self.prog} --help` lists the flags.")

    def fill(self, flags: Sequence[str]) -> tuple[Any, ...]:
        """One instance of each dataclass."""
        found = vars(self.parse_args(flags))
        try:
            return tuple(kind(**{p.name: found[p.name] for p in fields(kind) if p.init}) for kind in self.classes)
        except ValueError as error:
            raise ValueError(as_flags(str(error), found)) from error


def as_flags(text: str, names: Collection[str]) -> str:
    """A message of a function in the words of its command: `top_k` is `--top_k` there.

    Example:
        >>> as_flags("`top_k` must be above 0; `tokenizer` is fine", ["top_k"])
        '`--top_k` must be above 0; `tokenizer` is fine'
    """

    def flag(found: re.Match[str]) -> str:
        ways = [name for name in (found[1], *OTHER_NAMES.get(found[1], ())) if name in names]
        return f"`--{ways[0]}" if ways else found[0]

    return re.sub(r"`(\w+)(?=[` ])", flag, text)


def plain_type(hint: Any) -> Any:
    """The one type that a flag is read as; None is not written, and text stands for what is no plain value.

    Example:
        >>> plain_type(int | None), plain_type(dict | str | None), plain_type(list[str] | None)
        (<class 'int'>, <class 'str'>, list[str])
    """
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    if bool in kinds:
        return bool
    if len(kinds) > 1 and len(kinds) < len(get_args(hint)):
        return str if str in kinds else kinds[0]
    return next((kind for kind in kinds if kind is not str), str)


def add_flag(parser: ArgumentParser, place: Field[Any], kind: Any) -> None:
    """Add the flag of a field, and `--no_NAME` of one that is on."""
    names = [f"--{place.name}", *([f"--{place.name.replace('_', '-')}"] if "_" in place.name else [])]
    settings: dict[str, Any] = {}
    if place.default is not MISSING:
        # The text that a list of transformers defaults to would be read as one of its elements.
        settings["default"] = None if get_origin(kind) is list else place.default
    elif place.default_factory is not MISSING:
        settings["default"] = place.default_factory()
    elif kind is not bool:
        settings["required"] = True
    choices = allowed_values(kind)
    if choices:
        settings |= {"choices": choices, "type": chosen_from(choices)}
    elif kind is bool:
        settings["type"] = as_bool
        if settings.get("default", False) is not None:
            settings |= {"default": settings.get("default", False), "nargs": "?", "const": True}
    elif get_origin(kind) is list:
        settings |= {"type": read_as(place.name, get_args(kind)[0]), "nargs": "+"}
    else:
        settings["type"] = read_as(place.name, kind)
    parser.add_argument(*names, **settings)
    if kind is bool and place.default is True:
        off = (f"--no_{place.name}", f"--no-{place.name.replace('_', '-')}")
        parser.add_argument(*off, action="store_false", dest=place.name, default=False)


def read_as(name: str, kind: Any) -> Any:
    """How the text of a flag is read; a file or folder must have a name, which an unset variable of a shell has not."""
    return named_path if kind is str and name.endswith(PATHS) else kind


def named_path(text: str) -> str:
    """A path as it is."""
    if not text.strip():
        raise ArgumentTypeError("expected a path, found an empty text, which would be the folder that you are in")
    return text


def allowed_values(kind: Any) -> list[Any]:
    """The values of a `Literal` or an `Enum`; none for other types."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [member.value for member in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []


def chosen_from(choices: list[Any]) -> Callable[[str], Any]:
    """Text to the value that it stands for."""
    values = {str(choice): choice for choice in choices}
    return lambda text: values.get(text, text)


def as_bool(value: str) -> bool:
    """`true`, `yes`, `t`, `y` and `1`, and their opposites."""
    if value.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if value.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise ArgumentTypeError(f"expected true or false, found {value!r}")
