"""What a pull wrote into a folder, so that the next one leaves nothing of it behind and touches nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..data.files import PULL_FILE, write_json
from .push import checkpoint_names

MAIN = "main"  # what a pull is of that names no revision


def make_room(folder: Path, repo_id: str, names: Iterable[str]) -> None:
    """Prepare a folder for the files of a revision: what an earlier pull wrote and the revision lacks goes.

    Until `finish_pull` nothing loads from the folder, which holds files of two revisions meanwhile.

    Args:
        folder: Folder of the pull, there or not.
        repo_id: What is pulled.
        names: Files of the revision.

    Raises:
        ValueError: The folder holds another repository, or files of a checkpoint that no pull wrote.
    """
    record, names = read_record(folder), set(names)
    check_repository(folder, repo_id)
    written = set(record.get("files", ()))
    foreign = sorted(set(checkpoint_names(folder)) - written)
    if foreign:
        raise ValueError(
            f"`output_dir` {folder} holds {', '.join(foreign[:5])}, which no pull of {repo_id} wrote: choose another "
            "folder, or remove them."
        )
    write_json(folder / PULL_FILE, {"repo_id": repo_id, "files": sorted(written | names), "whole": False})
    for name in written - names:
        (folder / name).unlink(missing_ok=True)


def finish_pull(folder: Path, repo_id: str, names: Iterable[str], revision: str | None) -> None:
    """Note that a folder holds exactly these files of a revision, and by which name it was asked for."""
    record = {"repo_id": repo_id, "revision": revision or MAIN, "files": sorted(names), "whole": True}
    write_json(folder / PULL_FILE, record)


def pulled_before(folder: Path, repo_id: str, revision: str | None) -> Path:
    """The folder itself where it holds a whole pull of this revision: no hub is asked, so that nothing can be fetched.

    Raises:
        ValueError: It holds none, or that of another revision.
    """
    record = read_record(folder)
    if not record.get("whole") or record.get("revision") != (revision or MAIN):
        found = f"a pull of {record.get('revision', 'unknown')}" if record else "no pull"
        raise ValueError(
            f"`output_dir` {folder} holds {found}, expected a whole one of {repo_id} at {revision or MAIN}: without a "
            "hub nothing is fetched into it. Leave it out to use the cache, or pull while the hub can be asked."
        )
    return folder


def check_repository(folder: Path, repo_id: str) -> None:
    """Refuse a folder that holds a pull of another repository.

    Raises:
        ValueError: With the repository that it holds.
    """
    found = read_record(folder).get("repo_id", repo_id)
    if found != repo_id:
        raise ValueError(f"`output_dir` {folder} holds a pull of {found}, not of {repo_id}: choose another folder.")


def read_record(folder: Path) -> dict[str, Any]:
    """What the last pull wrote; empty where none did.

    Raises:
        ValueError: The record is damaged.
    """
    path = folder / PULL_FILE
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        names = [*record["files"], record["repo_id"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): pull into another folder.") from error
    if not all(isinstance(name, str) and ".." not in name and not name.startswith("/") for name in names):
        raise ValueError(f"{path} names files outside its folder: pull into another folder.")
    return record  # type: ignore[no-any-return]
