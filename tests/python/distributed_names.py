"""Owns where this torch has the names of sharding: public since torch 2.5 (DTensors) and 2.6 (FSDP2). Must not know any
law.
"""

import inspect

from versions import older

try:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
except ImportError:
    from torch.distributed._tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

try:
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
except ImportError:
    from torch.distributed._composable.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

# For distribute_tensor() of what every process has whole. Before torch 2.6 the first process sends it to the others.
WITHOUT_SOURCE = {"src_data_rank": None} if "src_data_rank" in inspect.signature(distribute_tensor).parameters else {}

# Without them, what FSDP2 and tensor parallelism shard together, torch 2.4 itself puts together in a wrong order.
HAS_STRIDED_SHARDS = not older("torch", "2.5")

__all__ = (
    "HAS_STRIDED_SHARDS",
    "WITHOUT_SOURCE",
    "CPUOffloadPolicy",
    "DTensor",
    "MixedPrecisionPolicy",
    "Partial",
    "Replicate",
    "Shard",
    "distribute_tensor",
    "fully_shard",
)
