"""Owns the laws of paged state on memory: it keeps to its budget under a real limit, and everything is given back."""

import json
import os
import shutil
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from harness import run_python

import pyadamw

MIB = 2**20
CGROUPS = Path("/sys/fs/cgroup/memory")


# ---- a budget ----------------------------------------------------------------------------------------------------

BUDGET, STATE = 32 * MIB, 256 * MIB

LIMITED = """
import json, os, resource, sys, torch, pyadamw
kind, directory, budget, state, group = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
MIB = 2**20
torch.set_num_threads(2)
def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))
warm = [torch.nn.Parameter(torch.ones(300, 1000))]
warm_optimizer = pyadamw.PagedAdamW32bit(warm, page_manager=pyadamw.PageManager("file", directory=directory))
for _ in range(2):
    warm[0].grad = torch.ones(300, 1000)
    warm_optimizer.step()
params = [torch.nn.Parameter(torch.full((1024, 1024), 0.5, dtype=torch.bfloat16)) for _ in range(state // (8 * MIB))]
for p in params:
    p.grad = torch.full_like(p, 0.25)
room = budget + 64 * MIB
if kind == "rlimit":
    resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") + room,) * 2)
elif kind == "cgroup":
    with open(f"{group}/memory.usage_in_bytes") as file:
        now = int(file.read())
    with open(f"{group}/memory.limit_in_bytes", "w") as file:
        file.write(str(now + room))
manager = pyadamw.PageManager("file", directory=directory, resident_bytes=budget)
if sys.argv[6] == "paged":
    optimizer = pyadamw.PagedAdamW32bit(params, page_manager=manager)
else:
    optimizer = pyadamw.AdamW32bit(params)

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
rss = status("VmRSS")
for _ in range(3):
    optimizer.step()
stats = manager.stats()
sums = [float(p.double().sum()) for p in params]
print(json.dumps({"growth": status("VmHWM") - rss, "stats": stats, "equal": len(set(sums)) == 1, "first": sums[0]}))
"""


def check_within_budget(done):
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    print(told)
    stats = told["stats"]
    assert stats["file_bytes"] + stats["host_bytes"] == STATE
    assert stats["file_bytes"] >= STATE - BUDGET
    assert stats["resident_peak_bytes"] <= BUDGET
    assert stats["bytes_in"] >= 3 * stats["file_bytes"]
    assert told["growth"] <= BUDGET + 64 * MIB
    params = [torch.nn.Parameter(torch.full((1024, 1024), 0.5, dtype=torch.bfloat16))]
    optimizer = pyadamw.AdamW32bit(params)
    params[0].grad = torch.full_like(params[0], 0.25)
    for _ in range(3):
        optimizer.step()
    assert told["equal"]
    assert told["first"] == float(params[0].detach().double().sum())


def test_state_of_eight_budgets_within_a_limit_on_data(disk):
    """With RLIMIT_DATA at what there is, the budget and 64 MiB: the unpaged class has no room, the paged one trains."""
    unpaged = forked.run(LIMITED, "rlimit", disk, BUDGET, STATE, "none", "unpaged")
    assert unpaged.returncode != 0
    assert "can't allocate memory" in unpaged.stderr
    check_within_budget(forked.run(LIMITED, "rlimit", disk, BUDGET, STATE, "none", "paged"))


def test_state_of_eight_budgets_within_a_control_group(disk):
    """The same where the kernel also counts the page cache."""
    group = CGROUPS / f"pyadamw-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip(
            "needs a memory control group (version 1) that can be written; the limit on data is tested everywhere"
        )
    try:
        script = f"open('{group}/tasks', 'w').write('0')\n" + LIMITED
        # A fork's memory is its parent's, until it is written: the group would be charged for that.
        done = run_python(script, "cgroup", disk, BUDGET, STATE, group, "paged")
    finally:
        group.rmdir()
    check_within_budget(done)


# ---- everything given back ---------------------------------------------------------------------------------------

CYCLES = """
import gc, json, os, sys, torch, pyadamw
backing, directory = sys.argv[1], sys.argv[2]
options = {"directory": directory} if backing == "file" else {}
def cycle(fails):
    manager = pyadamw.PageManager(backing, min_numel=0, **options)
    params = [torch.nn.Parameter(torch.ones(50, 300)), torch.nn.Parameter(torch.ones(3000))]
    optimizer = pyadamw.PagedAdamW8bit(params, page_manager=manager)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    if fails:
        optimizer.step(lambda: 1 / 0)
def used():
    gc.collect()
    with open("/proc/self/status") as file:
        rss = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))
    with open("/proc/self/maps") as file:
        maps = sum(1 for _ in file)
    return {"rss": rss, "maps": maps, "fds": len(os.listdir("/proc/self/fd")), "files": len(os.listdir(directory)),
            "threads": len(os.listdir("/proc/self/task"))}
def cycles(count):
    for i in range(count):
        try:
            cycle(i % 3 == 0)
        except ZeroDivisionError:
            pass
cycles(50)
before = used()
cycles(1000)
print(json.dumps([before, used()]))
"""


@pytest.mark.parametrize("backing", ["host", "file"])
def test_a_thousand_optimizers_leave_nothing(disk, backing):
    """Created, stepped, every third left by an exception, deleted: memory, descriptors, threads and files are back."""
    done = forked.run(CYCLES, backing, disk)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    assert {key: after[key] for key in ("fds", "files", "threads")} == {
        key: before[key] for key in ("fds", "files", "threads")
    }
    assert after["maps"] - before["maps"] <= 10  # a leak of one each would be 1000
    assert after["rss"] - before["rss"] <= 2 * MIB


ENDS = """
import sys, torch, pyadamw
manager = pyadamw.PageManager("file", directory=sys.argv[1], min_numel=0)
params = [torch.nn.Parameter(torch.ones(50, 300))]
optimizer = pyadamw.PagedAdamW8bit(params, page_manager=manager)
params[0].grad = torch.ones(50, 300)
optimizer.step()
torch.held = optimizer.state[params[0]]["exp_avg_codes"]  # by what goes later than this module
if sys.argv[2] == "exception":
    raise SystemExit(3)
"""


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("exception", 3)])
def test_the_interpreter_ends_quietly(disk, how, code):
    done = forked.run(ENDS, disk, how)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert os.listdir(disk) == []


# ---- large -------------------------------------------------------------------------------------------------------


def available_memory():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


def zeros(numel):
    """In bfloat16. numpy leaves them to the kernel, which has them only when they are touched; torch writes them."""
    return torch.from_numpy(np.zeros(numel, dtype=np.int16)).view(torch.bfloat16)


def test_a_tensor_of_more_than_2_to_the_31_elements(disk):
    """Its last elements, beyond what 32 bits count, get what a small tensor of them gets."""
    numel, tail = 2**31 + 512, 1024
    if available_memory() < 10 * 2**30 or shutil.disk_usage(disk).free < 6 * 2**30:
        pytest.skip("needs 10 GiB of free memory and 6 GiB of disk")
    torch.set_num_threads(2)
    values, grads = torch.randn(tail).bfloat16(), torch.randn(tail).bfloat16()
    large, small = (torch.nn.Parameter(zeros(n)) for n in (numel, tail))
    with torch.no_grad():
        large[-tail:], small[:] = values, values
    large.grad, small.grad = zeros(numel), grads
    large.grad[-tail:] = grads
    manager = pyadamw.PageManager("file", directory=disk, resident_bytes=64 * MIB)
    paged, plain = pyadamw.PagedAdamW8bit([large], page_manager=manager), pyadamw.AdamW8bit([small], min_8bit_size=0)
    paged.step()
    plain.step()
    assert torch.equal(large[-tail:], small)
    assert not large[: 2**20].any()
    assert manager.stats()["bytes_out"] >= 2 * numel
    state, expected = paged.state[large], plain.state[small]
    assert state["exp_avg_codes"].numel() == numel
    for key in ("exp_avg_absmax", "exp_avg_sq_absmax", "exp_avg_sq_floor"):
        assert torch.equal(state[key][-tail // 256 :], expected[key])
    values = pyadamw.dequantize(state["exp_avg_codes"][-tail:].clone(), state["exp_avg_absmax"][-tail // 256 :].clone())
    assert torch.allclose(values, 0.1 * grads.float(), rtol=0.1, atol=0.02)
