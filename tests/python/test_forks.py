"""Owns the laws of processes that share parameters and state, and of forked ones: they step as one process does."""

import subprocess
import sys

import pytest
from forked import run, run_command

HOGWILD = """
import sys, torch, torch.multiprocessing as mp, pyadamw

def work(optimizer, params, steps):
    torch.set_num_threads(1)
    for _ in range(steps):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()

if __name__ == "__main__":
    mp.set_start_method(sys.argv[2])
    params = [torch.nn.Parameter(torch.ones(s)) for s in ((300,), (70, 100))]
    paged = {"page_manager": pyadamw.PageManager("host", min_numel=100)} if "Paged" in sys.argv[1] else {}
    optimizer = getattr(pyadamw, sys.argv[1])(params, lr=1e-2, **paged)
    work(optimizer, params, 1)
    for p in params:
        p.data.share_memory_()
        for value in optimizer.state[p].values():
            value.share_memory_()
    before = [p.detach().clone() for p in params]
    count = 3 if sys.argv[2] == "fork" else 1  # one after the other; who is spawned imports torch first
    for _ in range(count):
        process = mp.Process(target=work, args=(optimizer, params, 15 // count))
        process.start()
        process.join(120)
        assert process.exitcode == 0
    assert [int(optimizer.state[p]["step"]) for p in params] == [16, 16], optimizer.state
    work(optimizer, params, 4)
    assert [int(optimizer.state[p]["step"]) for p in params] == [20, 20]
    plain = [torch.nn.Parameter(torch.ones(s)) for s in ((300,), (70, 100))]
    work(getattr(pyadamw, sys.argv[1])(plain, lr=1e-2), plain, 20)
    assert all(torch.equal(p, q) for p, q in zip(params, plain, strict=True))
"""


@pytest.mark.parametrize(
    ("cls", "method"),
    [("AdamW32bit", "fork"), ("AdamW8bit", "fork"), ("PagedAdamW8bit", "fork"), ("AdamW8bit", "spawn")],
)
def test_processes_that_share_parameters_and_state(tmp_path, cls, method):
    """Steps of several processes in turn are steps of one, their counts included (Hogwild)."""
    script = tmp_path / "hogwild.py"
    script.write_text(HOGWILD)
    # A file: a spawned process imports it, that of an interpreter of its own.
    if method == "spawn":
        command = [sys.executable, script, cls, method]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    else:
        done = run_command(script, cls, method)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_forked_child_steps():
    """A large step in a child after a parallel one in its parent: OpenMP's threads are not there."""
    script = """
import os, torch, pyadamw
torch.set_num_threads(2)
params = [torch.nn.Parameter(torch.ones(2**20))]
optimizer = pyadamw.AdamW8bit(params)
def once():
    params[0].grad = torch.ones(2**20)
    optimizer.step()
once()
child = os.fork()
if child == 0:
    optimizer.step()  # with the parent's gradient: torch's own large operations would wait for ever
    os._exit(0 if int(optimizer.state[params[0]]["step"]) == 2 else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    done = run(script)
    assert done.returncode == 0, done.stderr


WORKERS = """
import multiprocessing, os, sys, torch, pyadamw
from torch.utils.data import DataLoader, Dataset

params = [torch.nn.Parameter(torch.ones(300, 1000))]
manager = pyadamw.PageManager("file", directory=sys.argv[1], min_numel=0)
optimizer = pyadamw.PagedAdamW8bit(params, page_manager=manager)

class Looks(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        errors = []
        for look in (lambda: optimizer.state, optimizer.state_dict, lambda: optimizer.step()):
            try:
                look()
            except pyadamw.UnsupportedError as error:
                errors.append(str(error))
        return [len(errors), "DataLoader" in errors[0]]

def step():
    params[0].grad = torch.full((300, 1000), 0.1)
    optimizer.step()

def files():  # {name: bytes on the disk}
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
            if sys.argv[1] in name:
                found[name] = os.stat(f"/proc/self/fd/{number}").st_blocks
        except OSError:  # that of the folder itself
            pass
    return found

step()
before = files()
assert len(before) == 1
data = DataLoader(Looks(), num_workers=2, multiprocessing_context="fork", collate_fn=list, persistent_workers=True)
loader = iter(data)
assert next(loader) == [[3, True]]
step()  # while they live
assert files() == before
assert next(loader) == [[3, True]]

def codes():  # some: torch's own large operations would wait for ever in a child
    return optimizer.state[params[0]]["exp_avg_codes"].flatten()[::3000].tolist()

def saves(queue):  # of a process of another kind, a snapshot
    queue.put(float(optimizer.state_dict()["state"][0]["step"]))
    queue.put(codes())

context = multiprocessing.get_context("fork")
queue, must = context.Queue(), codes()
process = context.Process(target=saves, args=(queue,))
process.start()
assert (queue.get(timeout=60), queue.get(timeout=60)) == (2.0, must)
process.join()
step()
print("done")
"""


def test_workers_of_a_data_loader(tmp_path):
    """They leave state in files to their parent, which need not copy it; other children have a snapshot."""
    done = run(WORKERS, tmp_path)
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr


CHILD = """
import os, sys, torch, pyadamw
torch.set_num_threads(1)  # torch's own large operations wait for ever in a child of a process with threads
params = [torch.nn.Parameter(torch.zeros(200_000))]
manager = pyadamw.PageManager("file", directory=sys.argv[1])
optimizer = pyadamw.PagedAdamW32bit(params, page_manager=manager)
params[0].grad = torch.ones(200_000)
optimizer.step()
saved = optimizer.state_dict()
ready, go = os.pipe()
child = os.fork()
if child == 0:
    os.read(ready, 1)  # the parent has gone on
    for call in (optimizer.step, lambda: optimizer.load_state_dict(saved), optimizer.memory_report, manager.stats):
        try:
            call()
        except pyadamw.UnsupportedError as error:
            assert "before this process was forked" in str(error)
        else:
            os._exit(2)
    state = optimizer.state_dict()["state"][0]
    right = float(state["step"]) == 1 and bool((state["exp_avg"] - 0.1).abs().max() < 1e-6)
    torch.save(optimizer.state_dict(), sys.argv[1] + "/saved")
    os._exit(0 if right else 1)
for _ in range(9):
    optimizer.step()
os.write(go, b"x")
assert os.waitpid(child, 0)[1] == 0
assert torch.load(sys.argv[1] + "/saved")["state"][0]["step"] == 1 and optimizer.state[params[0]]["step"] == 10
print("done")
"""


def test_a_child_saves_state_in_files_and_changes_none(tmp_path):
    """What would need the pager is an error that says why, and leaves counts and moments as they are."""
    done = run(CHILD, tmp_path)
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr
