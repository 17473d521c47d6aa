"""Owns writing state dicts for other optimizers. Must not know of steps or files.

All of it works on state dicts alone: {"state": {index: {name: tensor}}, "param_groups": [...]}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .._checks import shown
from .._native.constants import BLOCK8, FLOAT32, FORMAT_OF_BITS
from .._native.memory import address
from .._options.options import check_options, plain_betas
from . import earlier, flashoptim, formats
from .conform import conform, step_count
from .damage import check_no_nan
from .dynamic_maps import dynamic_map, encoded
from .foreign import bits_of, shape_of, translated
from .marks import FORMAT, FORMAT_KEY, check_format, without_marks
from .received import check_has_number, check_structure, naming
from .remainders import as_bytes, stored_bits


def _plain(entry: Any, where: str, number: int) -> Any:
    """The state of one parameter, from any optimizer, as 32-bit state on the CPU; and `entry` with today's keys if it
    has our codes of today.

    `number`: the format of its group.
    """
    shape = shape_of(without_marks(entry, where), where)
    spec = formats.Spec(shape, torch.device("cpu"), FLOAT32, False, formats.HISTORY in entry, None)
    entry, found = earlier.renamed(entry, spec, number, where)
    entry = earlier.in_numbers(entry, found, spec, where)
    numbers = translated(entry, shape.numel(), where)
    amsgrad = bool({"max_exp_avg_sq", formats.codes_of("max_exp_avg_sq")} & set(numbers))
    count = step_count(numbers.get("step"), where)
    step = torch.tensor(count, dtype=torch.float32, device="cpu")
    spec = spec._replace(amsgrad=amsgrad, remainder_bits=stored_bits(numbers.get(formats.REMAINDER), shape))
    state = conform(numbers, spec, where, received=True)
    return {"step": step, **state}, entry


def _group(group: Any, names: Any, more: Any) -> Any:
    kept = {name: group[name] for name in (*names, "params", "param_names") if name in group}
    return {**kept, **more}


# ---- one entry in each format, of the entry as it is and of _plain() -------------------------------------------------


def _torch_entry(_entry: Any, state: Any, _bits: Any, _where: Any) -> Any:
    return {key: value for key, value in state.items() if key not in (formats.HISTORY, formats.REMAINDER)}


def _torch_group(group: Any) -> Any:
    options = {"foreach": None, "capturable": False, "differentiable": False, "fused": None}
    defaults = {"amsgrad": False, "maximize": False, "decoupled_weight_decay": True, **options}
    kept = _group(group, ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize"), {})
    return {**defaults, **kept}


def _bitsandbytes_entry(_entry: Any, state: Any, bits: int, where: str) -> Any:
    if "max_exp_avg_sq" in state:
        raise ValueError(f"{where}: bitsandbytes does not support amsgrad state")
    result = {}
    for key, i, signed in (("exp_avg", 1, True), ("exp_avg_sq", 2, False)):
        if bits != 8:
            result[f"state{i}"] = state[key]
            continue
        codes, absmax = encoded(state[key], signed)
        result.update({f"state{i}": codes, f"qmap{i}": dynamic_map(signed), f"absmax{i}": absmax})
    return {"step": int(state["step"]), "__bnb_optimizer_quant_state__": result}


def _bitsandbytes_group(group: Any) -> Any:
    return _group(group, ("lr", "betas", "eps", "weight_decay"), {"alpha": 0.0, "t_alpha": None, "t_beta3": None})


def _own_entry(entry: Any, state: Any, bits: int, where: str) -> Any:
    amsgrad, clipping = "max_exp_avg_sq" in state, formats.HISTORY in state
    spec = formats.Spec(state["exp_avg"].shape, torch.device("cpu"), BLOCK8, amsgrad, clipping, None)
    spec = spec._replace(remainder_bits=stored_bits(state.get(formats.REMAINDER), spec.shape))
    if bits != 8:
        return {"step": state["step"], **conform(state, spec._replace(format=FORMAT_OF_BITS[bits]), where)}
    others = {key: value for key, value in entry.items() if key not in formats.KEYS}
    if formats.codes_of("exp_avg") not in entry:  # from another optimizer, or of an earlier format
        own = conform(state, spec, where)
        return {**(others if "exp_avg" in entry else {}), **own, "step": state["step"]}
    # It has our format already, block-wise or with one scale, and has been checked.
    own = {key: value.detach() for key, value in entry.items() if key in formats.PARTS}
    return {**others, **own, "step": state["step"]}


def _own_group(group: Any) -> Any:
    return {**group, FORMAT_KEY: FORMAT}


_WRITERS = {
    "torch": (_torch_entry, _torch_group),
    "bitsandbytes": (_bitsandbytes_entry, _bitsandbytes_group),
    "pyadamw": (_own_entry, _own_group),
}


def _apart(made: Any, source: Any) -> Any:
    """`made` without memory of `source`, because its owner may step it."""
    tensors = [value for value in source.values() if isinstance(value, torch.Tensor)]
    # Tensors of torchao consist of others, which no number is taken over from.
    taken = {value.untyped_storage().data_ptr() for value in tensors if address(value)}

    def own(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: own(inner) for key, inner in value.items()}
        shared = isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() in taken
        return value.clone() if shared else value

    return own(made)


def converted(
    state_dict: Any,
    to: str,
    progress: Any = iter,
    finite: bool = False,
    weights: Mapping[Any, torch.Tensor] | None = None,
) -> Any:
    """Converts a state dict that load_state_dict() can read to the format `to`: "torch", "bitsandbytes" or "pyadamw".

    The two share no memory. `progress` wraps the sequence of entries. `finite`: refuse moments with a NaN. `weights`:
    {key of an entry: the parameter}, for the master weights of FlashOptim. A ValueError names the parameter and the
    fault.
    """
    check_structure(state_dict)
    check_format(state_dict["param_groups"])
    groups = [_checked_group(group, f"group {number}") for number, group in enumerate(state_dict["param_groups"])]
    entry_of, group_of = _WRITERS[to]
    group_by_key = {key: group for group in groups for key in group["params"]}
    state = {}
    for key, entry in progress(state_dict["state"].items()):
        where = f"parameter {shown(key)}"
        with naming(where):
            group = group_by_key.get(key, {})
            known = _of_flashoptim(entry, key, group, to, weights or {}, where)
            number, bits = group.get(FORMAT_KEY, FORMAT), bits_of(entry) if isinstance(entry, dict) else 0
            state[key] = _converted_entry(known, entry_of, where, number, bits, finite)
    return {"state": state, "param_groups": [group_of(group) for group in groups]}


def _of_flashoptim(entry: Any, key: Any, group: Any, to: str, weights: Any, where: str) -> Any:
    """The entry with our keys, if it is FlashOptim's."""
    if not isinstance(entry, dict):
        return entry
    if to != "pyadamw":  # which has no place for master weights
        entry = {name: value for name, value in entry.items() if name != flashoptim.ERROR_BITS}
    return flashoptim.translated(entry, lambda: weights.get(key), group, where)


def _converted_entry(entry: Any, entry_of: Any, where: str, number: int, bits: int, finite: bool) -> Any:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: the state is {type(entry).__name__}: must be a dict of tensors")
    if not entry:
        return {}
    state, entry = _plain(entry, where, number)
    if finite:
        for key, value in state.items():
            check_no_nan(value, f"{where}: {key}")
    made = entry_of(entry, state, bits, where)
    return _apart({key: as_bytes(value) if key == formats.REMAINDER else value for key, value in made.items()}, entry)


def _checked_group(group: Any, where: str) -> Any:
    """The group, if it has all options that AdamW needs; else a ValueError."""
    missing = [name for name in ("lr", "betas", "eps", "weight_decay") if name not in group]
    if missing:
        raise ValueError(f"{where} of the state dict has no {' and no '.join(missing)}: it is not from an AdamW")
    with naming(where):
        check_options(group, f"{where}: ")
        check_has_number(group["lr"], f"{where}: lr")
    return {**group, "betas": plain_betas(group["betas"])}
