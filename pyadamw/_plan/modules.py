"""Owns what a torch.nn.Module says of its tensors. Must not know of files, or of what the tensors take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .._native.memory import is_lazy
from .._native.torch_private import fsdp2_modules
from .._state.sharding import inner, is_sharded
from .weights import Form, Model, Placed, Weight, module_unit


def of_module(module: torch.nn.Module) -> Model:
    """The parameters of a module, each once, and its buffers."""
    names: dict[int, list[str]] = {}
    for name, param in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(param), []).append(name)
    units, weights = _fsdp2_units(module), []
    for name, param in module.named_parameters():
        unit = module_unit(name) if units is None else _unit_of(name, units)
        weights.append(Weight(name, _form(name, param), unit, units is None and len(names[id(param)]) > 1))
    buffers = [
        Weight(name, _form(name, buffer)._replace(trains=False, sharded=False))
        for name, buffer in module.named_buffers()
    ]
    notes = []
    if buffers:
        notes.append(f"{len(buffers)} buffers are counted as weights that do not train, whole in every process.")
    placed = any(weight.form.placed is not None for weight in weights)
    return Model(type(module).__name__, weights + buffers, notes, is_placed=placed)


def _form(name: str, tensor: Any) -> Form:
    if is_lazy(tensor):
        raise ValueError(f"{name} is not initialized yet: run the model once, on the meta device or on any other")
    if tensor.layout != torch.strided or tensor.is_nested:
        raise ValueError(f"{name} is not a dense tensor: the plan knows no other")
    shape, placed = tuple(tensor.shape), None
    if is_sharded(tensor):
        placed = Placed(tensor.device_mesh, tuple(tensor.placements), tuple(inner(tensor).shape))
    return Form(shape, tensor.dtype, tensor.requires_grad, len(shape) > 0, placed)


def _fsdp2_units(module: torch.nn.Module) -> list[str] | None:
    """The names of the modules that fully_shard() was called for; None if there is none."""
    classes = fsdp2_modules()
    found = [name for name, part in module.named_modules() if isinstance(part, classes)] if classes else []
    return found or None


def _unit_of(name: str, units: Sequence[str]) -> str:
    return max((unit for unit in units if not unit or name.startswith(f"{unit}.")), key=len, default="")
