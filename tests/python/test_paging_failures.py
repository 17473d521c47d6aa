"""Owns the laws of the file backing when something fails: nothing is lost or left, the error says what to do."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import torch
from harness import assert_same_bits, bits, clones, give_gradients, moment_of, parameters, train

import pyadamw

SHAPES = ((60, 1000), (70, 1000), (80, 1000), (50000,))
SMALL = {"chunk_bytes": 65536, "min_numel": 0}


def descriptors(directory, process="self"):
    """Those of the process that lead to files without a name in the directory."""
    found = []
    for entry in Path(f"/proc/{process}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if target.startswith(f"{directory}/"):
            found.append(entry)
    return found


# ---- construction ------------------------------------------------------------------------------------------------


def test_directories_that_cannot_be_used(disk):
    """A missing one, a file, one that nothing can be made in: an error that names it, at construction."""
    file = disk / "file"
    file.write_text("")
    for directory in (disk / "none", file, "/proc"):
        with pytest.raises(pyadamw.StorageError) as caught:
            pyadamw.PageManager("file", directory=directory)
        assert str(directory) in str(caught.value)
        assert isinstance(caught.value, OSError)
    file.unlink()


FULL = """
import resource, signal, sys, torch, pyadamw
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    pyadamw.PageManager("file", directory=sys.argv[1], reserve_bytes=2**21)
except pyadamw.StorageError as error:
    print("construction:", error)
manager = pyadamw.PageManager("file", directory=sys.argv[1], min_numel=0)
params = [torch.nn.Parameter(torch.ones(shape)) for shape in ((100, 1000), (100, 1000), (200, 1000))]
optimizer = pyadamw.PagedAdamW32bit(params, page_manager=manager)
for p in params:
    p.grad = torch.ones_like(p)
try:
    optimizer.step()
except pyadamw.StorageError as error:
    print("step:", error)
    assert error.stepped == ()
assert all(bool((p == 1).all()) for p in params) and not optimizer.state
assert manager.stats()["file_bytes"] == 0
del params[2], optimizer
optimizer = pyadamw.PagedAdamW8bit(params, page_manager=manager)
optimizer.step()
assert manager.stats()["file_bytes"] > 400_000
"""


def check_full(done):
    assert done.returncode == 0, done.stderr
    construction, step = done.stdout.splitlines()
    assert construction.startswith("construction: reserve_bytes = ")
    assert "2097152" in construction
    assert "has no room for" in step
    assert "adamw_" not in done.stdout


def test_no_room_by_a_limit(disk):
    """The size of files is limited: an error before anything is written, and what fits can be had afterwards."""
    check_full(forked.run(FULL, disk, "limit"))


def test_no_room_on_a_full_disk(disk):
    """The same on a file system of 1 MiB."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount; test_pager_errors.cpp plays a full disk everywhere")
    try:
        done = forked.run(FULL, disk, "disk")
    finally:
        subprocess.run(["umount", disk], check=True)
    check_full(done)
    assert os.strerror(28) in done.stdout


# ---- in a step ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [pyadamw.PagedAdamW8bit, pyadamw.PagedAdamW32bit])
def test_an_error_in_a_step_says_what_was_stepped(disk, cls):
    """The file loses its second half: those it says are stepped, with their counts; others not, but one in part."""
    params, two_steps = parameters(SHAPES), parameters(SHAPES)
    one_step = clones(two_steps)
    paged = cls(params, page_manager=pyadamw.PageManager("file", directory=disk, **SMALL))
    plain, plain_one = cls(two_steps), cls(one_step)
    train(paged, params, 1)
    train(plain, two_steps, 2)
    train(plain_one, one_step, 1)
    for descriptor in descriptors(disk)[:1]:
        os.truncate(descriptor, os.stat(descriptor).st_size // 2)
    give_gradients(params, 1)
    with pytest.raises(pyadamw.StorageError) as caught:
        paged.step()
    stepped = {id(p) for p in caught.value.stepped}
    assert 0 < len(stepped) < len(params)
    assert str(disk) in str(caught.value)
    assert "have been stepped" in str(caught.value)
    partly = 0
    for p, before, after in zip(params, one_step, two_steps, strict=True):
        count = paged.state[p]["step"].item()
        if id(p) in stepped:
            assert bits(p) == bits(after)
            assert count == 2
        else:
            assert count == 1
            moved = (p != before).flatten().nonzero()  # some may be as before after a step, too
            done = int(moved[-1]) + 1 if len(moved) else 0
            assert torch.equal(p.flatten()[done:], before.flatten()[done:])
            assert torch.equal(p.flatten()[:done], after.flatten()[:done])
            partly += bool(done)
    assert partly <= 1


# ---- processes ---------------------------------------------------------------------------------------------------


def test_fork(disk):
    """A child has copies: it may read them and drop them, its step is refused, and the parent goes on as if alone."""
    params, copies = parameters(SHAPES), parameters(SHAPES)
    paged = pyadamw.PagedAdamW8bit(params, page_manager=pyadamw.PageManager("file", directory=disk, **SMALL))
    plain = pyadamw.AdamW8bit(copies)
    train(paged, params, 2)
    train(plain, copies, 2)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            same = all(
                bits(moment_of(paged.state[p])) == bits(moment_of(plain.state[q]))
                for p, q in zip(params, copies, strict=True)
            )
            moment_of(paged.state[params[0]]).zero_()
            try:
                paged.step()
            except pyadamw.UnsupportedError as error:
                refused = "fork" in str(error)
            else:
                refused = False
            del paged
            os.write(write, json.dumps([same, refused]).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    assert json.loads(told) == [True, True]
    train(paged, params, 2, first=2)
    train(plain, copies, 2, first=2)
    assert_same_bits((paged, params), (plain, copies))


TRAIN = """
import sys, torch, pyadamw
torch.manual_seed(int(sys.argv[2]))
def models():
    params = [torch.nn.Parameter(torch.randn(300, 1000)) for _ in range(4)]
    return params, [torch.nn.Parameter(p.detach().clone()) for p in params]
params, copies = models()
manager = pyadamw.PageManager("file", directory=sys.argv[1], chunk_bytes=65536)
paged = pyadamw.PagedAdamW8bit(params, page_manager=manager)
plain = pyadamw.AdamW8bit(copies)
step = 0
while step < int(sys.argv[3]):
    for p, q in zip(params, copies):
        p.grad = q.grad = torch.randn_like(p)
    paged.step(), plain.step()
    step += 1
    print(step, flush=True)
assert all(torch.equal(p, q) for p, q in zip(params, copies))
"""


def start_training(directory, seed, steps):
    command = [sys.executable, "-c", TRAIN, str(directory), str(seed), str(steps)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def test_kill_leaves_nothing(disk):
    """The file has no name and no rights for others, and goes with a process that is killed in mid-training."""
    process = start_training(disk, 0, 10**9)
    for _ in range(5):
        assert process.stdout.readline()
    files = descriptors(disk, process.pid)
    assert files
    assert {os.stat(file).st_mode & 0o777 for file in files} == {0o600}
    assert {os.stat(file).st_nlink for file in files} == {0}
    assert os.listdir(disk) == []
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert os.listdir(disk) == []


def test_two_processes_in_one_directory(disk):
    """Each trains as if it were alone."""
    script = f"""
import os, sys
children = []
for seed in "12":
    child = os.fork()
    if child == 0:
        sys.argv[2] = seed
        exec({TRAIN!r})
        sys.exit()
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""
    done = forked.run(script, disk, 0, 20)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines().count("20") == 2
