"""Owns what every Python test shares: seeds, thread counts, the property-test profile. Must not know any law."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

import defaults
import hypothesis
import pytest

hypothesis.settings.register_profile("suite", deadline=None, print_blob=True, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("suite")
defaults.apply()


# Files that take longest, those first, so that no processor has nothing to do at the end (ci/pytest).
LONGEST = (
    "tasks",
    "recipes",
    "interrupts",
    "sharded",
    "demo",
    "paging_memory",
    "meshes",
    "gpu_rehearsal",
    "private_names",
    "clipping_sharded",
    "laws",
    "in_backward",
    "defaults",
    "plan_bytes",
    "transformers",
    "out_of_memory",
    "budgets",
    "mutated",
    "widths",
    "paging",
    "forks",
)


def pytest_collection_modifyitems(items):
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))  # which leaves each file's in their order


def pytest_collection_finish(session):
    """What has been imported stays: to go through it for garbage takes longer than most tests."""
    if session.items:
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _repeatable():
    """Every test starts from the same random numbers, on one thread (test_threads.py: the count changes no bit)."""
    import torch  # which the process that only gives tests to others need not wait for

    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def manager():
    """The one of the process, empty before and after."""
    import pyadamw  # by no more tests than need it

    manager = pyadamw.GlobalOptimManager.get_instance()
    manager.initialize()
    yield manager
    manager.initialize()


@pytest.fixture(params=["all at once", "all at once, is_neg() called", "one by one"])
def _looks(request, monkeypatch):
    """The ways in which tensors are looked at, of which a process has the first that its torch allows."""
    from pyadamw._native import inspect_tensors
    from pyadamw._native.library import library
    from pyadamw._step import watch

    if request.param != "all at once":
        for module in (inspect_tensors, watch):
            monkeypatch.setattr(module, "negation", lambda: None)
        monkeypatch.setattr(inspect_tensors, "_loop", inspect_tensors._loop.__wrapped__)
    if request.param == "one by one":  # as with a library that lacks the private function
        monkeypatch.setattr(library(), "describe_tensors", None)


@pytest.fixture
def disk():
    """A directory on a disk, which tests leave empty."""
    path = Path(tempfile.mkdtemp(dir="/var/tmp"))
    yield path
    left = os.listdir(path)
    shutil.rmtree(path)
    assert left == []
