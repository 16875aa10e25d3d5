"""`hanol` under FSDP2 on CPU: accelerate shards on accelerators only, FSDP2 itself with gloo too.

Run by `accelerate launch` from a test; the arguments are those of `hanol`.
"""

import sys
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from hanol.cli import main
from hanol.training import MuonAdamW

initialise, step = AcceleratorState.__init__, MuonAdamW.step


def shard_on_cpu(
    self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any
) -> None:
    initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin
    if self.__dict__.get("fsdp_plugin") is not None:
        self.distributed_type = DistributedType.FSDP


def step_sharded(self: MuonAdamW, closure: Any = None) -> float | None:
    placements = {str(p.placements) for group in self.param_groups for p in group["params"]}
    sys.stderr.write(f"sharded {placements}\n")
    return step(self, closure)


AcceleratorState.__init__ = shard_on_cpu
MuonAdamW.step = step_sharded
main()
