"""Owns loading: checking, converting and copying state that comes from a state_dict. Must not know of steps."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from .._checks import is_integer, shown
from .._native.memory import oddity
from .._options.options import OPTIONS, check_options, plain_betas
from .._options.overrides import Overrides
from ..paging import PageManager
from . import formats
from .damage import FLOATS
from .export import FORMAT, FORMAT_KEY, check_format
from .foreign import translated
from .received import check_copies, check_has_number, check_structure, naming, shown_name
from .sharding import inner, is_sharded, unwrapped
from .spec import describe, state_spec, stepped_view, wrapped_state

# Where state lives and how wide it is: decided by this optimizer, whatever a checkpoint says.
OURS = ("optim_bits", "min_8bit_size", "block_wise", "is_paged", "page_manager")


# Options that torch.optim.AdamW has and nobody here: torch.distributed.checkpoint takes the state of one optimizer for
# another only if that has all options of the first.
TORCHS = {"foreach": None, "differentiable": False, "fused": None, "decoupled_weight_decay": True}


class Target(NamedTuple):
    """What state is loaded into: an optimizer, as far as loading has to know it."""

    groups: Sequence[dict[str, Any]]
    states: Mapping[torch.Tensor, dict[str, Any]]
    pages: PageManager  # of groups that name none
    overrides: Overrides


class Hidden:
    """State of one parameter that the base class must not touch."""

    def __init__(self, state):
        self.state = state


def reveal(entry):
    return entry.state if isinstance(entry, Hidden) else entry


def aliased(state_dict):
    """`state_dict` with other dicts and tensor objects, of the same memory, and only what can be stored."""

    def copied(entry):
        values = {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in entry.items()}
        return formats.marked(values)

    state = {key: copied(entry) if isinstance(entry, dict) else entry for key, entry in state_dict["state"].items()}
    # torch.distributed.checkpoint wants every option of the optimizer's groups to be there.
    groups = [{**TORCHS, **group, "page_manager": None, FORMAT_KEY: FORMAT} for group in state_dict["param_groups"]]
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


def prepare(target, state_dict):
    """For a hook of load_state_dict: `state_dict` with the state of each parameter as `target` wants it, hidden."""
    prepared = checked(target, state_dict)
    for param in prepared.pop(_LOADED, ()):  # only now that nothing can fail any more
        target.overrides.take(param, bool(target.states.get(param)))
    return prepared or None


_LOADED = object()  # the key of the parameters whose state is loaded


def checked(target, state_dict):
    """What prepare() returns, made without changing anything; {} where the base class says what is wrong."""
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
    state = {}
    for key, entry in _under_their_keys(state_dict["state"], places).items():
        if key not in places:
            raise ValueError(f"the state dict has state for parameter {shown(key)}, which none of its groups lists")
        number, position = places[key]
        if versions[number] == 1:
            with naming(describe(groups, number, position)):
                _check_cast_codes(entry, bits[number], describe(groups, number, position))
        with naming(describe(groups, number, position)):
            state[key] = Hidden(_loaded(entry, merged, number, position, target))
    loaded = [groups[number]["params"][position] for number, position in map(places.get, state)]
    return {**state_dict, "state": state, "param_groups": saved, _LOADED: loaded}


def _under_their_keys(entries, places):
    """torch.distributed.checkpoint takes the keys of dicts for words: what is no tensor it puts beside the entry of
    parameter 0, under "0"."""
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


def _check_cast_codes(entry, bits, what):
    """Refuses numbers that were codes: torch.distributed.checkpoint casts what it finds to the dtype of what is there,
    and codes of state format 1 had the names of numbers."""
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
            "without decoding. Load it with the pyadamw and into an optimizer of the class that saved it. Then pass "
            "the state_dict() of that optimizer to load_state_dict() of this one"
        )


def _loaded(entry, groups, number, position, target):
    """A copy of the state of one parameter, converted to the format of its group. `groups`: as they will be."""
    group = groups[number]
    param, what = group["params"][position], describe(groups, number, position)
    if not isinstance(entry, dict):
        raise ValueError(f"{what}: the state is {type(entry).__name__}: must be a dict of tensors")
    if not entry:
        return {}
    options = target.overrides.applied(group, param, bool(target.states.get(param)))
    local = stepped_view(param, options)
    spec = state_spec(local, options, target.pages)
    # As a whole: what is shaped as the parameter or its scales are now is cut with it.
    entry = formats.renamed(formats.without_marks(entry, what), spec._replace(shape=param.shape))
    entry = translated(unwrapped(entry, param, local.whole), spec.shape.numel(), what)
    if "step" not in entry:
        raise ValueError(f"{what}: the state has no step")
    if spec.amsgrad and not {"max_exp_avg_sq", formats.codes_of("max_exp_avg_sq")} & set(entry):
        raise ValueError(f"{what}: the state has no max_exp_avg_sq, although its group has amsgrad=True")
    step = torch.tensor(formats.step_count(entry["step"], what), dtype=torch.float32, device="cpu")
    state = formats.conform(entry, spec, what, received=True)
    memory = {_address(value) for value in entry.values()}
    specs = {formats.HISTORY: spec._replace(pages=None)}
    own = {key: _own(value, specs.get(key, spec), memory) for key, value in state.items()}
    # What others have put there, such as an optimizer that wraps this one, is theirs to understand.
    others = {}
    for key, value in entry.items():
        if key not in formats.KEYS:
            with naming(f"{what}: {shown_name(key)}"):
                others[key] = _copied(value, param)
    return wrapped_state({"step": step, **own, **others}, param, local)


def _copied(value, param):
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if is_sharded(value) else value.detach().to(inner(param).device, copy=True)
    return copy.deepcopy(value)


def _address(value):
    return inner(value).untyped_storage().data_ptr() if isinstance(value, torch.Tensor) else None


def _own(tensor, spec, memory):
    """The tensor in memory of this optimizer's own: pages if the parameter is paged, and never the checkpoint's."""
    if _address(tensor) not in memory:
        return tensor
    return spec.zeros(tensor.shape, tensor.dtype).copy_(tensor)
