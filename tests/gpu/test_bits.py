"""Owns the law: a CUDA device computes the CPU's bits, for every class, dtype and option."""

import models
import pytest
import torch

import pyadamw

OPTIONS = {
    "plain": {},
    "amsgrad": {"amsgrad": True},
    "maximize": {"maximize": True},
    "clipping": {"percentile_clipping": 40},
    "tensor-wise": {"block_wise": False},
    "max_unorm": {"args": {"max_unorm": 0.01}},
    "skip_zeros": {"args": {"skip_zeros": True}},
    "capturable": {"capturable": True},
    "eps 0": {"eps": 0.0},
}


CLASSES = [pyadamw.AdamW8bit, pyadamw.AdamW16bit, pyadamw.AdamW32bit]


def run(device, cls, dtype, options, steps=5, spoiled=False, scale=1.0):
    params = models.parameters(device, dtype)
    optimizer = cls(params, lr=1e-2, min_8bit_size=100, **options)
    for step in range(steps):
        models.gradients(params, step, scale=scale, spoiled=spoiled)
        optimizer.step()
    return params, models.states(optimizer, params), optimizer.skipped_elements


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("cls", CLASSES)
def test_bits_are_the_cpus(cuda, cls, dtype, options):
    here, there = (run(device, cls, dtype, options) for device in ("cpu", cuda))
    models.assert_same(here[0], there[0])
    models.assert_same(here[1], there[1])


@pytest.mark.parametrize("bits", [24, 32])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("cls", CLASSES)
def test_master_weights_are_the_cpus(cuda, cls, options, bits):
    """With gradients of the parameters' dtype, some of which are not finite, and of another."""
    for grad_dtype in (torch.bfloat16, torch.float32):
        results = []
        for device in ("cpu", cuda):
            params = models.parameters(device, torch.bfloat16)
            optimizer = cls(params, lr=1e-2, min_8bit_size=100, master_weight_bits=bits, **options)
            for step in range(5):
                models.gradients(params, step, grad_dtype, spoiled=step == 3)
                optimizer.step()
                if step == 1:  # a program may set parameters: what they lack stays
                    with torch.no_grad():
                        for param in params:
                            param.view(-1)[::5] = 0.0
            results.append((params, models.states(optimizer, params)))
        models.assert_same(results[0][0], results[1][0])
        models.assert_same(results[0][1], results[1][1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_stochastic_rounding_is_the_cpus(cuda, dtype):
    options = {"stochastic_rounding": True, "seed": 7}
    here, there = (run(device, pyadamw.AdamW8bit, dtype, options) for device in ("cpu", cuda))
    models.assert_same(here[0], there[0])


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e-12, 1e-6, 1e6, 1e15, 1e25])
def test_any_magnitude_gives_the_cpus_bits(cuda, scale):
    """Operands beyond the range of the branch-free division and root take the other way, and no bit changes."""
    for cls in CLASSES:
        here, there = (run(device, cls, torch.float32, {"eps": 1e-8}, scale=scale) for device in ("cpu", cuda))
        models.assert_same(here[0], there[0])
        models.assert_same(here[1], there[1])


def test_skipped_elements_are_counted(cuda):
    here, there = (run(device, pyadamw.AdamW8bit, torch.float32, {}, spoiled=True) for device in ("cpu", cuda))
    models.assert_same(here[0], there[0])
    assert here[2] == there[2] > 0


def test_state_goes_on_on_the_other_device(cuda):
    params = models.parameters("cpu")
    optimizer = pyadamw.AdamW8bit(params, lr=1e-2, min_8bit_size=100)
    for step in range(3):
        models.gradients(params, step)
        optimizer.step()
    moved = [torch.nn.Parameter(param.detach().to(cuda)) for param in params]
    other = pyadamw.AdamW8bit(moved, lr=1e-2, min_8bit_size=100)
    other.load_state_dict(optimizer.state_dict())
    for step in range(3, 6):
        for mine, made in ((params, optimizer), (moved, other)):
            models.gradients(mine, step)
            made.step()
    models.assert_same(params, moved)


def test_quantize_is_the_cpus(cuda):
    x = torch.randn(70, 300) * torch.logspace(-20, 10, 70)[:, None]
    for moment in ("exp_avg", "exp_avg_sq"):
        for block_wise in (True, False):
            for rounding in ("nearest", "stochastic"):
                source = x if moment == "exp_avg" else x.square()
                options = {"block_wise": block_wise, "rounding": rounding, "step": 3}
                here = pyadamw.functional.quantize(source, moment, **options)
                there = pyadamw.functional.quantize(source.to(cuda), moment, **options)
                parts = 2 if here.floor is None else 3
                models.assert_same(here[:parts], there[:parts])
                back = pyadamw.functional.dequantize(*there, moment, block_wise=block_wise)
                models.assert_same([pyadamw.functional.dequantize(*here, moment, block_wise=block_wise)], [back])


def test_splitting_weights_is_the_cpus(cuda):
    """Numbers of any size, NaN and infinities, split and joined."""
    bits = torch.randint(-(2**31), 2**31, (70, 301), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    weights = bits.view(torch.float32)
    weights[3, :4] = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0])
    for master_weight_bits in (24, 32):
        for rounding in ("nearest", "stochastic"):
            options = {"rounding": rounding, "step": 3}
            here = pyadamw.functional.split_weights(weights, master_weight_bits, **options)
            there = pyadamw.functional.split_weights(weights.to(cuda), master_weight_bits, **options)
            models.assert_same(here, there)
            models.assert_same([pyadamw.functional.join_weights(*here)], [pyadamw.functional.join_weights(*there)])


def test_many_small_tensors(cuda):
    """More rows than a launch carries."""
    results = []
    for device in ("cpu", cuda):
        params = models.parameters(device, shapes=[(7,), (300,), (2, 600)] * 400)
        optimizer = pyadamw.AdamW8bit(params, min_8bit_size=256)
        for step in range(3):
            models.gradients(params, step)
            optimizer.step()
        results.append(params)
    models.assert_same(*results)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("grad_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_long_rows(cuda, grad_dtype, amsgrad):
    """All warps of a multiprocessor go through them side by side: they end within a round, and elements are skipped."""
    warps = 20 * torch.cuda.get_device_properties(cuda).multi_processor_count
    shapes = [(256 * 9 * warps + 1000,), (256 * 8 * warps + 3,), (256 * 10 * warps + 256 * 5,)]
    results = []
    for device in ("cpu", cuda):
        params = models.parameters(device, shapes=shapes)
        optimizer = pyadamw.AdamW8bit(params, lr=1e-2, amsgrad=amsgrad)
        for step in range(3):
            models.gradients(params, step, grad_dtype, spoiled=step == 1)
            optimizer.step()
        results.append((params, models.states(optimizer, params)))
    models.assert_same(results[0][0], results[1][0])
    models.assert_same(results[0][1], results[1][1])


def test_a_tensor_beyond_2_to_the_31(cuda):
    """The last elements are stepped as a small tensor of theirs would be."""
    numel = 2**31 + 5 * 256
    if torch.cuda.mem_get_info(cuda)[0] < 6 * numel + (1 << 30):
        pytest.skip("needs 14 GB of free device memory")
    big = torch.nn.Parameter(torch.zeros(numel, dtype=torch.bfloat16, device=cuda))
    big.grad = torch.zeros_like(big)
    tail = torch.randn(1024, device=cuda).to(torch.bfloat16)
    big.grad[-1024:] = tail
    small = torch.nn.Parameter(torch.zeros(1024, dtype=torch.bfloat16, device=cuda))
    small.grad = tail.clone()
    pyadamw.AdamW8bit([big], lr=1e-2).step()
    pyadamw.AdamW8bit([small], lr=1e-2, min_8bit_size=1).step()
    models.assert_same([big.detach()[-1024:]], [small])
    assert not big.detach()[:-1024].any()
