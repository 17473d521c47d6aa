"""Owns the dynamic maps of bitsandbytes: their 256 values, and what codes of a map stand for. Must not know whose the
codes are.

The maps are those of Dettmers et al., "8-bit Optimizers via Block-wise Quantization", ICLR 2022. A code stands for a
value of its map times the scale of its block. bitsandbytes and torchao keep their 8-bit state in such codes, and so did
this package in formats 1 and 2. Its state of today has other codes.
"""

from __future__ import annotations

import functools
import math

import torch

BLOCK = 256


def _decade(code: int, decades: int) -> float:
    """Value number `code` = 1, 2, 3, ... above zero: 2^i values between 10^(i - decades) and a tenth of that."""
    i = math.floor(math.log2(code))
    return 10.0 ** (i - decades) * (0.1 + 0.9 * (code - 2**i + 0.5) / 2**i)


def _signed() -> list[float]:
    """127 is the code of 0, 127 + k and 127 - k stand for two numbers that differ in the sign, and 255 for 1."""
    above = [_decade(k, 6) for k in range(1, 128)]
    return [-value for value in reversed(above)] + [0.0, *above, 1.0]


def _unsigned() -> list[float]:
    """0 is the code of 0, and 255 stands for 1."""
    return [0.0, *(_decade(k + 1, 7) for k in range(1, 255)), 1.0]


@functools.cache
def _tables(signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The values of a map, and where the nearest one changes."""
    values = torch.tensor(_signed() if signed else _unsigned(), dtype=torch.float64, device="cpu")
    return values.to(torch.float32), ((values[1:] + values[:-1]) / 2).to(torch.float32)


def dynamic_map(signed: bool) -> torch.Tensor:
    """The 256 float32 values of a map in the order of their codes, on the CPU, in new memory."""
    return _tables(signed)[0].clone()


def encoded(values: torch.Tensor, signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, scales) of finite float32 values, in flat blocks: the largest magnitudes, and the nearest codes."""
    flat = values.detach().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    scaled = blocks / torch.where(scales > 0, scales, 1.0)[:, None]
    codes = torch.bucketize(scaled, _tables(signed)[1].to(values.device), out_int32=True).to(torch.uint8)
    return codes.flatten()[: flat.numel()].view(values.shape), scales


def decoded(codes: torch.Tensor, scales: torch.Tensor, values: torch.Tensor, block: int, dim: int = 0) -> torch.Tensor:
    """The float32 numbers that codes stand for, in their shape.

    `values`: the 256 values of the map. `scales`: one for each `block` neighbours; a single scale is for all. `dim`:
    the dimension that blocks cut: each index before it begins a new block. 0: blocks are flat.
    """
    rows, length = math.prod(codes.shape[:dim]), math.prod(codes.shape[dim:])
    numbers = values.detach().to(codes.device, torch.float32)[codes.detach().flatten().int()].view(rows, length)
    scales = scales.detach().to(codes.device, torch.float32)
    if scales.numel() == 1:  # a single scale needs no repetition
        scales = scales.flatten()
    else:
        scales = scales.reshape(rows, -(-length // block)).repeat_interleave(block, dim=1)[:, :length]
    return numbers.mul_(scales).view(codes.shape)
