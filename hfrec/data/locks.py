"""One process at a time writes a folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import logging

from .files import LOCK_FILE, RUN_FILE, check_folder, fault_point, finish_drafts

logger = logging.get_logger(__name__)


@contextmanager
def locked_folder(folder: Path | None) -> Iterator[None]:
    """Hold a folder for this process until the block ends; the system lets go of it when the process dies.

    The folder is made where it is missing, and taken away again when it stays empty. What a process that was killed
    left half-written in it is removed, what it was about to move to its place is moved. Of several processes of one
    run, the first holds it.

    Args:
        folder (`Path`): None for a command that writes none.

    Raises:
        ValueError: Another process holds it, or it is a file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as parent:
        ...     with locked_folder(Path(parent) / "run"):
        ...         (Path(parent) / "run").is_dir()
        ...     (Path(parent) / "run").exists()
        True
        False
    """
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    if folder is None or (several and os.environ.get("RANK", "0") != "0"):
        yield
        return
    check_folder(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    handle = _lock(folder)
    try:
        fault_point("locked")
        if names := finish_drafts(folder):
            logger.warning(f"{folder}: moved to its place what an interrupted command had written: {', '.join(names)}.")
        yield
    finally:
        if os.name == "nt":
            os.close(handle)  # an open file cannot be removed there
        (folder / LOCK_FILE).unlink(missing_ok=True)
        if [path.name for path in folder.glob("*")] == [RUN_FILE]:
            (folder / RUN_FILE).unlink()  # of a run without a checkpoint
        if os.name != "nt":
            os.close(handle)  # last, so that nobody holds the folder while it is tidied up
        for path in made:
            if not path.is_dir() or any(path.iterdir()):
                break
            path.rmdir()


def _lock(folder: Path) -> int:
    """An open and locked file in the folder."""
    path = folder / LOCK_FILE
    try:
        import fcntl
    except ImportError:  # Windows
        logger.warning(f"{folder} is not locked on this system: let no other process write it.")
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK):
                logger.warning(f"{folder} cannot be locked ({error}): let no other process write it.")
                return handle
            os.close(handle)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise ValueError(
                f"`output_dir` {folder} is being written by another process: wait for it or choose another folder."
            ) from error
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)  # its holder took the file away in between
