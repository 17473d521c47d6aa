"""Owns what workers of torch's DataLoader leave to the process that forked them. Must not know what it is.

A forked child keeps the contents that buffers in files had at the fork. For that its parent has to copy them before its
next step, if the child still lives then, and the disk has to hold both. Whoever forks to save a checkpoint wants that.
Workers of a DataLoader live as long as an epoch and do not look at optimizers.
"""

from .torch_private import after_fork, process_target


def leave_in_workers(owner, leave):
    """Calls leave(owner) in each worker that is forked from now on, as long as `owner` lives."""
    after_fork(owner, lambda owner: leave(owner) if _is_worker() else None)


def _is_worker():
    return getattr(process_target(), "__module__", None) == "torch.utils.data._utils.worker"
