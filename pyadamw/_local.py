"""Owns what a parameter is in this process: the local tensor and its place in the global one. Must not know of moments.

Today every parameter is whole. Sharded parameters (DTensor) enter here, and nowhere else.
"""

import math
from typing import NamedTuple

import torch


class Local(NamedTuple):
    tensor: torch.Tensor  # what is stepped here
    numel: int  # elements of the global tensor: decides between 8 and 32 bits
    row_length: int  # elements of one row of dimension 0 of the local tensor, as in adamw_tensor.row_length
    global_offset: int  # index of the first local element in the global tensor


def local_view(param):
    """What of `param` lives in this process."""
    shape, numel = param.shape, param.numel()
    return Local(param, numel, math.prod(shape[1:]) if len(shape) > 1 else numel, 0)


def local_gradient(grad):
    """The part of a gradient that belongs to local_view() of its parameter."""
    return grad
