"""Owns the law: betas are any two numbers in a row, wherever they come from; what is none is refused with its value."""

import collections

import numpy as np
import pytest
import torch
from harness import bits, clones, parameters, train

import pyadamw


class Config(collections.abc.Sequence):
    """A list of a configuration, such as omegaconf's: a sequence, and no list."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[index]


BETAS = {
    "list": [0.8, 0.95],
    "config": Config([0.8, 0.95]),
    "UserList": collections.UserList([0.8, 0.95]),
    "array": np.array([0.8, 0.95]),
    "numbers of numpy": (np.float64(0.8), np.array(0.95)),
}


@pytest.mark.parametrize("kind", BETAS)
@pytest.mark.parametrize("way", ["constructor", "group", "add_param_group", "later", "loaded", "override"])
def test_betas_are_any_sequence_of_two_numbers(way, kind, tmp_path):
    """Wherever they come from, they arrive, are a tuple of two floats, and can be saved."""
    betas, params = BETAS[kind], parameters([(300,), (5000,)])
    reference = pyadamw.AdamW8bit(clones(params), betas=(0.8, 0.95))
    optimizer = pyadamw.AdamW8bit(
        [{"params": params, "betas": betas}] if way == "group" else params,
        betas=betas if way == "constructor" else (0.9, 0.999),
    )
    if way == "add_param_group":
        optimizer = pyadamw.AdamW8bit(params[:1], betas=(0.8, 0.95))
        optimizer.add_param_group({"params": params[1:], "betas": betas})
    elif way == "later":
        train(optimizer, params, 1)  # with other betas: the state is taken from the reference
        train(reference, reference.param_groups[0]["params"], 1)
        optimizer.load_state_dict(reference.state_dict())
        with torch.no_grad():
            for p, q in zip(params, reference.param_groups[0]["params"], strict=True):
                p.copy_(q)
        optimizer.param_groups[0]["betas"] = betas
    elif way == "loaded":
        saved = optimizer.state_dict()
        saved["param_groups"][0]["betas"] = betas
        optimizer.load_state_dict(saved)
    elif way == "override":
        manager = pyadamw.GlobalOptimManager.get_instance()
        manager.override_config(params, "betas", betas)
    train(optimizer, params, 2, first=1)
    train(reference, reference.param_groups[0]["params"], 2, first=1)
    assert [bits(p) for p in params] == [bits(p) for p in reference.param_groups[0]["params"]]
    if way == "override":
        manager.initialize()
        return
    for group in optimizer.param_groups:
        assert group["betas"] == (0.8, 0.95)
        assert [type(group["betas"]), *map(type, group["betas"])] == [tuple, float, float]
    torch.save(optimizer.state_dict(), tmp_path / "saved")
    optimizer.load_state_dict(torch.load(tmp_path / "saved", weights_only=True))


@pytest.mark.parametrize(
    "betas",
    [
        "09",
        {0.8: 1, 0.9: 2},
        {0.8, 0.9},
        np.array(0.9),
        np.array([[0.8, 0.9], [0.8, 0.9]]),
        np.array([True, False]),
        torch.tensor([0.8, 0.9]),
        (torch.tensor(0.8), torch.tensor(0.9)),
        ["0.8", "0.9"],
    ],
)
def test_betas_that_are_none(betas):
    """In the constructor and later, with their value."""
    with pytest.raises(ValueError, match="betas = ") as caught:
        pyadamw.AdamW(parameters([(3,)]), betas=betas)
    assert repr(betas) in str(caught.value)
    params = parameters([(300,)])
    optimizer = pyadamw.AdamW(params)
    train(optimizer, params, 1)
    optimizer.param_groups[0]["betas"] = betas
    with pytest.raises(ValueError, match="group 0: betas = "):
        train(optimizer, params, 1)
