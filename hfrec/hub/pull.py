"""Pull a checkpoint from a hub, pinned and checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..data.files import check_folder, sha256_of
from .errors import HubError, explain
from .pulled import check_repository, finish_pull, make_room, pulled_before
from .push import CHECKPOINT_FILES, checkpoint_names, matches

if TYPE_CHECKING:
    from huggingface_hub import RepoFile


def pull_from_hub(
    repo_id: str,
    *,
    revision: str | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    verify: bool = False,
    local_files_only: bool = False,
    force_download: bool = False,
    token: str | None = None,
) -> Path:
    """Download the files of a checkpoint, and nothing else that lies in the repository.

    The folder then holds exactly the revision: files of an earlier pull that it lacks are removed.

    Args:
        repo_id: `namespace/name`.
        revision: Branch, tag or commit; `main` unless given.
        output_dir: New folder for the files, or that of an earlier pull of the same repository; the cache of the hub's
            client unless given.
        verify: Compare every file with the checksum that the hub has of it: a download checks only sizes.
        local_files_only: Ask no hub; the cache must have the revision, or `output_dir` an earlier pull of it.
        force_download: Download again what is there already, such as a file found damaged.
        token: Left out, the login of the machine or `HF_TOKEN`, which is where a token belongs.

    Returns:
        The folder, which `from_pretrained` and every command of hfrec takes.

    Raises:
        ValueError: The repository holds no checkpoint, its weights are pickled, or a file name leaves the folder.
            `output_dir` holds another repository or files of a checkpoint that no pull wrote.
        HubError: The hub refused, could not be reached, a file differs from its checksum, somebody pushed meanwhile,
            or the folder holds files that the revision lacks.

    Example:
        >>> pull_from_hub("me/films", revision="v2", verify=True)  # doctest: +SKIP
    """
    from huggingface_hub import constants, snapshot_download

    local_files_only = local_files_only or constants.HF_HUB_OFFLINE
    if local_files_only and verify:
        raise ValueError("`verify` compares with the hub, which `local_files_only` and HF_HUB_OFFLINE must not ask.")
    remote = {} if local_files_only else _checkpoint_of(repo_id, revision, token)
    if output_dir is not None:
        check_folder(Path(output_dir))
        # A hub that goes away between two requests leaves the client with the files of the earlier pull.
        verify |= bool(remote) and Path(output_dir).exists()
        check_repository(Path(output_dir), repo_id)
        if not remote:
            return pulled_before(Path(output_dir), repo_id, revision)
        make_room(Path(output_dir), repo_id, remote)
    try:
        folder = Path(
            snapshot_download(
                repo_id,
                revision=revision,
                local_dir=None if output_dir is None else Path(output_dir),
                allow_patterns=sorted(remote) or list(CHECKPOINT_FILES),
                ignore_patterns="[!.]*/*",  # to this matcher, `*` reaches into folders
                local_files_only=local_files_only,
                force_download=force_download,
                token=token,
            )
        )
    except Exception as error:  # the hub's, the storage server's and the connection's errors share no parent
        raise HubError(f"Could not pull {repo_id}: {explain(error)}.") from None
    added = sorted(set(checkpoint_names(folder)) - set(remote)) if remote else []
    if added:
        raise HubError(
            f"{folder} holds {', '.join(added)}, which {repo_id} lacks at this revision: remove them, or what loads "
            "is not what was pulled."
        )
    if verify:
        damaged = differing_files(folder, remote.values())
        if damaged:
            for name in damaged:
                _set_aside(folder / name)
            raise HubError(
                f"{', '.join(damaged)} in {folder} differ from the checksums of {repo_id} and were renamed to "
                "*.damaged: pull again with `force_download`. When it stays, the upload is damaged."
            )
    if remote and _contents(_checkpoint_of(repo_id, revision, token)) != _contents(remote):
        raise HubError(f"Somebody pushed to {repo_id} during the pull, which may be of two commits: pull again.")
    if output_dir is not None:
        finish_pull(folder, repo_id, remote, revision)
    return folder


def _set_aside(path: Path) -> None:
    """Take a damaged file its name, so that nothing loads it; in the cache the name is a link to the content."""
    if path.is_symlink():
        content = path.resolve()
        path.unlink()
        path = content
    if path.is_file():
        path.rename(path.with_name(f"{path.name}.damaged"))


def differing_files(folder: Path, expected: Iterable[RepoFile]) -> list[str]:
    """Names of the files that are missing or whose content is not what the hub lists.

    Large files are compared by sha256, others by the git checksum, which is all that the hub has of them.
    """
    return [file.path for file in expected if _checksum(folder / file.path, file) != _listed(file)]


def _contents(files: dict[str, RepoFile]) -> dict[str, str]:
    return {name: _listed(file) for name, file in files.items()}


def _listed(file: RepoFile) -> str:
    return file.blob_id if file.lfs is None else file.lfs.sha256


def _checksum(path: Path, file: RepoFile) -> str | None:
    if not path.is_file():
        return None
    if file.lfs is not None:
        return sha256_of(path)
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _checkpoint_of(repo_id: str, revision: str | None, token: str | None) -> dict[str, RepoFile]:
    """The checkpoint files of a revision, as the hub lists them."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(token=token, library_name="hfrec")
    try:
        entries = list(api.list_repo_tree(repo_id, revision=revision, recursive=True))
    except Exception as error:  # as in `pull_from_hub`
        raise HubError(f"Could not pull {repo_id}: {explain(error)}.") from None
    files = [entry for entry in entries if isinstance(entry, RepoFile)]
    check_names((file.path for file in files), repo_id)
    chosen = {file.path: file for file in files if matches(file.path, CHECKPOINT_FILES)}
    if not any(name.endswith(".safetensors") for name in chosen):
        found = ", ".join(sorted(file.path for file in files)[:8])
        raise ValueError(
            f"{repo_id} holds no safetensors weights, found {found}. Pickled weights run code when they are loaded and "
            "are refused: ask its author to save the model again."
        )
    return chosen


def check_names(names: Iterable[str], repo_id: str) -> None:
    """Refuse a repository with a file name that points outside its folder.

    Raises:
        ValueError: An absolute name, or one with `..` or a backslash.

    Example:
        >>> check_names(["config.json", "../evil.py"], "me/films")
        Traceback (most recent call last):
        ValueError: me/films holds the file name '../evil.py', which leaves its folder: do not use this repository.
    """
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
            raise ValueError(
                f"{repo_id} holds the file name {name!r}, which leaves its folder: do not use this repository."
            )
