"""Owns finding the gradients of a step and writing their addresses into the row table. Must not know what else a plan
checks.
"""

from __future__ import annotations

from typing import Any

import torch

from .._native.inspect_tensors import Described, DescribedGradients, finds_gradients
from .._native.memory import address, plain
from .._native.torch_private import local_tensor
from .._state.sharding import inner, is_sharded, local_gradient, own_part


class Gradients:
    """The gradients of one step for the rows of a plan, held from take() to release()."""

    def __init__(self, rows: Any, params: list[torch.Tensor], column: Any, sharded: bool) -> None:
        """`params`: the parameters of the rows. `column`: the column of the table for the addresses of gradients."""
        self.rows, self.column, self.sharded = rows, column, sharded
        self.shapes, self.dtypes = [row.local.shape for row in rows], [row.grad_dtype for row in rows]
        self.present: list[int] | None = None  # the rows that have a gradient; None: all rows
        self._held: list[Any] | None = None
        self._placed: dict[int, Any] = {}  # {row: its gradient, placed as the parameter}, of those that are gathered
        self._shards: list[torch.Tensor] = []
        # Gradients that processes gather during the step do not exist yet.
        described = Described(column)
        locals_ = list(map(inner, params))
        known = not any(row.local.whole for row in rows) and described.read(locals_)
        column[:] = 0
        self._forms = described.gradient_forms(self.dtypes) if known else None
        self._of_params = known and not sharded and finds_gradients(params)
        self._described: Any = DescribedGradients(column) if self._of_params else described

    def take(self, params: list[torch.Tensor]) -> bool:
        """Returns False, without side effects, if a gradient's shape or dtype differs from the rows."""
        self.present = None
        if self._of_params:
            if self._are_known(params):
                return True
            self._described.release()
            return self._take_one_by_one([param.grad for param in params])
        grads = [param.grad for param in params]
        if self.sharded:
            triples = zip(grads, params, self.rows, strict=True)
            # The step gathers gradients later: here, processes may still take different paths.
            grads = [g if g is None or row.local.whole else local_gradient(g, p) for g, p, row in triples]
        if self._forms and self._are_known(grads):
            self._held = grads
            return True
        return self._take_one_by_one(grads)

    def _are_known(self, tensors: Any) -> Any:
        return self._described.read(tensors) and self._described.forms == self._forms

    def _take_one_by_one(self, grads: Any) -> bool:
        """The slow way: if some gradients are missing, not contiguous, cannot be described, or are wrong."""
        shapes, dtypes = self.shapes, self.dtypes
        if any(grad is None for grad in grads):
            self.present = [i for i, grad in enumerate(grads) if grad is not None]
            grads = [grads[i] for i in self.present]
            shapes, dtypes = [shapes[i] for i in self.present], [dtypes[i] for i in self.present]
        if [grad.shape for grad in grads] != shapes or [grad.dtype for grad in grads] != dtypes:
            return False
        numbers = range(len(self.rows)) if self.present is None else self.present
        of_rows = [self.rows[i].local for i in numbers]
        if any(grad.device != local.device for grad, local in zip(grads, of_rows, strict=True)):
            return False
        if any(grad.layout != torch.strided for grad in grads):  # rows.py says so
            return False
        grads = [g if local.whole else plain(inner(g)) for g, local in zip(grads, of_rows, strict=True)]
        self._held = grads
        self.column[slice(None) if self.present is None else self.present] = list(map(address, grads))
        return True

    def of_these(self, rows: Any) -> Any:
        """The rows among `rows`, a list of numbers, that have a gradient, in order."""
        return rows if self.present is None else sorted(set(rows).intersection(self.present))

    def shard(self, i: int, param: torch.Tensor) -> torch.Tensor:
        """The part that this process has of the gradient of row `i`, which processes gather during the step. It is held
        until release()."""
        grad: Any = param.grad
        if not is_sharded(grad):
            part = own_part(grad.detach(), param)
        else:
            if grad.placements != param.placements:  # type: ignore[attr-defined]
                grad = self._placed[i] = grad.detach().redistribute(placements=param.placements)  # type: ignore[attr-defined]
            part = local_tensor(grad)
        self._shards.append(plain(part))
        return self._shards[-1]

    def gather(self, i: int, param: torch.Tensor) -> Any:
        """Gathers the whole gradient of row `i` from all processes. The caller must hold the result."""
        grad = plain(local_gradient(self._placed.pop(i, param.grad), whole=True))
        self.column[i] = address(grad)
        return grad

    def release(self) -> None:
        self._held = None
        if self._shards:
            self._shards, self._placed = [], {}
        if self._of_params:
            self._described.release()
