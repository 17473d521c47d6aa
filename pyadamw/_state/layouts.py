"""Owns which tensors the moments in an entry of state consist of, whoever wrote it: numbers, or codes and their scales.
Must not know what codes stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from .._native.memory import oddity
from . import flashoptim
from .formats import CODING, PARTS, REMAINDER, absmax_of, codes_of
from .marks import FORMAT, format_of

_WRAPPER = "__bnb_optimizer_quant_state__"
_OF_BITSANDBYTES = {"exp_avg": "1", "exp_avg_sq": "2"}


class Layout(NamedTuple):
    """One moment as it is stored."""

    optimizer: (
        str  # whose form it has: "pyadamw", "bitsandbytes", "torchao", "FlashOptim"; "": numbers of torch or pyadamw
    )
    bits: int  # of an element
    codes: torch.Tensor | None  # uint8, or int8 where the sign is a bit of the code
    scales: torch.Tensor | None
    numbers: torch.Tensor | None  # instead of codes
    version: int = 0  # of the codes of pyadamw
    floors: torch.Tensor | None = None  # where the codes of each block begin, in pyadamw's of today

    @property
    def name(self) -> str:
        """In a few words, for a table."""
        if self.numbers is not None:
            dtype = str(self.numbers.dtype).removeprefix("torch.")
            word = {"float32": "32-bit", "bfloat16": "16-bit"}.get(dtype, dtype)
            return f"{self.optimizer} {word}".strip()
        one = self.scales is not None and self.scales.numel() == 1
        whole = ", one scale" if one and self.codes is not None and self.codes.numel() > 256 else ""
        if self.optimizer != "pyadamw":
            return f"{self.optimizer} {self.bits}-bit{whole}"
        return f"8-bit{whole}" if self.version == FORMAT else f"8-bit, format {self.version}{whole}"


def _tensor(entry: Mapping[str, Any], key: str) -> torch.Tensor | None:
    value = entry.get(key)
    return value if isinstance(value, torch.Tensor) and not oddity(value) else None


def layout(entry: Mapping[str, Any], moment: str, number: int) -> Layout | None:
    """How an entry, from a group with this number of a format, stores a moment; None if it has none that is a tensor.

    As in loading, torch's keys count before codes.
    """
    inner = entry.get(_WRAPPER, entry)
    if isinstance(inner, Mapping) and (i := _OF_BITSANDBYTES.get(moment)) and f"state{i}" in inner:
        return _of(inner, "bitsandbytes", f"state{i}", f"absmax{i}" if f"absmax{i}" in inner else f"max{i}")
    value: Any = entry.get(moment)
    if isinstance(value, torch.Tensor) and all(hasattr(value, name) for name in ("codes", "scale")):
        return _of({name: getattr(value, name) for name in ("codes", "scale")}, "torchao", "codes", "scale")
    if flashoptim.codes_of(moment) in entry:
        found = _of(entry, "FlashOptim", flashoptim.codes_of(moment), flashoptim.scales_of(moment))
        if found is not None and found.scales is not None and found.scales.dtype == torch.bfloat16:
            return found._replace(scales=found.scales.view(torch.float16))  # whose bits these are
        return found
    plain = _tensor(entry, moment)
    if plain is None and codes_of(moment) in entry:
        version = format_of(entry, number, moment)
        found = _of(entry, "pyadamw", codes_of(moment), absmax_of(moment))
        return found and found._replace(version=version, floors=_tensor(entry, f"{moment}_floor"))
    if plain is not None and plain.dtype == torch.uint8 and absmax_of(moment) in entry:  # format 1
        found = _of(entry, "pyadamw", moment, absmax_of(moment))
        return found and found._replace(version=1)
    return None if plain is None else Layout("", 8 * plain.element_size(), None, None, plain)


def _of(entry: Mapping[str, Any], optimizer: str, codes: str, scales: str) -> Layout | None:
    stored = _tensor(entry, codes)
    if stored is None:
        return None
    if stored.dtype not in (torch.uint8, torch.int8):
        return Layout(optimizer, 8 * stored.element_size(), None, None, stored)
    return Layout(optimizer, 8, stored, _tensor(entry, scales), None)


def layouts(entry: Mapping[str, Any], number: int) -> dict[str, Layout]:
    """{moment: its layout}, of those that the entry has."""
    found = ((moment, layout(entry, moment, number)) for moment in CODING)
    return {moment: made for moment, made in found if made is not None}


def tensors(entry: Any) -> Iterator[torch.Tensor]:
    """All tensors of an entry but `step`, those inside of other values and of wrapped tensors among them."""
    values = (
        entry.items() if isinstance(entry, Mapping) else enumerate(entry) if isinstance(entry, (list, tuple)) else ()
    )
    for key, value in values:
        if key == "step":
            continue
        if isinstance(value, torch.Tensor):
            parts: list[Any] = [getattr(value, name, None) for name in ("codes", "scale", "qmap")]
            wrapped = all(isinstance(part, torch.Tensor) for part in parts)
            yield from parts if wrapped else (value,)
        else:
            yield from tensors(value)


def master_weight_bits(entry: Mapping[str, Any], master_bytes: Any) -> int | None:
    """24 or 32 if an entry has what a bfloat16 parameter lacks of its master weight. `master_bytes`: FlashOptim's."""
    value = _tensor(entry, REMAINDER)
    if value is not None:
        like = next((shape for shape in _shapes(entry) if value.shape == (*shape, 2)), None)
        return 32 if value.dtype == torch.int16 or like is not None else 24
    value = _tensor(entry, flashoptim.ERROR_BITS)
    if value is None:
        return None
    return 8 * master_bytes if master_bytes in (3, 4) else 32 if value.dtype == torch.int16 else 24


def _shapes(entry: Mapping[str, Any]) -> Iterator[torch.Size]:
    for key, part in PARTS.items():
        if part.moment and part.role in ("", "codes") and (value := _tensor(entry, key)) is not None:
            yield value.shape
