"""Push a checkpoint to a hub as one commit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.files import check_seal
from ..evaluation.user_ranks import RANKS_FILE
from .errors import HubError, explain, push_command
from .model_card import PLACEHOLDER

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

# What a checkpoint is made of; anything else in the folder (optimiser, pickled arguments, logs) stays at home.
CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "items.parquet",
    "prior.json",
    "*.py",
    "README.md",
    "all_results.json",
    "refresh_report.json",
    "refresh_report.md",
    ".eval_results/*.yaml",
)
# Left by earlier pushes of other shapes or of the stock `Trainer`: a stale shard would be loaded, a pickle run, a prior
# that was removed at home mixed into the lists, and ranks of test users hold their ids.
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")
_STALE = (
    "refresh_report.*",
    "*.safetensors",
    "*.safetensors.index.json",
    *_PICKLES,
    "prior.json",
    ".eval_results/*.yaml",
    RANKS_FILE,
)


def push_to_hub(
    folder_or_model: str | os.PathLike[str] | Any,
    repo_id: str,
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    private: bool | None = None,
    create_pr: bool = False,
    token: str | None = None,
    commit_message: str | None = None,
    tag: str | None = None,
) -> CommitInfo:
    """Push weights, config, tokenizer, items, card, results and remote code as a single commit.

    The repository and the branch are made when they do not exist. Unchanged files are not sent again. A commit that
    somebody else makes during the upload is never overwritten. Weights of another shape, pickles, a prior and ranks of
    test users that lie in the repository alone are removed by the same commit.

    Args:
        folder_or_model: Folder of a checkpoint or of a PEFT adapter, or a model.
        repo_id: `namespace/name`.
        tokenizer: Pushed beside a model; a folder has its own.
        revision: Branch; `main` unless given.
        private: Whether a repository made here is private; the account's default unless given.
        create_pr: Open a pull request in place of a commit on the branch.
        token: Left out, the login of the machine or `HF_TOKEN`, which is where a token belongs.
        commit_message: Title of the commit.
        tag: Put on the commit; a name that the repository has already is refused before anything is sent.

    Returns:
        The commit: `oid`, `commit_url`, `pr_url`.

    Raises:
        ValueError: The folder is no checkpoint, its weights are pickled, or a model comes without its tokenizer.
        FileExistsError: The repository has the tag already.
        HubError: The hub refused or could not be reached. The folder is as it was, and the message holds the command
            that pushes it again.

    Example:
        >>> push_to_hub("outputs/run", "me/films", revision="v2")  # doctest: +SKIP
    """
    title = commit_message or "Upload checkpoint with hfrec"
    if isinstance(folder_or_model, (str, os.PathLike)):
        folder = Path(folder_or_model)
        files = checkpoint_files(folder)
        again = f"The checkpoint is whole in {folder}. Push it again: {push_command(folder, repo_id, revision)}"
        return _commit(files, repo_id, revision, title, private, create_pr, token, again, tag)
    if tokenizer is None and not _is_adapter(folder_or_model):
        raise ValueError("`tokenizer` must be given with a model, found None: without it nobody can load the items.")
    with tempfile.TemporaryDirectory() as draft:
        folder_or_model.save_pretrained(draft)
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)
        again = "Nothing was committed. Save the model in a folder and push that."
        files = checkpoint_files(Path(draft))
        return _commit(files, repo_id, revision, title, private, create_pr, token, again, tag)


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """Files of a checkpoint folder by their name in the repository.

    Raises:
        ValueError: Not a checkpoint: no folder, no config or no safetensors weights; or one that was damaged since.
    """
    if not folder.is_dir():
        raise ValueError(f"`folder_or_model`: expected the folder of a checkpoint, found no folder at {folder}.")
    files = {name: folder / name for name in checkpoint_names(folder)}
    _check_links(folder, files)
    check_seal(folder)
    adapter = "adapter_config.json" in files
    needed = {"adapter_config.json", "adapter_model.safetensors"} if adapter else {"config.json", "tokenizer.json"}
    missing = sorted(needed - set(files))
    if not any(name.endswith(".safetensors") for name in files):
        missing.append("*.safetensors (pickled weights are not pushed)")
    if missing:
        raise ValueError(f"`folder_or_model`: {folder} is no whole checkpoint: expected also {', '.join(missing)}.")
    return files


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a path matches a pattern of the same depth; `*` stays inside its folder."""
    return any(name.count("/") == pattern.count("/") and fnmatch(name, pattern) for pattern in patterns)


def _check_links(folder: Path, files: dict[str, Path]) -> None:
    """Refuse links out of the folder, but for those of a hub's cache, which is made of them."""
    inside = (folder.resolve(), folder.resolve().parent.parent / "blobs")
    for name, path in files.items():
        target = path.resolve()
        if not any(target.is_relative_to(place) for place in inside):
            raise ValueError(
                f"`folder_or_model`: {name} in {folder} is a link to {target}, outside it: copy the file there if it "
                "shall be published."
            )


def checkpoint_names(folder: Path) -> list[str]:
    """Names of the files in a folder that a checkpoint is made of; none where there is no folder."""
    inside = [*folder.glob("*"), *(folder / ".eval_results").glob("*")]
    names = (path.relative_to(folder).as_posix() for path in sorted(inside) if path.is_file())
    return [name for name in names if matches(name, CHECKPOINT_FILES)]


def _is_adapter(model: Any) -> bool:
    return bool(getattr(model, "peft_config", None))


def _commit(
    files: dict[str, Path],
    repo_id: str,
    revision: str | None,
    title: str,
    private: bool | None,
    create_pr: bool,
    token: str | None,
    again: str,
    tag: str | None,
) -> CommitInfo:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi(token=token, library_name="hfrec")
    try:
        repo_id, head, present = _target(api, repo_id, revision, private, create_pr)
        if tag is not None and tag in {known.name for known in api.list_repo_refs(repo_id).tags}:
            raise FileExistsError(f"`tag` {tag!r} is in {repo_id} already: choose another one. {again}")
        adds = [CommitOperationAdd(name, _content(name, path, repo_id)) for name, path in files.items()]
        stale = [name for name in present if name not in files and matches(name, _STALE)]
        commit = api.create_commit(
            repo_id=repo_id,
            operations=[*adds, *(CommitOperationDelete(path_in_repo=name) for name in stale)],
            commit_message=title,
            revision=revision,
            create_pr=create_pr,
            parent_commit=None if create_pr else head,
        )
        if tag is not None:
            api.create_tag(repo_id, tag=tag, revision=commit.oid)
        return commit
    except (HFValidationError, FileExistsError):
        raise  # a name that no hub takes, or that is taken: nothing was sent
    except Exception as error:  # each stage of an upload has errors of its own, down to the storage server's
        raise HubError(f"Could not push to {repo_id}: {explain(error)}. {again}") from None


def _content(name: str, path: Path, repo_id: str) -> str | bytes:
    """The file, or the card with the name under which readers will find the checkpoint."""
    if name != "README.md":
        return str(path)
    return path.read_bytes().replace(PLACEHOLDER.encode(), repo_id.encode())


def _target(
    api: HfApi, repo_id: str, revision: str | None, private: bool | None, create_pr: bool
) -> tuple[str, str | None, list[str]]:
    """Make repository and branch where they are missing; returns the full name, the newest commit and its files."""
    from huggingface_hub.errors import RepositoryNotFoundError

    if not create_pr:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not revision.startswith("refs/pr/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
    try:
        info = api.model_info(repo_id, revision=revision)
    except RepositoryNotFoundError:
        if not create_pr:
            raise
        raise ValueError(f"a pull request needs a repository, and {repo_id} is none") from None
    return repo_id, info.sha, [sibling.rfilename for sibling in info.siblings or []]
