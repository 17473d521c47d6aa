"""Owns the law of state dicts that are wrong in any way: load_state_dict() raises a ValueError that names what is
wrong, and the optimizer is as it was; or it works, and a step makes no NaN of numbers that were finite. The same for
conversion.
"""

import copy
import random
import threading

import pytest
import torch
from foreign import MASTERS, SHAPES, SOURCES
from harness import bits, give_gradients, parameters, train

import pyadamw
from pyadamw._state.export import converted
from pyadamw._state.formats import KEYS

FORMATS = ["torch amsgrad", "bitsandbytes 8", "bitsandbytes 32", "bitsandbytes flat", "own 8", "own 32", *MASTERS]
OPTIMIZERS = {
    "AdamW": (pyadamw.AdamW, {}),
    "AdamW8bit": (pyadamw.AdamW8bit, {}),
    "AdamW8bit amsgrad clipped": (pyadamw.AdamW8bit, {"amsgrad": True, "percentile_clipping": 40}),
    "AdamW8bit tensor-wise": (pyadamw.AdamW8bit, {"block_wise": False}),
    "AdamW16bit master weights": (pyadamw.AdamW16bit, {"master_weight_bits": 24}),
    "PagedAdamW8bit": (pyadamw.PagedAdamW8bit, {}),
    "PagedAdamW32bit": (pyadamw.PagedAdamW32bit, {}),
}
MUTANTS = 420  # of each optimizer


def optimizer_of(name):
    cls, options = OPTIMIZERS[name]
    if "Paged" in name:
        options = {"page_manager": pyadamw.PageManager("host", min_numel=1000)}
    params = parameters(SHAPES, torch.bfloat16 if "master" in name else torch.float32)
    optimizer = cls(params, lr=1e-2, min_8bit_size=1000, **options)
    train(optimizer, params, 1)
    return optimizer, params


# ---- values that are wrong in most places ----------------------------------------------------------------------------


class Odd:
    def __repr__(self):
        raise RuntimeError("no words for it")


VALUES = {
    "None": lambda r, v: None,
    "a word": lambda r, v: r.choice(["", "x", "8", "nan", "²", "9" * 5000]),
    "bytes": lambda r, v: b"\0",
    "a list": lambda r, v: r.choice([[], [1, 2], [[1]], [None], list(range(300))]),
    "a tuple": lambda r, v: r.choice([(), (0.9,), (0.9, 0.99), (0.9, 1.0), ("a", "b"), (0.9, 0.9, 0.9)]),
    "a dict": lambda r, v: r.choice([{}, {0: 1}, {"params": [0]}, {"exp_avg": None}]),
    "a set": lambda r, v: {1, 2},
    "True": lambda r, v: r.choice([True, False]),
    "a number": lambda r, v: r.choice([0, 1, -1, 2, 7, 8, 32, 255, 0.5, -0.0, 1e-320, 1e300, -1e300]),
    "no number": lambda r, v: r.choice([float("nan"), float("inf"), -float("inf"), complex(1, 1)]),
    "a huge number": lambda r, v: r.choice([2**53 + 1, 2**63, 2**64, 10**400, -(10**400), 10**5000]),
    "an object": lambda r, v: r.choice([Odd(), object(), type, len, threading.Lock()]),
    "a tensor": lambda r, v: torch.tensor(r.choice([[], [1.0], [1.0, 2.0], [[1.0]], 5.0, 1e300, float("nan")])),
    "a tensor of whole numbers": lambda r, v: torch.tensor(r.choice([[], [3], [1, 2], 5, -1, 2**40])),
    "a tensor of truths": lambda r, v: torch.tensor(r.choice([True, [False, True]])),
    "a complex tensor": lambda r, v: torch.tensor(1j),
    "a meta tensor": lambda r, v: torch.empty(r.choice([(), (1,), (7,)]), device="meta"),
    "an empty tensor": lambda r, v: torch.empty(r.choice([(0,), (0, 7), (7, 0)])),
    "a sparse tensor": lambda r, v: torch.eye(3).to_sparse(),
    "a nested tensor": lambda r, v: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "a tensor that requires gradients": lambda r, v: torch.ones(3, requires_grad=True) * 2,
}


def _with(number):
    def made(r, v):
        worse = v.clone()
        worse.view(-1)[r.randrange(v.numel())] = number
        return worse

    return made


FLOATS = {
    "with a NaN": _with(float("nan")),
    "with an infinity": _with(float("inf")),
    "with a minus infinity": _with(-float("inf")),
    "with a negative number": _with(-1.0),
    "with a huge number": _with(3e38),
    "with a tiny number": _with(1e-45),
    "negated": lambda r, v: -v,
    "huge in float64": lambda r, v: torch.full(v.shape, 1e300, dtype=torch.float64),
    "requires gradients": lambda r, v: v.clone().requires_grad_() * 1,
}
TENSORS = {
    "of another dtype": lambda r, v: v.to(
        r.choice([torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.uint8])
    ),
    "of eight-bit floats": lambda r, v: v.to(r.choice([torch.float8_e4m3fn, torch.float8_e5m2])),
    "complex": lambda r, v: v.to(torch.complex64),
    "on meta": lambda r, v: v.to("meta"),
    "sparse": lambda r, v: v.to_sparse(),
    "in compressed rows": lambda r, v: v.reshape(1, -1).to_sparse_csr(),
    "nested": lambda r, v: torch.nested.as_nested_tensor([v.reshape(-1)]),
    "quantized": lambda r, v: torch.quantize_per_tensor(v.float(), 0.1, 0, torch.quint8),
    "too short": lambda r, v: v.reshape(-1)[:-1].clone(),
    "too long": lambda r, v: torch.cat([v.reshape(-1), v.reshape(-1)[:1]]),
    "flat": lambda r, v: v.reshape(-1),
    "with one dimension more": lambda r, v: v[None],
    "transposed": lambda r, v: v.transpose(0, -1) if v.dim() else v[None],
    "expanded": lambda r, v: v.reshape(-1)[:1].expand(v.shape) if v.numel() else v,
    "strided": lambda r, v: torch.stack([v, v], -1)[..., 0],
    "giant": lambda r, v: v.reshape(-1)[:1].expand(2**40),
    "a parameter": lambda r, v: torch.nn.Parameter(v.float()),
    "without an element": lambda r, v: v.reshape(-1)[:0],
}


def leaves(value, path=()):
    """The paths to everything in nested dicts and lists, but for the whole."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        items = ()
    for key, inner in items:
        yield (*path, key)
        yield from leaves(inner, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def put(container, key, value):
    """Another container with one value changed."""
    if isinstance(container, tuple):
        return tuple(value if i == key else inner for i, inner in enumerate(container))
    changed = copy.copy(container)
    changed[key] = value
    return changed


def replaced(value, path, new):
    return new if not path else put(value, path[0], replaced(value[path[0]], path[1:], new))


def mutant(generator, state_dict, paths):
    """(what has been done, another state dict)."""
    path = generator.choice(paths)
    old, parent = at(state_dict, path), at(state_dict, path[:-1])
    kind = generator.random()
    if kind < 0.1 and isinstance(parent, (dict, list)):
        lacking = copy.copy(parent)
        del lacking[path[-1]]
        return ("lacks", path), replaced(state_dict, path[:-1], lacking)
    if kind < 0.2 and isinstance(parent, dict):
        name = generator.choice(
            ["x", 0, 1, "0", 99, "exp_avg", "max_exp_avg_sq", "gnorm_history", "step", "state1", None]
        )
        what = generator.choice(list(VALUES))
        return (f"{name!r} is {what}", path[:-1]), replaced(
            state_dict, path[:-1], {**parent, name: VALUES[what](generator, None)}
        )
    if kind < 0.25 and isinstance(parent, dict):
        name = generator.choice([str(path[-1]), f"{path[-1]}x", 0, 3, "3", 2.5, (1,), 1e300])
        renamed = {name if key == path[-1] else key: inner for key, inner in parent.items()}
        return (f"renamed {name!r}", path), replaced(state_dict, path[:-1], renamed)
    kinds = {**VALUES}
    if isinstance(old, torch.Tensor):
        kinds = TENSORS if generator.random() < 0.7 else VALUES
        if old.dtype.is_floating_point and old.numel() and generator.random() < 0.5:
            kinds = FLOATS
    what = generator.choice(list(kinds))
    try:
        new = kinds[what](generator, old)
    except (RuntimeError, NotImplementedError, IndexError):  # there is no such tensor of that one
        return None
    return (what, path), replaced(state_dict, path, new)


def everything(optimizer, params):
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    state = [[(key, value.data_ptr(), bits(value)) for key, value in optimizer.state[p].items()] for p in params]
    return [bits(p) for p in params], state, copy.deepcopy(groups)


def numbers(optimizer, params):
    values = [value for p in params for key, value in optimizer.state[p].items() if key in KEYS]
    return [value for value in [*params, *values] if value.dtype.is_floating_point]


def is_finite(optimizer, params):
    """And no option is so large that its float32 is infinite."""
    options = [float(group[name]) for group in optimizer.param_groups for name in ("lr", "weight_decay")]
    return max(options) < 1e30 and all(value.isfinite().all() for value in numbers(optimizer, params))


def has_nan(optimizer, params):
    return any(value.isnan().any() for value in numbers(optimizer, params))


@pytest.fixture(scope="module")
def sources():
    made = {}
    for name in FORMATS:
        state_dict = copy.deepcopy({**SOURCES, **MASTERS}[name]()[0])
        made[name] = state_dict, list(leaves(state_dict))
    return made


def mutants(generator, sources):
    """(number, what was done, where, the state dict), most of MUTANTS times."""
    for number in range(MUTANTS):
        state_dict, paths = sources[generator.choice(FORMATS)]
        made = mutant(generator, state_dict, paths)
        if made is not None:
            (what, path), worse = made
            yield number, what, path, worse


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_mutated_state_dicts_are_refused_or_work(name, sources):
    generator = random.Random(f"mutants of {name}")
    optimizer, params = optimizer_of(name)
    before, refused, loaded = everything(optimizer, params), 0, 0
    for number, what, path, worse in mutants(generator, sources):
        try:
            optimizer.load_state_dict(worse)
        except ValueError as error:
            refused += 1
            assert everything(optimizer, params) == before, (number, what, path)
            said = str(error)
            assert said and "\n" not in said.split("tensor(")[0], (number, what, path, said)
            # Of a parameter, its number; of an option, its group.
            assert path[:1] != ("state",) or len(path) < 2 or "parameter" in said, (number, what, path, said)
        except Exception as error:
            raise AssertionError(f"number {number}: {what} at {path}: {type(error).__name__}: {error}") from error
        else:
            loaded += 1
            finite = is_finite(optimizer, params)
            give_gradients(params, 3)
            optimizer.step()
            assert not (finite and has_nan(optimizer, params)), (number, what, path)
            optimizer, params = optimizer_of(name)
            before = everything(optimizer, params)
    assert refused > MUTANTS // 3 and loaded > MUTANTS // 20, (refused, loaded)


@pytest.mark.parametrize("to", ["torch", "bitsandbytes", "pyadamw"])
def test_mutated_state_dicts_are_not_converted_or_load(to, sources):
    """What conversion makes of a mutant loads, too."""
    generator = random.Random(f"mutants to {to}")
    params = parameters(SHAPES)
    refused, done = 0, 0
    for number, what, path, worse in mutants(generator, sources):
        try:
            result = converted(worse, to)
        except ValueError:
            refused += 1
            continue
        except Exception as error:
            raise AssertionError(f"number {number}: {what} at {path}: {type(error).__name__}: {error}") from error
        done += 1
        try:
            pyadamw.AdamW32bit(params).load_state_dict(result)
        except ValueError as error:  # of fewer parameters, or of other shapes, it may be
            shaped = any(word in str(error) for word in ("shape", "elements", "group", "params", "amsgrad"))
            assert shaped, (number, what, path, error)
    assert refused > MUTANTS // 4 and done > MUTANTS // 20, (refused, done)
