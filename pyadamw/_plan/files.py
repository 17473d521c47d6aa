"""Owns reading the names, shapes and dtypes of a model's tensors from its files. Reads no data, and runs no code of the
files. Must not know what the tensors take.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from .._optional import optional
from .._state.files import naming, open_regular, read_torch, safetensors_package
from .modules import of_module
from .weights import Form, Model, Weight, module_unit

_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)\.safetensors")
_HELD = ("model", "state_dict", "model_state_dict")  # the keys under which a checkpoint holds the state dict of a model

# Names in the headers of safetensors, by what torch calls them. A torch that lacks one cannot read the file either.
_DTYPES = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BF16": "bfloat16",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
}


def of_path(path: str) -> Model:
    """The model in a file or folder. ValueError if there is none; OSError if something cannot be read."""
    if os.path.isdir(path):
        return _folder(path)
    with open(path, "rb", opener=open_regular) as file:
        start = file.read(9)
    if start[:1] == b"{":
        return _json(path)
    if start[8:9] == b"{":
        return _listed(path, _headers([path]))
    return _checkpoint(path)


def _listed(what: str, found: Iterable[tuple[str, tuple[int, ...], torch.dtype]], shared: Iterable[str] = ()) -> Model:
    """A model of (name, shape, dtype). What is not floating does not train; a file does not tell buffers apart."""
    shared, weights = set(shared), []
    for name, shape, dtype in found:
        form = Form(shape, dtype, dtype.is_floating_point, len(shape) > 0)
        weights.append(Weight(name, form, module_unit(name), name in shared))
    notes = ["A file does not tell buffers from parameters: all floating tensors are counted as parameters that train."]
    others = [weight.name for weight in weights if not weight.form.trains]
    if others:
        names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        notes.append(f"Not floating, so counted as weights that do not train: {len(others)} tensors ({names}).")
    return Model(what, weights, notes)


# ---- safetensors ---------------------------------------------------------------------------------------------------


def _headers(paths: Iterable[str]) -> Iterator[tuple[str, tuple[int, ...], torch.dtype]]:
    package, seen = safetensors_package(), set()
    for path in paths:
        with open(path, "rb", opener=open_regular):
            pass
        for name, shape, dtype in naming(path, "not a safetensors file", _header, package, path):
            if name in seen:
                raise ValueError(f"{path} has {name}, and so has another file of the model")
            seen.add(name)
            known = getattr(torch, _DTYPES.get(dtype, ""), None)
            if known is None:
                raise ValueError(f"{path}: {name} is {dtype}, which this torch does not have")
            yield name, shape, known


def _header(package: Any, path: str) -> list[tuple[str, tuple[int, ...], str]]:
    with package.safe_open(path, "pt") as file:
        slices = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118
        return [(name, tuple(part.get_shape()), part.get_dtype()) for name, part in slices]


def _indexed(path: str, weight_map: Any) -> Model:
    """Hugging Face's model.safetensors.index.json: {tensor: file beside it}."""
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ValueError(f"{path}: weight_map must be a dict of file names")
    files = sorted(set(weight_map.values()))
    for name in files:
        if os.path.basename(name) != name or not name.endswith(".safetensors"):
            raise ValueError(f"{path}: weight_map names {name!r}: must be safetensors files in the same folder")
        if not os.path.exists(os.path.join(os.path.dirname(path), name)):
            raise ValueError(f"{path} names {name}, which is not there")
    found = {entry[0]: entry for entry in _headers(os.path.join(os.path.dirname(path), name) for name in files)}
    missing = next((name for name in weight_map if name not in found), None)
    if missing is not None:
        raise ValueError(f"{path} has {missing} in {weight_map[missing]}, which lacks it")
    return _listed(os.path.dirname(path) or path, (found[name] for name in weight_map))


# ---- folders, and JSON ---------------------------------------------------------------------------------------------


def _folder(path: str) -> Model:
    names = sorted(os.listdir(path))
    indices = [name for name in names if name.endswith(".safetensors.index.json")]
    if len(indices) == 1 or "model.safetensors.index.json" in indices:
        index = indices[0] if len(indices) == 1 else "model.safetensors.index.json"
        return _json(os.path.join(path, index))
    if indices:
        raise ValueError(f"{path} has {len(indices)} models ({', '.join(indices)}): name one of these files")
    files = [name for name in names if name.endswith(".safetensors")]
    for match in filter(None, map(_SHARD.fullmatch, files)):
        lacks = f"{match[1]}-{{:0{len(match[2])}}}-of-{match[3]}.safetensors"
        gone = next((lacks.format(n) for n in range(1, int(match[3]) + 1) if lacks.format(n) not in files), None)
        if gone is not None:
            raise ValueError(f"{path} has {match[0]}, but not {gone}")
    if files:
        return _listed(path, _headers(os.path.join(path, name) for name in files))
    if "config.json" in names:
        return _json(os.path.join(path, "config.json"))
    raise ValueError(f"{path} has neither *.safetensors nor a config.json: name a folder that has, or a file")


def _json(path: str) -> Model:
    with open(path, "rb", opener=open_regular) as file:
        content = naming(path, "not JSON", json.load, file)
    if "weight_map" in content:
        return _indexed(path, content["weight_map"])
    if "architectures" in content or "model_type" in content:
        return _configured(path, content)
    raise ValueError(
        f"{path} has neither weight_map nor architectures: it is no index of safetensors, and no config.json"
    )


def _configured(path: str, content: Mapping[str, Any]) -> Model:
    """The model of a config.json of Hugging Face, as transformers makes it without memory. Runs none of its code."""
    architectures = content.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise ValueError(
            f"{path} names no class in architectures: name the files of the weights, or a number such as 7B"
        )
    transformers = optional("transformers")
    if transformers is None:
        raise ValueError(f"{path}: to make a model from it needs transformers: pip install transformers")
    cls = getattr(transformers, architectures[0], None)
    if not (isinstance(cls, type) and issubclass(cls, torch.nn.Module)):
        more = " The code of the model is not run." if "auto_map" in content else ""
        raise ValueError(f"{path}: transformers {transformers.__version__} has no {architectures[0]}.{more}")
    module, dtype = naming(path, f"{architectures[0]} cannot be made from it", _made, transformers, cls, path)
    model = of_module(module)
    weights = [
        weight._replace(form=weight.form._replace(dtype=dtype))
        if dtype is not None and weight.form.dtype.is_floating_point
        else weight
        for weight in model.weights
    ]
    return model._replace(what=f"{path} ({architectures[0]})", weights=weights)


def _made(transformers: Any, cls: Any, path: str) -> tuple[torch.nn.Module, torch.dtype | None]:
    config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    dtype = getattr(config, "dtype", None)
    with torch.device("meta"):
        module = cls(config)
        module.tie_weights()
    return module, dtype if isinstance(dtype, torch.dtype) else None


# ---- checkpoints of torch ------------------------------------------------------------------------------------------


def _checkpoint(path: str) -> Model:
    """A file of torch.save(). Its data stay on the disk, unless it is of the format before torch 1.6."""
    what = "neither safetensors nor JSON, and torch.load(weights_only=True) cannot read it"
    with open(path, "rb", opener=open_regular) as file:
        content = naming(path, what, read_torch, file, True)
    state_dict = _state_dict(path, content)
    first: dict[Any, str] = {}
    entries, shared = [], []
    for name, tensor in state_dict.items():
        if tensor.device.type != "meta" and tensor.numel() and tensor.layout == torch.strided:
            place = tensor.data_ptr(), tuple(tensor.shape), tensor.stride()
            if place in first:  # tied weights are there under each of their names
                shared.append(first[place])
                continue
            first[place] = name
        entries.append((name, tuple(tensor.shape), tensor.dtype))
    return _listed(path, entries, shared)


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    tensors = [key for key, entry in value.items() if isinstance(entry, torch.Tensor) and isinstance(key, str)]
    return bool(tensors) and all(key in tensors or str(key).endswith("extra_state") for key in value)


def _state_dict(path: str, content: Any) -> dict[str, torch.Tensor]:
    """The one of the model."""
    candidates = [content] if _is_state_dict(content) else []
    if not candidates and isinstance(content, Mapping):
        candidates = [content[key] for key in _HELD if _is_state_dict(content.get(key))]
    if len(candidates) != 1:
        has = f"its keys are {', '.join(map(repr, content))}" if isinstance(content, Mapping) else "it is not a dict"
        raise ValueError(
            f"{path} is not clearly the state dict of a model, or a dict with one under {' or '.join(_HELD)}: {has}"
        )
    return {name: tensor for name, tensor in candidates[0].items() if isinstance(tensor, torch.Tensor)}
