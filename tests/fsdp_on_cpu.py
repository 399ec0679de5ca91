"""`hfrec` with sharded weights on a CPU: `accelerate launch --config_file fsdp2.yaml tests/fsdp_on_cpu.py pretrain …`.

accelerate takes FSDP up on GPUs only; this lifts that limit and nothing else, so that the rest is what runs there.
"""

import sys
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from hfrec_command import main

plain = AcceleratorState.__init__


def with_fsdp(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    plain(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin
    if "fsdp_plugin" in self.__dict__ and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.FSDP


if __name__ == "__main__":
    AcceleratorState.__init__ = with_fsdp
    sys.exit(main(sys.argv[1:]))
