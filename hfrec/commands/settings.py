"""Settings files, YAML or JSON: names of flags with their values, as they stand there."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def read_settings(path: Path) -> dict[str, Any]:
    """The values of a settings file by the names of their flags.

    Numbers and dates of YAML are the text that stands there, which the flag reads as it reads a word of the shell: to
    YAML, `010` is 8 and `1:30` is 90.

    Args:
        path: `.json`, `.yaml` or `.yml`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no mapping, not readable, names a flag twice, or has an alias.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no settings file at {path}: check the path.")
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        settings, names = (_of_json if path.suffix == ".json" else _of_yaml)(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not readable as {path.suffix[1:]}: {error}. Repair the file.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: expected names of flags with their values, found a {type(settings).__name__}.")
    twice = [name for name, number in Counter(name.replace("-", "_") for name in names).items() if number > 1]
    if twice:
        raise ValueError(f"{path}: found `{twice[0]}` twice: leave one of them out.")
    return {str(key): value for key, value in settings.items()}


def _of_json(text: str) -> tuple[Any, list[str]]:
    """The content, and the names at its top as often as they stand there."""
    content = json.loads(text, object_pairs_hook=_Pairs)
    return _plain(content), [name for name, _ in content.pairs] if isinstance(content, _Pairs) else []


class _Pairs:
    """An object of JSON before a name that stands there twice is lost."""

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        self.pairs = list(pairs)


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {name: _plain(one) for name, one in value.pairs}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _of_yaml(text: str) -> tuple[Any, list[str]]:
    """As `_of_json`; numbers, dates and truth values are texts but inside a mapping of a flag.

    Raises:
        ValueError: There is an alias: a file of some lines may unfold to all memory.
    """
    import yaml

    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
        raise ValueError("expected plain values, found a YAML alias (*name). Write the value out")
    settings, node = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    if not isinstance(settings, dict) or not isinstance(node, yaml.MappingNode):
        return settings, []
    written = {key.value: value for key, value in node.value}
    return (
        {key: _as_written(value, written.get(str(key))) for key, value in settings.items()},
        [str(key.value) for key, _ in node.value],
    )


def _as_written(value: Any, node: Any) -> Any:
    """The text of a value, or of each in a list; as it is what has none, and what no flag reads from its text."""
    if isinstance(value, list) and isinstance(node.value, list):
        return [_as_written(one, part) for one, part in zip(value, node.value, strict=True)]
    if node is None or value is None or isinstance(value, (str, list, dict)):
        return value
    text = str(node.value)
    kept = text.lower() in ("on", "off") or (isinstance(value, float) and not math.isfinite(value))
    return value if kept else text
