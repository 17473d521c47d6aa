"""Owns the law: what cannot be stepped is an error that names the parameter, before anything is written."""

import pytest
import torch
from harness import bits, give_gradients, parameters, state_bits, train

import pyadamw


def expect_refusal(params, optimizer, match, kind=ValueError):
    """step() raises; the parameters, the state and the step counts that were there are unchanged."""
    before = [bits(p) for p in params]
    states = {p: state_bits(optimizer, p) for p in params if p in optimizer.state}
    with pytest.raises(kind, match=match) as caught:
        optimizer.step()
    assert [bits(p) for p in params] == before
    assert all(state_bits(optimizer, p) == kept for p, kept in states.items())
    return caught.value


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64])
@pytest.mark.parametrize("named", [False, True])
def test_unsupported_parameter_dtypes(dtype, named):
    """float64 and complex parameters are refused by name, or by place where they have none."""
    params = [torch.nn.Parameter(torch.ones(300)), torch.nn.Parameter(torch.ones(2, 3, dtype=dtype))]
    optimizer = pyadamw.AdamW8bit([("good", params[0]), ("head.weight", params[1])] if named else params)
    for p in params:
        p.grad = torch.ones_like(p)
    what = "'head.weight'" if named else "1 of group 0"
    expect_refusal(
        params, optimizer, rf"parameter {what} \(shape \(2, 3\)\) has dtype {str(dtype)[6:]}: must be float32"
    )


def test_unsupported_devices():
    """A parameter on a device that the library cannot step is refused by name."""
    param = torch.nn.Parameter(torch.ones(300, device="meta"))
    param.grad = torch.ones_like(param)
    optimizer = pyadamw.AdamW8bit([("w", param)])
    with pytest.raises(pyadamw.UnsupportedError, match=r"'w'.*is on meta"):
        optimizer.step()
    assert issubclass(pyadamw.UnsupportedError, NotImplementedError)


@pytest.mark.parametrize("first", [True, False])
def test_sparse_gradients(first):
    """A sparse gradient is what it is to torch.optim.AdamW, a RuntimeError, in the first step and in a later one."""
    embedding = torch.nn.Embedding(100, 50, sparse=True)
    params = [torch.nn.Parameter(torch.ones(300)), embedding.weight]
    optimizer = pyadamw.AdamW8bit([("a", params[0]), ("emb", params[1])])
    if not first:
        train(optimizer, params, 1)
        optimizer.zero_grad()
    embedding(torch.tensor([1, 2])).sum().backward()
    params[0].grad = torch.ones(300)
    expect_refusal(params, optimizer, r"'emb'.*does not support sparse gradients", RuntimeError)


# (The same number of elements in another shape is noticed when a gradient is first seen, not in every step.)
@pytest.mark.parametrize(
    ("first", "shape"),
    [(True, (7,)), (True, (300, 1)), (True, (301,)), (True, (3, 100)), (False, (7,)), (False, (301,))],
)
def test_gradients_of_another_shape(first, shape):
    """A gradient of another shape is refused: torch forbids it, but `.data` can be set."""
    params = parameters([(40,), (300,)])
    optimizer = pyadamw.AdamW32bit(params)
    if not first:
        train(optimizer, params, 1)
    give_gradients(params, 1)
    params[1].grad.data = torch.ones(shape)
    expect_refusal(params, optimizer, r"parameter 1 of group 0.*gradient of shape")


def test_gradient_dtypes():
    """A float64 gradient is refused."""
    params = parameters([(40,), (300,)])
    optimizer = pyadamw.AdamW32bit(params)
    for step in range(2):
        give_gradients(params, step)
        optimizer.step()
    params[1].grad.data = torch.ones(300, dtype=torch.float64)
    expect_refusal(params, optimizer, r"the gradient of parameter 1 of group 0.*dtype float64")


def test_expanded_and_shared_memory():
    """Parameters that share memory, within themselves or with another, in one group or two, are refused."""
    expanded = torch.nn.Parameter(torch.ones(1).expand(300))
    expanded.grad = torch.ones(300)
    expect_refusal([expanded], pyadamw.AdamW32bit([expanded]), "expanded")
    base = torch.ones(600)
    one, two = torch.nn.Parameter(base[:400]), torch.nn.Parameter(base[300:])
    for groups in ([one, two], [{"params": [one]}, {"params": [two]}]):
        one.grad, two.grad = torch.ones(400), torch.ones(300)
        expect_refusal([one, two], pyadamw.AdamW32bit(groups), "share memory")


@pytest.mark.parametrize("other", ["exp_avg_sq_absmax", "max_exp_avg_sq_floor"])
def test_state_that_shares_memory(other):
    """Two tensors of the state in the same memory, as floors and scales could be, are refused by name."""
    params = parameters([(40, 300)])
    optimizer = pyadamw.AdamW8bit(params, amsgrad=True)
    train(optimizer, params, 1)
    optimizer.state[params[0]]["exp_avg_sq_floor"] = optimizer.state[params[0]][other]
    give_gradients(params, 1)
    expect_refusal(params, optimizer, rf"(?=.*'exp_avg_sq_floor')(?=.*'{other}').*share memory")


def test_gradient_in_the_parameters_memory():
    """A gradient that is the parameter's own memory is refused by the library, and the message names the parameter."""
    params = parameters([(40,), (300,)])
    give_gradients(params, 0)
    params[1].grad = params[1].detach()
    error = expect_refusal(params, pyadamw.AdamW32bit([("a", params[0]), ("b", params[1])]), r"'b'.*overlap")
    assert isinstance(error, pyadamw.InvalidArgumentError)


def test_the_same_parameter_twice():
    """A parameter that is listed twice in a group is refused."""
    param = parameters([(300,)])[0]
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = pyadamw.AdamW32bit([param, param])
    param.grad = torch.ones(300)
    expect_refusal([param], optimizer, "more than once")


def test_frozen_parameters_of_any_kind_are_ignored():
    """Parameters that never have a gradient may have any dtype and device."""
    params = [
        torch.nn.Parameter(torch.ones(5, dtype=torch.uint8), requires_grad=False),
        torch.nn.Parameter(torch.ones(5, device="meta")),
        *parameters([(300,)]),
    ]
    optimizer = pyadamw.AdamW8bit(params)
    train(optimizer, params[2:], 2)
    assert int(optimizer.state[params[2]]["step"]) == 2


def test_every_status_has_an_exception():
    """Each exception is an AdamWError and also the Python exception of its kind."""
    kinds = {
        pyadamw.InvalidArgumentError: ValueError,
        pyadamw.VersionError: RuntimeError,
        pyadamw.UnsupportedError: NotImplementedError,
        pyadamw.OutOfMemoryError: MemoryError,
        pyadamw.InternalError: RuntimeError,
        pyadamw.DeviceError: RuntimeError,
        pyadamw.LibraryNotFoundError: OSError,
    }
    for error, kind in kinds.items():
        assert issubclass(error, pyadamw.AdamWError)
        assert issubclass(error, kind)


def test_non_finite_gradients():
    """8-bit state skips elements with a non-finite gradient and counts them; 32-bit state propagates them, as torch
    does.
    """
    params = parameters([(5000,)])
    optimizer = pyadamw.AdamW8bit(params)
    train(optimizer, params, 1)
    before = params[0].detach().clone()
    give_gradients(params, 1)
    bad = torch.tensor([3, 700, 4999])
    params[0].grad[bad] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    optimizer.step()
    assert optimizer.skipped_elements == 3
    assert bits(params[0][bad]) == bits(before[bad])
    assert params[0].isfinite().all()
    assert ((params[0] != before).sum() > 4900).item()
    wide = parameters([(5000,)])
    optimizer = pyadamw.AdamW32bit(wide)
    give_gradients(wide, 0)
    wide[0].grad[3] = float("nan")
    optimizer.step()
    assert wide[0].isnan().nonzero().flatten().tolist() == [3]
    assert optimizer.skipped_elements == 0
