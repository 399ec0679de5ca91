"""Commands, one after the other, by processes that start once: `accelerate launch tests/commands_in_turn.py FILE`.

They are launched for sharded weights, and shard them for the command after `sharded_weights`. accelerate takes FSDP up
on GPUs only; this lifts that limit and nothing else, so that the rest is what runs there.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

FSDP = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(("FSDP_", "ACCELERATE_USE_FSDP"))}

from accelerate.state import AcceleratorState  # noqa: E402
from accelerate.utils import DistributedType  # noqa: E402

from hfrec.models import layers  # noqa: E402
from hfrec_command import main  # noqa: E402
from tests import sharded_catalogue  # noqa: E402

plain = AcceleratorState.__init__


def with_fsdp(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    plain(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin
    if "fsdp_plugin" in self.__dict__ and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.FSDP


def shard_weights() -> None:
    """From here on as the launcher was told."""
    assert FSDP["ACCELERATE_USE_FSDP"] == "true"
    os.environ.update(FSDP)
    AcceleratorState._reset_state()
    AcceleratorState.__init__ = with_fsdp


if __name__ == "__main__":
    layers.HIDDEN_SHARE = 0.0  # which inputs are hidden is drawn, as dropout is: two processes draw otherwise than one
    for words in json.loads(Path(sys.argv[1]).read_text()):
        if words[0] == "sharded_catalogue":
            sharded_catalogue.main(Path(words[1]))
        elif words[0] == "sharded_weights":
            shard_weights()
        elif code := main(words):
            sys.exit(code)
