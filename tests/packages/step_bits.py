"""Owns the bits of a few steps of every class: a line each. ci/wheel_aarch64_python compares those of two processors.

The numbers come from integers, not from torch's generator, which need not draw the same on every processor or in every
version. The argument is the folder in which pyadamw must be. What has been imported is said on stderr.
"""

import hashlib
import itertools
import sys
from pathlib import Path

import numpy
import torch

import pyadamw

CLASSES = ("AdamW", "AdamW8bit", "AdamW16bit", "AdamW32bit")
SHAPES = ((300, 300), (7, 1000), (4099,))  # large enough for 8 bits and for pages, and rows that no block ends with
STEPS = 3


def numbers(shape, seed):
    """Of magnitudes from 2**-8 to 1, both signs, each exact in float32."""
    count = int(numpy.prod(shape))
    bits = (numpy.arange(count, dtype=numpy.uint64) + numpy.uint64(seed << 20)) * numpy.uint64(0x9E3779B97F4A7C15)
    mantissa = (bits >> numpy.uint64(41)).astype(numpy.int64) - (1 << 22)
    exponent = (bits & numpy.uint64(7)).astype(numpy.int64)
    values = numpy.ldexp(mantissa.astype(numpy.float64), -22 - exponent).astype(numpy.float32)
    return torch.from_numpy(values).reshape(shape)


def digest(name, dtype, amsgrad):
    """The parameters after the steps, and all tensors of their state."""
    weights = [torch.nn.Parameter(numbers(shape, seed).to(dtype)) for seed, shape in enumerate(SHAPES)]
    optimizer = getattr(pyadamw, name)(weights, lr=1e-2, weight_decay=0.1, amsgrad=amsgrad)
    for step in range(1, STEPS + 1):
        for seed, weight in enumerate(weights):
            weight.grad = numbers(weight.shape, 100 * step + seed).to(dtype)
        optimizer.step()
    found = hashlib.sha256()
    for weight in weights:
        state = optimizer.state[weight]
        for key in sorted(state):
            value = state[key]
            value = value if torch.is_tensor(value) else torch.tensor(float(value))
            found.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        found.update(weight.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:32]


if __name__ == "__main__":
    library = pyadamw._native.library.library()
    for file in (pyadamw.__file__, library.path):
        assert Path(file).is_relative_to(sys.argv[1]), file
    print(f"torch {torch.__version__}, {library.path}: {library.build_info()}", file=sys.stderr)
    for paged, name, dtype, amsgrad in itertools.product(
        ("", "Paged"), CLASSES, (torch.float32, torch.bfloat16), (False, True)
    ):
        print(f"{paged}{name} {dtype} amsgrad={amsgrad} {digest(paged + name, dtype, amsgrad)}", flush=True)
