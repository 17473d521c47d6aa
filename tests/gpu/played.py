"""Owns torch's side of a CUDA device that the CPU plays, so that `make gpu` can be rehearsed without a GPU: tensors "on
the device" are CPU tensors of a class of their own, kernels run in tests/simt's fibers (PYADAMW_LIBRARY names those).

It shows mistakes in the tests, the benchmark, and what Python does for a device. It says nothing about streams, graphs
and time: what needs those is left out, by name.

pytest -p played tests/gpu [--every-case]   of a test with many cases the first and the last, or every one
python tests/gpu/played.py [JSON]           sanitized.py, and the benchmark with small sizes
"""

import contextlib
import ctypes
import sys
import time
import types
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda", 0)
LEFT_OUT = {
    "test_replayed_graph_is_eager_steps": "graphs",
    "test_capture_without_capturable_is_refused": "graphs",
    "test_304_tensors_take_one_launch": "the profiler",
    "test_no_memory_in_the_steady_state": "the device's memory",
    "test_device_memory_is_the_budget": "the device's memory",
    "test_loading_leaves_no_device_copy": "the device's memory",
    "test_optimizers_leave_nothing": "the device's memory",
    "test_a_tensor_beyond_2_to_the_31": "the device's memory",
}


class Played(torch.Tensor):
    """A tensor on the device. Operations on it give such tensors; Mode sees to the rest."""

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)


def _target(name, args, kwargs):
    """The device that a call names; None if it names none."""
    if name == "cpu":
        return "cpu"
    if name == "to" and len(args) > 1:
        if isinstance(args[1], torch.Tensor):
            return args[1].device
        if isinstance(args[1], (torch.device, str)):
            return args[1]
    return kwargs.get("device")


def _placed(value, there):
    if isinstance(value, (list, tuple)):
        return type(value)(_placed(item, there) for item in value)
    if not isinstance(value, torch.Tensor) or isinstance(value, Played) == there:
        return value
    return value.as_subclass(Played if there else torch.Tensor)


class Mode(TorchFunctionMode):
    """Makes every torch function that names a device, or takes tensors of one, act as if the device were there."""

    def __torch_function__(self, func, _types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__":  # an attribute, such as grad or data
            return func(*args, **kwargs)
        if name == "as_tensor" and hasattr(args[0], "__cuda_array_interface__"):
            return _placed(_memory(args[0]), True)
        target = _target(name, args, kwargs)
        if target is None:
            there = any(isinstance(value, Played) for value in torch.utils._pytree.tree_leaves(args))
        else:
            there = torch.device(target).type == "cuda"
        moved = name in ("to", "cpu") and isinstance(args[0], Played) != there
        if kwargs.get("device") is not None:
            kwargs["device"] = "cpu"
        elif there and target is not None:  # to(device, ...)
            args = (args[0], "cpu", *args[2:])
        kwargs.pop("pin_memory", None)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        if moved and result.data_ptr() == args[0].data_ptr():
            result = result.clone()  # another device is other memory
        return _placed(result, there)


def _memory(holder):
    description = holder.__cuda_array_interface__
    bytes_ = (ctypes.c_uint8 * description["shape"][0]).from_address(description["data"][0])
    bytes_.holder = holder
    return torch.frombuffer(bytes_, dtype=torch.uint8)


class Stream:
    cuda_stream = 0

    def wait_stream(self, _other):
        pass


class Event:
    def __init__(self, **_options):
        self.time = None

    def record(self):
        self.time = time.perf_counter()

    def query(self):
        return False  # as a device that is busy says

    def synchronize(self):
        pass

    def elapsed_time(self, later):
        return (later.time - self.time) * 1e3


def install():
    def nothing(*_arguments, **_options):
        pass

    stand_ins = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_current_stream_capturing": lambda: False,
        "current_device": lambda: 0,
        "current_stream": lambda *_device: Stream(),
        "stream": lambda _stream: contextlib.nullcontext(),
        "Stream": Stream,
        "Event": Event,
        "mem_get_info": lambda *_device: (1 << 34, 1 << 34),
        "get_device_properties": lambda _device: types.SimpleNamespace(
            name="played by the CPU", total_memory=1 << 34, multi_processor_count=4
        ),
        **dict.fromkeys(("synchronize", "_sleep", "set_sync_debug_mode", "empty_cache"), nothing),
    }
    for name, value in stand_ins.items():
        setattr(torch.cuda, name, value)
    torch._C._cuda_getCurrentRawStream = lambda _index: Stream.cuda_stream
    Mode().__enter__()


# ---- pytest ----------------------------------------------------------------------------------------------------------


def pytest_addoption(parser):
    parser.addoption("--every-case", action="store_true", help="rehearse every case of every test")


def pytest_configure():
    install()


def pytest_collection_modifyitems(config, items):
    cases = {}
    for item in items:
        cases.setdefault(item.originalname, []).append(item)
        reason = LEFT_OUT.get(item.originalname)
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"{reason}: nothing that the CPU plays"))
    if not config.getoption("--every-case"):
        items[:] = [item for item in items if item in (cases[item.originalname][0], cases[item.originalname][-1])]


# ---- what make gpu runs beside pytest --------------------------------------------------------------------------------


def main():
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(here), str(here.parent / "bench")]
    install()
    import gpu
    import gpu_paging
    import sanitized

    sanitized.main()
    gpu.sizes = lambda elements: {
        "large": [(elements,)],
        "gpt2-304": [(64, 64), (64,)] * 5,
        "small-2000": [(100,)] * 20,
    }
    gpu.BUDGETS[True] = 0.02
    gpu_paging.QUICK_ELEMENTS = gpu_paging.TENSOR = 1 << 17
    gpu.main(["--quick", "--elements", "65536", *(f"--json={name}" for name in sys.argv[1:])])


if __name__ == "__main__":
    main()
