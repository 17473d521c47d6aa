"""Owns adding sums of squares over processes: which parameters need it, and the collective calls. Must not know what
the squares are of, or how they are summed in one process.

A sharded parameter (DTensor) lies in pieces along some dimensions of its mesh, and in copies along the others. So its
sum is added along the dimensions of the pieces, one after the other, and copies count once. Parameters with the same
mesh and the same such dimensions are of one kind and share a sum. Each process group adds all sums that need it in one
call. All processes make the same calls in the same order, because the calls follow from the placements of all
parameters, and not from the gradients that a process has.
"""

from __future__ import annotations

from typing import Any

import torch

from .._state.sharding import is_sharded


def _kind(param: Any) -> Any:
    """What decides over which processes the squares of a parameter are added: () for none."""
    if not is_sharded(param):
        return ()
    mesh = param.device_mesh
    dims = tuple(d for d, p in enumerate(param.placements) if not p.is_replicate() and mesh.size(d) > 1)
    return (mesh, dims) if dims else ()


class Reduction:
    """The kinds of parameters, and the groups of processes that add up sums of each kind.

    `kinds`: the number of the kind of each parameter. `count`: the number of kinds.
    """

    def __init__(self, params: list[torch.Tensor], everywhere: Any) -> None:
        """`everywhere`: None, or a process group whose processes have different parameters, all of one optimizer."""
        numbers: dict[Any, int] = {} if params and everywhere is None else {(): 0}
        self.kinds = [numbers.setdefault(_kind(param), len(numbers)) for param in params]
        self.count = len(numbers)
        parts: dict[tuple[int, ...], _Part] = {}
        for (mesh, dims), number in ((kind, number) for kind, number in numbers.items() if kind):
            if mesh.get_coordinate() is None:
                raise ValueError(
                    f"max_grad_norm: a parameter is sharded over {mesh}, which this process does not belong to, so "
                    "that it cannot know the norm of all gradients: pass max_grad_norm=None, and clip before the step"
                )
            for dim in dims:
                _part_of(parts, mesh.get_group(dim), mesh.device_type).numbers.append(number)
        if everywhere is not None:
            _part_of(parts, everywhere, "").numbers.extend(range(self.count))
        self._parts = list(parts.values())

    def all_reduce(self, squares: torch.Tensor) -> None:
        """Adds up the sums of all kinds, a float64 tensor, over the processes."""
        for part in self._parts:
            part.all_reduce(squares)


def _part_of(parts: Any, group: Any, device_type: str) -> _Part:
    import torch.distributed as dist

    return parts.setdefault(tuple(dist.get_process_group_ranks(group)), _Part(group, device_type))


class _Part:
    """The sums that one process group adds up."""

    def __init__(self, group: Any, device_type: str) -> None:
        """`device_type`: that of the tensors that the group takes; "" if only its backend says so."""
        import torch.distributed as dist

        self._group, self.numbers = group, []  # type: ignore[var-annotated]
        self._device_type = device_type or ("cuda" if dist.get_backend(group) == "nccl" else "")
        self._index: Any = None

    def all_reduce(self, squares: torch.Tensor) -> None:
        import torch.distributed as dist

        if self._index is None:
            self._index = torch.tensor(self.numbers, dtype=torch.int64, device=squares.device)
            self._buffer = torch.empty(len(self.numbers), dtype=squares.dtype, device=squares.device)
        torch.index_select(squares, 0, self._index, out=self._buffer)
        # Gradients may lie on the CPU though the group is one of devices (FSDP2 with an offload policy).
        moved = self._buffer.to(self._device_type or squares.device.type)
        dist.all_reduce(moved, group=self._group)
        squares.index_copy_(0, self._index, moved.to(squares.device))
