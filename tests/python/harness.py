"""Owns making parameters, feeding gradients and comparing results for all Python tests. Must not know any law."""

import ctypes
import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from forked import changed_environment, run_command

import pyadamw

ROOT = Path(__file__).resolve().parents[2]
PLAYED = ROOT / "build" / "release" / "tests" / "libadamw_simt.so"
CLASSES = (
    pyadamw.AdamW,
    pyadamw.AdamW8bit,
    pyadamw.AdamW16bit,
    pyadamw.AdamW32bit,
    pyadamw.PagedAdamW,
    pyadamw.PagedAdamW8bit,
    pyadamw.PagedAdamW16bit,
    pyadamw.PagedAdamW32bit,
)
# Options that between them reach every state format, with sizes small enough for tests. "bf16": of such parameters.
CONFIGURATIONS = {
    "32": (pyadamw.AdamW32bit, {}),
    "32 amsgrad": (pyadamw.AdamW32bit, {"amsgrad": True}),
    "8": (pyadamw.AdamW8bit, {"min_8bit_size": 1000}),
    "8 amsgrad clipped": (pyadamw.AdamW8bit, {"min_8bit_size": 0, "amsgrad": True, "percentile_clipping": 40}),
    "8 tensor-wise": (pyadamw.AdamW8bit, {"min_8bit_size": 0, "block_wise": False}),
    "paged": (pyadamw.PagedAdamW8bit, {"min_8bit_size": 1000}),
    "16 amsgrad": (pyadamw.AdamW16bit, {"amsgrad": True, "seed": 3}),
    "bf16 8 stochastic": (pyadamw.AdamW8bit, {"min_8bit_size": 1000, "stochastic_rounding": True, "seed": 7}),
    "bf16 8 and master weights": (pyadamw.AdamW8bit, {"min_8bit_size": 1000, "master_weight_bits": 32}),
    "bf16 16 and 24 bits": (pyadamw.AdamW16bit, {"master_weight_bits": 24, "seed": 7}),
    "bf16 paged master weights": (
        pyadamw.PagedAdamW32bit,
        {"master_weight_bits": 24, "page_manager": pyadamw.PageManager("host", min_numel=1000)},
    ),
}
SHAPES = ((1,), (300,), (5000,), (3, 700), (40, 100), (70, 256), (600, 5), (2, 3, 100, 4), ())


def parameters(shapes=SHAPES, dtype=torch.float32, seed=0):
    """Parameters of the given shapes with normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def clones(params):
    return [torch.nn.Parameter(p.detach().clone(memory_format=torch.preserve_format)) for p in params]


def give_gradients(params, seed, scale=1.0, dtype=None):
    """Sets normal gradients that depend on the seed alone."""
    generator = torch.Generator().manual_seed(1000 + seed)
    for p in params:
        p.grad = (torch.randn(p.shape, generator=generator) * scale).to(p.dtype)
        if dtype is not None:
            p.grad.data = p.grad.to(dtype)


def train(optimizer, params, steps, first=0, **keywords):
    for step in range(first, first + steps):
        give_gradients(params, step, **keywords)
        optimizer.step()


def moment_of(state, moment="exp_avg"):
    """A moment of a parameter's state: its numbers, or its codes."""
    return state[moment] if moment in state else state[f"{moment}_codes"]


def decoded(state, moment="exp_avg"):
    """The numbers of a moment of a parameter's state, which has codes of it."""
    stored = [state.get(f"{moment}_{part}") for part in ("codes", "absmax", "floor")]
    return pyadamw.dequantize(*stored, moment.removeprefix("max_"), block_wise=stored[1].numel() > 1)


def bits(tensor):
    """A tensor's memory in logical order, as bytes."""
    plain = tensor.detach().contiguous().resolve_conj().resolve_neg()
    address, size = plain.data_ptr(), plain.nbytes
    assert plain.is_cpu and (address or not size)
    return ctypes.string_at(address, size)  # numpy() makes memory that cannot be resized afterwards


def state_bits(optimizer, param):
    """The whole state of a parameter, as bytes by key."""
    return {key: bits(value) for key, value in optimizer.state[param].items()}


def assert_same_bits(one, other):
    """`one` and `other` are (optimizer, parameters): parameters and state are equal, byte for byte."""
    for p, q in zip(one[1], other[1], strict=True):
        assert bits(p) == bits(q)
        assert state_bits(one[0], p) == state_bits(other[0], q)


class Late:
    """A module that is imported when something of it is first asked for, without its warnings: of the processes that
    collect every test, only those that run these tests wait for it."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        if attribute.startswith(("_", "pytest")):  # what pytest asks of every name in a module of tests
            raise AttributeError(attribute)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(importlib.import_module(self._name), attribute)


def run_python(script, *arguments, **environment):
    """Runs a script in a fresh interpreter with changed environment variables (None removes one)."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=changed_environment(environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run_played(*arguments, **environment):
    """Runs Python with a library whose CUDA device the CPU plays, in the root folder; returns what it printed."""
    if not PLAYED.exists():
        pytest.skip("needs ci/cpp release --build-only (make test does that first)")
    done = run_command(*arguments, timeout=600, PYADAMW_LIBRARY=str(PLAYED), **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ulps(tensor):
    """16-bit floats as integers that count representable numbers, so that neighbours differ by 1."""
    raw = tensor.detach().contiguous().view(torch.int16).to(torch.int32)
    return torch.where(raw >= 0, raw, -(raw & 0x7FFF))


def point_problem(contiguous=True):
    """A weight and a bias to fit to one point, as in torch's tests."""
    generator = torch.Generator().manual_seed(0)
    weight = (
        torch.randn(10, 5, generator=generator) if contiguous else torch.randn(10, 5, 2, generator=generator)[..., 0]
    )
    weight, bias = torch.nn.Parameter(weight), torch.nn.Parameter(torch.randn(10, generator=generator))
    point = torch.randn(5, generator=generator)

    def closure():
        for param in (weight, bias):
            param.grad = None
        loss = (weight.mv(point) + bias).pow(2).sum()
        loss.backward()
        return loss

    return weight, bias, closure
