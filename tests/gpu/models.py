"""Owns the tensors and gradients that the GPU tests step, the same on every device. Must not know what is tested."""

import torch

SHAPES = [(40, 300), (1000,), (17,), (3, 4, 512), (64, 768), (5, 1001)]


def parameters(device, dtype=torch.float32, shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = [(torch.randn(shape, generator=generator) * 0.1).to(dtype) for shape in shapes]
    return [torch.nn.Parameter(tensor.to(device)) for tensor in made]


def gradients(params, step, dtype=None, scale=1.0, spoiled=False):
    """The gradients of a step: random numbers, and with `spoiled` some that are not finite."""
    generator = torch.Generator().manual_seed(1000 + step)
    for param in params:
        grad = torch.randn(param.shape, generator=generator) * scale
        if spoiled:
            grad.view(-1)[:: max(grad.numel() // 3, 1)] = float("nan")
        param.grad = None
        grad = grad.to(param.dtype if dtype is None else dtype)
        if grad.dtype != param.dtype:
            param.grad_dtype = None  # torch >= 2.9 lets a gradient have a dtype of its own
        param.grad = grad.to(param.device)


def states(optimizer, params):
    return [{key: value.cpu() for key, value in optimizer.state[param].items()} for param in params]


def _same(a, b):
    """Whether they have the same bits; any NaN equals any other."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[a.element_size()]
    return bool(((a.view(whole) == b.view(whole)) | (a.isnan() & b.isnan())).all())


def assert_same(here, there):
    """Parameters, or dicts of state, are equal bit for bit."""
    for i, (one, other) in enumerate(zip(here, there, strict=True)):
        if isinstance(one, dict):
            assert one.keys() == other.keys()
            for key in one:
                assert _same(one[key].cpu(), other[key].cpu()), f"tensor {i}: {key}"
        else:
            a, b = one.detach().cpu(), other.detach().cpu()
            assert _same(a, b), (
                f"tensor {i}: {(a != b).sum()} of {a.numel()} differ, first {a[a != b][:3]} {b[a != b][:3]}"
            )
