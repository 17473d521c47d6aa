"""Owns the law: memory layout changes no bit of the result, and no parameter loses its storage."""

import pytest
import torch
from harness import bits, clones, give_gradients, moment_of, parameters, state_bits

import pyadamw

LAYOUTS = {
    "transposed": lambda t: t.t().contiguous().t(),
    "every second column": lambda t: torch.empty(t.shape[0], 2 * t.shape[1], dtype=t.dtype)[:, ::2].copy_(t),
    "part of a larger tensor": lambda t: torch.empty(t.shape[0] + 3, t.shape[1] + 5, dtype=t.dtype)[1:-2, 2:-3].copy_(
        t
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cls", [pyadamw.AdamW32bit, pyadamw.AdamW8bit])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("what", ["parameter", "gradient", "both"])
def test_layout_changes_no_bit(layout, cls, dtype, what):
    """A strided parameter or gradient gives the bits of a contiguous one; state is in logical order; storage stays."""
    plain = parameters([(70, 100), (9,)], dtype)
    strided = clones(plain)
    if what != "gradient":
        strided[0] = torch.nn.Parameter(LAYOUTS[layout](strided[0].detach()))
    base, around = strided[0].data_ptr(), strided[0].stride()
    one, other = cls(plain), cls(strided)
    for step in range(3):
        give_gradients(plain, step)
        give_gradients(strided, step)
        if what != "parameter":
            strided[0].grad = LAYOUTS[layout](strided[0].grad)
        if step == 1:  # others come and go
            plain[1].grad = strided[1].grad = None
        one.step()
        other.step()
    assert [bits(p) for p in plain] == [bits(p) for p in strided]
    assert state_bits(one, plain[0]) == state_bits(other, strided[0])
    assert (strided[0].data_ptr(), strided[0].stride()) == (base, around)
    assert moment_of(other.state[strided[0]]).is_contiguous()


def test_memory_between_the_elements_is_not_touched():
    """What lies between the elements of a strided parameter keeps its bits."""
    frame = torch.full((80, 120), 7.0)
    param = torch.nn.Parameter(frame[3:-3, 1:-1:2])
    inside = torch.zeros_like(frame, dtype=torch.bool)
    inside[3:-3, 1:-1:2] = True
    optimizer = pyadamw.AdamW8bit([param])
    param.grad = torch.ones_like(param)
    optimizer.step()
    assert (frame[~inside] == 7).all()
    assert (frame[inside] != 7).all()


def test_channels_last_and_expanded_gradients():
    """A channels_last weight with such gradients trains as a contiguous one, and so does an expanded gradient."""
    plain = parameters([(8, 16, 3, 3)])
    last = [torch.nn.Parameter(plain[0].detach().clone().to(memory_format=torch.channels_last))]
    one, other = pyadamw.AdamW8bit(plain, min_8bit_size=0), pyadamw.AdamW8bit(last, min_8bit_size=0)
    for step in range(3):
        give_gradients(plain, step)
        last[0].grad = plain[0].grad.to(memory_format=torch.channels_last)
        one.step()
        other.step()
    assert bits(plain[0]) == bits(last[0])
    plain[0].grad = torch.ones(1, 1, 1, 1).expand(8, 16, 3, 3)
    last[0].grad = torch.ones(8, 16, 3, 3)
    one.step()
    other.step()
    assert bits(plain[0]) == bits(last[0])
