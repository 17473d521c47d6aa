"""Owns every name of torch and CPython that these do not promise to keep, and what is done where one is missing. Must
not know what a step is.

Each name is looked up here once, and nowhere else in the package. PRIVATE lists them all:
tests/python/test_private_names.py hides each in turn and steps an optimizer.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import inspect
import sys
import weakref
from collections.abc import Callable, Iterable
from multiprocessing import process, util
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch.optim import optimizer as torch_optimizer

if TYPE_CHECKING:
    from torch.optim.optimizer import ParamsT
else:
    ParamsT = getattr(torch_optimizer, "ParamsT", Any)

F = TypeVar("F", bound=Callable[..., Any])


class Name(NamedTuple):
    owner: str  # a module, a class, or an object of ctypes
    name: str
    without: str  # what is done where it is missing


_WRAPPER = "torch itself wraps step(), which takes longer"
_ONE_BY_ONE = "tensors are looked at one by one"
_CALLED = "is_neg() is called for each tensor"

PRIVATE = (
    Name("torch", "_disable_dynamo", "torch.compiler.disable(), at the first call in a compiled program"),
    Name("torch._C._dynamo.eval_frame", "get_eval_frame_callback", "every step is kept from the compiler"),
    Name("torch._C", "_profiler", "the profiler's label is torch.autograd.profiler.record_function()"),
    Name("torch._C._profiler", "_RecordFunctionFast", "the label is torch.autograd.profiler.record_function()"),
    Name("torch.optim.optimizer", "_global_optimizer_pre_hooks", _WRAPPER),
    Name("torch.optim.optimizer", "_global_optimizer_post_hooks", _WRAPPER),
    Name("torch.optim.optimizer", "_optimizer_step_pre_hooks", _WRAPPER),
    Name("torch.optim.optimizer", "_optimizer_step_post_hooks", _WRAPPER),
    Name("torch.optim.optimizer", "_optimizer_step_code", _WRAPPER),
    Name("torch.optim.optimizer", "ParamsT", "a type hint is Any"),
    Name("torch", "_foreach_mul_", "gradients are unscaled one by one"),
    Name("torch", "_neg_view", _CALLED),
    Name("torch._C", "TensorBase", _ONE_BY_ONE),
    Name("torch.Tensor", "_cdata", _CALLED),
    Name("torch.Tensor", "__dlpack_c_exchange_api__", _ONE_BY_ONE),
    Name("torch._C", "DisableTorchFunctionSubclass", "step() gives lazy parameters their hooks once they have a shape"),
    Name("torch._C", "_cuda_getCurrentRawStream", "torch.cuda.current_stream()"),
    Name("torch.autograd.graph", "increment_version", "an operation in place on no element, tensor by tensor"),
    Name("torch.utils.weak", "TensorWeakRef", "weakref.ref()"),
    Name("torch.distributed.tensor", "DTensor", "torch.distributed._tensor has it, before torch 2.5"),
    Name("torch.distributed.fsdp", "FSDPModule", "torch.distributed._composable.fsdp has it, before torch 2.6"),
    Name("torch.distributed.tensor.DTensor", "_local_tensor", "to_local()"),
    Name("torch.nn.Parameter", "_fsdp_flattened", "8-bit state of FSDP1 is not refused; it cannot be saved"),
    Name("torch.nn.Parameter", "_is_flat_param", "8-bit state of FSDP1 is not refused; it cannot be saved"),
    Name("torch.nn.parallel.DistributedDataParallel", "_delay_all_reduce_params", "these are not known to be averaged"),
    Name("torch.distributed.optim.ZeroRedundancyOptimizer", "process_group", "max_grad_norm is refused in one"),
    Name("torch.distributed.tensor.placement_types", "_StridedShard", "what it places is gathered for the step"),
    Name("ctypes.pythonapi", "PyType_GetSlot", _ONE_BY_ONE),
    Name("ctypes.pythonapi", "PyList_GetItem", _ONE_BY_ONE),
    Name("ctypes.pythonapi", "PyList_SetItem", "gradients are asked for in Python"),
    Name("ctypes.pythonapi", "PyCapsule_GetPointer", _ONE_BY_ONE),
    Name("multiprocessing.util", "register_after_fork", "state in files is copied for workers of a DataLoader, too"),
    Name("multiprocessing.process.BaseProcess", "_target", "state in files is copied for workers of a DataLoader, too"),
    Name("sys", "_is_gil_enabled", "there is one"),
)


# ---- torch's wrapper of step() -----------------------------------------------------------------------------------


def _uncompiled(function: F) -> F:
    """`function` outside of compiled graphs. torch.compiler.disable() imports the compiler: not before it is called."""

    @functools.wraps(function)
    def outside(*arguments: Any, **keywords: Any) -> Any:
        return torch.compiler.disable(function)(*arguments, **keywords)

    return outside  # type: ignore[return-value]


uncompiled: Callable[[F], F] = getattr(torch, "_disable_dynamo", _uncompiled)

# Whether torch.compile() looks at the functions that are called now; something false where it does not. is_compiling()
# says only whether the caller itself has been compiled. Before torch 2.5 there is no way to ask: it may, once it has
# been imported, and fails with what a step does in numpy.
is_tracing: Callable[[], Any] = getattr(
    getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None),
    "get_eval_frame_callback",
    lambda: "torch._dynamo" in sys.modules,
)

# A label that costs less than that of torch.autograd.profiler where nobody profiles.
profiler_label: Callable[[str], contextlib.AbstractContextManager[Any]] = getattr(
    getattr(torch._C, "_profiler", None), "_RecordFunctionFast", torch.autograd.profiler.record_function
)


class StepHooks(NamedTuple):
    """The hooks of all optimizers, {number: hook}."""

    before: dict[int, Callable[..., Any]]
    after: dict[int, Callable[..., Any]]


def _uses(function: Any, name: str) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and name in code.co_names


def _step_hooks() -> StepHooks | None:
    """None where one of the names is missing that a wrapper of step() has to know."""
    cls = torch.optim.Optimizer
    before = getattr(torch_optimizer, "_global_optimizer_pre_hooks", None)
    after = getattr(torch_optimizer, "_global_optimizer_post_hooks", None)
    # Optimizers have these once they are made. To make one here would import the compiler.
    own = _uses(cls.register_step_pre_hook, "_optimizer_step_pre_hooks")
    own = own and _uses(cls.register_step_post_hook, "_optimizer_step_post_hooks")
    if before is None or after is None or not own or not hasattr(cls, "_optimizer_step_code"):
        return None
    return StepHooks(before, after)


step_hooks = _step_hooks()


def own_hooks_before(optimizer: Any) -> Iterable[Callable[..., Any]]:
    return optimizer._optimizer_step_pre_hooks.values()


def own_hooks_after(optimizer: Any) -> Iterable[Callable[..., Any]]:
    return optimizer._optimizer_step_post_hooks.values()


def mark_step(optimizer: Any) -> None:
    """Lets the profiler look at the optimizer."""
    optimizer._optimizer_step_code()


# ---- tensors -----------------------------------------------------------------------------------------------------

TENSOR_BASE: Any = getattr(torch._C, "TensorBase", None)


def _multiply(tensors: list[torch.Tensor], factor: torch.Tensor) -> None:
    for tensor in tensors:
        tensor.mul_(factor)


multiply: Callable[[list[torch.Tensor], torch.Tensor], Any] = getattr(torch, "_foreach_mul_", _multiply)


def negated_view(tensor: torch.Tensor) -> torch.Tensor:
    """A lazily negated view. AttributeError where torch no longer makes one."""
    return torch._neg_view(tensor)


def cpp_tensor(tensor: torch.Tensor) -> int:
    """The address of the C++ tensor. AttributeError where torch no longer says it."""
    return tensor._cdata


# A context in which a subclass of tensors does not see, or refuse, that its methods are called.
plain_methods: Callable[[], contextlib.AbstractContextManager[Any]] = getattr(
    torch._C, "DisableTorchFunctionSubclass", contextlib.nullcontext
)


def exchange_api() -> Any:
    """A capsule with torch's DLPackExchangeAPI; None."""
    return getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)


# Takes the number of a device; None where this torch is without CUDA, too. The public way makes an object, which takes
# longer than a call that steps some rows.
current_raw_stream: Callable[[int], int] | None = getattr(torch._C, "_cuda_getCurrentRawStream", None)


def _increment_version(tensors: Iterable[torch.Tensor]) -> None:
    for tensor in tensors:
        alias = tensor.detach()
        with torch.no_grad():
            try:
                alias.as_strided((0,), (1,)).zero_()
            except (NotImplementedError, RuntimeError):  # a class that has no strides of its own
                alias.mul_(1)


def _version_counter() -> Callable[[Iterable[torch.Tensor]], None]:
    """torch.autograd.graph.increment_version() takes one tensor before torch 2.5, and any number since."""
    found = getattr(torch.autograd.graph, "increment_version", None)
    try:
        if found is not None:
            found([torch.zeros(1, dtype=torch.float32, device="cpu")])
            return found
    except (AttributeError, RuntimeError, TypeError):
        pass
    if found is None:
        return _increment_version

    def one_by_one(tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            found(tensor)

    return one_by_one


increment_version = _version_counter()

try:
    from torch.utils.weak import TensorWeakRef
except ImportError:
    TensorWeakRef = weakref.ref  # type: ignore[misc, assignment]


# ---- distributed -------------------------------------------------------------------------------------------------

STRIDED_SHARD = "_StridedShard"  # the class that places parts of tensor parallelism under FSDP2


def dtensors() -> Any:
    """The module of DTensors, which is large."""
    from torch.distributed import tensor

    return tensor if hasattr(tensor, "DTensor") else importlib.import_module("torch.distributed._tensor")


def fsdp2_modules() -> tuple[type, ...]:
    """The class that fully_shard() gives to modules, if it has been imported."""
    modules = map(sys.modules.get, ("torch.distributed.fsdp", "torch.distributed._composable.fsdp"))
    return tuple(module.FSDPModule for module in modules if module is not None and hasattr(module, "FSDPModule"))


def local_tensor(dtensor: Any) -> torch.Tensor:
    """The part of a DTensor that this process has, in its memory."""
    try:
        return dtensor._local_tensor
    except AttributeError:
        return _to_local(dtensor)


def _to_local(dtensor: Any) -> torch.Tensor:
    """What to_local() says, which makes a new tensor for each call: the earlier one, as long as it has the memory."""

    def form(tensor: torch.Tensor) -> Any:
        return tensor.data_ptr(), tensor.dtype, tensor.device, tensor.shape, tensor.stride()

    with torch.no_grad():
        fresh = dtensor.to_local()
    known = dtensor.__dict__.get("pyadamw_local")
    if known is not None and form(known) == form(fresh):
        return known
    dtensor.__dict__["pyadamw_local"] = fresh
    return fresh


def belongs_to_fsdp1(param: torch.Tensor) -> bool:
    """Whether FullyShardedDataParallel has made it a part of a flat parameter, or it is one."""
    return getattr(param, "_fsdp_flattened", False) is True or getattr(param, "_is_flat_param", False) is True


def delayed_params(data_parallel: torch.nn.Module) -> Iterable[torch.Tensor]:
    """Those whose gradients a DistributedDataParallel averages by a hook of its own."""
    return getattr(data_parallel, "_delay_all_reduce_params", ())


class Partition(NamedTuple):
    """Of an optimizer that has only a part of the parameters: the group of the processes that have the others, or None
    if that is not known."""

    group: Any


def partition_of_caller() -> Partition | None:
    """The Partition of the optimizer that is being made, if it is made by a ZeroRedundancyOptimizer; else None."""
    module = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    cls = getattr(module, "ZeroRedundancyOptimizer", None)
    frame = None if cls is None else inspect.currentframe()
    while frame is not None:
        if frame.f_globals is vars(module):
            caller = frame.f_locals.get("self")
            if cls is not None and isinstance(caller, cls):
                return Partition(getattr(caller, "process_group", None))
        frame = frame.f_back
    return None


# ---- CPython -----------------------------------------------------------------------------------------------------


def python_function(name: str) -> int | None:
    """The address of a function of CPython; None."""
    function = getattr(ctypes.pythonapi, name, None)
    return None if function is None else ctypes.cast(function, ctypes.c_void_p).value


def type_slot(cls: Any, slot: int) -> int | None:
    """What a slot of a class points to; None."""
    address = python_function("PyType_GetSlot")
    if address is None or cls is None:
        return None
    return ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_int)(address)(cls, slot)


def capsule_pointer(capsule: Any, name: bytes) -> int | None:
    address = python_function("PyCapsule_GetPointer")
    if address is None:
        return None
    return ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(address)(capsule, name)


def has_gil() -> bool:
    """Whether one thread at a time runs Python."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def after_fork(owner: Any, function: Callable[[Any], Any]) -> None:
    """Calls function(owner) in each child that multiprocessing forks from now on, as long as `owner` lives."""
    register = getattr(util, "register_after_fork", None)
    if register is not None:
        register(owner, function)


def process_target() -> Any:
    """The function that this process was started to call; None where it is not known."""
    return getattr(process.current_process(), "_target", None)
