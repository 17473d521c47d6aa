"""Owns the law that no name which torch or CPython may take away is needed: without it a step is the same, and slower
at most.
"""

import ast
import re
from pathlib import Path

import forked
import pytest

import pyadamw
from pyadamw._native import torch_private
from pyadamw._native.torch_private import PRIVATE

PACKAGE = Path(pyadamw.__file__).parent

# Hides a name from pyadamw, or renames it in the source of torch, as a new version might; then steps.
SCRIPT = r"""
import hashlib, importlib, re, sys, types, ctypes, multiprocessing.util, multiprocessing.process
import torch, torch.distributed.optim, torch.distributed.tensor, torch.distributed._composable.fsdp
import torch.utils.dlpack, torch.utils.weak
from torch.optim import optimizer as torch_optimizer
owner, name, how = sys.argv[1:]
seen = []

def asked_by_pyadamw():
    frame = sys._getframe(2)
    found = frame.f_globals.get("__name__", "").startswith("pyadamw")
    if found:
        seen.append(name)
    return found

def resolved(path):
    if path.startswith("torch.distributed.tensor.") and not hasattr(torch.distributed.tensor, "DTensor"):
        importlib.import_module("torch.distributed._tensor")
        path = path.replace(".tensor.", "._tensor.", 1)  # before torch 2.5
    for stop in range(path.count(".") + 1, 0, -1):
        module = sys.modules.get(".".join(path.split(".")[:stop]))
        if module is not None:
            for part in path.split(".")[stop:]:
                module = getattr(module, part)
            return module

def hide(target):
    kind = type(target)
    class Hiding(kind):
        def __getattribute__(self, asked):
            if asked == name and asked_by_pyadamw():
                raise AttributeError(asked)
            return super().__getattribute__(asked)
    target.__class__ = Hiding

def hide_in_class(cls):
    old = getattr(cls, name, None)
    class Hidden:
        def __get__(self, instance, kind=None):
            if asked_by_pyadamw() or old is None:
                raise AttributeError(name)
            return old.__get__(instance, kind) if hasattr(old, "__get__") else old
        def __set__(self, instance, value):
            old.__set__(instance, value) if hasattr(old, "__set__") else instance.__dict__.update({name: value})
    setattr(cls, name, Hidden())

def rename(module):
    source = open(module.__file__, encoding="utf-8").read()
    renamed = re.sub(rf"\b{name}\b", f"{name}_of_a_later_version", source)
    assert renamed != source, f"{owner} has no {name}"
    vars(module).pop(name, None)
    exec(compile(renamed, module.__file__, "exec"), vars(module))
    torch.optim.Optimizer = module.Optimizer

if how == "rename":
    rename(resolved(owner))
elif how == "hide":
    target = resolved(owner)
    hide_in_class(target) if isinstance(target, type) else hide(target)

calls = []
torch_optimizer.register_optimizer_step_pre_hook(lambda o, args, kwargs: calls.append(("before all", len(args))))
torch_optimizer.register_optimizer_step_post_hook(lambda o, args, kwargs: calls.append(("after all", len(args))))
import pyadamw
from pyadamw._native import torch_private

torch.manual_seed(0)
shapes = [(5000,), (3, 700), (7,), ()]
digest = hashlib.sha256()
for cls in (pyadamw.AdamW32bit, pyadamw.AdamW8bit):
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = cls(params, lr=0.01, amsgrad=True)
    optimizer.register_step_pre_hook(lambda o, args, kwargs: calls.append(("before", type(o).__name__)))
    optimizer.register_step_post_hook(lambda o, args, kwargs: calls.append(("after", type(o).__name__)))
    manager = pyadamw.GlobalOptimManager.get_instance()
    manager.override_config(params[2], "lr", 0.5)
    for step in range(6):
        for param in params:
            param.grad = torch.randn(param.shape)
        if step == 2:  # a lazily negated gradient
            params[0].grad = torch.complex(torch.zeros(5000), torch.randn(5000)).conj().imag
        if step == 3:
            params[1].data = params[1].data.clone()
        if step == 4:
            params[1].grad = None
            __import__("gc").collect()
        versions = [param._version for param in params]
        if step == 5:
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(0.0)
        optimizer.step()
        if step != 4:
            assert all(param._version > before for param, before in zip(params, versions)), "versions"
    optimizer.load_state_dict(optimizer.state_dict())
    for param in params:
        for value in (param, *optimizer.state[param].values()):
            digest.update(value.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
    want = [("before all", 1), ("before", cls.__name__), ("after", cls.__name__), ("after all", 1)] * 6
    assert calls == want, calls
    calls.clear()

profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
with profile:
    optimizer.step()
assert any(event.name == "Optimizer.step#AdamW8bit.step" for event in profile.events()), "no label"

assert torch_private.uncompiled(lambda number: number + 1)(2) == 3

torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
mesh = torch.distributed.init_device_mesh("cpu", (1,))
from distributed_names import Shard, distribute_tensor, fully_shard
param = torch.nn.Parameter(distribute_tensor(torch.ones(512, 4), mesh, [Shard(0)]))
optimizer = pyadamw.AdamW8bit([param], lr=0.1, min_8bit_size=0)
for _ in range(3):
    param.grad = distribute_tensor(torch.ones(512, 4), mesh, [Shard(0)])
    optimizer.step()
digest.update(param.detach().full_tensor().numpy().tobytes())
from pyadamw._plan import modules
assert modules._fsdp2_units(fully_shard(torch.nn.Linear(2, 2), mesh=mesh)) == [""], "no units"
torch.distributed.destroy_process_group()

pager = pyadamw.PageManager("file")  # asks for what is called in workers
stepper = pyadamw.StepInBackward(torch.nn.Linear(2, 2).parameters())
assert torch_private.has_gil() in (True, False)
print("asked" if seen or how != "hide" else "never asked", digest.hexdigest())
"""


# All that the script imports but pyadamw.
MODULES = (
    *forked.TORCH,
    "torch.distributed.optim",
    "torch.distributed._composable.fsdp",
    "distributed_names",
)


def digest(owner, name, how):
    done = forked.run(SCRIPT, owner, name, how, modules=MODULES)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()[-1], done.stdout


@pytest.fixture(scope="module")
def usual():
    return digest("", "", "nothing")[0]


# Not asked for by what one process on a CPU does.
ELSEWHERE = {"_cuda_getCurrentRawStream", "_delay_all_reduce_params", "_StridedShard", "_target", "process_group"}
# Without the exchange API, or Python's lock, tensors are looked at one by one: that does not need these.
if torch_private.exchange_api() is None or not torch_private.has_gil():
    ELSEWHERE |= {"_neg_view", "_cdata", "PyType_GetSlot", "PyList_GetItem", "PyList_SetItem", "PyCapsule_GetPointer"}
    ELSEWHERE |= {"__dlpack_c_exchange_api__"}


@pytest.mark.parametrize("entry", PRIVATE, ids=lambda entry: f"{entry.owner}.{entry.name}")
def test_a_step_does_without(entry, usual):
    """Parameters, state, versions, hooks and the profiler's label are those of a step that has the name."""
    how = "rename" if entry.owner == "torch.optim.optimizer" else "hide"
    found, output = digest(*entry[:2], how)
    assert found == usual, f"without {entry.owner}.{entry.name}"
    assert "never asked" not in output or entry.name in ELSEWHERE


# ---- the file has all of them ------------------------------------------------------------------------------------

# Documented by Python, though they begin with an underscore.
DOCUMENTED = {"_asdict", "_replace", "_fields_", "_handle", "_make"}
# What a folder of torch.distributed.checkpoint names: compared with, not looked up. A later torch may write others.
IN_FILES = {"_StorageInfo", "_get_layout"}
KEYS = {"_absmax", "_codes", "_floor", "_init"}  # ends of names, in strings


def foreign(package):
    """{underscored name: modules} of what the package uses and does not define. Of whatever object: nobody knows."""
    used, defined = {}, set()
    for path in package.rglob("*.py"):
        if path.name == "cdef.py" or "demo" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names, defines = [], False
            if isinstance(node, ast.Attribute):
                names, defines = [node.attr], isinstance(node.ctx, ast.Store)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names = [node.value]
            elif isinstance(node, ast.Name):
                names, defines = [node.id], isinstance(node.ctx, ast.Store)
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names, defines = [node.name], True
            elif isinstance(node, ast.arg):
                names, defines = [node.arg], True
            elif isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names] + (node.module or "").split(".") * (node.level == 0)
                defined |= {alias.asname for alias in node.names if alias.asname}
            elif isinstance(node, ast.Import):
                names = [part for alias in node.names for part in alias.name.split(".")]
            for name in names:
                if not re.fullmatch(r"_[A-Za-z]\w*", name):
                    continue
                if defines:
                    defined.add(name)
                elif path.name != "torch_private.py":
                    used.setdefault(name, set()).add(path.relative_to(package).as_posix())
    known = (
        defined
        | DOCUMENTED
        | KEYS
        | IN_FILES
        | {part for path in package.rglob("*.py") for part in path.with_suffix("").parts}
    )
    return {name: where for name, where in used.items() if name not in known}


def test_no_other_file_has_one():
    assert foreign(PACKAGE) == {}


@pytest.mark.parametrize(
    "line", ["torch._foreach_mul_([], 1)", "getattr(torch, '_neg_view')", "from torch._C import _dlpack_exchange"]
)
def test_can_fail(line, tmp_path):
    for path in PACKAGE.rglob("*.py"):
        copy = tmp_path / path.relative_to(PACKAGE)
        copy.parent.mkdir(exist_ok=True, parents=True)
        copy.write_bytes(path.read_bytes())
    with open(tmp_path / "_step" / "run.py", "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    assert foreign(tmp_path)
