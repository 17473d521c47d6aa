"""Owns a program for test_device.py: it steps the same models on the CPU and on a device that tests/simt plays, through
the library that PYADAMW_LIBRARY names, and says where they differ. The device's memory is the process's own.
"""

import contextlib
import gc
import sys
import types

import torch

import pyadamw
from pyadamw._native import cuda
from pyadamw._native.library import library

SHAPES = [(40, 300), (1000,), (17,), (3, 4, 512), (64, 768)]


@contextlib.contextmanager
def on_device():
    """CPU tensors count as tensors of CUDA device 0."""
    lib, stream = library(), torch.cuda.current_stream
    number = lib.device_number
    lib.device_number = lambda device, what: 0
    torch.cuda.current_stream = lambda device: types.SimpleNamespace(cuda_stream=0)
    cuda.TYPES.add("cpu")
    try:
        yield
    finally:
        cuda.TYPES.discard("cpu")
        torch.cuda.current_stream = stream
        del lib.device_number
        assert lib.device_number == number


class Scaled:
    """What GradScaler gives an optimizer."""

    def __init__(self, scale=None, infinite=()):
        self.scale, self.infinite = scale, infinite

    def tell(self, optimizer, step):
        if self.scale is not None:
            optimizer.grad_scale = torch.tensor(self.scale)
            optimizer.found_inf = torch.tensor(2.0 if step in self.infinite else 0.0)


def run(cls, dtype=torch.float32, steps=4, scaled=None, missing=False, tensor_lr=False, paging=None, **options):
    torch.manual_seed(0)
    if paging is not None and "cpu" in cuda.TYPES:
        options.update(is_paged=True, page_manager=pyadamw.PageManager(**{"min_numel": 500, **paging}))
    params = [torch.nn.Parameter((torch.randn(shape) * 0.1).to(dtype)) for shape in SHAPES]
    lr = torch.tensor(1e-2) if tensor_lr else 1e-2
    optimizer = cls(params, lr=lr, min_8bit_size=100, **options)
    for step in range(steps):
        for i, param in enumerate(params):
            param.grad = None if missing and (i + step) % 3 == 0 else torch.randn(param.shape).to(dtype)
        if tensor_lr:
            lr.mul_(0.9)
        if scaled is not None:
            scaled.tell(optimizer, step)
        optimizer.step()
    if hasattr(optimizer, "found_inf"):
        del optimizer.found_inf, optimizer.grad_scale
    state = [optimizer.state[param] for param in params]
    places = optimizer.memory_report().places
    assert paging is None or "cpu" not in cuda.TYPES or set(places) >= {paging.get("backing", "managed")}, places
    return params, state, optimizer.skipped_elements


CASES = {
    "8 bits": {"cls": pyadamw.AdamW8bit},
    "32 bits": {"cls": pyadamw.AdamW32bit},
    "bfloat16": {"cls": pyadamw.AdamW8bit, "dtype": torch.bfloat16, "stochastic_rounding": True},
    "16 bits": {"cls": pyadamw.AdamW16bit},
    "16 bits, amsgrad, bfloat16": {"cls": pyadamw.AdamW16bit, "amsgrad": True, "dtype": torch.bfloat16},
    "master weights": {"cls": pyadamw.AdamW8bit, "master_weight_bits": 32, "dtype": torch.bfloat16},
    "master weights, 32 bits": {"cls": pyadamw.AdamW32bit, "master_weight_bits": 32, "dtype": torch.bfloat16},
    "24 bits, capturable": {
        "cls": pyadamw.AdamW16bit,
        "master_weight_bits": 24,
        "dtype": torch.bfloat16,
        "capturable": True,
    },
    "24 bits, paged, pinned, some gradients": {
        "cls": pyadamw.AdamW8bit,
        "master_weight_bits": 24,
        "dtype": torch.bfloat16,
        "paging": {"backing": "pinned", "chunk_bytes": 65536},
        "missing": True,
    },
    "amsgrad": {"cls": pyadamw.AdamW8bit, "amsgrad": True},
    "clipping": {"cls": pyadamw.AdamW8bit, "percentile_clipping": 50},
    "tensor-wise": {"cls": pyadamw.AdamW8bit, "block_wise": False},
    "capturable": {"cls": pyadamw.AdamW8bit, "capturable": True},
    "capturable, clipping": {"cls": pyadamw.AdamW32bit, "capturable": True, "percentile_clipping": 50},
    "some gradients": {"cls": pyadamw.AdamW8bit, "missing": True},
    "some gradients, capturable": {"cls": pyadamw.AdamW8bit, "missing": True, "capturable": True},
    "lr is a tensor": {"cls": pyadamw.AdamW8bit, "tensor_lr": True},
    "lr is a tensor, capturable": {"cls": pyadamw.AdamW32bit, "tensor_lr": True, "capturable": True},
    "scaled": {"cls": pyadamw.AdamW8bit, "scaled": Scaled(1024.0)},
    "paged": {"cls": pyadamw.AdamW8bit, "paging": {}},
    "paged, managed": {"cls": pyadamw.AdamW32bit, "paging": {"backing": "managed", "chunk_bytes": 65536}},
    "paged, pinned": {"cls": pyadamw.AdamW8bit, "paging": {"backing": "pinned", "chunk_bytes": 65536}},
    "paged, pinned, amsgrad, some gradients": {
        "cls": pyadamw.AdamW32bit,
        "paging": {"backing": "pinned", "chunk_bytes": 65536, "resident_bytes": 400_000},
        "amsgrad": True,
        "missing": True,
    },
    "paged, pinned, clipping": {
        "cls": pyadamw.AdamW8bit,
        "paging": {"backing": "pinned", "chunk_bytes": 65536},
        "percentile_clipping": 50,
    },
    "paged, pinned, tensor-wise": {
        "cls": pyadamw.AdamW8bit,
        "paging": {"backing": "pinned", "chunk_bytes": 65536},
        "block_wise": False,
    },
    "scaled, infinities": {"cls": pyadamw.AdamW8bit, "scaled": Scaled(1024.0, (1, 2))},
    "scaled, infinities, capturable": {"cls": pyadamw.AdamW32bit, "scaled": Scaled(8.0, (0,)), "capturable": True},
}


def pages_go_back():
    """A load into paged state takes the place of what was there, and a deleted optimizer leaves nothing."""
    with on_device():
        manager = pyadamw.PageManager("pinned", chunk_bytes=65536, min_numel=500)
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
        optimizer = pyadamw.PagedAdamW8bit(params, min_8bit_size=100, page_manager=manager)
        for _ in range(3):
            for param in params:
                param.grad = torch.randn(param.shape)
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        held = manager.stats()
        right = held["pinned_bytes"] == optimizer.memory_report().places["pinned"] and held["device_bytes"] == 0
        del optimizer
        gc.collect()
        right = right and manager.stats()["buffers"] == 0
    print(f"pages go back: {'yes, the same bits' if right else 'DIFFERENT'}")
    return right


def main():
    failed = 0
    for name, case in CASES.items():
        here = run(**case)
        with on_device():
            there = run(**case)
        same = all(map(torch.equal, here[0], there[0])) and here[2] == there[2]
        for one, other in zip(here[1], there[1], strict=True):
            same = same and one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        print(f"{name}: {'the same bits' if same else 'DIFFERENT'}")
        failed += not same
    failed += not pages_go_back()
    same = True
    for moment in ("exp_avg", "exp_avg_sq"):
        x = torch.randn(40, 300) if moment == "exp_avg" else torch.randn(40, 300).square()
        here = pyadamw.functional.quantize(x, moment)
        with on_device():
            there = pyadamw.functional.quantize(x, moment)
            back = pyadamw.functional.dequantize(*there, moment)
        parts = [(one, other) for one, other in zip(here, there, strict=True) if one is not None]
        same = same and all(torch.equal(one, other) for one, other in parts)
        same = same and torch.equal(back, pyadamw.functional.dequantize(*here, moment))
    print(f"quantize: {'the same bits' if same else 'DIFFERENT'}")
    for options in ({}, {"master_weight_bits": 24}, {"master_weight_bits": 24, "rounding": "stochastic", "seed": 3}):
        x = torch.randn(40, 300)
        here = pyadamw.functional.split_weights(x, **options)
        with on_device():
            there = pyadamw.functional.split_weights(x, **options)
            back = pyadamw.functional.join_weights(*there)
        split = all(map(torch.equal, here, there)) and torch.equal(back, pyadamw.functional.join_weights(*here))
        print(f"split_weights, {options}: {'the same bits' if split else 'DIFFERENT'}")
        same = same and split
    print(f"{len(CASES) + 1 - failed - (not same)} passed, {failed + (not same)} failed")
    return failed + (not same)


if __name__ == "__main__":
    sys.exit(main())
