"""Owns reading state dicts from files and writing them, completely or not at all. Must not know their content.

OUT may be any path. Only a regular file is replaced; if OUT is a link, the target of the link, as open(OUT, "wb") would
do, but at once. Until then the data is in a private file beside it, with an unpredictable name, which is removed if
anything fails.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import tempfile
import zipfile
from typing import Any

import torch

from .._checks import kind_of_file, scalar
from .._native.memory import is_out_of_memory
from .._optional import optional


def safetensors_package() -> Any:
    safetensors = optional("safetensors")
    if safetensors is None or optional("safetensors.torch") is None:
        raise ValueError("files of safetensors need the package safetensors: pip install safetensors")
    return safetensors


# ---- reading ---------------------------------------------------------------------------------------------------------


def read(path: Any, mapped: bool = False) -> Any:
    """The state dict in a file of torch.save() or safetensors. Runs no code from the file.

    `mapped`: its tensors are in the file until somebody reads them, where its form permits that. (Those in a file of
    safetensors always are.)
    """
    try:
        return _read(path, mapped)
    except ValueError as error:
        if "torchao" not in str(error.__cause__):
            raise
        # torch reads its tensors once the package has told torch that they are harmless. It logs what it lacks of CUDA.
        logging.disable(logging.WARNING)
        try:
            found = optional("torchao.optim")
        finally:
            logging.disable(logging.NOTSET)
        if found is None:
            raise ValueError(f"{path} has tensors of torchao: pip install torchao") from error
        return _read(path, mapped)


def _read(path: Any, mapped: bool) -> Any:
    with open(path, "rb", opener=open_regular) as file:
        start = file.read(9)
        if start[:4] == b"PK\x03\x04" or start[8:9] != b"{":
            file.seek(0)
            return naming(path, "torch.load(weights_only=True) cannot read it", read_torch, file, mapped)
    return naming(path, "not a safetensors file with optimizer state", _read_safetensors, path, safetensors_package())


def open_regular(path: Any, flags: Any) -> Any:
    """Opens only regular files: open() would wait on a FIFO, and a device may have no end."""
    file = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise ValueError(f"{path} is {kind_of_file(os.stat(path).st_mode)}: must be a regular file")
    return file


def naming(path: Any, what: str, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # a damaged file may raise any error
        if is_out_of_memory(error):
            raise
        raise ValueError(f"{path}: {what}: {_first_line(error)}") from error


def read_torch(file: Any, mapped: bool = False) -> Any:
    if mapped and zipfile.is_zipfile(file):  # what torch.save() wrote before 1.6 is none, and cannot be mapped
        file = f"/proc/self/fd/{file.fileno()}"  # torch maps only what has a name: this file, whatever has it by now
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def read_weights(path: Any, wanted: Any) -> Any:
    """{key: parameter} for the keys of the state of `wanted`, a state dict, from a file with a model's state dict.

    By the names of parameters, if `wanted` has them; otherwise in order.
    """
    with open(path, "rb", opener=open_regular) as file:
        is_safetensors = file.read(9)[8:9] == b"{"
        file.seek(0)
        what = "not a file with the weights of a model"
        found = naming(
            path, what, *((_tensors_of, path, safetensors_package()) if is_safetensors else (read_torch, file))
        )
    tensors = found[0] if is_safetensors else found
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ValueError(f"{path}: {what}: must be a state_dict(), of names and tensors")
    groups = wanted["param_groups"]
    keys = [key for group in groups for key in group["params"]]
    names = [name for group in groups for name in group.get("param_names") or ()]
    if not names and len(keys) == len(tensors):
        names = list(tensors)
    if len(names) != len(keys):
        raise ValueError(
            f"{path} has {len(tensors)} tensors, but the optimizer has {len(keys)} parameters without names: it is not "
            "clear which belongs to which. Load the state into an optimizer of the model instead (load_state_dict)"
        )
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ValueError(f"{path} has no {missing[0]!r}, which is a parameter of the optimizer")
    return {key: tensors[name] for key, name in zip(keys, names, strict=True)}


def _tensors_of(path: Any, safetensors: Any) -> Any:
    """({name: tensor}, the metadata of the file)."""
    with safetensors.safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _read_safetensors(path: Any, safetensors: Any) -> Any:
    tensors, metadata = _tensors_of(path, safetensors)
    state: dict[int | str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        key, _, field = name.partition(".")
        state.setdefault(int(key) if key.isdecimal() and len(key) < 19 else key, {})[field] = tensor
    return {"state": state, "param_groups": json.loads(metadata["param_groups"])}


def _first_line(error: BaseException) -> Any:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


# ---- writing ---------------------------------------------------------------------------------------------------------


def write(state_dict: Any, path: Any, as_safetensors: Any) -> None:
    """Writes a state dict: the whole file or nothing. An existing file keeps its mode."""
    target, like = _target(path)
    save = _saver_of_safetensors(state_dict) if as_safetensors else _saver_of_torch(state_dict)
    partial = None
    try:
        file, partial = tempfile.mkstemp(prefix=".pyadamw-", suffix=".partial", dir=os.path.dirname(target))
        with open(file, "wb") as opened:
            save(opened, partial)
            opened.flush()
            os.fsync(opened.fileno())
        _make_like(partial, like)
        os.replace(partial, target)
        partial = None
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # torch and safetensors wrap the error of the system, or raise another error while they handle it.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        why = cause.strerror if cause is not None and cause.strerror else _first_line(error)
        raise OSError(f"{path} cannot be written: {why}") from error
    finally:
        if partial is not None:
            with contextlib.suppress(OSError):
                os.unlink(partial)


def _target(path: Any) -> Any:
    """(the file to replace or make, its os.stat() or None if it does not exist)."""
    target = os.path.realpath(path)
    try:
        found = os.stat(path)
    except FileNotFoundError:
        folder = os.path.dirname(target)
        if not os.path.isdir(folder):
            raise ValueError(f"{path} cannot be written: there is no folder {folder}") from None
        if os.fspath(path).endswith(os.sep):
            raise ValueError(f"{path} cannot be written: there is no such folder") from None
        return target, None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is {kind_of_file(found.st_mode)}: must be a regular file, or must not exist")
    if not os.access(target, os.W_OK):
        raise ValueError(f"{path} cannot be written: you have no permission to write it")
    return target, found


def _make_like(partial: Any, like: Any) -> None:
    """Gives a file the mode of another file and, if permitted, its owner. None: the mode of a new file."""
    if like is None:
        mask = os.umask(0o077)
        os.umask(mask)
        os.chmod(partial, 0o666 & ~mask)
        return
    own = os.stat(partial)
    if (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid):
        with contextlib.suppress(PermissionError):
            os.chown(partial, like.st_uid, like.st_gid)
    os.chmod(partial, stat.S_IMODE(like.st_mode))


def _saver_of_torch(state_dict: Any) -> Any:
    return lambda file, _path: torch.save(state_dict, file)


def _saver_of_safetensors(state_dict: Any) -> Any:
    tensors: dict[str, torch.Tensor] = {}
    groups: list[dict[str, Any]] = []
    for key, entry in state_dict["state"].items():
        for name, value in entry.items():
            try:
                tensors[f"{key}.{name}"] = torch.as_tensor(value, device="cpu").detach().contiguous()
            except Exception as error:  # torch raises a different error for each kind of value
                raise ValueError(f"parameter {key}: {name} cannot be stored in a file of safetensors") from error
    for number, group in enumerate(state_dict["param_groups"]):
        groups.append({})
        for name, value in group.items():
            try:
                json.dumps(plain := scalar(value) if isinstance(value, torch.Tensor) else value)
            except Exception as error:
                raise ValueError(f"group {number}: {name} cannot be stored in a file of safetensors") from error
            groups[-1][name] = plain
    metadata, save = {"param_groups": json.dumps(groups)}, safetensors_package().torch.save_file
    return lambda _file, path: save(tensors, path, metadata=metadata)
