"""Owns where the shards of a DTensor begin and end, in this process and in all others. Must not know their content.

Every process must come to the same decisions, so these are made from the pieces of all.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from .._native.torch_private import STRIDED_SHARD

Piece = tuple[int, int]  # first index and the one after the last


def chunks(piece: Piece, count: int) -> list[Piece]:
    """A piece cut into `count` pieces, as torch.chunk() does it: of equal length, but the last may be shorter."""
    begin, end = piece
    length = -(-(end - begin) // count)
    starts = [min(begin + i * length, end) for i in range(count + 1)]
    return list(pairwise(starts))


class Cuts(NamedTuple):
    """How a tensor is cut."""

    pieces: dict[int, list[Piece]]  # of each dimension that is cut, the pieces of all processes, in order
    mine: list[Piece]  # of each dimension, this process's
    counts: dict[int, list[int]]  # of each dimension that is cut, into how many pieces, one cut after the other

    @property
    def dims(self) -> set[int]:
        return set(self.pieces)

    @classmethod
    def of(cls, param: Any) -> Cuts | None:
        """The cuts of a DTensor; None if its shards are not contiguous, or are of an unknown kind."""
        mesh, coordinate = param.device_mesh, param.device_mesh.get_coordinate()
        if coordinate is None:  # this process has none of it
            coordinate = [0] * mesh.ndim
        mine = [(0, size) for size in param.shape]
        pieces, counts = {}, {}
        for dim in sorted({placement.dim for placement in param.placements if not placement.is_replicate()}):
            order = _order(param.placements, [mesh.size(i) for i in range(mesh.ndim)], dim, param.shape[dim])
            if order is None:
                return None
            pieces[dim], counts[dim] = [mine[dim]], [mesh.size(i) for i in order]
            for i in order:
                mine[dim] = chunks(mine[dim], mesh.size(i))[coordinate[i]]
                pieces[dim] = [part for piece in pieces[dim] for part in chunks(piece, mesh.size(i))]
        return cls(pieces, mine, counts)

    def scaled(self, dim: int, size: int) -> list[Piece]:
        """The pieces of a tensor with another size in this dimension, which is cut in the same way."""
        pieces = [(0, size)]
        for count in self.counts[dim]:
            pieces = [part for piece in pieces for part in chunks(piece, count)]
        return pieces


def _order(placements: Any, sizes: Any, dim: Any, length: int) -> Any:
    """The dimensions of a mesh in the order in which they cut a dimension of a tensor."""
    plain, strided = [], []
    for i, placement in enumerate(placements):
        if placement.is_replicate() or placement.dim != dim:
            continue
        kind = type(placement).__name__
        if kind == "Shard":
            plain.append(i)
        elif kind == STRIDED_SHARD:
            strided.append(i)
        else:
            return None
    if not strided:
        return plain
    # FSDP over tensor parallelism: the mesh has FSDP first, but it cuts what tensor parallelism has left.
    after, before = 1, 1
    for i in plain:
        after, before = (after * sizes[i], before) if i > strided[0] else (after, before * sizes[i])
    split = getattr(placements[strided[0]], "split_factor", None)
    even = length % (after * sizes[strided[0]]) == 0
    return [*plain, *strided] if len(strided) == 1 and before == 1 and split == after and even else None
