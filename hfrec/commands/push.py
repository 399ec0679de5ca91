"""Push a checkpoint to a hub as one commit.

hfrec push out me/films --revision v2 --private
hfrec push out me/films --space me/films-demo
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from .parsing import parse_into


@dataclass
class PushArguments:
    """What goes where. The token is that of `hf auth login` or of HF_TOKEN, never a flag."""

    words: ClassVar[tuple[str, ...]] = ("folder", "repo_id")

    folder: str = field(metadata={"help": "Folder of the checkpoint."})
    repo_id: str = field(metadata={"help": "namespace/name; made when it does not exist."})
    revision: str | None = field(default=None, metadata={"help": "Branch; main unless given."})
    private: bool = field(default=False, metadata={"help": "Make the repository private, when it is made here."})
    create_pr: bool = field(default=False, metadata={"help": "Open a pull request in place of a commit."})
    license: str | None = field(
        default=None,
        metadata={"help": "Licence of the weights, written into the card of the folder."},
    )
    space: str | None = field(
        default=None, metadata={"help": "namespace/name of a Space that shows the checkpoint, pushed after it."}
    )
    commit_message: str | None = field(default=None, metadata={"help": "Title of the commit."})
    tag: str | None = field(default=None, metadata={"help": "Tag of the commit, such as the date."})


parse = parse_into("push", PushArguments)


def main(arguments: PushArguments) -> dict[str, Any]:
    """Push, and print where it went."""
    from ..hub.errors import HubError
    from ..hub.model_card import set_license
    from ..hub.push import push_to_hub

    if arguments.space is not None and arguments.create_pr:
        raise ValueError("`--space` shows what is on a branch: expected no `--create_pr` beside it.")
    if arguments.space is not None:
        from ..hub.space import check_space, push_space

        check_space(arguments.space)
    if arguments.license is not None:
        set_license(arguments.folder, arguments.license)
    commit = push_to_hub(
        arguments.folder,
        arguments.repo_id,
        revision=arguments.revision,
        private=arguments.private or None,
        create_pr=arguments.create_pr,
        commit_message=arguments.commit_message,
        tag=arguments.tag,
    )
    print(commit.pr_url or commit.commit_url)
    if arguments.space is not None:
        try:
            space = push_space(
                arguments.space, commit.repo_url.repo_id, revision=commit.oid, private=arguments.private or None
            )
        except HubError as error:
            raise HubError(f"{error}{' Leave out `--tag`, which is set.' if arguments.tag else ''}") from None
        print(space.commit_url)
    return {"commit": commit.oid, "url": commit.commit_url, "pull_request": commit.pr_url}
