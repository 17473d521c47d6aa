"""Owns writing state dicts for other optimizers, and reading and writing them as files. Must not know of steps.

All of it works on state dicts alone: {"state": {index: {name: tensor}}, "param_groups": [...]}.
"""

import json
from pathlib import Path

import torch

from . import _state
from ._checks import scalar, shown
from ._foreign import is_eight_bit, shape_of, translated
from ._received import check_structure, naming
from ._validate import check_options, plain_betas
from .functional import BLOCK8, codebook, quantize

FORMAT_KEY, FORMAT = "pyadamw_format", 2  # in each group of a state dict; a later format has a higher number


def check_format(groups):
    """Refuses groups that were written by a later version."""
    for number, group in enumerate(groups):
        found = group.get(FORMAT_KEY, FORMAT)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise ValueError(f"group {number}: {FORMAT_KEY} = {found!r}: must be a whole number from 1 to {FORMAT}")
        if found > FORMAT:
            raise ValueError(
                f"group {number}: the state has format {found}, from a later pyadamw; this one reads up to {FORMAT}: "
                "update pyadamw, or write the state with `python -m pyadamw convert --to torch` where it is"
            )


def _plain(entry, where):
    """32-bit state of one parameter on the CPU, whoever has made it; and whether it was 8-bit."""
    shape, eight = shape_of(entry, where), is_eight_bit(entry)
    entry = translated(entry, shape.numel(), where)
    amsgrad = bool({"max_exp_avg_sq", _state.codes_of("max_exp_avg_sq")} & set(entry))
    spec = _state.Spec(shape, torch.device("cpu"), _state.FLOAT32, amsgrad, _state.HISTORY in entry, None)
    count = _state.step_count(entry.get("step"), where)
    step = torch.tensor(count, dtype=torch.float32, device="cpu")
    return {"step": step, **_state.conform(entry, spec, where, received=True)}, eight


def _group(group, names, more):
    kept = {name: group[name] for name in (*names, "params", "param_names") if name in group}
    return {**kept, **more}


# ---- one entry in each format ----------------------------------------------------------------------------------------


def _torch_entry(entry, where):
    state, _ = _plain(entry, where)
    state.pop(_state.HISTORY, None)
    return state


def _torch_group(group):
    options = {"foreach": None, "capturable": False, "differentiable": False, "fused": None}
    defaults = {"amsgrad": False, "maximize": False, "decoupled_weight_decay": True, **options}
    kept = _group(group, ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize"), {})
    return {**defaults, **kept}


def _bitsandbytes_entry(entry, where):
    state, eight = _plain(entry, where)
    if "max_exp_avg_sq" in state:
        raise ValueError(f"{where}: bitsandbytes does not support the state of amsgrad")
    result = {}
    for key, i, kind in (("exp_avg", 1, "signed"), ("exp_avg_sq", 2, "unsigned")):
        if not eight:
            result[f"state{i}"] = state[key]
            continue
        codes, absmax = quantize(state[key].flatten(), kind)
        result.update({f"state{i}": codes.view(state[key].shape), f"qmap{i}": codebook(kind), f"absmax{i}": absmax})
    return {"step": int(state["step"]), "__bnb_optimizer_quant_state__": result}


def _bitsandbytes_group(group):
    return _group(group, ("lr", "betas", "eps", "weight_decay"), {"alpha": 0.0, "t_alpha": None, "t_beta3": None})


def _own_entry(entry, where):
    state, eight = _plain(entry, where)
    if not eight:
        return state
    amsgrad, clipping = "max_exp_avg_sq" in state, _state.HISTORY in state
    spec = _state.Spec(state["exp_avg"].shape, torch.device("cpu"), BLOCK8, amsgrad, clipping, None)
    if "exp_avg_absmax" not in entry:
        return {"step": state["step"], **_state.conform(state, spec, where)}
    # It is own already, block-wise or with one scale, and has been looked at.
    entry = _state.renamed(entry, spec)
    own = {key: value.detach() for key, value in entry.items() if key in _state.KEYS}
    return {**entry, **own, "step": state["step"]}


def _own_group(group):
    return {**group, FORMAT_KEY: FORMAT}


_WRITERS = {
    "torch": (_torch_entry, _torch_group),
    "bitsandbytes": (_bitsandbytes_entry, _bitsandbytes_group),
    "pyadamw": (_own_entry, _own_group),
}


def _apart(made, source):
    """`made` without memory of `source`, whose owner goes on stepping it."""
    taken = {value.untyped_storage().data_ptr() for value in source.values() if isinstance(value, torch.Tensor)}

    def own(value):
        if isinstance(value, dict):
            return {key: own(inner) for key, inner in value.items()}
        shared = isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() in taken
        return value.clone() if shared else value

    return own(made)


def converted(state_dict, to, progress=iter):
    """A state dict of any optimizer that load_state_dict() reads, as `to`: "torch", "bitsandbytes", "pyadamw". The two
    share no memory.

    `progress` wraps the sequence of entries. ValueError names the parameter and what is wrong.
    """
    check_structure(state_dict)
    check_format(state_dict["param_groups"])
    groups = [_checked_group(group, f"group {number}") for number, group in enumerate(state_dict["param_groups"])]
    entry_of, group_of = _WRITERS[to]
    state = {}
    for key, entry in progress(state_dict["state"].items()):
        where = f"parameter {shown(key)}"
        with naming(where):
            state[key] = _converted_entry(entry, entry_of, where)
    return {"state": state, "param_groups": [group_of(group) for group in groups]}


def _converted_entry(entry, entry_of, where):
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: the state is {type(entry).__name__}: must be a dict of tensors")
    return _apart(entry_of(_state.without_marks(entry, where), where), entry) if entry else {}


def _checked_group(group, where):
    """A group that says what AdamW has to know of it."""
    missing = [name for name in ("lr", "betas", "eps", "weight_decay") if name not in group]
    if missing:
        raise ValueError(f"{where} of the state dict has no {' and no '.join(missing)}: it is no AdamW's")
    with naming(where):
        check_options(group, f"{where}: ")
    return {**group, "betas": plain_betas(group["betas"])}


# ---- files -----------------------------------------------------------------------------------------------------------


def _safetensors():
    try:
        import safetensors.torch
    except ImportError as error:
        raise ValueError("files of safetensors need that package: pip install safetensors") from error
    return safetensors


def read(path):
    """The state dict in a file of torch.save() or safetensors. Runs no code from the file."""
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(9)
    if start[:4] == b"PK\x03\x04" or start[8:9] != b"{":
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in any way
            raise ValueError(f"{path}: torch.load(weights_only=True) cannot read it: {_first_line(error)}") from error
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        groups = json.loads(metadata["param_groups"])
    except Exception as error:
        raise ValueError(f"{path}: no optimizer state in a file of safetensors: {_first_line(error)}") from error
    state = {}
    for name, tensor in tensors.items():
        key, _, field = name.partition(".")
        state.setdefault(int(key) if key.isdecimal() and len(key) < 19 else key, {})[field] = tensor
    return {"state": state, "param_groups": groups}


def _first_line(error):
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def write(state_dict, path, as_safetensors):
    """Writes a state dict: the whole file or nothing."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        if as_safetensors:
            tensors = {
                f"{key}.{name}": torch.as_tensor(value, device="cpu").detach().contiguous()
                for key, entry in state_dict["state"].items()
                for name, value in entry.items()
            }
            groups = [
                {name: scalar(value) if isinstance(value, torch.Tensor) else value for name, value in group.items()}
                for group in state_dict["param_groups"]
            ]
            _safetensors().torch.save_file(tensors, partial, metadata={"param_groups": json.dumps(groups)})
        else:
            torch.save(state_dict, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
