"""Owns finding the gradients of a step and writing their addresses into the row table. Must not know what else a plan
looks at, or why.
"""

import torch

from ._describe import Described, DescribedGradients, finds_gradients
from ._local import inner, local_gradient
from ._watch import data_ptr, is_contiguous


class Gradients:
    """This step's gradients of the rows of a plan, held from take() to release()."""

    def __init__(self, rows, column, memory, sharded):
        """`column` of the table takes their addresses. `memory`: the Watch of what the rows step."""
        self.rows, self.column, self.sharded = rows, column, sharded
        self.params = [row.param for row in rows]
        self.shapes, self.dtypes = [row.local.shape for row in rows], [row.grad_dtype for row in rows]
        self.present = None  # the rows that have one, if not all do
        self._held = None
        # Those that processes gather in the step are not here yet.
        known = memory.known is not None and not any(row.local.whole for row in rows)
        self._forms = memory.described.gradient_forms(self.dtypes) if known else None
        self._of_params = known and not sharded and finds_gradients(self.params)
        self._described = (DescribedGradients if self._of_params else Described)(column)

    def take(self):
        """False if they are not what the rows say; nothing has been written then."""
        self.present = None
        if self._of_params:
            if self._are_known(self.params):
                return True
            self._described.release()
            return self._take_one_by_one([param.grad for param in self.params])
        grads = [param.grad for param in self.params]
        if self.sharded:
            pairs = zip(grads, self.rows, strict=True)
            # Those that are gathered are gathered in the step: here processes need not agree on what to do.
            grads = [g if g is None or row.local.whole else local_gradient(g, row.param) for g, row in pairs]
        if self._forms and self._are_known(grads):
            self._held = grads
            return True
        return self._take_one_by_one(grads)

    def _are_known(self, tensors):
        return self._described.read(tensors) and self._described.forms == self._forms

    def _take_one_by_one(self, grads):
        """Of some parameters only, not contiguous, not described, or wrong."""
        shapes, dtypes = self.shapes, self.dtypes
        if any(grad is None for grad in grads):
            self.present = [i for i, grad in enumerate(grads) if grad is not None]
            grads = [grads[i] for i in self.present]
            shapes, dtypes = [shapes[i] for i in self.present], [dtypes[i] for i in self.present]
        if [grad.shape for grad in grads] != shapes or [grad.dtype for grad in grads] != dtypes:
            return False
        if any(grad.layout != torch.strided for grad in grads):  # _rows.py says so
            return False
        grads = list(map(inner, grads))
        if not all(map(is_contiguous, grads)):
            grads = [grad.contiguous() for grad in grads]
        self._held = grads
        self.column[slice(None) if self.present is None else self.present] = list(map(data_ptr, grads))
        return True

    def of_these(self, rows):
        """Those of `rows`, a list of numbers, that have one, in order."""
        return rows if self.present is None else sorted(set(rows).intersection(self.present))

    def gather(self, i):
        """The gradient of row `i`, of which the other processes have the rest."""
        grad = local_gradient(self.params[i].grad, whole=True).contiguous()
        self.column[i] = grad.data_ptr()
        self._held.append(grad)

    def release(self):
        self._held = None
        if self._of_params:
            self._described.release()
