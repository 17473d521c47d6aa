"""Owns the laws that hold for all shapes, dtypes, strides and hyperparameters, thrown by hypothesis."""

import copy

import torch
from harness import assert_same_bits, bits, clones, state_bits
from hypothesis import given
from hypothesis import strategies as st
from reference import Reference

import pyadamw

DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
SHAPES = st.one_of(
    st.tuples(),
    st.tuples(st.integers(0, 1500)),
    st.tuples(st.integers(0, 9), st.integers(0, 600)),
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 90)),
)
LAYOUTS = st.sampled_from(["contiguous", "transposed", "sliced"])
OPTIONS = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([0.0, 1e-5, 1e-3, 0.1]),
        "betas": st.tuples(st.sampled_from([0.0, 0.5, 0.9, 0.99]), st.sampled_from([0.0, 0.9, 0.999])),
        "eps": st.sampled_from([1e-12, 1e-8, 1e-3]),
        "weight_decay": st.sampled_from([0.0, 0.01, 0.5]),
        "amsgrad": st.booleans(),
        "maximize": st.booleans(),
        "percentile_clipping": st.sampled_from([100, 100, 1, 50]),
    }
)
FORMATS = st.fixed_dictionaries(
    {
        "optim_bits": st.sampled_from([8, 8, 16, 32]),
        "min_8bit_size": st.sampled_from([0, 500]),
        "block_wise": st.booleans(),
        "stochastic_rounding": st.booleans(),
        "master_weight_bits": st.sampled_from([None, 24, 32]),
        "seed": st.integers(0, 2**64 - 1),
    }
)
TENSORS = st.lists(st.tuples(SHAPES, DTYPES, DTYPES, LAYOUTS), min_size=1, max_size=4)


def lay_out(tensor, layout):
    """The same numbers in another memory layout."""
    if layout == "transposed" and tensor.dim() >= 2:
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "sliced" and tensor.dim() >= 1:
        return torch.empty((*tensor.shape[:-1], tensor.shape[-1] * 2), dtype=tensor.dtype)[..., ::2].copy_(tensor)
    return tensor


def fitting(options, tensors):
    """The options without master weights, if a parameter is float16."""
    return {**options, "master_weight_bits": None} if any(t[1] == torch.float16 for t in tensors) else options


def make(tensors, plain=False):
    return [
        torch.nn.Parameter(lay_out(torch.randn(shape).to(dtype), "contiguous" if plain else layout))
        for shape, dtype, _, layout in tensors
    ]


def feed(params, tensors, step, plain=False):
    generator = torch.Generator().manual_seed(step)
    for p, (shape, _, grad_dtype, layout) in zip(params, tensors, strict=True):
        grad = torch.randn(shape, generator=generator)
        grad = grad * (torch.rand(shape, generator=generator) < 0.7)  # some exact zeros
        p.grad = torch.empty_like(p)
        p.grad.data = lay_out(grad.to(grad_dtype), "contiguous" if plain else layout)


def same_numbers(params):
    return [torch.nn.Parameter(p.detach().contiguous().clone()) for p in params]


@given(TENSORS, OPTIONS, FORMATS)
def test_layout_batching_and_copies_change_no_bit(tensors, options, form):
    """Strided = contiguous, together = one by one, resumed in the middle = uninterrupted: the same bits, in every
    format.
    """
    torch.manual_seed(1)
    form = fitting(form, tensors)
    params = make(tensors)
    plain = same_numbers(params)
    together = pyadamw.AdamW(params, **options, **form)
    apart = [pyadamw.AdamW([p], **options, **form) for p in plain]
    saved = []
    for step in range(3):
        feed(params, tensors, step)
        feed(plain, tensors, step, plain=True)
        together.step()
        for i, optimizer in enumerate(apart):
            if step == 1:
                optimizer = apart[i] = pyadamw.AdamW([plain[i]], **form)
                optimizer.load_state_dict(saved[i])
            optimizer.step()
        saved = [copy.deepcopy(optimizer.state_dict()) for optimizer in apart]
    for p, q, optimizer in zip(params, plain, apart, strict=True):
        assert bits(p) == bits(q)
        assert state_bits(together, p) == state_bits(optimizer, q)


@given(TENSORS, OPTIONS)
def test_32_bit_is_the_reference(tensors, options):
    """AdamW32bit is the float64 reference, step by step.

    A step in float32 is off by a few units (6e-8) of the parameter and of lr times the update. The update is at most
    about 1 / sqrt(1 - beta2), 32 here; clipping scales by a norm that is itself off by 1e-6. Rounding to the
    parameter's dtype may turn that into one unit in its last place, eps of the dtype.
    """
    torch.manual_seed(1)
    params = make(tensors)
    optimizer = pyadamw.AdamW32bit(params, **options)
    references = [Reference(p, **options) for p in params]
    for step in range(3):
        feed(params, tensors, step)
        before = [p.detach().double().clone() for p in params]
        for p, reference in zip(params, references, strict=True):
            reference.param = p.detach().clone()
            if p.numel():
                reference.step(p.grad)
        optimizer.step()
        for p, old, reference in zip(params, before, references, strict=True):
            expected = reference.param.double()
            unit = torch.finfo(p.dtype).eps * torch.maximum(expected.abs(), old.abs())
            tiny = torch.finfo(p.dtype).smallest_normal
            update = (expected - old).abs() + options["lr"]
            error = (p.detach().double() - expected).abs()
            same = p.detach().double() == expected  # infinities, where m meets v = 0 and a small eps
            assert (same | (error <= 1.01 * unit + 1e-4 * update + tiny)).all()


@given(TENSORS, OPTIONS, FORMATS, st.data())
def test_missing_gradients_are_as_if_absent(tensors, options, form, data):
    """Whatever subset of gradients is there in each step, every parameter moves as if it were alone."""
    torch.manual_seed(1)
    form = fitting(form, tensors)
    params = make(tensors)
    others = clones(params)
    together = pyadamw.AdamW(params, **options, **form)
    apart = [pyadamw.AdamW([p], **options, **form) for p in others]
    for step in range(4):
        feed(params, tensors, step)
        feed(others, tensors, step)
        for i, p in enumerate(params):
            if data.draw(st.booleans()):
                p.grad = None
            else:
                apart[i].step()
        together.step()
    for p, q, optimizer in zip(params, others, apart, strict=True):
        assert_same_bits((together, [p]), (optimizer, [q]))
