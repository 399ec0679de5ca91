"""A Space: the page of `hfrec app` for a pushed checkpoint, as a repository that a hub builds and runs."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import HubError, explain

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

PACKAGE = Path(__file__).resolve().parents[1]
_APP = '''"""The page of hfrec for a pushed checkpoint: what it recommends, and why."""

from hfrec.app.layout import build_page, launch
from hfrec.app.recommender import Recommender

MODEL = {model}
REVISION = {revision}  # the commit that this page was written for

page = build_page([Recommender.load(MODEL, revision=REVISION)], title={title})

if __name__ == "__main__":
    launch(page)
    page.block_thread()
'''
_README = """---
{front_matter}---

# {title}

What [{model}](https://huggingface.co/{model}) recommends after a history of titles, which of them carried each
recommendation, and a map of its items. Made with hfrec, whose code lies in `hfrec/`.

It runs on the free hardware. For a private model, give the Space a secret `HF_TOKEN` that may read it.
"""


def write_space(folder: Path, model_id: str, *, revision: str, title: str | None = None) -> None:
    """Write a complete Space: `README.md`, `app.py`, `requirements.txt` and the code of this package.

    The package goes along, so that the page runs on the very code that it was tried with; the requirements are the
    versions that are installed here.

    Args:
        folder: Where it is written; made when it does not exist.
        model_id: Checkpoint on the hub that the page loads.
        revision: Commit of it.
        title: Heading of the page; the name of the checkpoint when None.

    Raises:
        ImportError: Gradio, scikit-learn or this package is not installed, so that no versions are known.
    """
    name = " ".join((title or model_id.rsplit("/", 1)[-1]).split())
    front_matter, requirements = _versioned(model_id, name)
    folder.mkdir(parents=True, exist_ok=True)
    code = _APP.format(model=repr(model_id), revision=repr(revision), title=repr(name))
    readme = _README.format(front_matter=front_matter, title=name, model=model_id)
    texts = {"app.py": code, "README.md": readme, "requirements.txt": "\n".join([*requirements, ""])}
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    shutil.copytree(PACKAGE, folder / "hfrec", ignore=shutil.ignore_patterns("__pycache__", ".*"), dirs_exist_ok=True)


def check_space(space_id: str) -> None:
    """Refuse a Space that cannot be written or has no name that a hub takes, before its checkpoint is pushed.

    Raises:
        ImportError: As `write_space`.
        ValueError: The name.
    """
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is imported there

    validate_repo_id(space_id)
    _versioned(space_id, space_id)


def push_space(
    space_id: str,
    model_id: str,
    *,
    revision: str,
    title: str | None = None,
    private: bool | None = None,
    token: str | None = None,
) -> CommitInfo:
    """Push a Space for a checkpoint that is on the hub, as one commit.

    Args:
        space_id: `namespace/name` of the Space; made when it does not exist.
        model_id: As in `write_space`.
        revision: As in `write_space`.
        title: As in `write_space`.
        private: Whether a Space made here is private; the account's default unless given.
        token: Left out, the login of the machine or `HF_TOKEN`.

    Raises:
        ImportError: As `write_space`.
        HubError: The hub refused or could not be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi(token=token, library_name="hfrec")
    with tempfile.TemporaryDirectory() as draft:
        write_space(Path(draft), model_id, revision=revision, title=title)
        try:
            space_id = api.create_repo(
                space_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True
            ).repo_id
            commit: CommitInfo = api.upload_folder(
                repo_id=space_id,
                folder_path=draft,
                repo_type="space",
                commit_message=f"Page for {model_id} at {revision[:8]}",
                delete_patterns="hfrec/*",  # modules of an older version
            )
        except HFValidationError:
            raise  # a name that no hub takes: nothing was asked
        except Exception as error:  # each stage of an upload has errors of its own
            raise HubError(
                f"Could not push the Space {space_id}: {explain(error)}. The checkpoint is at {model_id}; the same "
                "command pushes what is missing."
            ) from None
    return commit


def _versioned(model_id: str, title: str) -> tuple[str, list[str]]:
    """The front matter and the requirements, which name the installed versions."""
    try:
        return _front_matter(model_id, title), _requirements()
    except PackageNotFoundError as error:
        raise ImportError(
            f"a Space is written with the installed versions: pip install 'hfrec[app]' ({error})."
        ) from error


def _front_matter(model_id: str, title: str) -> str:
    """What a hub reads to build the Space."""
    import yaml

    values: dict[str, Any] = {
        "title": title,
        "emoji": "🧭",
        "colorFrom": "indigo",
        "colorTo": "gray",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": "app.py",
        "models": [model_id],
        "tags": ["hfrec", "recommendation"],
    }
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _requirements() -> list[str]:
    """The package's own dependencies and scikit-learn, at the versions installed here; Gradio comes with the Space."""
    own: Sequence[str] = requires("hfrec") or []
    names = [re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0] for line in own if "extra ==" not in line]
    return [f"{name}=={version(name).partition('+')[0]}" for name in [*names, "scikit-learn"]]
