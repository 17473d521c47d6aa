"""Owns what is different in a process that was forked. Must not know what a step does.

The threads of OpenMP are not forked with their process: a child that asks for them waits for ever if its parent had
some. There one thread steps, and the results are the same.
"""

import os

import torch


class _Forks:
    threads_are_gone = False
    has_threads = False  # of this process, while it is forked


def _before():
    try:
        _Forks.has_threads = len(os.listdir("/proc/self/task")) > 1
    except OSError:
        _Forks.has_threads = True


def _in_child():
    _Forks.threads_are_gone = _Forks.threads_are_gone or _Forks.has_threads


os.register_at_fork(before=_before, after_in_child=_in_child)


def threads_to_use():
    return 1 if _Forks.threads_are_gone else torch.get_num_threads()
