"""Owns the law: no state loads quietly wrong. From torch's optimizer and ours of every width, with another
min_8bit_size or an override on one side only, to each of ours, by load_state_dict() and all that
torch.distributed.checkpoint has: it is converted, or an error says what is the matter and the optimizer is as it was.
"""

import pytest
import torch
from forked import SHARDED, run
from versions import FSDP2_RUNS_ON_CPUS

import pyadamw


def test_every_pair_in_every_way():
    """Full state dicts, those from rank 0 and load_state_dict() convert; files may be refused."""
    done = run("import widths_script; widths_script.main()", modules=SHARDED, timeout=600, OMP_NUM_THREADS="1")
    wrong = [line for line in done.stdout.splitlines() if "WRONG" in line]
    assert done.returncode == 0, "\n".join(wrong) + done.stderr[-3000:]
    assert done.stdout.count("\n") == (540 if FSDP2_RUNS_ON_CPUS else 270)


def test_numbers_beside_codes_win():
    """Who sets exp_avg knows torch's keys; who reads or changes it fails loudly."""
    param = torch.nn.Parameter(torch.ones(70, 100))
    optimizer = pyadamw.AdamW8bit([param], lr=1e-3)
    for _ in range(3):
        param.grad = torch.ones_like(param)
        optimizer.step()
    state = optimizer.state[param]
    with pytest.raises(KeyError, match="exp_avg"):
        state["exp_avg"].mul_(0)
    state["exp_avg"], state["exp_avg_sq"] = torch.zeros(70, 100), torch.zeros(70, 100)  # as tools that reset state do
    param.grad, before = torch.zeros_like(param), param.detach().clone()
    optimizer.step()
    parts = [f"{moment}_{part}" for moment in ("exp_avg", "exp_avg_sq") for part in ("codes", "absmax")]
    assert set(state) == {"step", *parts, "exp_avg_sq_floor"}
    assert torch.allclose(param, before * (1 - 1e-3 * 1e-2), rtol=1e-6, atol=0)


def test_codes_of_format_1_that_were_cast_are_refused():
    """torch.distributed.checkpoint of an earlier version's 8-bit state, read as the numbers of 32-bit state."""
    param = torch.nn.Parameter(torch.ones(70, 100))
    optimizer = pyadamw.AdamW32bit([param])
    param.grad = torch.ones_like(param)
    optimizer.step()
    saved = optimizer.state_dict()
    saved["param_groups"][0].update(pyadamw_format=1, optim_bits=8)
    saved["state"][0]["exp_avg"] = torch.randint(256, (70, 100)).float()
    with pytest.raises(ValueError, match="exp_avg consists of 8-bit codes"):
        optimizer.load_state_dict(saved)


def test_densification_of_points():
    """A tool that lengthens torch's state fails before anything is stepped."""
    param = torch.nn.Parameter(torch.ones(70, 100))
    optimizer = pyadamw.AdamW8bit([param])
    param.grad = torch.ones_like(param)
    optimizer.step()
    state = optimizer.state.pop(param)
    longer = torch.nn.Parameter(torch.ones(90, 100))
    optimizer.param_groups[0]["params"][0] = longer
    with pytest.raises(KeyError):
        state["exp_avg"] = torch.cat([state["exp_avg"], torch.zeros(20, 100)])
    optimizer.state[longer] = state
    longer.grad = torch.ones_like(longer)
    with pytest.raises(ValueError, match=r"exp_avg_codes has shape \(70, 100\)"):
        optimizer.step()
    assert (longer == 1).all()


@pytest.mark.parametrize("cls", [pyadamw.AdamW32bit, pyadamw.AdamW8bit])
def test_state_after_a_spike_loads(cls):
    """A gradient of 1e30 overflows moments of 32-bit state; training goes on, and so does the checkpoint."""
    params = [torch.nn.Parameter(torch.ones(100, 100)), torch.nn.Parameter(torch.ones(100))]
    optimizer = cls(params)
    for step in range(3):
        for p in params:
            p.grad = torch.ones_like(p)
            p.grad.view(-1)[7] = 1e30 if step == 1 else 1
        optimizer.step()
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = cls(copies)
    other.load_state_dict(optimizer.state_dict())
    for these, stepped in ((params, optimizer), (copies, other)):
        for p in these:
            p.grad = torch.ones_like(p)
        stepped.step()
    assert all(torch.equal(p, q) for p, q in zip(params, copies, strict=True))
    if cls is pyadamw.AdamW32bit:
        with pytest.raises(ValueError, match="exp_avg_sq has an infinity or NaN, which 8-bit state cannot hold"):
            pyadamw.AdamW8bit(copies).load_state_dict(optimizer.state_dict())


def test_what_others_put_into_the_state_is_kept():
    """Keys of optimizers that wrap this one (Lookahead, schedule-free) go through a checkpoint, copied."""
    param = torch.nn.Parameter(torch.ones(70, 100))
    optimizer = pyadamw.AdamW8bit([param])
    param.grad = torch.ones_like(param)
    optimizer.step()
    optimizer.state[param].update(slow_buffer=param.detach().clone(), k=3)
    param.grad = torch.ones_like(param)
    optimizer.step()
    copy = torch.nn.Parameter(param.detach().clone())
    other = pyadamw.AdamW8bit([copy])
    saved = optimizer.state_dict()
    other.load_state_dict(saved)
    assert other.state[copy]["k"] == 3
    assert torch.equal(other.state[copy]["slow_buffer"], saved["state"][0]["slow_buffer"])
    assert other.state[copy]["slow_buffer"].data_ptr() != saved["state"][0]["slow_buffer"].data_ptr()
