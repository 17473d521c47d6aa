"""Owns what a model is: a module, a number of parameters, or a path, whatever is there. Must not know how files are
read, or what anything takes.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from .._checks import is_integer, shown
from .._native.cdef import BLOCK_SIZE
from .files import of_path
from .modules import of_module
from .quantities import looks_like_a_count, parameters_of
from .weights import Form, Model, Weight

NEEDS = "a torch.nn.Module, a number of parameters such as 7B or 350M, or the path of a model's files"


def read(model: Any) -> Model:
    """What is known of a model. ValueError if it is none; OSError if its files cannot be read."""
    if isinstance(model, torch.nn.Module):
        return of_module(model)
    if is_integer(model):
        return of_number(f"{model}", parameters_of(model))
    if not isinstance(model, (str, os.PathLike)):
        raise ValueError(f"model = {shown(model)}: must be {NEEDS}")
    path = os.fspath(model)
    if isinstance(path, str) and not os.path.lexists(path):
        if looks_like_a_count(path):
            return of_number(path.strip(), parameters_of(path))
        raise ValueError(f"{path}: no such file or folder, and no number of parameters such as 7B, 350M or 7e9")
    return of_path(os.fsdecode(path))


def of_number(what: str, count: int) -> Model:
    """One tensor whose rows are one block each, and what remains: no shape takes less state for its elements."""
    rows, rest = divmod(count, BLOCK_SIZE)
    shapes: dict[str, tuple[int, ...]] = {"rows": (rows, BLOCK_SIZE), "rest": (rest,)}
    weights = [Weight(name, Form(shape, torch.bfloat16)) for name, shape in shapes.items() if shape[0]]
    notes = [LEAST_SHAPES]
    return Model(what, weights, notes, has_shapes=False)


LEAST_SHAPES = "The shapes are those that take least. Those of real models add less than 1%."
