"""Owns the law of memory that runs out in a step, in Python or in the library: it is an error that says so, each
parameter, its moments and its count agree, and as soon as there is memory again the step works.

The system is asked to refuse memory (RLIMIT_AS) in a process of its own, a little earlier each time. Not everything can
be tried in this way: libgomp ends the process when it cannot start a thread, so one thread steps; what a thread takes
when it first calls the library is taken before; and small objects of Python come out of memory that it has already.
(tests/cpp fails each allocation of the library once.)
"""

import pytest
from forked import run
from harness import CLASSES

from pyadamw import PagedAdamW8bit, PagedAdamW32bit

SCRIPT = """
import gc, resource, sys, torch, pyadamw
from pyadamw._native.memory import is_out_of_memory
from test_interrupts import bits, seen

torch.set_num_threads(1)
cls, place, folder = getattr(pyadamw, sys.argv[1]), sys.argv[2], sys.argv[3]
SHAPES = ((100, 700), (300,), (700, 100), (60_000,))

class Limited:
    def __init__(self, more):
        self.more = more
    def __enter__(self):
        gc.collect()
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
        self.ballast = []  # in the holes of the heap: who takes memory out of them does not ask the system
        for size in (2**20, 2**17, 2**14):
            try:
                while True:
                    self.ballast.append(bytearray(size))
            except MemoryError:
                pass
        resource.setrlimit(resource.RLIMIT_AS, (used + self.more, resource.RLIM_INFINITY))
        return self
    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.ballast = None

def made():
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    params[2] = torch.nn.Parameter(params[2].detach().t())  # a copy of it is stepped
    options = {}
    if "Paged" in cls.__name__:
        where = {"directory": folder} if place == "file" else {}
        options["page_manager"] = pyadamw.PageManager(place, min_numel=1000, chunk_bytes=2**16, **where)
    groups = [{"params": params[:2]}, {"params": params[2:], "percentile_clipping": 50}]
    optimizer = cls(groups, lr=0.1, **options)
    for p in params:
        p.grad = torch.randn(p.shape)
    return optimizer, params

def attempt(optimizer, params, before, after, more):
    with Limited(more):
        try:
            optimizer.step()
        except Exception as error:
            failed = error
        else:
            failed = None
    if failed is None:
        assert seen(optimizer, params) == after
        return False
    assert is_out_of_memory(failed), repr(failed)
    for i, row in enumerate(seen(optimizer, params)):
        if row == after[i]:
            params[i].grad = None
        elif before is not None:
            assert row == before[i], (more, i)
        else:  # state may be there, in which nothing has happened
            assert row[0] == start[i] and not any(any(content) for content in (row[1] or {}).values()), (more, i)
    del failed
    optimizer.step()
    assert seen(optimizer, params) == after, more
    return True

optimizer, params = made()
start = [bits(p) for p in params]
optimizer.step()
first = seen(optimizer, params)
optimizer.step()
second = seen(optimizer, params)
with Limited(0) as kept:
    ballast = kept.ballast  # most of it for good
failed = [0, 0]
for more in range(0, 2_000_000, 170_000):
    optimizer, params = made()
    failed[0] += attempt(optimizer, params, None, first, more)
    optimizer, params = made()
    optimizer.step()
    failed[1] += attempt(optimizer, params, first, second, more)
print("failed", *failed)
"""


CASES = [*((cls, "host") for cls in CLASSES), (PagedAdamW8bit, "file"), (PagedAdamW32bit, "file")]


@pytest.mark.parametrize(("cls", "place"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_memory_runs_out_in_a_step(cls, place, disk):
    # What is freed goes back to the system, so that it can be refused.
    malloc = ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "65536")
    done = run(SCRIPT, cls.__name__, place, disk, settings=malloc)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    of_first, of_later = map(int, done.stdout.split()[1:])
    # In a later step with a file, the library gives address space back before it takes any.
    assert of_first >= 1 and (of_later >= 1 or place == "file"), done.stdout
