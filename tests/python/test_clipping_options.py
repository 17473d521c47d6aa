"""Owns the laws of max_grad_norm as an option: of all groups together, refused where the norm cannot be known, and kept
by copies and checkpoints. (test_clipping.py: what it does.)
"""

import copy
import gc
import io
import pickle
import sys
import weakref

import numpy as np
import pytest
import torch
from harness import bits, clones, give_gradients, parameters
from test_clipping import SHAPES, assert_close, clip

import pyadamw
from pyadamw._native.torch_private import Partition
from pyadamw._step import torch_hooks


def test_groups_must_agree():
    """Different values are a ValueError that names both: of the constructor, of add_param_group() and of step()."""
    params = parameters([(30,), (20,), (7,)])
    with pytest.raises(ValueError, match=r"group 1: max_grad_norm = 2\.0: must be 1\.0, as in group 0"):
        pyadamw.AdamW([{"params": params[:1], "max_grad_norm": 1.0}, {"params": params[1:], "max_grad_norm": 2.0}])
    optimizer = pyadamw.AdamW([{"params": params[:1]}, {"params": params[1:2]}], max_grad_norm=1.0)
    with pytest.raises(ValueError, match=r"group 2: max_grad_norm = None: must be 1\.0"):
        optimizer.add_param_group({"params": params[2:], "max_grad_norm": None})
    assert len(optimizer.param_groups) == 2
    optimizer.add_param_group({"params": params[2:]})
    assert optimizer.param_groups[2]["max_grad_norm"] == 1.0
    give_gradients(params, 0)
    optimizer.step()
    before = [bits(p) for p in params]
    for name, value in (("max_grad_norm", 3.0), ("error_if_nonfinite", True)):
        old = optimizer.param_groups[1][name]
        optimizer.param_groups[1][name] = value
        with pytest.raises(ValueError, match=rf"group 1: {name} = {value}: must be {old}, as in group 0"):
            optimizer.step()
        optimizer.param_groups[1][name] = old
    assert [bits(p) for p in params] == before
    optimizer.step()
    saved = optimizer.state_dict()
    saved["param_groups"][2]["max_grad_norm"] = 5
    with pytest.raises(ValueError, match=r"group 2: max_grad_norm = 5: must be 1\.0"):
        optimizer.load_state_dict(saved)


def test_it_may_change_between_steps():
    """A scheduler or the user sets the option of all groups; None ends clipping, and grad_norm is None then."""
    params = parameters([(300,), (20,)])
    others = clones(params)
    inside, outside = pyadamw.AdamW32bit(params), pyadamw.AdamW32bit(others)
    for step, limit in enumerate((None, 0.5, np.float32(0.25), 2, 0, None, 0.5)):
        for these in (params, others):
            give_gradients(these, step)
        for group in inside.param_groups:
            group["max_grad_norm"] = limit
        if limit is not None:
            clip(others, limit)
        inside.step()
        outside.step()
        assert (inside.grad_norm is None) == (limit is None)
    assert_close(params, others)


def test_not_for_single_parameters(manager):
    with pytest.raises(ValueError, match="max_grad_norm"):
        manager.override_config(torch.nn.Parameter(torch.zeros(3)), "max_grad_norm", 1.0)


def test_not_in_backward():
    with pytest.raises(ValueError, match=r"max_grad_norm = 1\.0: must be None for StepInBackward"):
        pyadamw.StepInBackward(torch.nn.Linear(2, 2).parameters(), max_grad_norm=1.0)


def test_not_with_fsdp1():
    """Each of its processes has only its own part of a parameter, which looks like any other."""
    params = parameters([(30,), (20,)])
    params[1]._fsdp_flattened = True
    optimizer = pyadamw.AdamW32bit(params, max_grad_norm=1.0)
    give_gradients(params, 0)
    before = [bits(p) for p in params]
    with pytest.raises(ValueError, match=r"parameter 1 of group 0 .* clip_grad_norm_\(\) of the model"):
        optimizer.step()
    assert [bits(p) for p in params] == before


def test_not_for_an_unknown_part():
    """What a ZeroRedundancyOptimizer makes has a part of the parameters; who has the others must be known."""
    params = parameters([(30,)])
    optimizer = pyadamw.AdamW32bit(params, max_grad_norm=1.0)
    optimizer._cache.norms.partition = Partition(None)
    give_gradients(params, 0)
    before = bits(params[0])
    with pytest.raises(ValueError, match="ZeroRedundancyOptimizer"):
        optimizer.step()
    assert bits(params[0]) == before


# ---- copies, checkpoints, programs -----------------------------------------------------------------------------------


def loaded(optimizer, params):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = type(optimizer)(params)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle"])
def test_it_goes_where_the_options_go(way):
    """A checkpoint and a copy have the limit, and go on with the bits of the original."""
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit(params, max_grad_norm=0.5, error_if_nonfinite=True)
    give_gradients(params, 0)
    optimizer.step()
    if way == "state_dict":
        others = clones(params)
        other = loaded(optimizer, others)
    else:
        other = copy.deepcopy(optimizer) if way == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
        others = other.param_groups[0]["params"]
    assert (other.param_groups[0]["max_grad_norm"], other.param_groups[0]["error_if_nonfinite"]) == (0.5, True)
    assert other.grad_norm is None
    for these, one in ((params, optimizer), (others, other)):
        give_gradients(these, 1)
        one.step()
    assert torch.equal(optimizer.grad_norm, other.grad_norm)
    assert [bits(p) for p in params] == [bits(p) for p in others]


def test_a_checkpoint_without_it_leaves_the_limit():
    """torch's has no such option."""
    params = parameters([(300,)])
    theirs = torch.optim.AdamW(params)
    give_gradients(params, 0)
    theirs.step()
    optimizer = pyadamw.AdamW(params, max_grad_norm=0.5)
    optimizer.load_state_dict(theirs.state_dict())
    assert optimizer.param_groups[0]["max_grad_norm"] == 0.5


@pytest.mark.parametrize("asked", [True, False])
def test_in_a_compiled_program(asked, monkeypatch):
    """Also where the compiler cannot be asked whether it looks, as before torch 2.5."""
    if not asked:
        monkeypatch.setattr(torch_hooks, "is_tracing", lambda: "torch._dynamo" in sys.modules)
    params = parameters([(300,), (20,)])
    others = clones(params)
    inside, outside = pyadamw.AdamW32bit(params, max_grad_norm=0.5), pyadamw.AdamW32bit(others)

    @torch.compile(backend="eager")
    def step():
        inside.step()

    for number in range(3):
        for these in (params, others):
            give_gradients(these, number)
        clip(others, 0.5)
        step()
        outside.step()
    assert_close(params, others)


def test_replaced_parameters_and_gradients():
    """Moved memory, swapped gradients and missing ones: the norm is of the gradients that there are."""
    params = parameters([(300,), (20,), (5000,)])
    optimizer = pyadamw.AdamW8bit(params, max_grad_norm=0.5)
    for step in range(8):
        give_gradients(params, step)
        if step == 2:
            params[0].data = params[0].data.clone()
        if step in (3, 6):
            params[1].grad = None
        if step == 4:
            optimizer.add_param_group({"params": parameters([(77,)], seed=9)})
            params = [p for group in optimizer.param_groups for p in group["params"]]
            give_gradients(params, step)
        if step == 5:
            optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
        expected = sum(p.grad.double().square().sum() for p in params if p.grad is not None).sqrt()
        assert optimizer.grad_norm == expected.float()


def test_nothing_is_kept_alive():
    """An optimizer that is deleted frees its pages at once, without a garbage collection."""
    gc.collect()
    gc.disable()
    try:
        params = parameters([(5000,)])
        pages = pyadamw.PageManager("host", min_numel=0)
        optimizer = pyadamw.PagedAdamW8bit(params, max_grad_norm=1.0, page_manager=pages)
        give_gradients(params, 0)
        optimizer.step()
        kept = weakref.ref(optimizer._cache.plan)
        del optimizer
        assert kept() is None
        assert pages.stats()["buffers"] == 0
    finally:
        gc.enable()
