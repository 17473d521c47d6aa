"""Owns optimizers of other packages, trained a few steps, with the moments that they say they have. Must not know laws.

Each source returns (state_dict, [(exp_avg, exp_avg_sq, max_exp_avg_sq or None)], params after these steps).
"""

import pytest
import torch
from harness import Late, decoded, parameters, train

import pyadamw


class Peer(Late):
    """A module of another package, without which a test is skipped."""

    def __getattr__(self, attribute):
        if not attribute.startswith(("_", "pytest")):
            pytest.importorskip(self._name.split(".")[0])
        return super().__getattr__(attribute)


bitsandbytes, bnb, torchao_optim = map(Peer, ("bitsandbytes", "bitsandbytes.functional", "torchao.optim"))
SHAPES = ((40, 320), (7,), (70, 100), (9000,))
STEPS, LR = 3, 1e-2
WRAPPER = "__bnb_optimizer_quant_state__"


def _trained(cls, dtype=torch.float32, **options):
    params = parameters(SHAPES, dtype)
    optimizer = cls(params, lr=LR, **options)
    train(optimizer, params, STEPS)
    return params, optimizer


def _torch(**options):
    params, optimizer = _trained(torch.optim.AdamW, **options)
    state = [optimizer.state[p] for p in params]
    moments = [(s["exp_avg"], s["exp_avg_sq"], s.get("max_exp_avg_sq")) for s in state]
    return optimizer.state_dict(), moments, params


def _bnb_values(state, i, block):
    if state[f"state{i}"].dtype != torch.uint8:
        return state[f"state{i}"]
    return bnb.dequantize_blockwise(
        state[f"state{i}"], absmax=state[f"absmax{i}"], code=state[f"qmap{i}"], blocksize=block
    ).float()


def _bitsandbytes(cls):
    params, optimizer = _trained(cls)
    moments = [(*(_bnb_values(optimizer.state[p], i, 256) for i in (1, 2)), None) for p in params]
    return optimizer.state_dict(), moments, params


def _bitsandbytes_old(block):
    """As before the keys had a dict of their own, and before 0.44, when blocks had 2048 elements."""
    state_dict, moments, params = _bitsandbytes(bitsandbytes.optim.AdamW8bit)
    state = {}
    for key, entry in state_dict["state"].items():
        flat = {"step": entry["step"], **entry[WRAPPER]}
        if flat["state1"].dtype == torch.uint8:
            for i in (1, 2):
                codes, quantized = bnb.quantize_blockwise(moments[key][i - 1], code=flat[f"qmap{i}"], blocksize=block)
                flat[f"state{i}"], flat[f"absmax{i}"] = codes, quantized.absmax
        state[key] = flat
    moments = [(*(_bnb_values(state[key], i, block) for i in (1, 2)), None) for key in state]
    return {**state_dict, "state": state}, moments, params


def _bitsandbytes_tensor_wise():
    """As block_wise=False left it: one number scales all codes."""
    state_dict, moments, params = _bitsandbytes(bitsandbytes.optim.AdamW8bit)
    state, values = {}, []
    for key, entry in state_dict["state"].items():
        flat, mine = {"step": entry["step"], **entry[WRAPPER]}, []
        for i in (1, 2):
            if flat["state1" if i == 1 else "state2"].dtype != torch.uint8:
                mine.append(flat[f"state{i}"])
                continue
            largest = moments[key][i - 1].abs().max().reshape(1)
            qmap = flat[f"qmap{i}"]
            distance = (moments[key][i - 1].flatten()[:, None] / largest - qmap).abs()
            flat[f"state{i}"] = distance.argmin(1).to(torch.uint8).view(moments[key][i - 1].shape)
            flat[f"max{i}"], flat[f"new_max{i}"] = largest, torch.zeros(1)
            del flat[f"absmax{i}"]
            mine.append(qmap[flat[f"state{i}"].int()] * largest)
        state[key] = flat
        values.append((*mine, None))
    return {**state_dict, "state": state}, values, params


def _torchao():
    pytest.importorskip("torchao")
    with torch.compiler.set_stance("force_eager"):  # compiling its step takes half a minute, and the state is the same
        params, optimizer = _trained(torchao_optim.AdamW8bit)
    state = [optimizer.state[p] for p in params]

    def values(tensor):
        return tensor.dequantize() if hasattr(tensor, "codes") else tensor

    moments = [(values(s["exp_avg"]), values(s["exp_avg_sq"]), None) for s in state]
    return optimizer.state_dict(), moments, params


def _own(cls, **options):
    params, optimizer = _trained(cls, **options)
    moments = []
    for p in params:
        s = optimizer.state[p]
        if "exp_avg_codes" in s:
            moments.append((decoded(s, "exp_avg"), decoded(s, "exp_avg_sq"), None))
        else:
            moments.append((s["exp_avg"], s["exp_avg_sq"], None))
    return optimizer.state_dict(), moments, params


SOURCES = {
    "torch": _torch,
    "torch amsgrad": lambda: _torch(amsgrad=True),
    "bitsandbytes 8": lambda: _bitsandbytes(bitsandbytes.optim.AdamW8bit),
    "bitsandbytes 32": lambda: _bitsandbytes(bitsandbytes.optim.AdamW32bit),
    "bitsandbytes flat": lambda: _bitsandbytes_old(256),
    "bitsandbytes 2048": lambda: _bitsandbytes_old(2048),
    "bitsandbytes tensor-wise": _bitsandbytes_tensor_wise,
    "torchao 8": _torchao,
    "own 8": lambda: _own(pyadamw.AdamW8bit),
    "own 16": lambda: _own(pyadamw.AdamW16bit),
    "own 32": lambda: _own(pyadamw.AdamW32bit),
    "own paged": lambda: _own(pyadamw.PagedAdamW8bit, page_manager=pyadamw.PageManager("file", min_numel=0)),
}
# Of bfloat16 parameters with master weights, which those of float32 parameters refuse.
MASTERS = {
    f"own {bits} with masters": lambda cls=cls: _own(cls, dtype=torch.bfloat16, master_weight_bits=32)
    for bits, cls in ((8, pyadamw.AdamW8bit), (16, pyadamw.AdamW16bit))
}
