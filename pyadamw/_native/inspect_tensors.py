"""Owns looking at thousands of tensors at once: their addresses and forms (sizes, dtype, device, contiguity). Must not
know what they are for.

Asking tensor by tensor from Python costs more than stepping small ones. Recent versions of torch have a C function that
describes a tensor (DLPack's exchange API), and libadamw has a loop that calls it, in its private part (adamw_python.h).
Without either, read() says so, and callers ask tensor by tensor. An address says nothing of a lazy negation: the loop
reads the bit that is_neg() reads, or calls the function that CPython's stable ABI names for it. The loop also asks
parameters for their gradients, as the descriptor of Tensor.grad does: without it a step takes a seventh longer.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import types
from typing import Any

import numpy as np
import torch

from .library import ffi, library, new_options
from .probe import negation
from .torch_private import TENSOR_BASE, capsule_pointer, exchange_api, has_gil, python_function, type_slot

_FORM = np.dtype(
    [
        ("numel", "i8"),
        ("shape", "u8"),
        ("device", "i4", 2),
        ("dtype", [("code", "u1"), ("bits", "u1"), ("lanes", "u2")]),
        ("contiguous", "i4"),
    ]
)
_DTYPES = {torch.float32: (2, 32, 1), torch.bfloat16: (4, 16, 1), torch.float16: (2, 16, 1)}  # DLDataType


class _ExchangeApi(ctypes.Structure):
    """DLPackExchangeAPI of dlpack.h 1.3."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        *((name, ctypes.c_void_p) for name in ("older", "allocate", "from_object", "to_object", "describe_object")),
        ("stream", ctypes.c_void_p),
    ]


class _Method(ctypes.Structure):
    """PyMethodDef of CPython's stable ABI."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


_PY_TP_DESCR_GET, _PY_TP_METHODS = 54, 64  # typeslots.h
_METH_NOARGS = 4  # methodobject.h


_GRAD = inspect.getattr_static(torch.Tensor, "grad", None)  # where torch keeps a gradient


def _is_neg() -> int | None:
    """The C function of Tensor.is_neg(), which takes the tensor and nothing; or None."""
    at = type_slot(TENSOR_BASE, _PY_TP_METHODS)
    while at and (entry := _Method.from_address(at)).name is not None:
        if entry.name == b"is_neg":
            return entry.function if entry.flags == _METH_NOARGS else None
        at += ctypes.sizeof(_Method)
    return None


def finds_gradients(params: list[torch.Tensor]) -> bool:
    """Whether DescribedGradients can ask these parameters: the `.grad` of their classes is torch's own. A property in
    Python might change the list that the loop goes through."""
    if None in (_loop(), *_asking()) or not isinstance(_GRAD, types.GetSetDescriptorType):
        return False
    return all(inspect.getattr_static(kind, "grad", None) is _GRAD for kind in set(map(type, params)))


@functools.cache
def _asking() -> tuple[int | None, int | None]:
    """The addresses of what CPython calls for a descriptor's value and of its PyList_SetItem; None for each that is
    missing."""
    return type_slot(type(_GRAD), _PY_TP_DESCR_GET), python_function("PyList_SetItem")


@functools.cache
def _loop() -> Any:
    """adamw_describe_tensors(sequence, address of options), which holds the GIL as torch needs it, and options with
    torch's function and CPython's; or None."""
    if not has_gil():  # which the loop needs: it looks at objects that it does not own
        return None
    capsule, get_item, function = exchange_api(), python_function("PyList_GetItem"), library().describe_tensors
    if capsule is None or get_item is None or function is None:
        return None
    place, test = negation(), _is_neg()
    if place is not None:
        asking = place._asdict()
    elif test is not None:
        asking = {"test": ffi.cast("adamw_test_function", test), "passes": ffi.cast("void *", id(False))}
    else:
        return None
    at = capsule_pointer(capsule, b"dlpack_exchange_api")
    if at is None:
        return None
    api = _ExchangeApi.from_address(at)
    if api.major != 1 or not api.describe_object or ffi.sizeof("adamw_tensor_form") != _FORM.itemsize:
        return None
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)
    options = {
        "describe": ffi.cast("adamw_dlpack_function", api.describe_object),
        "item": ffi.cast("adamw_item_function", get_item),
        **asking,
    }
    return prototype(int(ffi.cast("uintptr_t", function))), options


class Described:
    """The addresses and forms of as many tensors as `addresses`, a column of unsigned 64-bit numbers, has entries, and
    what tells the tensors from others as long as they live. It holds no tensor."""

    def __init__(self, addresses: Any) -> None:
        count = len(addresses)
        self.addresses, self.forms, self.objects = addresses, bytearray(count * _FORM.itemsize), bytearray(count * 8)
        self._count = count
        self._loop: Any
        self._loop, options = _loop() or (None, None)
        if options:
            begin, stride = addresses.__array_interface__["data"][0], addresses.strides[0]
            self._options = new_options("adamw_describe_options")
            for name, value in options.items():
                setattr(self._options, name, value)
            self._options.count, self._options.stride = count, stride
            self._options.addresses = ffi.cast("void *", begin)
            self._options.forms = ffi.from_buffer("adamw_tensor_form[]", self.forms)
            self._options.objects = ffi.from_buffer("void *[]", self.objects)
            # As an integer, and all in one struct: ctypes takes longer over arguments than the loop over some tensors.
            self._at = int(ffi.cast("uintptr_t", self._options))

    def read(self, tensors: Any) -> bool:
        """Looks at the tensors of a list. False if one cannot be described so, whatever the reason: it is no tensor,
        its numbers are not what lies at its address, or nothing does."""
        if self._loop is None or len(tensors) != self._count:
            return False
        try:
            return self._loop(tensors, self._at) == 0
        except (RuntimeError, ValueError):  # no tensor, or one that has no address
            return False

    def gradient_forms(self, dtypes: Any) -> Any:
        """The forms that contiguous gradients of these dtypes have."""
        forms = np.frombuffer(bytes(self.forms), dtype=_FORM).copy()
        forms["dtype"] = [_DTYPES[dtype] for dtype in dtypes]
        forms["contiguous"] = 1
        return forms.tobytes()


class DescribedGradients(Described):
    """Of the gradients of parameters, which are the tensors to read(). Only where finds_gradients() says so."""

    def __init__(self, addresses: Any) -> None:
        super().__init__(addresses)
        self._none = [None] * self._count
        self._kept = self._none.copy()  # owns the gradients from read() to release()
        get, keep = _asking()
        self._options.get = ffi.cast("adamw_get_function", get)
        self._options.descriptor = ffi.cast("void *", id(_GRAD))
        self._options.keep = ffi.cast("adamw_set_item_function", keep)
        self._options.kept = ffi.cast("void *", id(self._kept))

    def release(self) -> None:
        self._kept[:] = self._none
