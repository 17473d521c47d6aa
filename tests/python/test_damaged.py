"""Owns the law of damaged checkpoints: an error that names parameter and key, and the optimizer is as it was."""

import copy
import io
import random

import pytest
import torch
from foreign import MASTERS, SOURCES, WRAPPER
from harness import bits, parameters, state_bits, train

import pyadamw

SHAPES = ((40, 320), (7,), (70, 100), (9000,))
FORMATS = [
    "torch amsgrad",
    "bitsandbytes 8",
    "bitsandbytes 32",
    "bitsandbytes flat",
    "own 8",
    "own 16",
    "own 32",
    *MASTERS,
]
# What may be missing: it starts anew, or is scratch.
OPTIONAL = {"param_remainder", "gnorm_history", "gnorm_vec", "unorm_vec", "new_max1", "new_max2"}


def truncated(value):
    return value.flatten()[:-1].clone() if value.dim() else torch.zeros(2)


def retyped(value):
    return value.to(torch.int64) if value.dtype != torch.int64 else value.bool()


def filled(value):
    return torch.full_like(value, float("nan"))


def dropped(value):
    return None


NUMBERS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "state1", "state2"}
DAMAGES = {"truncated": truncated, "retyped": retyped, "filled with NaN": filled, "dropped": dropped}


def damaged(state_dict, kind):
    """Every copy of `state_dict` with one tensor damaged: (parameter, key, copy)."""
    for parameter in state_dict["state"]:
        inner = state_dict["state"][parameter].get(WRAPPER, state_dict["state"][parameter])
        for key, value in inner.items():
            if not isinstance(value, torch.Tensor) or (kind == "dropped" and key in OPTIONAL):
                continue
            if kind == "filled with NaN" and not value.dtype.is_floating_point:
                continue
            if kind == "filled with NaN" and key in NUMBERS and value.numel() < 1000:
                continue  # 32-bit state may have become that in training
            if kind == "retyped" and key == "step":
                continue  # a whole number is one in any type
            worse = copy.deepcopy(state_dict)
            entry = worse["state"][parameter]
            entry = entry.get(WRAPPER, entry)
            made = DAMAGES[kind](value)
            if made is None:
                del entry[key]
            else:
                entry[key] = made
            yield parameter, key, worse


def everything(optimizer, params):
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return [bits(p) for p in params], [state_bits(optimizer, p) for p in params], copy.deepcopy(groups)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", FORMATS)
def test_every_tensor_damaged_in_turn(name, kind):
    state_dict, _, _ = {**SOURCES, **MASTERS}[name]()
    masters = name in MASTERS
    params = parameters(SHAPES, torch.bfloat16 if masters else torch.float32)
    options = {"amsgrad": name == "torch amsgrad", "master_weight_bits": 32 if masters else None}
    optimizer = pyadamw.AdamW8bit(params, min_8bit_size=1000, **options)
    train(optimizer, params, 1)
    before, count = everything(optimizer, params), 0
    for parameter, key, worse in damaged(state_dict, kind):
        with pytest.raises(ValueError) as caught:
            optimizer.load_state_dict(worse)
        message = str(caught.value)
        assert f"parameter {parameter} of group 0" in message
        named = {
            key,
            key.removesuffix("_codes"),
            key.removeprefix("state"),
            {"state1": "exp_avg", "state2": "exp_avg_sq"}.get(key, key),
        }
        scales_of = {"absmax1": "exp_avg", "absmax2": "exp_avg_sq", "qmap1": "exp_avg", "qmap2": "exp_avg_sq"}
        assert any(word in message for word in (*named, scales_of.get(key, key))), (key, message)
        assert everything(optimizer, params) == before
        count += 1
    assert count >= 4
    optimizer.load_state_dict(state_dict)


WRONG = {
    "a list": lambda saved: saved["state"].__setitem__(0, [1, 2]),
    "another name": lambda saved: saved["state"][0].__setitem__("exp_inf", saved["state"][0].pop("exp_avg_sq_codes")),
    "another parameter": lambda saved: saved["state"].__setitem__(99, saved["state"][0]),
    "step -1": lambda saved: saved["state"][0].__setitem__("step", -1),
    "step 1.5": lambda saved: saved["state"][0].__setitem__("step", torch.tensor(1.5)),
    "a word": lambda saved: saved["state"][0].__setitem__("exp_avg", "none"),
    "another shape": lambda saved: saved["state"][0].__setitem__("exp_avg_codes", torch.zeros(320, 40).byte()),
    "sparse": lambda saved: saved["state"][0].__setitem__("exp_avg", torch.zeros(40, 320).to_sparse()),
    "complex": lambda saved: saved["state"][0].__setitem__("exp_avg_absmax", torch.zeros(40, 2, dtype=torch.cfloat)),
    "a floor of 2": lambda saved: saved["state"][0]["exp_avg_sq_floor"].fill_(2),
    "negative scales": lambda saved: saved["state"][0]["exp_avg_absmax"].neg_(),
    "betas 1": lambda saved: saved["param_groups"][0].__setitem__("betas", (0.9, 1.0)),
    "format 0": lambda saved: saved["param_groups"][0].__setitem__("pyadamw_format", 0),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_other_ways(name):
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit(params)
    train(optimizer, params, 2)
    before = everything(optimizer, params)
    saved = copy.deepcopy(optimizer.state_dict())
    WRONG[name](saved)
    with pytest.raises(ValueError):
        optimizer.load_state_dict(saved)
    assert everything(optimizer, params) == before


@pytest.mark.parametrize("seed", range(4))
def test_bytes_flipped_in_the_file(seed):
    """Reading fails, or loading does with a ValueError, or numbers differ; never anything else."""
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit(params)
    train(optimizer, params, 1)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    generator, outcomes = random.Random(seed), set()
    for _ in range(60):
        data = bytearray(file.getvalue())
        for _ in range(generator.choice((1, 8, 64))):
            # Most of the file is tensors; half of the flips hit what describes them.
            at = generator.randrange(len(data)) if generator.random() < 0.5 else generator.randrange(2000)
            data[at] ^= 1 << generator.randrange(8)
        before = everything(optimizer, params)
        try:
            read = torch.load(io.BytesIO(bytes(data)), weights_only=True)
        except Exception:  # whatever torch.load() raises
            outcomes.add("unreadable")
            continue
        try:
            optimizer.load_state_dict(read)
            outcomes.add("loaded")
        except (ValueError, KeyError, TypeError) as error:
            outcomes.add("refused")
            assert isinstance(error, ValueError) or "param_groups" not in read or "state" not in read
            assert everything(optimizer, params) == before
    assert "unreadable" in outcomes
