"""Owns the laws of quantize, dequantize and codebook: the maps are bitsandbytes', the code is the nearest."""

import pytest
import torch
from harness import bits
from reference import blocks, dynamic_map

import pyadamw

SHAPES = [
    (),
    (1,),
    (0,),
    (255,),
    (256,),
    (257,),
    (10_007,),
    (5, 64),
    (5, 63),
    (7, 300),
    (3, 512),
    (4, 5, 60),
    (0, 100),
    (3, 0),
]


def scales_of(tensor, block_wise):
    """The largest magnitude of each element's block, by element, in float32."""
    flat = tensor.reshape(-1).abs()
    if not block_wise:
        return torch.full_like(flat, flat.max()) if flat.numel() else flat
    number = blocks(tensor.shape)
    largest = torch.zeros(int(number.max()) + 1).scatter_reduce(0, number, flat, "amax")
    return largest[number]


@pytest.mark.parametrize("name", ["signed", "unsigned"])
def test_codebook_is_bitsandbytes(name):
    """The maps increase, have 256 values, and are those of the formula to within 4 float32 units."""
    values = pyadamw.codebook(name)
    expected = dynamic_map(signed=name == "signed")
    assert values.shape == (256,)
    assert (values.diff() > 0).all()
    assert values[-1] == 1
    assert values[127 if name == "signed" else 0] == 0
    assert ((values - expected).abs() <= 4 * 1.2e-7 * expected.abs()).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["signed", "unsigned"])
@pytest.mark.parametrize("block_wise", [True, False])
def test_the_nearest_code_is_stored(shape, name, block_wise):
    """absmax is the exact block maximum, and no other code decodes nearer, but where two are equally near to 2^-13 of
    their distance (positions are counted in 2^-15 of a code); the division's rounding: 1e-6.
    """
    tensor = torch.randn(shape) * torch.exp(3 * torch.randn(shape))
    if name == "unsigned":
        tensor = tensor.abs()
    codes, absmax = pyadamw.quantize(tensor, name, block_wise=block_wise)
    assert codes.shape == tensor.shape
    assert codes.dtype == torch.uint8
    if tensor.numel() == 0:
        assert absmax.numel() == 0
        return
    scales = scales_of(tensor, block_wise)
    decoded = pyadamw.dequantize(codes, absmax, name, block_wise=block_wise).reshape(-1)
    assert bits(decoded) == bits(scales * pyadamw.codebook(name)[codes.reshape(-1).long()])
    wanted = (tensor.reshape(-1) / scales).double()
    found = (decoded / scales).double()
    book = pyadamw.codebook(name).double()
    best = (wanted[:, None] - book[None, :]).abs().min(dim=1).values
    # Next to zero the header says something else: unsigned numbers above it are never zero, signed ones are below
    # 4.5e-7.
    special = (wanted > 0) & (wanted < book[1]) if name == "unsigned" else wanted.abs() < 4.6e-7
    assert ((wanted - found).abs() <= best * (1 + 2**-13) + 1e-6 * wanted.abs().clamp_min(1e-6))[~special].all()
    if name == "unsigned":
        assert (codes.reshape(-1)[special] == 1).all()
    else:
        assert (codes.reshape(-1)[wanted.abs() < 4.4e-7] == 127).all()


def test_scales_have_a_shape():
    """Scales follow rows of 64 elements and more; shorter rows and flat tensors have flat blocks."""
    expected = {
        (7, 300): (7, 2),
        (3, 512): (3, 2),
        (4, 5, 60): (4, 2),
        (5, 64): (5, 1),
        (5, 63): (2,),
        (257,): (2,),
        (): (1,),
    }
    for shape, scales in expected.items():
        assert tuple(pyadamw.quantize(torch.ones(shape))[1].shape) == scales
        assert tuple(pyadamw.quantize(torch.ones(shape), block_wise=False)[1].shape) == (1,)


def test_quantizing_again_changes_nothing():
    """What was decoded is stored with the same codes and scales, where the largest number of a block is positive: the
    signed map has 1, but its lowest value is -0.993.
    """
    for name in ("signed", "unsigned"):
        tensor = torch.randn(70, 300).abs() if name == "unsigned" else torch.randn(70, 300)
        tensor[:, [0, 256]] = 10.0
        codes, absmax = pyadamw.quantize(tensor, name)
        again, scales = pyadamw.quantize(pyadamw.dequantize(codes, absmax, name), name)
        assert torch.equal(codes, again)
        assert torch.equal(absmax, scales)


@pytest.mark.parametrize("name", ["signed", "unsigned"])
def test_stochastic_rounding_is_unbiased(name):
    """The mean over many keys is the number itself: within 5 standard errors of rounding between neighbouring codes.

    The signed map is rounded to nearest from a tenth of the scale up, so smaller numbers of both signs are taken there.
    """
    tensor = torch.rand(4096).clamp_min(0.02)
    if name == "signed":
        tensor = tensor * 0.09 * torch.tensor([1.0, -1.0]).repeat(2048)
    tensor[::256] = 1.0  # every block's scale is 1
    keys = 400
    total = torch.zeros(4096, dtype=torch.float64)
    for step in range(keys):
        codes, absmax = pyadamw.quantize(tensor, name, rounding="stochastic", step=step, seed=5)
        total += pyadamw.dequantize(codes, absmax, name).double()
    # The widest gaps: 0.9 / 128 (unsigned), a tenth of 0.9 / 32 (signed); the deviation of one rounding is at most half
    # of that.
    gap = 0.9 / 128 if name == "unsigned" else 0.09 / 32
    error = total / keys - tensor
    assert error.abs().max() <= 5 * gap / 2 / keys**0.5
    assert error.mean().abs() <= 5 * gap / 2 / (keys * 4096) ** 0.5

    def codes_of(step, seed):
        return pyadamw.quantize(tensor, name, rounding="stochastic", step=step, seed=seed)[0]

    assert torch.equal(codes_of(1, 5), codes_of(1, 5))
    assert not torch.equal(codes_of(1, 5), codes_of(2, 5))
    assert not torch.equal(codes_of(1, 5), codes_of(1, 6))


def test_large_signed_numbers_are_rounded_to_nearest():
    """From a tenth of the scale up, stochastic rounding of the signed map is rounding to the nearest code."""
    tensor = torch.rand(4096) * 0.89 + 0.11
    tensor[::256] = 1.0
    assert torch.equal(pyadamw.quantize(tensor, rounding="stochastic", step=3)[0], pyadamw.quantize(tensor)[0])


def test_what_is_no_number_is_stored_as_zero():
    """NaN and infinities, and negative numbers in the unsigned map, become zero and do not count for the scale."""
    tensor = torch.tensor([1.0, float("nan"), float("inf"), -float("inf"), -0.5])
    for name, last in (("signed", -0.5), ("unsigned", 0.0)):
        codes, absmax = pyadamw.quantize(tensor, name)
        assert absmax == 1
        decoded = pyadamw.dequantize(codes, absmax, name)
        assert decoded[:4].tolist() == [1, 0, 0, 0]
        assert abs(decoded[4] - last) <= 0.9 / 64 / 2  # half the widest gap


def test_other_dtypes_and_strides():
    """Any floating dtype and layout gives the codes of its float32 copy."""
    tensor = torch.randn(70, 300, dtype=torch.float64)
    expected = pyadamw.quantize(tensor.float())
    found = pyadamw.quantize(tensor.t().contiguous().t())
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize(
    "call",
    [
        lambda: pyadamw.quantize(torch.ones(3), "both"),
        lambda: pyadamw.quantize(torch.ones(3), rounding="up"),
        lambda: pyadamw.codebook("linear"),
        lambda: pyadamw.dequantize(torch.ones(3), torch.ones(1)),
        lambda: pyadamw.dequantize(torch.ones(300, dtype=torch.uint8), torch.ones(1)),
        lambda: pyadamw.dequantize(torch.ones(3, dtype=torch.uint8), torch.ones(1).double()),
        lambda: pyadamw.quantize(torch.ones(3, device="meta")),
    ],
)
def test_wrong_arguments_are_refused(call):
    """An unknown map or rounding, codes that are not uint8, or scales of another number or dtype is an error."""
    with pytest.raises((ValueError, pyadamw.UnsupportedError)):
        call()
