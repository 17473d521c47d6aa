"""Owns the law that every learning-rate scheduler of torch drives these optimizers as it drives torch's own."""

import inspect

import pytest
import torch
from harness import point_problem
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

import pyadamw

SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, 0.9),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.95**epoch),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.95),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.5, 1.0, 4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 10),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 1e-4, 1e-2, 3, cycle_momentum=False),
    "CyclicLR of betas": lambda o: lr_scheduler.CyclicLR(o, 1e-4, 1e-2, 3, cycle_momentum=True),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 1e-2, 40),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.95)]
    ),
    "SWALR": lambda o: SWALR(o, swa_lr=5e-4, anneal_epochs=3),
}


def test_every_scheduler_of_torch_is_here():
    there = {
        name
        for name, value in vars(lr_scheduler).items()
        if inspect.isclass(value)
        and issubclass(value, lr_scheduler.LRScheduler)
        and name not in ("LRScheduler", "_LRScheduler")
    }
    assert there <= set(SCHEDULERS)


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_drive_it_as_they_drive_torchs(name, tensor):
    """Float and tensor learning rates: torch's AdamW always has the same groups, and nearly the same weights."""
    made = []
    for cls in (pyadamw.AdamW32bit, torch.optim.AdamW):
        weight, bias, closure = point_problem()
        optimizer = cls([weight, bias], lr=torch.tensor(1e-3) if tensor else 1e-3)
        scheduler = SCHEDULERS[name](optimizer)
        rates = []
        for _ in range(12):
            loss = optimizer.step(closure)
            scheduler.step(*([loss.item()] if name == "ReduceLROnPlateau" else []))
            rates.append((float(optimizer.param_groups[0]["lr"]), optimizer.param_groups[0]["betas"]))
        made.append((weight.detach().clone(), rates))
    assert made[0][1] == made[1][1]
    assert torch.allclose(made[0][0], made[1][0], rtol=1e-5, atol=1e-6)
