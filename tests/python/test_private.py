"""Owns the law that libadamw's private functions are no condition: without them, or with others of their names, pyadamw
steps in plain Python, with the same results.
"""

import os
import re
import subprocess
from types import SimpleNamespace

import forked
import pytest
from harness import ROOT
from test_describe import NEEDS_LOOP

from pyadamw._native import cdef, library

ARCHIVE = ROOT / "build" / "release" / "libadamw.a"
NAMES = re.findall(r"adamw_\w+(?=;)", (ROOT / "libadamw" / "libadamw.map").read_text(encoding="utf-8"))
# What a step must notice is in it: missing gradients, replaced memory, swapped tensors, state that was looked at.
STEPS = """
import hashlib, torch, pyadamw
from pyadamw._native import inspect_tensors
from pyadamw._native.library import library
torch.manual_seed(0)
said = hashlib.sha256()
for cls in (pyadamw.AdamW32bit, pyadamw.AdamW8bit):
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in ((300,), (5000,), (3, 700), (600, 5))]
    optimizer = cls(params, lr=0.1)
    for step in range(8):
        for param in params[step % 2 :]:
            param.grad = torch.randn_like(param)
        if step == 3:
            params[1].data = params[1].data.clone()
            params[2].grad = torch.randn(700, 3).t()
        if step == 5:
            other = torch.nn.Parameter(params[0].detach().clone())
            other.grad = params[0].grad
            torch.utils.swap_tensors(params[0], other)
            optimizer.state_dict()
        optimizer.step()
        optimizer.zero_grad()
    for param in params:
        said.update(param.detach().numpy().tobytes())
        said.update(str(param._version).encode())
print(library().path, library().describe_tensors is not None, inspect_tensors._loop() is not None, said.hexdigest())
"""


@pytest.fixture(scope="module")
def without_private(tmp_path_factory):
    """A library of the same objects that exports the public functions only."""
    if not ARCHIVE.exists():
        pytest.skip("needs ci/cpp release --build-only (make test does that first)")
    folder = tmp_path_factory.mktemp("public")
    names = " ".join(f"{name};" for name in NAMES)
    (folder / "public.map").write_text(f"ADAMW_1 {{ global: adamw_*; local: {names} *; }};")
    command = [os.environ.get("CXX", "c++"), "-shared", "-o", folder / "libadamw.so", "-Wl,--whole-archive", ARCHIVE]
    command += ["-Wl,--no-whole-archive", f"-Wl,--version-script={folder / 'public.map'}", "-fopenmp", "-ldl"]
    subprocess.run(command, check=True)
    return folder / "libadamw.so"


@NEEDS_LOOP
def test_a_library_without_them_steps_the_same(without_private):
    usual = library.library().path
    with_them, without = (forked.run(STEPS, PYADAMW_LIBRARY=str(path)) for path in (usual, without_private))
    *where, digest = with_them.stdout.split() or [with_them.stderr]
    assert where == [str(usual), "True", "True"], digest
    assert without.stdout.split() == [str(without_private), "False", "False", digest], without.stderr


def test_all_private_names_are_tried():
    assert sorted(NAMES) == ["adamw_describe_options_init", "adamw_describe_tensors", "adamw_python_version"]
    assert library._private_function(library.library().lib) is not None


@pytest.mark.parametrize("name", NAMES)
def test_each_is_needed(name):
    """A library that lacks one of them is one without them."""
    functions = {other: getattr(library.library().lib, other) for other in NAMES if other != name}
    assert library._private_function(SimpleNamespace(**functions)) is None


def test_another_form_is_not_called(monkeypatch):
    monkeypatch.setattr(cdef, "PYTHON_VERSION", cdef.PYTHON_VERSION + 1)
    assert library._private_function(library.library().lib) is None
