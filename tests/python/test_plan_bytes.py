"""Owns the law that a plan says what tensors really take after a step, to the byte: in one process here, in several in
plan_script.py.
"""

import pytest
import torch
from forked import run_processes
from plan_models import Awkward, Live, Taken, bytes_of, code_of, taken

import pyadamw

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def planned(choice):
    return Taken(choice.weights, choice.gradients, choice.remainder, choice.state, choice.host)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_choice_takes_what_the_plan_says(dtype, tied):
    """Weights, gradients (those that exist at once, if they are stepped in backward()), remainders, state, and how much
    of it is in pages: as the real optimizers leave them, also torch's and bitsandbytes', made by the plan's code."""
    plan = pyadamw.plan(Awkward(tied), dtype=dtype)
    assert len(plan.choices) == (16 if dtype == "fp32" else 40)
    for choice in plan.choices:
        model, live = Awkward(tied), Live()
        optimizer = code_of(choice, model)
        loss = model.loss()
        live.watch(loss)
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert bool(gradients) != choice.in_backward
        gradients = live.peak if choice.in_backward else bytes_of(gradients)
        optimizer.step()
        really = taken(model, optimizer, gradients)
        if choice.package == "bitsandbytes.optim":  # on the CPU it pages nothing
            really = really._replace(host=choice.host)
        assert planned(choice) == really, choice


def test_every_process_takes_what_the_plan_says(tmp_path):
    """FSDP2 on 1, 2 and 4 processes: each of them, for every choice; and the first one has most."""
    run_processes("plan_script", tmp_path, *(("fsdp2", processes) for processes in (1, 2, 4)))


def test_tensors_of_any_placement(tmp_path):
    """A model with DTensors, cut on any dimension or on two, is planned as this process has it; bitsandbytes, which the
    plan then leaves out, steps none."""
    jobs = [("placements", processes) for processes in (2, 4)]
    run_processes("plan_script", tmp_path, *jobs, ("bitsandbytes", 2))


def test_windows():
    """The windows that the plan counts on the device are those of the pager. The backing "pinned" needs one; "file"
    has as many, of the same size, in the memory of the host."""
    pages = pyadamw.PageManager("file")
    param = torch.nn.Parameter(torch.ones(400, 256))
    optimizer = pyadamw.PagedAdamW8bit([param], page_manager=pages)
    param.grad = torch.ones_like(param)
    optimizer.step()
    windows = {choice.windows for choice in pyadamw.plan(torch.nn.ParameterList([param])).choices if choice.host}
    windows -= {0}  # bitsandbytes' managed memory has none
    assert windows == {pages.stats()["resident_bytes"]}
