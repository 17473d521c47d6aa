"""Owns the law: signatures are those of the bitsandbytes documentation, with everything new behind them."""

import inspect
import typing

import pytest
import torch
from harness import CLASSES

import pyadamw

DOCUMENTED = (
    "params, lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01, amsgrad=False, optim_bits=32, args=None, "
    "min_8bit_size=4096, percentile_clipping=100, block_wise=True"
)
NEW = (
    "*, maximize=False, stochastic_rounding=False, seed=0, capturable=False, page_manager=None, "
    "master_weight_bits=None, max_grad_norm=None, error_if_nonfinite=False"
)


@pytest.mark.parametrize("cls", CLASSES)
def test_signature_is_the_documented_one(cls):
    """Names, order and defaults of positional arguments are bitsandbytes'; is_paged is the last, of unpaged classes."""
    paged = cls.__name__.startswith("Paged")
    signature = inspect.signature(cls)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    found = signature.replace(parameters=bare, return_annotation=signature.empty)
    assert str(found) == f"({DOCUMENTED}{'' if paged else ', is_paged=False'}, {NEW})"


@pytest.mark.parametrize("cls", CLASSES)
def test_every_argument_has_a_type(cls):
    """The hints are of the arguments that there are, and programs that build command lines of them can read them."""
    hints = typing.get_type_hints(cls.__init__)
    assert hints.pop("return") is type(None)
    assert list(hints) == list(inspect.signature(cls).parameters)
    assert hints["lr"] == float | torch.Tensor


@pytest.mark.parametrize("cls", CLASSES)
def test_arguments_can_be_given_by_position(cls):
    """Every documented argument may be given by position and arrives where it belongs."""
    arguments = [0.1, (0.8, 0.9), 1e-6, 0.2, True, 32, None, 17, 50, False]
    if not cls.__name__.startswith("Paged"):
        arguments.append(True)
    optimizer = cls([torch.nn.Parameter(torch.zeros(1))], *arguments)
    group = optimizer.param_groups[0]
    found = [group[name] for name in ("lr", "betas", "eps", "weight_decay", "amsgrad", "min_8bit_size")]
    assert found == [0.1, (0.8, 0.9), 1e-6, 0.2, True, 17]
    assert (group["percentile_clipping"], group["block_wise"], group["is_paged"]) == (50, False, True)
    with pytest.raises(TypeError):
        cls([torch.nn.Parameter(torch.zeros(1))], *arguments, False)  # what is new has no position


@pytest.mark.parametrize("cls", CLASSES)
def test_classes_are_where_bitsandbytes_has_them(cls):
    """`pyadamw.X` and `pyadamw.optim.X` are the same class, a torch optimizer with documentation of every argument."""
    assert getattr(pyadamw, cls.__name__) is getattr(pyadamw.optim, cls.__name__) is cls
    assert issubclass(cls, torch.optim.Optimizer)
    for name in inspect.signature(cls).parameters:
        assert f"{name}:" in cls.__doc__


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("keywords", "advice"),
    [
        ({"fused": True}, "leave it out"),
        ({"foreach": None}, "leave it out"),
        ({"differentiable": False}, "leave it out"),
        ({"momentum": 0.9}, ""),
    ],
)
def test_unknown_arguments_name_the_class(cls, keywords, advice):
    """The class that the user has called, the argument, and what to do."""

    class Mine(cls):
        def __init__(self, params, **keywords):
            super().__init__(params, **keywords)

    (name,) = keywords
    for called in (cls, Mine):
        expected = rf"^{called.__name__}\.__init__\(\) got an unexpected keyword argument '{name}'"
        with pytest.raises(TypeError, match=expected) as caught:
            called([torch.nn.Parameter(torch.zeros(1))], **keywords)
        assert advice in str(caught.value)
    with pytest.raises(TypeError, match=rf"^{cls.__name__}\.__init__\(\) .*params"):
        cls()
