"""Owns the law that looking at many tensors in one C call says what asking each of them does, and that a change of
memory or gradient is noticed with it and without it.
"""

import gc
import sys
import weakref

import numpy as np
import pytest
import torch
from harness import assert_same_bits, clones, give_gradients, moment_of, parameters

import pyadamw
from pyadamw._native import inspect_tensors
from pyadamw._native.inspect_tensors import _FORM, Described, DescribedGradients
from pyadamw._native.library import library
from pyadamw._step import gradients as step_gradients

NEEDS_LOOP = pytest.mark.skipif(inspect_tensors._loop() is None, reason="this torch has no DLPack exchange API")


class Subclass(torch.Tensor):
    pass


DENSE = {
    "parameter": torch.nn.Parameter(torch.ones(2, 3)),
    "computed": torch.nn.Parameter(torch.ones(3)) * 2,
    "subclass": torch.ones(3).as_subclass(Subclass),
    "scalar": torch.tensor(1.0),
    "empty": torch.ones(0, 3),
    "view": torch.ones(10)[3:],
    "transposed": torch.ones(2, 3).t(),
    "transposed row": torch.ones(1, 3).t(),
    "expanded": torch.ones(1).expand(4),
    "channels last": torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "bfloat16": torch.ones(3, dtype=torch.bfloat16),
    "float16": torch.ones(3, dtype=torch.float16),
    "codes": torch.ones(3, dtype=torch.uint8),
}
OTHER = {
    "none": None,
    "number": 3,
    "sparse": torch.ones(3, 3).to_sparse(),
    "meta": torch.ones(3, device="meta"),
}


@pytest.fixture(params=["loop", "without gradients", "one by one"])
def _either_way(request, monkeypatch):
    if request.param == "one by one":  # as with a library that lacks the private function
        monkeypatch.setattr(library(), "describe_tensors", None)
        monkeypatch.setattr(inspect_tensors, "_loop", inspect_tensors._loop.__wrapped__)
    if request.param == "without gradients":
        monkeypatch.setattr(step_gradients, "finds_gradients", lambda params: False)


@NEEDS_LOOP
def test_says_what_the_tensors_say():
    tensors = list(DENSE.values())
    described = Described(np.zeros(len(tensors), dtype=np.uint64))
    assert described.read(tensors)
    forms = np.frombuffer(described.forms, dtype=_FORM)
    assert described.addresses.tolist() == [tensor.data_ptr() for tensor in tensors]
    assert forms["numel"].tolist() == [tensor.numel() for tensor in tensors]
    assert forms["contiguous"].tolist() == [tensor.is_contiguous() for tensor in tensors]
    for i, one in enumerate(tensors):
        for j, other in enumerate(tensors):
            assert (forms["shape"][i] == forms["shape"][j]) == (one.shape == other.shape)
            assert (forms["dtype"][i] == forms["dtype"][j]) == (one.dtype == other.dtype)


@NEEDS_LOOP
@pytest.mark.parametrize("name", OTHER)
def test_says_that_it_cannot(name):
    described = Described(np.zeros(2, dtype=np.uint64))
    assert not described.read([torch.ones(3), OTHER[name]])
    assert not described.read([torch.ones(3)])
    assert described.read([torch.ones(3), torch.ones(3)])  # no exception is left behind


@NEEDS_LOOP
def test_python_code_in_the_place_of_a_gradient_is_not_run_by_the_loop():
    plain, own = torch.nn.Parameter(torch.ones(3)), OwnGradient(torch.ones(3))
    assert inspect_tensors.finds_gradients([plain, plain])
    assert not inspect_tensors.finds_gradients([plain, own])


@NEEDS_LOOP
def test_gradients_are_found_kept_and_released():
    params = [torch.nn.Parameter(torch.ones(3)), torch.ones(2, requires_grad=True)]
    for param in params:
        param.grad = torch.ones_like(param)
    counts = [sys.getrefcount(param.grad) for param in params]
    gradients = DescribedGradients(np.zeros(2, dtype=np.uint64))
    for _ in range(3):
        assert gradients.read(params)
        assert gradients.addresses.tolist() == [param.grad.data_ptr() for param in params]
        assert np.frombuffer(gradients.forms, dtype=_FORM)["numel"].tolist() == [3, 2]
    seen = weakref.ref(params[0].grad)
    params[0].grad = None
    assert seen() is not None
    assert not gradients.read(params)
    gradients.release()
    assert seen() is None
    assert [sys.getrefcount(param.grad) for param in params][1:] == counts[1:]


class OwnGradient(torch.nn.Parameter):
    """Its gradient is not where torch keeps it."""

    @property
    def grad(self):
        return self.__dict__.get("elsewhere")

    @grad.setter
    def grad(self, value):
        self.__dict__["elsewhere"] = value


class Functions(torch.Tensor):
    """Hands out twice its gradient through __torch_function__."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs or {})
        return 2 * result if function == torch.Tensor.grad.__get__ and result is not None else result


@pytest.mark.usefixtures("_either_way")
def test_a_gradient_is_what_the_class_of_the_parameter_says():
    param = OwnGradient(torch.ones(4))
    other = torch.ones(4).as_subclass(Functions).requires_grad_()
    optimizer = pyadamw.AdamW32bit([param, other], lr=0.1, betas=(0.0, 0.0))
    for _ in range(3):
        param.grad, other.grad = torch.full((4,), 3.0), torch.full((4,), 3.0)
        optimizer.step()
    assert torch.equal(moment_of(optimizer.state[param]), torch.full((4,), 3.0))
    assert torch.equal(moment_of(optimizer.state[other]), torch.full((4,), 6.0))


@pytest.mark.usefixtures("_either_way")
def test_a_step_keeps_no_gradient():
    params = [torch.nn.Parameter(torch.ones(4)) for _ in range(3)]
    optimizer = pyadamw.AdamW32bit(params, lr=0.1)
    for present in (params, params, params[1:], params):
        for param in present:
            param.grad = torch.ones(4)
        seen = [weakref.ref(param.grad) for param in present]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        gc.collect()
        assert [ref() for ref in seen] == [None] * len(seen)


@pytest.mark.usefixtures("_either_way")
def test_changes_are_noticed():
    param = torch.nn.Parameter(torch.ones(4))
    optimizer = pyadamw.AdamW32bit([param], lr=0.1, weight_decay=0.0)
    for _ in range(2):
        param.grad = torch.ones(4)
        optimizer.step()
    version = param._version
    optimizer.step()
    assert param._version == version + 1
    replaced = param.data
    before = replaced.clone()
    param.data = torch.zeros(4)
    optimizer.step()
    assert (param < 0).all() and torch.equal(replaced, before)
    param.grad = torch.ones(8)[::2]
    optimizer.step()
    now = param.detach().clone()
    for wrong in (torch.ones(5), torch.ones(2, 2)):
        param.grad = torch.ones(4)
        param.grad.data = wrong
        with pytest.raises(ValueError, match="gradient of shape"):
            optimizer.step()
    param.grad = torch.ones(4).to_sparse()
    with pytest.raises(RuntimeError, match="sparse gradient"):
        optimizer.step()
    assert torch.equal(param, now)
    param.grad = None
    optimizer.step()
    assert torch.equal(param, now)


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("kind", [list, tuple])
def test_another_parameter_in_the_same_memory_is_noticed(kind):
    """Its state is its own: what a group holds is told apart by what it is, not by where it lies."""
    param = torch.nn.Parameter(torch.ones(4))
    optimizer = pyadamw.AdamW32bit([param], lr=0.1)
    for _ in range(2):
        param.grad = torch.ones(4)
        optimizer.step()
    other = torch.nn.Parameter(param.data)
    optimizer.param_groups[0]["params"] = kind([other])
    for _ in range(2):
        other.grad = torch.ones(4)
        optimizer.step()
    assert float(optimizer.state[other]["step"]) == float(optimizer.state[param]["step"]) == 2


@pytest.mark.usefixtures("_either_way")
def test_a_parameter_that_moves_to_the_next_group_is_noticed():
    """The options are those of the group where it is now, though the order of all parameters is as it was."""
    one, two, three = (torch.nn.Parameter(torch.ones(4)) for _ in range(3))
    optimizer = pyadamw.AdamW32bit([{"params": [one, two]}, {"params": [three], "lr": 0.0}], lr=0.1)
    for _ in range(2):
        before = two.detach().clone()
        for param in (one, two, three):
            param.grad = torch.ones(4)
        optimizer.step()
        assert not torch.equal(two, before)
    before = two.detach().clone()
    optimizer.param_groups[1]["params"].insert(0, optimizer.param_groups[0]["params"].pop())
    optimizer.step()
    assert torch.equal(two, before)


@pytest.mark.usefixtures("_either_way")
def test_changes_are_noticed_where_calls_take_parameters_in_another_order():
    """Large and small parameters alternate and have calls of their own: memory, order and parameters may change."""
    params = parameters([(300,), (5000,), (20,), (40, 100)])
    others = clones(params)
    optimizer, other = (pyadamw.AdamW8bit(these, lr=0.1, min_8bit_size=1000) for these in (params, others))

    def step_both(number):
        for one, these in ((optimizer, params), (other, others)):
            give_gradients(these, number)
            one.step()
        assert_same_bits((optimizer, params), (other, others))
        optimizer._cache.exposed = False  # by the comparison: nobody keeps what it looked at

    step_both(1)
    step_both(2)
    for i in (0, 3):
        old = params[i].data
        before = old.clone()
        params[i].data = old.clone()
        step_both(3 + i)
        assert torch.equal(old, before)
    optimizer.param_groups[0]["params"].reverse()
    step_both(7)
    params[1] = optimizer.param_groups[0]["params"][2] = torch.nn.Parameter(params[1].data)
    give_gradients(params, 8)
    optimizer.step()
    assert [float(optimizer.state[param]["step"]) for param in params] == [6, 1, 6, 6]
