"""Owns loading: checking, converting and copying state that comes from a state_dict. Must not know of steps."""

import torch

from . import _state
from ._export import FORMAT, FORMAT_KEY, check_format
from ._foreign import translated
from ._local import unwrapped, wrapped
from ._rows import describe, state_spec, stepped_view
from ._validate import OPTIONS, check_options, plain_betas

# Where state lives and how wide it is: decided by this optimizer, whatever a checkpoint says.
OURS = ("optim_bits", "min_8bit_size", "block_wise", "is_paged", "page_manager")


class Hidden:
    """State of one parameter that the base class must not touch."""

    def __init__(self, state):
        self.state = state


def reveal(entry):
    return entry.state if isinstance(entry, Hidden) else entry


def aliased(state_dict):
    """`state_dict` with other dicts and tensor objects, of the same memory, and only what can be stored."""
    state = {
        key: {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in entry.items()}
        if isinstance(entry, dict)
        else entry
        for key, entry in state_dict["state"].items()
    }
    # torch.distributed.checkpoint wants every option of the optimizer's groups to be there.
    groups = [{**group, "page_manager": None, FORMAT_KEY: FORMAT} for group in state_dict["param_groups"]]
    return {**state_dict, "state": state, "param_groups": groups}


def restore_options(groups, previous, defaults):
    """Gives loaded groups the options that they lack, and back those that stay: as in `previous` (the groups before, or
    None) or else as in `defaults`."""
    for number, group in enumerate(groups):
        before = defaults if previous is None else previous[number]
        for name in OPTIONS:
            if name in OURS and previous is not None:
                group[name] = before[name]
            else:
                group.setdefault(name, before[name])
        group["betas"] = plain_betas(group["betas"])


def prepare(optimizer, state_dict):
    """A hook of load_state_dict: `state_dict` with the state of each parameter as the optimizer wants it, hidden."""
    groups, saved = optimizer.param_groups, state_dict["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in saved]:
        return None  # the base class says what is wrong
    check_format(saved)
    saved = [{name: value for name, value in group.items() if name != FORMAT_KEY} for group in saved]
    places, merged = {}, []
    for number, (group, saved_group) in enumerate(zip(groups, saved, strict=True)):
        options = {**saved_group, "params": group["params"]}
        restore_options([options], [group], None)
        check_options(options, f"group {number}: ")
        merged.append(options)
        places.update({key: (number, position) for position, key in enumerate(saved_group["params"])})
    state = {}
    for key, entry in state_dict["state"].items():
        if key not in places:
            raise ValueError(f"the state dict has state for parameter {key!r}, which is in none of its groups")
        state[key] = Hidden(_loaded(entry, merged, *places[key], optimizer))
    for key in state:  # only now that nothing can fail any more
        number, position = places[key]
        param = groups[number]["params"][position]
        optimizer.overrides.take(param, bool(optimizer._state.get(param)))
    return {**state_dict, "state": state, "param_groups": saved}


def _loaded(entry, groups, number, position, optimizer):
    """A copy of the state of one parameter, converted to the format of its group."""
    group = groups[number]
    param, what = group["params"][position], describe(groups, number, position)
    if not isinstance(entry, dict):
        raise ValueError(f"{what}: the state is {type(entry).__name__}: must be a dict of tensors")
    if not entry:
        return {}
    options = optimizer.overrides.applied(group, param, bool(optimizer._state.get(param)))
    local = stepped_view(param, options)
    spec = state_spec(local, options, optimizer.default_pages)
    entry = translated(unwrapped(entry, param, local.whole), spec.shape.numel(), what)
    unknown = sorted(map(str, set(entry) - _state.KEYS))
    if unknown:
        raise ValueError(f"{what}: the state has {', '.join(unknown)}, which no known format has")
    if "step" not in entry:
        raise ValueError(f"{what}: the state has no step")
    if spec.amsgrad and "max_exp_avg_sq" not in entry:
        raise ValueError(f"{what}: the state has no max_exp_avg_sq, but its group has amsgrad=True")
    step = torch.tensor(_state.step_count(entry["step"], what), dtype=torch.float32)
    state = _state.conform(entry, spec, what)
    # Not the converted numbers: 8-bit state has no NaN that could be found.
    _state.check_finite({key: value for key, value in entry.items() if key != "step"}, what)
    memory = {_address(value) for value in entry.values()}
    specs = {_state.HISTORY: spec._replace(pages=None)}
    own = {key: _own(value, specs.get(key, spec), memory) for key, value in state.items()}
    return {"step": step, **wrapped(own, param, local.whole)}


def _address(value):
    return value.untyped_storage().data_ptr() if isinstance(value, torch.Tensor) else None


def _own(tensor, spec, memory):
    """The tensor in memory of this optimizer's own: pages if the parameter is paged, and never the checkpoint's."""
    if _address(tensor) not in memory:
        return tensor
    return spec.zeros(tensor.shape, tensor.dtype).copy_(tensor)
