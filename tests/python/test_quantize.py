"""Owns the laws of quantize and dequantize: the codes are those of the definition in reference.py, and no other code is
nearer; stochastic rounding is right on average.
"""

import pytest
import torch
from harness import bits
from reference import RootCodes, blocks

import pyadamw

MOMENTS = ("exp_avg", "exp_avg_sq")
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


def numbers(shape, moment):
    """Over many decades, some of them zero; second moments are squares."""
    tensor = torch.randn(shape) * torch.exp(3 * torch.randn(shape)) * (torch.rand(shape) < 0.9)
    return tensor.square() if moment == "exp_avg_sq" else tensor


def of_blocks(tensor, moment, block_wise):
    """(numbers of a block, where they are in the flat tensor, its scale and floor by definition) for every block."""
    flat = tensor.reshape(-1)
    number = blocks(tensor.shape) if block_wise else torch.zeros(flat.numel(), dtype=torch.long)
    for i in range(int(number.max()) + 1 if flat.numel() else 0):
        at = number == i
        yield flat[at], at, RootCodes.of(moment, flat[at])


@pytest.mark.parametrize("moment", MOMENTS)
def test_every_code_stands_for_what_is_written(moment):
    """All 256 codes, with scales and floors of all kinds, decode to the bits of the definition in adamw.h."""
    codes = torch.arange(256).to(torch.uint8)
    for absmax in (1.0, 3e-38, 0.7, 3e38, 0.0):
        for floor in (0.0, 2.0**-16 * 1.125, 0.1, 0.5, 0.987, 1 - 2.0**-24, 1.0):
            defined = RootCodes(moment, absmax, floor)
            given = None if moment == "exp_avg" else torch.tensor([floor])
            found = pyadamw.dequantize(codes, torch.tensor([absmax]), given, moment)
            assert bits(found) == bits(defined.decode(codes))


def test_landmarks_of_the_codes():
    """exp_avg: 128 is 0, 255 and 1 are the scale with both signs, and values grow with codes. exp_avg_sq: 255 is the
    scale, 0 is the smallest number of the block, or 0 where the floor says so, as in fresh state.
    """
    codes, one = torch.arange(256).to(torch.uint8), torch.ones(1)
    first = pyadamw.dequantize(codes, one)
    assert (first[128], first[255], first[1]) == (0, 1, -1)
    assert (first.diff()[[*range(126), *range(129, 255)]] > 0).all() and (first.diff() >= 0).all()
    for smallest in (0.0, 1e-30, 0.01, 0.5):
        quantized = pyadamw.quantize(torch.tensor([1.0, smallest]), "exp_avg_sq")
        second = pyadamw.dequantize(codes, one, quantized.floor, "exp_avg_sq")
        assert quantized.codes.tolist() == [255, 0]
        assert second[255] == 1 and (second.diff() > 0).all()
        assert abs(second[0] - smallest) <= 2**-20 * smallest
    assert not pyadamw.dequantize(torch.zeros(5).byte(), torch.zeros(1), torch.zeros(1), "exp_avg_sq").any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("block_wise", [True, False])
def test_the_nearest_code_is_stored(shape, moment, block_wise):
    """absmax is the exact maximum of the block, the floor is the root of the smallest number, and the codes are those
    of the definition, bit for bit. No code is nearer in the root: there a number is within half the distance of two
    codes.

    A position is counted in 2^-15 of a code and its factor is a little small, 2^-16 in 255: together 2^-14 of a code.
    """
    tensor = numbers(shape, moment)
    quantized = pyadamw.quantize(tensor, moment, block_wise=block_wise)
    assert quantized.codes.shape == tensor.shape
    assert quantized.codes.dtype == torch.uint8
    assert (quantized.floor is None) == (moment == "exp_avg")
    assert quantized.absmax.shape == pyadamw.functional.absmax_shape(shape, block_wise)
    decoded = pyadamw.dequantize(*quantized, moment, block_wise=block_wise)
    for i, (values, at, defined) in enumerate(of_blocks(tensor, moment, block_wise)):
        assert quantized.absmax.reshape(-1)[i] == values.abs().max() == defined.absmax
        assert moment == "exp_avg" or quantized.floor.reshape(-1)[i] == defined.floor
        codes = quantized.codes.reshape(-1)[at]
        assert torch.equal(codes, defined.nearest(values))
        assert bits(decoded.reshape(-1)[at]) == bits(defined.decode(codes))
        assert ((defined.positions(values) - codes).abs() <= 0.5 + 2**-14).all()


def test_zeros():
    """Zero is stored as zero. An exp_avg_sq above zero is not, however small it is beside its block's largest, unless
    that is below 2^-126: then the block is zero. The block's smallest number comes back to 2^-20 where none is zero.
    """
    tensor = torch.tensor([1.0, 0.0, 1e-3, 1e-30, 1.5e-45])
    decoded = pyadamw.dequantize(*pyadamw.quantize(tensor, "exp_avg_sq"), "exp_avg_sq")
    assert decoded[0] == 1 and decoded[1] == 0 and (decoded[2:] > 0).all()
    for smallest in (1e-3, 1e-30):
        tensor = torch.tensor([1.0, smallest, 0.3])
        quantized = pyadamw.quantize(tensor, "exp_avg_sq")
        assert quantized.codes[1] == 0
        assert abs(pyadamw.dequantize(*quantized, "exp_avg_sq")[1] / smallest - 1) <= 2**-20
    for moment in MOMENTS:
        for tensor in (torch.zeros(300), torch.full((300,), 1e-38)):
            quantized = pyadamw.quantize(tensor, moment)
            assert not quantized.absmax.any() and not pyadamw.dequantize(*quantized, moment).any()


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
    """What was decoded is stored with the same codes, and with the same scales and floors but for their last bits:
    2^-19, since the root of the last code is 1 to 2^-23, two roundings, and its eighth power is taken.
    """
    for moment in MOMENTS:
        for tensor in (numbers((70, 300), moment), torch.rand(70, 300) + 1e-3):
            once = pyadamw.quantize(tensor, moment)
            again = pyadamw.quantize(pyadamw.dequantize(*once, moment), moment)
            assert torch.equal(once.codes, again.codes)
            assert torch.allclose(once.absmax, again.absmax, rtol=2**-19, atol=0)
            if once.floor is not None:
                assert torch.allclose(once.floor, again.floor, rtol=2**-19, atol=0)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("decades", [1, 3])
def test_stochastic_rounding_is_right_on_average(moment, decades):
    """A number is rounded up with the probability that is its distance from the code below: the mean over many keys is
    within 6 standard errors of the number between these two codes. That is the number itself, but where a power of two
    lies between the codes: there the values bend, and it is off by at most the distance of the codes over the power of
    two below the root (a chord over a bend of factor two, in the middle: a quarter of the distance times the slope).

    exp_avg is rounded to nearest from a sixteenth of the scale up, so smaller numbers of both signs are taken there.
    """
    tensor = 10 ** -(torch.rand(4096) * decades) * (0.0624 if moment == "exp_avg" else 1.0)
    if moment == "exp_avg":
        tensor = tensor * torch.tensor([1.0, -1.0]).repeat(2048)
    tensor[::256] = 1.0  # every block's scale is 1
    tensor[1::256] = tensor.abs().min()  # and its floor the same
    defined = RootCodes.of(moment, tensor)
    keys = 400
    total = torch.zeros(4096, dtype=torch.float64)
    for step in range(keys):
        quantized = pyadamw.quantize(tensor, moment, rounding="stochastic", step=step, seed=5)
        total += pyadamw.dequantize(*quantized, moment).double()
    below = defined.positions(tensor).floor()
    share = (defined.positions(tensor) - below).double()
    ends = [defined.decode(code.clamp(0, 255)).double() for code in (below, below + 1)]
    expected = ends[0] + share * (ends[1] - ends[0])
    deviation = (share * (1 - share)).sqrt() * (ends[1] - ends[0]).abs()
    error = total / keys - expected
    small = torch.arange(4096) % 256 > 0 if moment == "exp_avg" else torch.ones(4096, dtype=torch.bool)
    assert (error.abs() <= 6 * deviation / keys**0.5 + 1e-4 * expected.abs())[small].all()
    assert error[small].sum().abs() <= 6 * (deviation[small].square().sum() / keys) ** 0.5
    roots = tensor.abs().double() ** (0.25 if moment == "exp_avg" else 0.125)
    distance = 1 / 127 if moment == "exp_avg" else (1 - float(defined.floor)) / 255
    off = (expected / tensor - 1).abs()[small]
    assert off.max() <= 1.5 * distance / roots.min()

    def codes_of(step, seed):
        return pyadamw.quantize(tensor, moment, rounding="stochastic", step=step, seed=seed).codes

    assert torch.equal(codes_of(1, 5), codes_of(1, 5))
    assert not torch.equal(codes_of(1, 5), codes_of(2, 5))
    assert not torch.equal(codes_of(1, 5), codes_of(1, 6))


def test_large_first_moments_are_rounded_to_nearest():
    """From a sixteenth of the scale up, stochastic rounding of exp_avg is rounding to the nearest code."""
    tensor = torch.rand(4096) * 0.93 + 0.0625
    tensor[::256] = 1.0
    assert torch.equal(pyadamw.quantize(tensor, rounding="stochastic", step=3).codes, pyadamw.quantize(tensor).codes)


def test_what_is_no_number_is_stored_as_zero():
    """NaN and infinities, and negative numbers in exp_avg_sq, become zero and do not count for the scale."""
    tensor = torch.tensor([1.0, float("nan"), float("inf"), -float("inf"), -0.5])
    for moment, last in (("exp_avg", -0.5), ("exp_avg_sq", 0.0)):
        quantized = pyadamw.quantize(tensor, moment)
        assert quantized.absmax == 1
        decoded = pyadamw.dequantize(*quantized, moment)
        assert decoded[:4].tolist() == [1, 0, 0, 0]
        assert abs(decoded[4] - last) <= 4 * 0.5 * (0.5 / 127)  # half the distance of two codes, in the fourth root


def test_other_dtypes_and_strides():
    """Any floating dtype and layout gives the codes of its float32 copy."""
    tensor = torch.randn(70, 300, dtype=torch.float64)
    for moment in MOMENTS:
        expected = pyadamw.quantize(tensor.float(), moment)
        found = pyadamw.quantize(tensor.t().contiguous().t(), moment)
        assert all(one is other is None or torch.equal(one, other) for one, other in zip(found, expected, strict=True))


CODES, SCALE = torch.ones(3, dtype=torch.uint8), torch.ones(1)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: pyadamw.quantize(torch.ones(3), "both"), "moment = 'both'"),
        (lambda: pyadamw.quantize(torch.ones(3), "signed"), "use moment='exp_avg'"),
        (lambda: pyadamw.quantize(torch.ones(3), "unsigned"), "use moment='exp_avg_sq'"),
        (lambda: pyadamw.quantize(torch.ones(3), ["exp_avg"]), r"moment = \['exp_avg'\]"),
        (lambda: pyadamw.quantize(torch.ones(3), rounding="up"), "rounding = 'up'"),
        (lambda: pyadamw.quantize(torch.ones(3), step=2**63), "step = 9223372036854775808: must be an integer"),
        (lambda: pyadamw.quantize(torch.ones(3), step=1.5), "step = 1.5: must be an integer"),
        (lambda: pyadamw.quantize(torch.ones(3), seed=-1), "seed = -1: must be an integer"),
        (lambda: pyadamw.quantize(torch.ones(3, device="meta")), "meta"),
        (lambda: pyadamw.quantize(torch.ones(3, dtype=torch.cfloat)), "complex64"),
        (lambda: pyadamw.dequantize(torch.ones(3), SCALE), "codes has dtype torch.float32"),
        (lambda: pyadamw.dequantize(torch.ones(300, dtype=torch.uint8), SCALE), r"must be float32 of shape \(2,\)"),
        (lambda: pyadamw.dequantize(CODES, SCALE.double()), "absmax is torch.float64"),
        (lambda: pyadamw.dequantize(CODES, SCALE, "signed"), "floor = 'signed': must be a tensor or None"),
        (lambda: pyadamw.dequantize(CODES, SCALE, None, "unsigned"), "use moment='exp_avg_sq'"),
        (lambda: pyadamw.dequantize(CODES, SCALE, SCALE), "for exp_avg it must be None"),
        (
            lambda: pyadamw.dequantize(CODES, SCALE, None, "exp_avg_sq"),
            "floor is None: for exp_avg_sq it must be float32",
        ),
        (lambda: pyadamw.dequantize(CODES, SCALE, torch.ones(2), "exp_avg_sq"), r"floor is .* of shape \(2,\)"),
        (lambda: pyadamw.dequantize(CODES, SCALE, [1.0], "exp_avg_sq"), "floor is list"),
    ],
)
def test_wrong_arguments_are_refused(call, word):
    """An unknown moment or rounding, codes that are not uint8, or scales or floors of another number or dtype is an
    error that names the argument and says what is needed.
    """
    with pytest.raises((ValueError, pyadamw.UnsupportedError), match=word):
        call()
