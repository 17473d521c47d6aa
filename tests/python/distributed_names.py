"""Owns where this torch has the names of sharding: public since torch 2.5 (DTensors) and 2.6 (FSDP2). Must not know any
law.
"""

try:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
except ImportError:
    from torch.distributed._tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

try:
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
except ImportError:
    from torch.distributed._composable.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

__all__ = (
    "CPUOffloadPolicy",
    "DTensor",
    "MixedPrecisionPolicy",
    "Partial",
    "Replicate",
    "Shard",
    "distribute_tensor",
    "fully_shard",
)
