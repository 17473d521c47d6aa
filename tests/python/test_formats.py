"""Owns the laws of checkpoints of other optimizers: each loads into each class and goes on, and what is written for
another optimizer loads there. Damaged ones are in test_damaged.py, our own earlier ones in test_earlier_state.py.
"""

import subprocess
import sys

import pytest
import torch
from foreign import LR, SHAPES, SOURCES, STEPS, WRAPPER, bitsandbytes
from harness import CLASSES, assert_same_bits, clones, decoded, parameters, state_bits, train
from reference import codes_away, dynamic_map
from versions import needs_safetensors

import pyadamw
from pyadamw import cli


@pytest.fixture(scope="module")
def source():
    made = {}

    def get(name):
        if name not in made:
            made[name] = SOURCES[name]()
        return made[name]

    return get


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("name", SOURCES)
def test_every_format_loads_into_every_class(source, name, cls):
    """32-bit state has the source's numbers exactly, 16-bit state the nearest, 8-bit state within half a code (and
    2^-12, what a float32 rounding of a number is worth in the smallest codes); the steps after it are those of an
    optimizer with these numbers.
    """
    state_dict, moments, params = source(name)
    copies = clones(params)
    paged = {"page_manager": pyadamw.PageManager("host", min_numel=0)} if "Paged" in cls.__name__ else {}
    optimizer = cls(copies, min_8bit_size=1000, **paged)
    optimizer.load_state_dict(state_dict)
    exact = True
    for param, (exp_avg, exp_avg_sq, largest) in zip(copies, moments, strict=True):
        state = optimizer.state[param]
        assert float(state["step"]) == STEPS
        if "exp_avg_codes" in state:
            assert codes_away(state, "exp_avg", exp_avg).max() <= 0.5 + 2**-12
            assert codes_away(state, "exp_avg_sq", exp_avg_sq).max() <= 0.5 + 2**-12
            exact = False
        else:
            exact = "16bit" not in cls.__name__
            assert state["exp_avg"].dtype == (torch.float32 if exact else torch.bfloat16)
            near = 1e-6 if exact else 2**-8
            assert torch.allclose(state["exp_avg"].float(), exp_avg.float(), rtol=near, atol=1e-12)
            assert torch.allclose(state["exp_avg_sq"].float(), exp_avg_sq.float(), rtol=near, atol=1e-18)
            assert (largest is None) == ("max_exp_avg_sq" not in state)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(LR)
    reference = clones(params)
    plain = torch.optim.AdamW(reference, lr=LR, amsgrad=moments[0][2] is not None)
    plain.load_state_dict(
        {
            **plain.state_dict(),
            "state": {
                i: {
                    "step": torch.tensor(float(STEPS)),
                    "exp_avg": m.float().clone(),
                    "exp_avg_sq": v.float().clone(),
                    **({} if x is None else {"max_exp_avg_sq": x.clone()}),
                }
                for i, (m, v, x) in enumerate(moments)
            },
        }
    )
    train(optimizer, copies, 2, first=STEPS)
    train(plain, reference, 2, first=STEPS)
    for ours, theirs, start in zip(copies, reference, params, strict=True):
        path = (theirs - start).abs().mean()
        assert (ours - theirs).abs().mean() <= (1e-5 if exact else 0.05) * path


@pytest.mark.parametrize("cls", [pyadamw.AdamW8bit, pyadamw.AdamW32bit, pyadamw.PagedAdamW8bit])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_torch_loads_what_is_written_for_it(cls, amsgrad):
    """torch.optim.AdamW goes on as our 32-bit class does from the same state, and shares no memory with ours."""
    params = parameters(SHAPES)
    optimizer = cls(params, lr=LR, amsgrad=amsgrad, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1)
    train(optimizer, params, STEPS)
    theirs, ours = clones(params), clones(params)
    before = [state_bits(optimizer, p) for p in params]
    plain = torch.optim.AdamW(theirs)
    plain.load_state_dict(optimizer.to_torch_state_dict())
    same = pyadamw.AdamW32bit(ours)
    same.load_state_dict(optimizer.state_dict())
    train(plain, theirs, 3, first=STEPS)
    train(same, ours, 3, first=STEPS)
    for p, q in zip(ours, theirs, strict=True):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)
    assert [state_bits(optimizer, p) for p in params] == before
    assert plain.param_groups[0]["betas"] == (0.8, 0.99)


def test_what_is_written_for_torch_comes_back():
    """Through to_torch_state_dict() 8-bit state loses nothing but the last bits of scales and floors: 2^-19 of
    them, since the root of the last code is 1 to 2^-23, two roundings, and its eighth power is taken.
    """
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit(params, amsgrad=True)
    train(optimizer, params, STEPS)
    other = pyadamw.AdamW8bit(clones(params))
    other.load_state_dict(optimizer.to_torch_state_dict())
    for ours, back in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert ours.keys() == back.keys()
        for key in ours:
            exact = not key.endswith(("absmax", "floor"))
            assert torch.allclose(ours[key].double(), back[key].double(), rtol=0 if exact else 2**-19, atol=0), key


def half_a_step(codes, qmap, scales):
    """By element, half the distance to the further of the values beside a code of bitsandbytes."""
    values = torch.nn.functional.pad(qmap, (1, 1))
    values[0], values[-1] = qmap[0], qmap[-1]
    at = codes.flatten().int() + 1
    gaps = torch.maximum(values[at + 1] - values[at], values[at] - values[at - 1])
    return (gaps * scales.repeat_interleave(256)[: codes.numel()] / 2).view(codes.shape)


def values_of(entry, i):
    scales = entry[f"absmax{i}"].repeat_interleave(256)[: entry[f"state{i}"].numel()]
    return entry[f"qmap{i}"][entry[f"state{i}"].int()] * scales.view(entry[f"state{i}"].shape)


def test_bitsandbytes_gets_the_nearest_codes():
    """What is written for it are its maps, to 4 float32 units, its scales, exactly the largest numbers, and codes that
    are at most half a step of its map away from our numbers.
    """
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit(params, lr=LR)
    train(optimizer, params, STEPS)
    written = optimizer.to_bitsandbytes_state_dict()
    for number, param in enumerate(params):
        entry, state = written["state"][number][WRAPPER], optimizer.state[param]
        if "exp_avg_codes" not in state:
            assert torch.equal(entry["state1"], state["exp_avg"])
            continue
        for i, moment in ((1, "exp_avg"), (2, "exp_avg_sq")):
            theirs = dynamic_map(signed=i == 1)
            assert ((entry[f"qmap{i}"] - theirs).abs() <= 4 * 1.2e-7 * theirs.abs()).all()
            ours = decoded(state, moment)
            blocks = torch.nn.functional.pad(ours.flatten(), (0, -ours.numel() % 256)).view(-1, 256)
            assert torch.equal(entry[f"absmax{i}"], blocks.abs().amax(1))
            allowed = half_a_step(entry[f"state{i}"], entry[f"qmap{i}"], entry[f"absmax{i}"])
            assert ((values_of(entry, i) - ours).abs() <= allowed + 1e-6 * ours.abs()).all()


def test_bitsandbytes_there_and_back(source):
    """Its state, loaded and written again: each number differs by at most half a step of our codes and half of its own.

    Our magnitudes are convex in their codes: half a code is at most half the distance to the further of two neighbours.
    """
    state_dict, moments, params = source("bitsandbytes 8")
    optimizer = pyadamw.AdamW8bit(clones(params))
    optimizer.load_state_dict(state_dict)
    written = optimizer.to_bitsandbytes_state_dict()
    for number, state in enumerate(optimizer.state.values()):
        if "exp_avg_codes" not in state:
            continue
        entry = written["state"][number][WRAPPER]
        for i, moment in ((1, "exp_avg"), (2, "exp_avg_sq")):
            codes = state[f"{moment}_codes"]
            shifted = [{**state, f"{moment}_codes": (codes.int() + d).clamp(0, 255).byte()} for d in (-1, 0, 1)]
            below, ours, above = (decoded(one, moment) for one in shifted)
            allowed = half_a_step(entry[f"state{i}"], entry[f"qmap{i}"], entry[f"absmax{i}"])
            allowed += torch.maximum(above - ours, ours - below) / 2
            was = moments[number][i - 1]
            assert ((values_of(entry, i) - was).abs() <= allowed + 1e-6 * was.abs()).all()


@pytest.mark.parametrize(
    ("cls", "theirs"),
    [
        (pyadamw.AdamW8bit, "AdamW8bit"),
        (pyadamw.AdamW32bit, "AdamW32bit"),
        (pyadamw.PagedAdamW8bit, "AdamW8bit"),
    ],
)
def test_bitsandbytes_loads_what_is_written_for_it(cls, theirs):
    """The real one loads it, steps, and lands where ours does; and what it then has comes back."""
    params = parameters(SHAPES)
    optimizer = cls(params, lr=LR)
    train(optimizer, params, STEPS)
    copies = clones(params)
    other = getattr(bitsandbytes.optim, theirs)(copies, lr=0.5)
    other.load_state_dict(optimizer.to_bitsandbytes_state_dict())
    assert other.param_groups[0]["lr"] == LR
    start = clones(params)
    train(optimizer, params, 1, first=STEPS)
    train(other, copies, 1, first=STEPS)
    for ours, its, before in zip(params, copies, start, strict=True):
        path = (ours - before).abs().mean()
        assert (ours - its).abs().mean() <= 0.05 * path
    optimizer.load_state_dict(other.state_dict())
    assert {float(state["step"]) for state in optimizer.state.values()} == {STEPS + 1}


def test_bitsandbytes_has_no_amsgrad():
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit(params, amsgrad=True)
    train(optimizer, params, 1)
    with pytest.raises(ValueError, match="parameter 0: bitsandbytes does not support"):
        optimizer.to_bitsandbytes_state_dict()


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def convert(capsys):
    """The command, in this process: (its status, what it wrote to stderr)."""

    def run(*arguments):
        capsys.readouterr()
        return cli.main(["convert", *map(str, arguments)]), capsys.readouterr().err

    return run


def test_the_command_itself(tmp_path):
    """From a shell: one line, status 1, no traceback."""
    command = [sys.executable, "-m", "pyadamw", "convert", tmp_path / "missing", tmp_path / "out", "--to", "torch"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@needs_safetensors
@pytest.mark.parametrize("name", ["torch amsgrad", "bitsandbytes 8", "own 8", "own 32"])
def test_convert_there_and_back(source, name, tmp_path, convert):
    """Through every format that can hold it: what comes back has the numbers that went in."""
    state_dict, _, params = source(name)
    torch.save({"model": {}, "optimizer": state_dict}, tmp_path / "in.pt")
    path = tmp_path / "in.pt"
    for to in ("pyadamw", "safetensors", "pyadamw", *([] if "amsgrad" in name else ["bitsandbytes"]), "torch"):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.file"
        key = ["--key", "optimizer"] if path.name == "in.pt" else []
        assert convert(path, out, "--to", to, *key) == (0, "")
        path = out
    ours, theirs = clones(params), clones(params)
    optimizer, plain = pyadamw.AdamW32bit(ours), torch.optim.AdamW(theirs)
    optimizer.load_state_dict(state_dict)
    plain.load_state_dict(torch.load(path, weights_only=True))
    tolerance = 1e-6 if name in ("torch amsgrad", "own 32") else 0.02
    for p, q in zip(ours, theirs, strict=True):
        one, other = optimizer.state[p], plain.state[q]
        assert one.keys() == other.keys()
        for key in ("exp_avg", "exp_avg_sq"):
            assert (one[key] - other[key]).abs().max() <= tolerance * one[key].abs().max()


@needs_safetensors
def test_safetensors_keep_every_bit(tmp_path, convert):
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit(params, lr=LR, percentile_clipping=50, amsgrad=True)
    train(optimizer, params, STEPS)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    assert convert(tmp_path / "state.pt", tmp_path / "state.safetensors", "--to", "safetensors") == (0, "")
    assert convert(tmp_path / "state.safetensors", tmp_path / "back.pt", "--to", "pyadamw") == (0, "")
    copies = clones(params)
    other = pyadamw.AdamW8bit(copies, percentile_clipping=50, amsgrad=True)
    other.load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True))
    train(optimizer, params, 2, first=STEPS)
    train(other, copies, 2, first=STEPS)
    assert_same_bits((optimizer, params), (other, copies))


def test_convert_says_what_is_wrong(tmp_path, convert):
    """One line, and no file."""
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("no state at all")
    torch.save({"model": 1, "optimizer": 2}, tmp_path / "larger")
    torch.save([1, 2], tmp_path / "list")
    empty = {"state": {}, "param_groups": []}
    torch.save({"one": empty, "other": [2, empty]}, tmp_path / "two")
    for name, word in (
        ("missing", "missing"),
        ("empty", "cannot read"),
        ("text", "cannot read"),
        ("larger", "'model', 'optimizer'"),
        ("list", "a list of 2"),
        ("two", "choose --key: 'one', 'other.1'"),
    ):
        status, error = convert(tmp_path / name, tmp_path / "out", "--to", "torch")
        assert status == 1
        assert error.count("\n") == 1
        assert word in error
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", [(), ("--key", "optimizer_states"), ("--key", "optimizer_states.0")])
def test_convert_finds_the_state_as_inspect_does(key, tmp_path, convert):
    """In a checkpoint of Lightning, say: by what `inspect` prints, or alone where there is just one."""
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit(params)
    train(optimizer, params, 1)
    torch.save(optimizer.state_dict(), tmp_path / "state")
    torch.save({"epoch": 1, "optimizer_states": [optimizer.state_dict()]}, tmp_path / "larger")
    assert convert(tmp_path / "state", tmp_path / "wanted", "--to", "torch") == (0, "")
    assert convert(tmp_path / "larger", tmp_path / "out", "--to", "torch", *key) == (0, "")
    wanted, got = (torch.load(tmp_path / name, weights_only=True)["state"] for name in ("wanted", "out"))
    for place, state in wanted.items():
        assert all(torch.equal(value, got[place][key]) for key, value in state.items())


def test_code_in_a_file_is_not_run(tmp_path, convert):
    class Harm:
        def __reduce__(self):
            return open, (str(tmp_path / "harm"), "w")

    torch.save({"state": {0: {"step": 1, "exp_avg": Harm()}}, "param_groups": []}, tmp_path / "in")
    assert convert(tmp_path / "in", tmp_path / "out", "--to", "torch")[0] == 1
    assert not (tmp_path / "harm").exists()


# ---- versions --------------------------------------------------------------------------------------------------------


def test_a_later_format_is_refused_by_name():
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit(params)
    train(optimizer, params, 1)
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["pyadamw_format"] == 3
    assert "pyadamw_format" not in optimizer.param_groups[0]
    later = {**saved, "param_groups": [{**group, "pyadamw_format": 4} for group in saved["param_groups"]]}
    before = [state_bits(optimizer, p) for p in params]
    with pytest.raises(ValueError, match="format 4, from a later pyadamw; this one reads formats up to 3"):
        optimizer.load_state_dict(later)
    assert [state_bits(optimizer, p) for p in params] == before
