"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# The Trainer's own pushes leave out names that begin with an underscore.
LOCK_FILE = "_lock"
RUN_FILE = "_run.json"
STUDY_FILE = "study.db"
VALIDATION_FOLDER = "validation"  # of a run that is trained again on all rows
DRAFT_PREFIX = ".hfrec-draft-"  # of folders that are being written


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A draft beside `path` that takes its place at the end of the block, or goes away when the block fails.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, whole_file(Path(folder) / "new" / "a.txt") as draft:
        ...     size = draft.write_text("text")
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """A draft folder whose files move into `folder` at the end of the block, or go away when the block fails.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with whole_files(Path(folder) / "new") as draft:
        ...         size = (draft / "a.txt").write_text("text")
        ...     sorted(path.name for path in (Path(folder) / "new").iterdir())
        ['a.txt']
    """
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(dir=folder, prefix=DRAFT_PREFIX) as name:
            yield Path(name)
            for file in sorted(Path(name).iterdir()):
                os.replace(file, folder / file.name)
    except BaseException:
        if not was_there:
            shutil.rmtree(folder)
        raise


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file."""
    with whole_file(path) as draft:
        draft.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ValueError: It is damaged, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): copy or write it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: expected an object, found a {type(content).__name__}. Write it again.")
    return content


def check_new_folder(folder: Path) -> None:
    """Refuse an output folder that is a file or in use.

    Raises:
        ValueError: With what is there.
    """
    check_folder(folder)
    found = sorted({path.name for path in folder.iterdir()} - {LOCK_FILE})[:5] if folder.is_dir() else []
    if found:
        raise ValueError(
            f"`output_dir` {folder} is in use: expected a new or empty folder, found {', '.join(found)}. "
            "Choose another or remove it."
        )


def check_folder(folder: Path) -> None:
    """Refuse an output folder that is a file.

    Raises:
        ValueError: It is one.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`output_dir` {folder} is a file: name a folder.")
