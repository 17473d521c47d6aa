"""Owns the law that step() is wrapped as torch wraps it: the same hooks see the same calls, and what torch changes in
its wrapper is noticed.
"""

import hashlib
import inspect
import io
import tokenize

import pytest
import torch
from torch.optim import optimizer as torch_optimizer

import pyadamw

# SHA-256 of the code of torch.optim.Optimizer.profile_hook_step(), and the versions of torch that have it.
KNOWN = {"f7f0ff6dd91982f1c11f0b43d2bb35a02238f1e341e8a220a4a6d585a5a20f31": "2.4 to 2.14"}
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def code_of(function):
    """The source without comments and spaces. (A Python since 3.12 sees more tokens in it, in f-strings.)"""
    tokens = tokenize.generate_tokens(io.StringIO(inspect.cleandoc("\n" + inspect.getsource(function))).readline)
    return "".join("".join(token.string.split()) for token in tokens if token.type not in LAYOUT)


def test_torchs_wrapper_is_one_that_is_known():
    source = code_of(torch.optim.Optimizer.profile_hook_step)
    found = hashlib.sha256(source.encode()).hexdigest()
    assert found in KNOWN, (
        f"torch {torch.__version__} wraps step() in another way than {', '.join(KNOWN.values())}. Compare "
        "torch.optim.Optimizer.profile_hook_step() with _hooked() in pyadamw/_step/torch_hooks.py, which does the "
        f"same; add what is new to it and to the test below; then add {found!r} to KNOWN"
    )


def described(value):
    """What a hook is given, without what differs from optimizer to optimizer."""
    if isinstance(value, torch.optim.Optimizer):
        return "the optimizer"
    if isinstance(value, (list, tuple)):
        return tuple(map(described, value))
    if isinstance(value, dict):
        return {key: described(inner) for key, inner in value.items()}
    return value.__name__ if callable(value) else value


def calls_of(cls, steps):
    """All that hooks of all kinds see, and what step() returns, of steps(optimizer)."""
    calls = []

    def noting(name, result=None):
        def hook(*arguments):
            calls.append((name, *described(arguments)))
            return result

        return hook

    handles = [
        torch_optimizer.register_optimizer_step_pre_hook(noting("before all")),
        torch_optimizer.register_optimizer_step_pre_hook(noting("before all, second")),
        torch_optimizer.register_optimizer_step_post_hook(noting("after all")),
    ]
    try:
        optimizer = cls([torch.nn.Parameter(torch.ones(3))], lr=0.1)
        for number in (1, 2):
            optimizer.register_step_pre_hook(noting(f"before {number}"))
            optimizer.register_step_post_hook(noting(f"after {number}", "a result that nobody takes"))
        optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
        try:
            calls.append(steps(optimizer))
        except Exception as error:
            calls.append(type(error))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def closure():
    return 5.0


def other():
    return 7.0


def fails():
    raise KeyError("closure")


def with_hook(hook):
    def steps(optimizer):
        optimizer.register_step_pre_hook(hook)
        return optimizer.step(closure)

    return steps


CASES = {
    "plain": lambda optimizer: optimizer.step(),
    "closure": lambda optimizer: optimizer.step(closure),
    "by name": lambda optimizer: optimizer.step(closure=closure),
    "twice": lambda optimizer: (optimizer.step(closure), optimizer.step()),
    "a closure that fails": lambda optimizer: optimizer.step(fails),
    "a hook that fails": with_hook(lambda o, args, kwargs: 1 / 0),
    "a hook with other arguments": with_hook(lambda o, args, kwargs: ((o, other), {})),
    "a hook with named arguments": with_hook(lambda o, args, kwargs: ((o,), {"closure": other})),
    "a hook with a wrong result": with_hook(lambda o, args, kwargs: "nothing"),
    "a hook with three results": with_hook(lambda o, args, kwargs: (1, 2, 3)),
    "too many arguments": lambda optimizer: optimizer.step(closure, 3),
}


class Derived(pyadamw.AdamW32bit):
    """Has a step of its own, which torch wraps."""

    def step(self, closure=None):
        return super().step(closure)


class Inherits(pyadamw.AdamW8bit):
    pass


@pytest.mark.parametrize("cls", [pyadamw.AdamW32bit, pyadamw.PagedAdamW8bit, Inherits, Derived])
@pytest.mark.parametrize("name", CASES)
def test_hooks_see_what_those_of_torch_see(name, cls):
    """The same calls in the same order, with the same arguments; what they return is taken, or refused, alike."""
    expected = calls_of(torch.optim.AdamW, CASES[name])
    assert len(expected) >= 4
    assert calls_of(cls, CASES[name]) == expected
