"""Owns the law that FlashOptim's state continues here: its moments, and its master weights.

tests/golden/flashoptim.pt was written by FlashAdamW 0.1.4 itself after three steps: three kinds of state, each with the
parameters, the state dict, and what FlashOptim says are its master weights and moments.
"""

import functools
from pathlib import Path

import pytest
import torch
from harness import bits, decoded

import pyadamw
from pyadamw import cli

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "flashoptim.pt"


@functools.cache
def cases():
    return torch.load(GOLDEN, weights_only=True)


KINDS = ["24 bits, quantized state", "32 bits, quantized state", "32 bits, bfloat16 state"]


def of(kind):
    case = cases()[kind]
    return case, [torch.nn.Parameter(p.clone()) for p in case["params"]], int(kind[:2])


def unit(weights, width):
    """The distance of two numbers of so many bits."""
    return torch.ldexp(torch.ones_like(weights), torch.frexp(weights)[1] - (width - 8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", [pyadamw.AdamW32bit, pyadamw.AdamW8bit, pyadamw.PagedAdamW16bit])
def test_is_loaded(kind, cls):
    """The master weights of 32 bits are the very ones, those of 24 bits to one unit; moments are those that FlashOptim
    decodes, in the width of this optimizer; parameters stay; a step works."""
    case, params, width = of(kind)
    optimizer = cls(params, min_8bit_size=1, master_weight_bits=width)
    optimizer.load_state_dict(case["state_dict"])
    for i, (param, weights) in enumerate(zip(params, case["weights"], strict=True)):
        assert bits(param) == bits(case["params"][i])
        found = list(optimizer.fp32_weights().values())[i]
        if width == 32:
            assert bits(found) == bits(weights)
        else:
            assert ((found - weights).abs() <= unit(weights, 24)).all()
        state = optimizer.state[param]
        assert state["step"] == 3
        for moment, wanted in zip(("exp_avg", "exp_avg_sq"), case["moments"][i], strict=True):
            found = decoded(state, moment) if f"{moment}_codes" in state else state[moment].float()
            share = {32: 0, 16: 2**-8, 8: 2**-4}[optimizer.param_groups[0]["optim_bits"]]
            assert ((found - wanted).abs() <= share * wanted.abs().max()).all()
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert all((param != before).any() for param, before in zip(params, case["params"], strict=True))


@pytest.mark.parametrize("width", [24, 32])
def test_width_is_this_optimizers(width):
    """Master weights of the other width are converted, and the parameters stay."""
    case, params, _ = of("32 bits, quantized state" if width == 24 else "24 bits, quantized state")
    optimizer = pyadamw.AdamW8bit(params, master_weight_bits=width)
    optimizer.load_state_dict(case["state_dict"])
    for param, before in zip(params, case["params"], strict=True):
        assert optimizer.state[param]["param_remainder"].dtype == (torch.int8 if width == 24 else torch.int16)
        assert bits(param) == bits(before)
    found = list(optimizer.fp32_weights().values())
    assert all(((a - b).abs() <= unit(b, 24)).all() for a, b in zip(found, case["weights"], strict=True))


def test_master_weights_are_not_lost():
    """An optimizer that has no place for them refuses the state."""
    case, params, _ = of(KINDS[0])
    with pytest.raises(ValueError, match="master_weight_bits=24"):
        pyadamw.AdamW8bit(params).load_state_dict(case["state_dict"])
    wide = [torch.nn.Parameter(param.detach().float()) for param in params]
    with pytest.raises(ValueError, match=r"error_bits.*float32"):
        pyadamw.AdamW8bit(wide).load_state_dict(case["state_dict"])


def changed(kind, **values):
    case = cases()[kind]
    entry = {key: value for key, value in {**case["state_dict"]["state"][0], **values}.items() if value is not None}
    return {**case["state_dict"], "state": {**case["state_dict"]["state"], 0: entry}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"exp_avg::scales": None}, "exp_avg::scales is missing"),
        ({"exp_avg::scales": torch.ones(3, dtype=torch.float16)}, "has 3 elements of float16: must be 19"),
        ({"exp_avg::scales": torch.full((19,), float("inf"), dtype=torch.float16)}, "not finite"),
        ({"exp_avg_sq::quantized": torch.full((6, 100), -1, dtype=torch.int8)}, "no codes"),
        ({"error_bits": torch.zeros(3, dtype=torch.bfloat16)}, r"error_bits has shape \(3,\)"),
        ({"error_bits": torch.full((6, 100), 300.0, dtype=torch.bfloat16)}, "beyond 127"),
        ({"error_bits": torch.zeros(6, 100, dtype=torch.int64)}, "error_bits has dtype int64"),
        ({"error_bits": "none"}, "no dense tensor"),
    ],
)
def test_damaged_state_is_named(values, message):
    _, params, _ = of(KINDS[0])
    optimizer = pyadamw.AdamW8bit(params, master_weight_bits=24)
    with pytest.raises(ValueError, match=f"parameter .*{message}"):
        optimizer.load_state_dict(changed(KINDS[0], **values))
    assert not optimizer.state


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", [True, False])
def test_files_are_converted(kind, named, tmp_path, capsys):
    """`convert` needs the weights for what the parameters lack; torch's format has no place for it."""
    case, params, width = of(kind)
    state_dict = case["state_dict"]
    if not named:
        groups = [{key: value for key, value in g.items() if key != "param_names"} for g in state_dict["param_groups"]]
        state_dict = {**state_dict, "param_groups": groups}
    source, out, weights = (str(tmp_path / name) for name in ("in.pt", "out.pt", "weights.pt"))
    torch.save(state_dict, source)
    torch.save({f"w{i}": p for i, p in enumerate(case["params"])}, weights)
    assert cli.main(["convert", source, out, "--to", "pyadamw"]) == 1
    assert "--weights" in capsys.readouterr().err
    assert cli.main(["convert", source, out, "--to", "torch"]) == 0
    assert "param_remainder" not in torch.load(out, weights_only=True)["state"][0]
    assert cli.main(["convert", source, out, "--to", "pyadamw", "--weights", weights]) == 0
    optimizer = pyadamw.AdamW(params, optim_bits=32, master_weight_bits=width)
    optimizer.load_state_dict(torch.load(out, weights_only=True))
    direct = pyadamw.AdamW(params, optim_bits=32, master_weight_bits=width)
    direct.load_state_dict(case["state_dict"])
    for param in params:
        assert bits(optimizer.state[param]["param_remainder"]) == bits(direct.state[param]["param_remainder"])


def test_weights_that_do_not_fit_are_named(tmp_path, capsys):
    source, out, weights = (str(tmp_path / name) for name in ("in.pt", "out.pt", "weights.pt"))
    torch.save(cases()[KINDS[0]]["state_dict"], source)
    for content, message in (
        ({"w0": torch.zeros(2)}, "has no 'w1'"),
        ([torch.zeros(2)], "not a file with the weights of a model"),
        (
            {f"w{i}": torch.zeros(2, dtype=torch.bfloat16) for i in range(3)},
            "error_bits has shape (6, 100): must be (2,)",
        ),
    ):
        torch.save(content, weights)
        assert cli.main(["convert", source, out, "--to", "pyadamw", "--weights", weights]) == 1
        assert message in capsys.readouterr().err
