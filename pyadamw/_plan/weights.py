"""Owns the list of a model's tensors, as far as they decide about bytes. Must not know where the list comes from, or
what the bytes are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from .._native.constants import DTYPE_NAMES, DTYPES


class Placed(NamedTuple):
    """How a DTensor lies in this process."""

    mesh: Any
    placements: tuple[Any, ...]
    local_shape: tuple[int, ...]


class Form(NamedTuple):
    """All that decides about the bytes of one tensor. (Models have many tensors, but few forms.)"""

    shape: tuple[int, ...]
    dtype: torch.dtype
    trains: bool = True  # False: it has neither gradient nor state
    sharded: bool = True  # whether FSDP2 cuts it
    placed: Placed | None = None  # None: it is not a DTensor

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


class Weight(NamedTuple):
    """A parameter or buffer of a model."""

    name: str
    form: Form
    unit: str = ""  # its gradient exists at the same time as those of its unit, if each is stepped as it comes
    shared: bool = False  # more than one module uses it: its gradient exists from the first of them to the last


class Model(NamedTuple):
    """What a source says of a model."""

    what: str  # for people
    weights: list[Weight]
    notes: list[str]
    has_shapes: bool = True  # False: only the number of parameters is known
    is_placed: bool = False  # it has DTensors


def module_unit(name: str) -> str:
    """The module that a parameter belongs to: the gradients of its own parameters come together."""
    return name.rpartition(".")[0]


def block_unit(name: str) -> str:
    """The block that a parameter belongs to, such as "model.layers.3"; "" for those outside of blocks.

    fully_shard() is usually called for each block and then for the model, and the gradients of a unit come together.
    """
    parts = name.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    return "" if number is None else ".".join(parts[: number + 1])


def cast(model: Model, dtype: torch.dtype | None) -> Model:
    """The model after model.to(dtype), which leaves tensors alone that are not floating; None: as it is."""
    if dtype is None:
        return model

    def with_dtype(weight: Weight) -> Weight:
        return (
            weight._replace(form=weight.form._replace(dtype=dtype)) if weight.form.dtype.is_floating_point else weight
        )

    return model._replace(weights=[with_dtype(weight) for weight in model.weights])


def check(weights: Sequence[Weight]) -> None:
    """Refuses weights that no optimizer here can step."""
    if not any(weight.form.trains and weight.form.numel for weight in weights):
        raise ValueError("the model has no parameters that train: none that is floating, and requires a gradient")
    for weight in weights:
        if weight.form.trains and weight.form.dtype not in DTYPES:
            dtype = str(weight.form.dtype).removeprefix("torch.")
            raise ValueError(
                f"{weight.name} is {dtype}, and parameters must be {DTYPE_NAMES}: name the dtype in which you train "
                "(dtype='bf16', on the command line --dtype bf16)"
            )
