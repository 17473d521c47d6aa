"""Owns loading: checking, converting and copying state that comes from a state_dict. Must not know of steps."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from .._checks import is_integer, shown
from .._native.memory import oddity
from .._options.names import keep_names
from .._options.options import OPTIONS, check_clipping, check_options, plain_betas
from .._options.overrides import Overrides
from ..paging import PageManager
from . import earlier, flashoptim, formats
from .conform import conform, step_count
from .damage import FLOATS
from .foreign import translated
from .marks import FORMAT, FORMAT_KEY, check_format, marked
from .received import check_copies, check_has_number, check_structure, naming, shown_name
from .remainders import as_bytes, stored_bits
from .sharding import inner, is_sharded, unwrapped
from .spec import describe, state_spec, stepped_view, wrapped_state

# The options about the memory and the width of state: this optimizer decides them, whatever a checkpoint says.
OURS = ("optim_bits", "min_8bit_size", "block_wise", "is_paged", "page_manager", "master_weight_bits")


# Options that only torch.optim.AdamW has: torch.distributed.checkpoint loads the state of one optimizer into another
# only if the second has all options of the first.
TORCHS = {"foreach": None, "differentiable": False, "fused": None, "decoupled_weight_decay": True}


class Target(NamedTuple):
    """What state is loaded into: an optimizer, as far as loading has to know it."""

    groups: Sequence[dict[str, Any]]
    states: dict[torch.Tensor, dict[str, Any]]
    pages: PageManager  # of groups that name none
    overrides: Overrides


class Hidden:
    """The state of one parameter, hidden from the base class."""

    def __init__(self, state: Any) -> None:
        self.state = state


def reveal(entry: Any) -> Any:
    return entry.state if isinstance(entry, Hidden) else entry


def aliased(state_dict: Any) -> Any:
    """`state_dict` with new dicts and tensor objects, which share the memory. All values in it can be stored."""

    def copied(entry: Any) -> Any:
        values = {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in entry.items()}
        if formats.REMAINDER in values:
            values[formats.REMAINDER] = as_bytes(values[formats.REMAINDER])
        return marked(values)

    state = {key: copied(entry) if isinstance(entry, dict) else entry for key, entry in state_dict["state"].items()}
    # torch.distributed.checkpoint wants every option of the optimizer's groups to be there.
    groups = [{**TORCHS, **group, "page_manager": None, FORMAT_KEY: FORMAT} for group in state_dict["param_groups"]]
    return {**state_dict, "state": state, "param_groups": groups}


def restore_options(groups: Any, previous: Any, defaults: Any) -> None:
    """Completes the options of loaded groups, from `previous` (the groups before, or None) or else from `defaults`.

    It adds missing options, and restores the options that loading must not change.
    """
    for number, group in enumerate(groups):
        before = defaults if previous is None else previous[number]
        for name in OPTIONS:
            if name in OURS and previous is not None:
                group[name] = before[name]
            else:
                group.setdefault(name, before.get(name))  # None: it came after a pickle was written
        group["betas"] = plain_betas(group["betas"])
        if previous is not None:
            keep_names(group, before)


def prepare(target: Target, state_dict: Any) -> Any:
    """For a hook of load_state_dict: `state_dict` with the state of each parameter as `target` needs it, hidden."""
    prepared = checked(target, state_dict)
    for param in prepared.pop(_LOADED, ()):  # only now, when nothing can fail any more
        target.overrides.take(param, bool(target.states.get(param)))
    return prepared or None


_LOADED = object()  # the key of the parameters whose state is loaded


def checked(target: Target, state_dict: Any) -> Any:
    """The result of prepare(), made without changing anything; {} if the base class will report the fault."""
    check_structure(state_dict)
    groups, saved = target.groups, state_dict["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in saved]:
        return {}
    check_format(saved)
    bits = [group.get("optim_bits") for group in saved]
    versions = [group.get(FORMAT_KEY, FORMAT) for group in saved]
    unused = (FORMAT_KEY, *TORCHS, *OURS)
    saved = [{name: value for name, value in group.items() if name not in unused} for group in saved]
    places, merged = {}, []
    for number, (group, saved_group) in enumerate(zip(groups, saved, strict=True)):
        options = {**saved_group, "params": group["params"]}
        restore_options([options], [group], None)
        where = f"group {number}: "
        with naming(f"group {number} of the state dict"):
            check_options(options, where)
        check_has_number(options["lr"], f"{where}lr")
        check_copies({name: saved_group[name] for name in saved_group if name not in OPTIONS}, f"group {number}")
        merged.append(options)
        places.update({key: (number, position) for position, key in enumerate(saved_group["params"])})
    with naming("the state dict"):
        check_clipping(merged)
    state = {}
    for key, entry in _under_their_keys(state_dict["state"], places).items():
        if key not in places:
            raise ValueError(f"the state dict has state for parameter {shown(key)}, which none of its groups lists")
        number, position = places[key]
        what = describe(groups, number, position)
        with naming(what):
            if versions[number] == 1:
                _check_cast_codes(entry, bits[number], what)
            state[key] = Hidden(_loaded(entry, versions[number], merged, number, position, target))
    loaded = [groups[number]["params"][position] for number, position in map(places.get, state)]  # type: ignore[misc]
    return {**state_dict, "state": state, "param_groups": saved, _LOADED: loaded}


def _under_their_keys(entries: Any, places: Any) -> Any:
    """Merges entries under "0" into the entry of parameter 0, and so on.

    torch.distributed.checkpoint treats keys of dicts as strings: it puts values that are not tensors under "0".
    """
    words = {str(place): place for place in places if isinstance(place, int) and 0 <= place < 2**63}
    strays = {key for key in entries if key not in places and isinstance(key, str) and key in words}
    result = {key: entry for key, entry in entries.items() if key not in strays}
    for key in strays:
        place = words[key]
        if isinstance(result.get(place), dict) and isinstance(entries[key], dict):
            result[place] = {**result[place], **entries[key]}
        else:
            result[key] = entries[key]
    return result


def _check_cast_codes(entry: Any, bits: Any, what: str) -> None:
    """Refuses numbers that are in fact codes.

    torch.distributed.checkpoint casts the tensors in a file to the dtype in the optimizer, and in state format 1 codes
    had torch's keys.
    """
    moment = entry.get("exp_avg") if isinstance(entry, dict) else None
    if not (is_integer(bits) and bits == 8) or not isinstance(moment, torch.Tensor):
        return
    values = inner(moment).detach()
    if oddity(values) or values.dtype not in FLOATS:
        return
    if not values.any() or not (values == values.round()).all():
        return
    if 0 <= values.min() <= values.max() <= 255:
        raise ValueError(
            f"{what}: exp_avg consists of 8-bit codes: the checkpoint has 8-bit state, which was read as 32-bit state "
            "without decoding. Load it with the version of pyadamw, and into an optimizer of the class, that saved it. "
            "Then pass the state_dict() of that optimizer to load_state_dict() of this one"
        )


def _loaded(entry: Any, version: int, groups: Any, number: int, position: int, target: Target) -> Any:
    """A copy of the state of one parameter, converted to the format of its group. `version`: the format that the state
    dict says. `groups`: as after loading.
    """
    group = groups[number]
    param, what = group["params"][position], describe(groups, number, position)
    if not isinstance(entry, dict):
        raise ValueError(f"{what}: the state is {type(entry).__name__}: must be a dict of tensors")
    if not entry:
        return {}
    entry = flashoptim.translated(entry, lambda: param, group, what)
    options = target.overrides.applied(group, param, bool(target.states.get(param)))
    local = stepped_view(param, options, what)
    spec = state_spec(local, options, target.pages)
    # With the shape of the whole parameter: unwrapped() then cuts tensors of this shape, or of the scales' shape.
    entry, found = earlier.renamed(entry, spec._replace(shape=param.shape), version, what)
    entry = earlier.in_numbers(unwrapped(entry, param, local.whole), found, spec, what)
    entry = translated(entry, spec.shape.numel(), what)
    if "step" not in entry:
        raise ValueError(f"{what}: the state has no step")
    if spec.amsgrad and not {"max_exp_avg_sq", formats.codes_of("max_exp_avg_sq")} & set(entry):
        raise ValueError(f"{what}: the state has no max_exp_avg_sq, although its group has amsgrad=True")
    if formats.REMAINDER in entry and not spec.remainder_bits:
        bits = stored_bits(entry[formats.REMAINDER], spec.shape) or 16
        raise ValueError(f"{what}: {_lost_weights(bits + 16, local.dtype)}")
    step = torch.tensor(step_count(entry["step"], what), dtype=torch.float32, device="cpu")
    state = conform(entry, spec, what, received=True)
    memory = {_address(value) for value in entry.values()}
    own = {key: _own(value, formats.PARTS[key].placing(spec), memory) for key, value in state.items()}
    # Other keys, for example of an optimizer that wraps this one, are copied unread.
    others = {}
    for key, value in entry.items():
        if key not in formats.KEYS:
            with naming(f"{what}: {shown_name(key)}"):
                others[key] = _copied(value, param)
    return wrapped_state({"step": step, **own, **others}, param, local)


def _lost_weights(bits: int, dtype: torch.dtype) -> str:
    """The error about master weights that a parameter of this dtype, or its options, would lose."""
    if dtype == torch.bfloat16:
        why, keep = "master_weight_bits=None here", f"pass master_weight_bits={bits} to this optimizer, or "
    else:
        why, keep = f"the parameter here is {str(dtype).removeprefix('torch.')}", ""
    return (
        f"the state has {formats.REMAINDER}, which a bfloat16 parameter lacks of its master weight, but {why}, so that "
        f"it would be lost. To keep the weights, {keep}save pyadamw.fp32_state_dict(model, optimizer) where they are, "
        f"and load that into a float32 model. To drop them on purpose, remove {formats.REMAINDER} from the state"
    )


def _copied(value: Any, param: torch.Tensor) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if is_sharded(value) else value.detach().to(inner(param).device, copy=True)
    return copy.deepcopy(value)


def _address(value: Any) -> Any:
    return inner(value).untyped_storage().data_ptr() if isinstance(value, torch.Tensor) else None


def _own(tensor: torch.Tensor, spec: Any, memory: Any) -> Any:
    """The tensor in memory of this optimizer, never of the checkpoint: in pages if the parameter is paged."""
    if _address(tensor) not in memory:
        return tensor
    return spec.zeros(tensor.shape, tensor.dtype).copy_(tensor)
