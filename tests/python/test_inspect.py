"""Owns the law of the figures of `python -m pyadamw inspect`: each is the one that counting by hand gives, whoever
wrote the checkpoint. Must not know how state is stored inside.
"""

import pytest
import torch
from commands import figures, subjects, texts
from foreign import MASTERS, SOURCES, WRAPPER
from harness import CONFIGURATIONS, ROOT, give_gradients, parameters

from pyadamw._state import statistics

GOLDEN = ROOT / "tests" / "golden"
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


def raw(entry, moment, i):
    """(codes or None, scales or None) of a moment, by the keys that its optimizer documents."""
    inner = entry.get(WRAPPER, entry)
    if f"state{i}" in inner:
        codes = inner[f"state{i}"]
        return (codes, inner.get(f"absmax{i}", inner.get(f"max{i}"))) if codes.dtype == torch.uint8 else (None, None)
    if hasattr(entry.get(moment), "codes"):
        return entry[moment].codes, entry[moment].scale
    return entry.get(f"{moment}_codes"), entry.get(f"{moment}_absmax")


def bytes_of(value):
    if isinstance(value, dict):
        return sum(bytes_of(inner) for key, inner in value.items() if key != "step")
    if hasattr(value, "codes"):
        return sum(bytes_of(part) for part in (value.codes, value.scale, value.qmap))
    return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0


def check_moment(one, values, codes, scales):
    """One moment in the JSON against its numbers, codes and scales, counted in another way: with Python's sets."""
    flat = values.float().flatten().tolist()
    assert one["zeros"] == flat.count(0.0) / len(flat)
    assert one["largest"] == max(map(abs, flat))
    assert one["nonfinite"] == 0
    check_codes(one, codes, scales)


def check_codes(one, codes, scales):
    if codes is None:
        assert one["codes_used"] is None and one["scales"] is None
        return
    assert one["bits"] == 8
    assert one["codes_used"] == len(set(codes.flatten().tolist())) / 256
    listed = scales.flatten().tolist()
    above = [scale for scale in listed if scale > 0]
    assert one["scales"]["blocks"] == len(listed) and one["scales"]["zeros"] == len(listed) - len(above)
    assert (one["scales"]["smallest"], one["scales"]["largest"]) == (min(listed), max(listed))
    assert one["scales"]["smallest_above_zero"] == min(above, default=None)


EXPECTED = {
    "torch": ("torch", "torch 32-bit", None),
    "torch amsgrad": ("torch", "torch 32-bit", None),
    "bitsandbytes 8": ("bitsandbytes", "bitsandbytes 8-bit", None),
    "bitsandbytes 32": ("bitsandbytes", "bitsandbytes 32-bit", None),
    "bitsandbytes flat": ("bitsandbytes", "bitsandbytes 8-bit", None),
    "bitsandbytes 2048": ("bitsandbytes", "bitsandbytes 8-bit", None),
    "bitsandbytes tensor-wise": ("bitsandbytes", "bitsandbytes 8-bit, one scale", None),
    "torchao 8": ("torchao", "torchao 8-bit", None),
    "own 8": ("pyadamw", "8-bit", None),
    "own 16": ("pyadamw", "16-bit", None),
    "own 32": ("pyadamw", "32-bit", None),
    "own paged": ("pyadamw", "8-bit", None),
    "own 8 with masters": ("pyadamw", "8-bit", 32),
    "own 16 with masters": ("pyadamw", "16-bit", 32),
}


@pytest.mark.parametrize("source", EXPECTED)
def test_figures_of_every_optimizer(source, tmp_path, monkeypatch):
    """Shape, bytes, step, zeros, codes and scales are those of the tensors that the optimizer itself saved."""
    monkeypatch.setattr(statistics, "PIECE", 999)  # so that tensors are counted in pieces, as large ones are
    state_dict, moments, params = {**SOURCES, **MASTERS}[source]()
    torch.save(state_dict, tmp_path / "c.pt")
    found = figures(tmp_path / "c.pt")
    optimizer, format_, masters = EXPECTED[source]
    assert [one["key"] for one in found["parameters"]] == list(range(len(params)))
    for one, param, values in zip(found["parameters"], params, moments, strict=True):
        entry = state_dict["state"][one["key"]]
        assert one["shape"] == list(param.shape)
        assert one["bytes"] == bytes_of(entry)
        assert (one["step"], one["nonfinite"], one["refused"]) == (3, 0, None)
        assert one["master_weight_bits"] == masters
        for i, (moment, numbers) in enumerate(zip(MOMENTS, values, strict=True), 1):
            assert (moment in one["moments"]) == (numbers is not None)
            if numbers is not None:
                check_moment(one["moments"][moment], numbers, *raw(entry, moment, i))
    first = found["parameters"][0]
    assert (first["optimizer"], first["format"]) == (optimizer, format_)
    assert found["totals"]["bytes"] == sum(one["bytes"] for one in found["parameters"])
    assert found["totals"]["elements"] == sum(param.numel() for param in params)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_figures_of_every_class(configuration, tmp_path):
    """The zeros of each class's state are those of to_torch_state_dict(), and the names are the parameters'."""
    cls, options = CONFIGURATIONS[configuration]
    dtype = torch.bfloat16 if configuration.startswith("bf16") else torch.float32
    params = parameters(dtype=dtype)
    optimizer = cls([(f"p.{number}", param) for number, param in enumerate(params)], lr=1e-3, **options)
    for step in range(2):
        give_gradients(params, step)
        for param in params:
            if param.dim():
                param.grad[::2] = 0
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "c.pt")
    found, plain = figures(tmp_path / "c.pt"), optimizer.to_torch_state_dict()["state"]
    assert [one["name"] for one in found["parameters"]] == [f"p.{number}" for number in range(len(params))]
    report, zero_scales = optimizer.memory_report().entries, 0
    for one, entry in zip(found["parameters"], report, strict=True):
        assert (one["bytes"], one["master_weight_bits"]) == (entry.bytes, entry.master_weight_bits)
        assert {m["bits"] for m in one["moments"].values()} == {entry.bits}
        assert set(one["moments"]) == {moment for moment in MOMENTS if moment in plain[one["key"]]}
        state = optimizer.state[params[one["key"]]]
        for moment, m in one["moments"].items():
            check_codes(m, state.get(f"{moment}_codes"), state.get(f"{moment}_absmax"))
            zero_scales += m["scales"]["zeros"] if m["scales"] else 0
            assert m["zeros"] == pytest.approx(1 - int(plain[one["key"]][moment].count_nonzero()) / max(entry.numel, 1))
    assert any(0 < m["zeros"] < 1 for one in found["parameters"] for m in one["moments"].values())
    assert zero_scales or cls(params[:1]).defaults["optim_bits"] != 8 or options.get("block_wise") is False


@pytest.mark.parametrize("which", ["24 bits, quantized state", "32 bits, quantized state", "32 bits, bfloat16 state"])
def test_figures_of_flashoptim(which):
    """A checkpoint that FlashOptim itself saved: zeros, scales and codes of its moments, the bits of its masters."""
    case = torch.load(GOLDEN / "flashoptim.pt", weights_only=True)[which]
    found = figures(GOLDEN / "flashoptim.pt", "--key", which)
    for one, entry in zip(found["parameters"], case["state_dict"]["state"].values(), strict=True):
        assert one["optimizer"] == "FlashOptim" and one["master_weight_bits"] == int(which[:2])
        assert one["bytes"] == bytes_of(entry)
        for moment in ("exp_avg", "exp_avg_sq"):
            codes = entry.get(f"{moment}::quantized")
            assert one["moments"][moment]["codes_used"] == (
                None if codes is None else len(set(codes.flatten().tolist())) / 256
            )
            if codes is not None:
                assert one["moments"][moment]["zeros"] == (codes == 0).sum().item() / codes.numel()
                scales = entry[f"{moment}::scales"].view(torch.float16).float()
                assert one["moments"][moment]["scales"]["largest"] == float(scales.max())


@pytest.mark.parametrize("number, key", [(1, None), (2, "block-wise"), (2, "one scale")])
def test_earlier_builds(number, key):
    """State of an earlier build is decoded by its own codes, and the format is named."""
    path = GOLDEN / f"state_format_{number}.pt"
    found = figures(path, *(["--key", key] if key else []))
    case = torch.load(path, weights_only=True)
    assert f"format {number}" in texts(found) and "earlier build" in subjects(found)
    if number == 2:
        for one in found["parameters"]:
            for moment, m in one["moments"].items():
                values = case[key]["numbers"][one["key"]][moment]
                assert m["zeros"] == (values == 0).sum().item() / values.numel()
                assert m["largest"] == pytest.approx(float(values.abs().max()), rel=1e-6)
