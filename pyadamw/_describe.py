"""Owns looking at thousands of tensors at once: their addresses and forms (sizes, dtype, device, contiguity). Must not
know what they are for.

Asking tensor by tensor from Python costs more than stepping small ones. torch has a C function that describes a tensor
(DLPack's exchange API, since 2.9), and libadamw a loop that calls it. Without either, read() says so.
"""

import ctypes
import functools

import numpy as np
import torch

from ._library import ffi, library

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

    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("older", ctypes.c_void_p)] + [
        (name, ctypes.c_void_p) for name in ("allocate", "from_object", "to_object", "describe_object", "stream")
    ]


@functools.cache
def _loop():
    """adamw_describe_tensors(sequence, address of options), which holds the GIL as torch needs it, and options with
    torch's function and CPython's; or None."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    function = getattr(library().lib, "adamw_describe_tensors", None)
    if capsule is None or function is None:
        return None
    pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    api = _ExchangeApi.from_address(pointer_of(capsule, b"dlpack_exchange_api"))
    if api.major != 1 or not api.describe_object or ffi.sizeof("adamw_tensor_form") != _FORM.itemsize:
        return None
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)
    item = ctypes.cast(ctypes.pythonapi.PyList_GetItem, ctypes.c_void_p).value
    options = {
        "size": ffi.sizeof("adamw_describe_options"),
        "describe": ffi.cast("adamw_dlpack_function", api.describe_object),
        "item": ffi.cast("adamw_item_function", item),
        "form_size": _FORM.itemsize,
    }
    return prototype(int(ffi.cast("uintptr_t", function))), options


class Described:
    """The addresses and forms of as many tensors as `addresses`, a column of unsigned 64-bit numbers, has entries, and
    what tells the tensors from other objects as long as they live."""

    def __init__(self, addresses):
        count = len(addresses)
        self.addresses, self.forms, self.objects = addresses, bytearray(count * _FORM.itemsize), bytearray(count * 8)
        self._count, (self._loop, options) = count, _loop() or (None, None)
        if options:
            begin, stride = addresses.__array_interface__["data"][0], addresses.strides[0]
            self._options = ffi.new("adamw_describe_options *", options)
            self._options.count, self._options.stride = count, stride
            self._options.addresses = ffi.cast("void *", begin)
            self._options.forms = ffi.from_buffer("adamw_tensor_form[]", self.forms)
            self._options.objects = ffi.from_buffer("void *[]", self.objects)
            # As an integer, and all in one struct: ctypes takes longer over arguments than the loop over some tensors.
            self._at = int(ffi.cast("uintptr_t", self._options))

    def read(self, tensors):
        """Looks at the tensors of a list. False if they cannot be described so, whatever the reason."""
        if self._loop is None or len(tensors) != self._count:
            return False
        try:
            return self._loop(tensors, self._at) == 0
        except RuntimeError:  # no tensor, or one that has no address
            return False

    def gradient_forms(self, dtypes):
        """The forms that contiguous gradients of these dtypes have."""
        forms = np.frombuffer(bytes(self.forms), dtype=_FORM).copy()
        forms["dtype"] = [_DTYPES[dtype] for dtype in dtypes]
        forms["contiguous"] = 1
        return forms.tobytes()
