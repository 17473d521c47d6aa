"""Owns the law: an address is believed only as long as it is true. Whatever is done between steps to a tensor that a
step reads or writes, the steps have the bits of undisturbed ones; and what nobody outside holds is free at once.
"""

import gc
import sys
import weakref
from multiprocessing.reduction import ForkingPickler

import forked
import pytest
import torch
import torch.multiprocessing  # torch's way to pickle tensors: it moves them into shared memory, in place
from harness import CLASSES, bits, clones, give_gradients, parameters, state_bits

import pyadamw

SHAPES = ((1,), (300,), (40, 130), (5000,))
OPTIONS = {"min_8bit_size": 500, "amsgrad": True, "percentile_clipping": 50}


# (class, dtype of the parameters, options)
KINDS = {cls.__name__: (cls, torch.float32, {}) for cls in CLASSES} | {
    "24 bits": (pyadamw.AdamW16bit, torch.bfloat16, {"master_weight_bits": 24}),
    "32 bits, paged": (pyadamw.PagedAdamW8bit, torch.bfloat16, {"master_weight_bits": 32}),
}


def optimizer_of(cls, params, **options):
    paged = {"page_manager": pyadamw.PageManager("host", min_numel=100)} if "Paged" in cls.__name__ else {}
    return cls(params, lr=1e-2, **OPTIONS, **options, **paged)


def negated(tensor):
    """The same numbers, which are not those in its memory."""
    return torch._neg_view(tensor.detach().neg())


def of_state(change):
    """`change` of every tensor of state, the step counts too, in its place."""

    def apply(optimizer, params):
        for param in params:
            for key, value in optimizer.state[param].items():
                optimizer.state[param][key] = change(value)

    return apply


def of_state_data(change):
    def apply(optimizer, params):
        for param in params:
            for value in optimizer.state[param].values():
                value.data = change(value.data)

    return apply


def of_params(change):
    def apply(optimizer, params):
        for param in params:
            param.data = change(param.data)

    return apply


def each(call):
    def apply(optimizer, params):
        for param in params:
            call(optimizer, param)

    return apply


def swapped(_optimizer, param):
    torch.utils.swap_tensors(param, torch.nn.Parameter(param.detach().clone()))


def swapped_in_place(_optimizer, param):
    """Another C++ tensor in the same memory."""
    torch.utils.swap_tensors(param, torch.nn.Parameter(param.detach()))


def offloaded(optimizer, params):
    """Parameters and state go away and come back, to other memory, with others in what was theirs."""
    kept = [[p.detach().clone(), {key: v.clone() for key, v in optimizer.state[p].items()}] for p in params]
    for p in params:
        p.data = torch.empty(0)
        for key in optimizer.state[p]:
            optimizer.state[p][key] = torch.empty(0)
    others = [torch.full_like(data, 7.0) for data, _ in kept]
    for p, (data, state) in zip(params, kept, strict=True):
        p.data = data
        optimizer.state[p].update(state)
    del others


def steps_in_an_inner_call(optimizer, params):
    ForkingPickler.dumps([optimizer.state[p]["step"] for p in params])


DISTURBANCES = {
    "parameters shared": each(lambda _, p: p.data.share_memory_()),
    "parameters pickled": each(lambda _, p: ForkingPickler.dumps(p.detach())),
    "parameters replaced": of_params(torch.clone),
    "parameters swapped": each(swapped),
    "parameters swapped in place": each(swapped_in_place),
    "parameters negated": of_params(negated),
    "parameters strided": of_params(lambda t: t.repeat_interleave(2, -1)[..., ::2] if t.dim() else t),
    "state dict pickled": lambda o, _: ForkingPickler.dumps(o.state_dict()),
    "step counts pickled": steps_in_an_inner_call,
    "state shared": each(lambda o, p: [value.share_memory_() for value in o.state[p].values()]),
    "state replaced": of_state(torch.clone),
    "state swapped": each(lambda o, p: [torch.utils.swap_tensors(v, v.clone()) for v in o.state[p].values()]),
    "state data replaced": of_state_data(torch.clone),
    "state strided": of_state(lambda t: t.repeat_interleave(2, -1)[..., ::2] if t.dim() else t),
    "state in pieces of one tensor": of_state(lambda t: torch.stack([t, torch.ones_like(t)])[0]),
    "offloaded and back": offloaded,
    "nothing": lambda *_: None,
}


def run(kind, disturb, change_gradients=None):
    cls, dtype, options = KINDS[kind]
    params = parameters(SHAPES, dtype)
    optimizer = optimizer_of(cls, params, **options)
    for step in range(6):
        give_gradients(params, step)
        if change_gradients is not None:
            for p in params:
                p.grad = change_gradients(p.grad)
        optimizer.step()
        optimizer.zero_grad()
        if step in (1, 3):
            disturb(optimizer, params)
    return [bits(p) for p in params], [state_bits(optimizer, p) for p in params]


@pytest.fixture(scope="module")
def undisturbed():
    torch.set_num_threads(1)
    return {kind: run(kind, DISTURBANCES["nothing"]) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DISTURBANCES)
def test_whatever_moves(undisturbed, name, kind):
    assert run(kind, DISTURBANCES[name]) == undisturbed[kind]


def imaginary(grad):
    """The gradient as an imaginary part of a conjugate, which is negated lazily."""
    if grad.dtype == torch.bfloat16:  # there are no such complex numbers
        return negated(grad)
    return torch.complex(torch.ones_like(grad), grad.neg()).conj().imag


class Wrapping(torch.Tensor):
    """A tensor without memory of its own around another, as collectives in flight and float8 weights are."""

    @staticmethod
    def __new__(cls, inside):
        return torch.Tensor._make_wrapper_subclass(
            cls, inside.size(), strides=inside.stride(), dtype=inside.dtype, device=inside.device
        )

    def __init__(self, inside):
        self.inside = inside

    def __repr__(self):
        return "Wrapping"

    @classmethod
    def __torch_dispatch__(cls, function, types, args, kwargs=None):
        opened = torch.utils._pytree.tree_map_only(cls, lambda t: t.inside, (args, kwargs or {}))
        result = function(*opened[0], **opened[1])
        if function == torch.ops.aten.detach.default:
            return cls(result)
        return args[0] if function._schema.name.endswith("_") else result

    __torch_function__ = torch._C._disabled_torch_function_impl


GRADIENTS = {
    "negated": negated,
    "imaginary": imaginary,
    "shared": lambda grad: grad.share_memory_(),
    "wrapped": Wrapping,
    "strided": lambda grad: torch.stack([grad, grad], -1)[..., 0],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GRADIENTS)
def test_whatever_gradients_are(undisturbed, name, kind):
    assert run(kind, DISTURBANCES["nothing"], GRADIENTS[name]) == undisturbed[kind]


@pytest.mark.parametrize("cls", [pyadamw.AdamW32bit, pyadamw.AdamW8bit])
def test_wrapped_parameters(cls):
    """They are stepped by way of torch's own operations, with the bits of plain ones."""
    plain = parameters(SHAPES)
    wrapped = [torch.nn.Parameter(Wrapping(p.detach().clone())) for p in plain]
    ours, others = cls(wrapped, **OPTIONS), cls(plain, **OPTIONS)
    for step in range(3):
        give_gradients(plain, step)
        for p, q in zip(wrapped, plain, strict=True):
            p.grad = q.grad.clone()
        ours.step()
        others.step()
    assert [bits(p.inside) for p in wrapped] == [bits(p) for p in plain]


def test_a_real_imaginary_part():
    """One element, used as an imaginary part: it steps downhill, as torch's does."""
    for cls in (torch.optim.AdamW, pyadamw.AdamW32bit, pyadamw.AdamW8bit):
        part = torch.nn.Parameter(torch.ones(1))
        optimizer = cls([part], lr=0.1)
        (torch.complex(torch.zeros(1), part).conj().imag * -1).sum().backward()
        optimizer.step()
        assert part.item() < 1


def test_numbers_that_are_negated_lazily_elsewhere():
    """A learning rate, and what quantize() and dequantize() take."""
    x = torch.randn(300)
    codes, absmax, _ = pyadamw.quantize(x)
    assert [bits(t) for t in pyadamw.quantize(negated(x))[:2]] == [bits(codes), bits(absmax)]
    assert torch.equal(pyadamw.dequantize(codes, negated(absmax)), pyadamw.dequantize(codes, absmax))
    params = parameters(SHAPES)
    others = clones(params)
    for these, lr in ((params, torch.tensor(0.1)), (others, negated(torch.tensor(0.1)))):
        give_gradients(these, 0)
        pyadamw.AdamW8bit(these, lr=lr).step()
    assert [bits(p) for p in params] == [bits(p) for p in others]


@pytest.mark.parametrize("cls", CLASSES)
def test_a_module_that_moves(cls):
    """module.to(), .cpu(), .bfloat16() and back between steps: training goes on with what is there."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(70, 90), torch.nn.Linear(90, 5))
    optimizer = optimizer_of(cls, list(net.parameters()))
    for move in (net.cpu, net.float, net.bfloat16, net.half, net.float, lambda: net.to("cpu")):
        dtype = net[0].weight.dtype
        net(torch.randn(8, 70, dtype=dtype)).square().mean().backward()
        before = [bits(p) for p in net.parameters()]
        optimizer.step()
        assert [bits(p) for p in net.parameters()] != before
        optimizer.zero_grad()
        move()
    assert {int(optimizer.state[p]["step"]) for p in net.parameters()} == {6}


def test_autograd_notices_a_step_after_a_swap():
    """The version that is counted is that of the tensor which is there now, even in the same memory."""
    param = torch.nn.Parameter(torch.ones(300))
    optimizer = pyadamw.AdamW32bit([param])
    param.grad = torch.ones(300)
    optimizer.step()
    optimizer.zero_grad()
    swapped_in_place(optimizer, param)
    loss = (param * param).sum()
    param.grad = torch.ones(300)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ---- nothing is kept -------------------------------------------------------------------------------------------------

FREED = """
import gc, sys, torch, pyadamw

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

n, what = 2**24, sys.argv[2]
param = torch.nn.Parameter(torch.zeros(n))
optimizer = getattr(pyadamw, sys.argv[1])([param], lr=1e-3)
for _ in range(2):
    param.grad = torch.ones_like(param)
    optimizer.step()
optimizer.zero_grad()
gc.collect()
before, state = resident(), optimizer.state[param]
size = sum(v.numel() * v.element_size() for v in state.values()) if "state" in what else 4 * n
if what == "data":
    param.data = torch.empty(0)
elif what == "entries of state":
    for key in state:
        state[key] = torch.empty(0)
elif what == "state":
    del state
    optimizer.state.clear()
elif what == "the parameter":
    optimizer.state.clear()
    optimizer.param_groups[0]["params"] = [torch.nn.Parameter(torch.ones(3))]
    size += sum(v.numel() * v.element_size() for v in state.values())
    del param, state
assert before - resident() > 0.9 * size, (before, resident(), size)
"""


@pytest.mark.parametrize("cls", ["AdamW32bit", "AdamW8bit", "PagedAdamW8bit"])
@pytest.mark.parametrize("what", ["data", "entries of state", "state", "the parameter"])
def test_what_nobody_holds_is_free_at_once(cls, what):
    done = forked.run(FREED, cls, what)
    assert done.returncode == 0, done.stderr


def test_no_tensor_is_kept_by_what_is_remembered():
    """After a step, an optimizer refers to parameters by its groups and its state alone."""
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit(params)
    give_gradients(params, 0)
    optimizer.step()
    optimizer.zero_grad()
    counts = [sys.getrefcount(p) for p in params]
    optimizer._cache.plan = None
    gc.collect()
    assert [sys.getrefcount(p) for p in params] == counts
    assert not any(weakref.getweakrefcount(p) for p in params)


@pytest.mark.parametrize("key", ["exp_avg_codes", "exp_avg_sq_floor"])
def test_what_is_no_tensor_any_more_is_refused_by_name(key):
    """State that somebody has replaced by something else: nothing is stepped."""
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit([(f"p{i}", p) for i, p in enumerate(params)], **OPTIONS)
    for step in range(2):
        give_gradients(params, step)
        optimizer.step()
    for wrong in (None, 3.0, "word", [1.0], torch.ones(5).to_sparse()):
        kept, before = optimizer.state[params[3]][key], [bits(p) for p in params]
        optimizer.state[params[3]][key] = wrong
        give_gradients(params, 3)
        with pytest.raises(ValueError, match=rf"'p3'.*{key}"):
            optimizer.step()
        assert [bits(p) for p in params] == before
        optimizer.state[params[3]][key] = kept
        optimizer.step()
