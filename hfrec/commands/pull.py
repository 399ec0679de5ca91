"""Pull a checkpoint from a hub, pinned and checked.

hfrec pull me/films films
hfrec pull me/films films --revision v2 --verify
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from .parsing import parse_into


@dataclass
class PullArguments:
    """What comes from where. The token is that of `hf auth login` or of HF_TOKEN, never a flag."""

    words: ClassVar[tuple[str, ...]] = ("repo_id", "output_dir")

    repo_id: str = field(metadata={"help": "namespace/name."})
    output_dir: str | None = field(default=None, metadata={"help": "Folder of the files; the cache unless given."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit; main unless given."})
    verify: bool = field(default=False, metadata={"help": "Compare every file with the hub's checksum."})
    local_files_only: bool = field(default=False, metadata={"help": "Ask no hub, read the cache."})
    force_download: bool = field(default=False, metadata={"help": "Download again what is there already."})


parse = parse_into("pull", PullArguments)


def main(arguments: PullArguments) -> Path:
    """Pull, and print the folder."""
    from ..hub.pull import pull_from_hub

    folder = pull_from_hub(
        arguments.repo_id,
        revision=arguments.revision,
        output_dir=arguments.output_dir,
        verify=arguments.verify,
        local_files_only=arguments.local_files_only,
        force_download=arguments.force_download,
    )
    print(folder)
    return folder
