"""Owns reading a folder of torch.distributed.checkpoint in one process, without the model, a few tensors at a time.
Must not know what they mean.

No code from the folder is run. torch's own reader would unpickle the file .metadata and every value that is not a
tensor; here both may only name the classes that such a folder consists of.
"""

from __future__ import annotations

import io
import os
import pickle
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from .._native.memory import is_out_of_memory

METADATA = ".metadata"
_CONVERT = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
_CHECKPOINT = "torch.distributed.checkpoint"
_OF_METADATA = (
    "Metadata MetadataIndex StorageMeta TensorProperties TensorStorageMetadata BytesStorageMetadata "
    "ChunkStorageMetadata _MEM_FORMAT_ENCODING"
)
_ALLOWED = {
    *((f"{_CHECKPOINT}.metadata", name) for name in _OF_METADATA.split()),
    (f"{_CHECKPOINT}.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("collections", "OrderedDict"),
    *((module, name) for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "PurePosixPath")),
}


class Stored(NamedTuple):
    """A value that is still in the folder."""

    key: str


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if (module, name) not in _ALLOWED and not is_dtype:
            raise ValueError(f"it names {module}.{name}, which is no part of a checkpoint and might run code")
        return super().find_class(module, name)


class Folder:
    """An open folder. `tree`: the saved dicts and lists, with a Stored for each value."""

    def __init__(self, path: Any) -> None:
        self._path = os.fspath(path)
        try:
            from torch.distributed import checkpoint  # large, and not in every build of torch

            self._checkpoint = checkpoint
            with open(os.path.join(self._path, METADATA), "rb") as file:
                self._metadata = _Unpickler(file).load()
            self.tree: Any = _nested(self._metadata)
        except Exception as error:  # a damaged file may raise any error
            raise self._unreadable(error, METADATA) from error

    def load(self, tree: Any) -> Any:
        """A part of the tree with the values themselves."""
        keys = list(dict.fromkeys(_keys(tree)))
        return _filled(tree, self._values(keys)) if keys else tree

    def _values(self, keys: list[str]) -> dict[str, Any]:
        metadata, saved = self._metadata, self._metadata.state_dict_metadata
        try:
            wanted = {key: _room_for(saved[key]) for key in keys}
            reader, planner = _classes(self._checkpoint)
            reader, planner = reader(self._path), planner()
            reader.kept, planner.others = metadata, {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that this is one process
                self._checkpoint.load(wanted, storage_reader=reader, planner=planner)
        except (Exception, self._checkpoint.CheckpointException) as error:  # which is no Exception
            raise self._unreadable(error, " and ".join(keys[:2]) + (" ..." if len(keys) > 2 else "")) from error
        return {**wanted, **planner.others}

    def _unreadable(self, error: BaseException, what: str) -> BaseException:
        # torch packs the errors of reading, one of each process, into one of its own.
        packed = [error, *(pair[0] for pair in getattr(error, "failures", {}).values())]
        inner = packed[-1]
        if is_out_of_memory(inner):
            return inner
        said = " ".join(str(inner).split())
        said = f"{type(inner).__name__}: {said[:500]}" if said else type(inner).__name__
        hint = ""
        if isinstance(inner, (pickle.UnpicklingError, ValueError)):  # torch itself may be able to
            hint = f". If you trust the folder, `{_CONVERT} {self._path} FILE` makes a file of it"
        return ValueError(f"{self._path}: {what} cannot be read: {said}{hint}")


def _classes(checkpoint: Any) -> Any:
    """torch's reader and planner, but with our own way to read what is pickled."""
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

    class Reader(checkpoint.FileSystemReader):
        kept: Any

        def read_metadata(self, *_arguments: Any, **_keywords: Any) -> Any:
            return self.kept

    class Planner(DefaultLoadPlanner):
        others: dict[str, Any]

        def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
            self.others[read_item.dest_index.fqn] = torch.load(value, map_location="cpu", weights_only=True)

    return Reader, Planner


def _room_for(saved: Any) -> Any:
    if not hasattr(saved, "properties"):
        return 0  # something that is no tensor: the planner gets it
    return torch.empty(saved.size, dtype=saved.properties.dtype, device="cpu")


def _nested(metadata: Any) -> Any:
    """The dicts and lists that were saved. Metadata of a planner that did not flatten them has none."""
    paths = metadata.planner_data if isinstance(metadata.planner_data, dict) else {}
    root: dict[Any, Any] = {}
    for key in metadata.state_dict_metadata:
        path = paths.get(key) or (key,)
        place = root
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = Stored(key)
    return _with_lists(root)


def _with_lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    made = {key: _with_lists(value) for key, value in tree.items()}
    # Keys of dicts are strings there, whatever they were: only places in lists are numbers.
    return [made[place] for place in sorted(made)] if made and all(type(key) is int for key in made) else made


def _keys(tree: Any) -> Iterator[str]:
    if isinstance(tree, Stored):
        yield tree.key
    elif isinstance(tree, (dict, list)):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _keys(value)


def _filled(tree: Any, values: dict[str, Any]) -> Any:
    if isinstance(tree, Stored):
        return values[tree.key]
    if isinstance(tree, dict):
        return {key: _filled(value, values) for key, value in tree.items()}
    return [_filled(value, values) for value in tree] if isinstance(tree, list) else tree
