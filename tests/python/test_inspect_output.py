"""Owns the laws of what `python -m pyadamw inspect` shows: what is noteworthy, a table that can be read, and a picture.
Must not know how anything is counted.
"""

import json
import os

import forked
import pytest
import torch
from commands import GROUP, ZEROS, figures, inspect, saved, saved_8bit, subjects, texts

import pyadamw
from pyadamw._state import checkpoints

# ---- what is noteworthy ----------------------------------------------------------------------------------------------


def test_noteworthy(tmp_path):
    """Other steps, no state, no movement, zeros, few codes and master weights are named with their parameters."""
    many = torch.zeros(300, 300)
    many[:100] = 1
    names = ["usual", "late", "frozen", "still", "rare", "flat"]
    quantized = {m: pyadamw.quantize(torch.full((300, 300), 0.5), m) for m in ("exp_avg", "exp_avg_sq")}
    flat = {f"{m}_{part}": value for m, q in quantized.items() for part, value in q._asdict().items()}
    one = {"step": 9, "exp_avg": torch.ones(5), "exp_avg_sq": torch.ones(5)}
    state = {
        0: one,
        1: {**one, "step": 2},
        3: {**ZEROS, "step": 9},
        4: {"step": 9, "exp_avg": many, "exp_avg_sq": many},
        5: {"step": 9, **{key: value for key, value in flat.items() if value is not None}},
    }
    group = {**GROUP, "params": list(range(6)), "param_names": names}
    found = figures(saved(tmp_path / "c.pt", state, [group]))
    said = {finding["subject"]: finding["text"] for finding in found["findings"]}
    assert set(said) == {"steps", "no state", "never moved", "zeros", "codes"}
    assert "'late'" in said["steps"] and "'usual'" not in said["steps"]
    assert "'frozen'" in said["no state"] and "'still'" in said["never moved"]
    assert "'rare' 67%" in said["zeros"] and "'flat'" in said["codes"]
    assert all(finding["level"] == "note" and finding["cure"] for finding in found["findings"])
    state = {0: {**one, "param_remainder": torch.zeros(5, dtype=torch.int8)}}
    found = figures(saved(tmp_path / "c.pt", state))
    assert found["parameters"][0]["master_weight_bits"] == 24
    assert subjects(found) == ["master weights", "names"] and "24 bits" in texts(found)


def test_nothing_noteworthy(tmp_path):
    saved_8bit(tmp_path / "c.pt")
    assert figures(tmp_path / "c.pt")["findings"] == []
    assert "Nothing is noteworthy" in inspect(tmp_path / "c.pt")[1]


# ---- how it is shown -------------------------------------------------------------------------------------------------


@pytest.fixture
def thousand(tmp_path):
    """A checkpoint with 1000 parameters, of which one was damaged and one was stepped less often."""
    names = [f"layers.{layer}.{kind}.weight" for layer in range(250) for kind in ("q", "k", "up", "norm")]
    state = {
        number: {"step": 5, "exp_avg": torch.full((4, 3), 1.0 + number), "exp_avg_sq": torch.ones(4, 3)}
        for number in range(1000)
    }
    state[10]["step"] = 3
    state[13]["exp_avg_sq"] = -torch.ones(4, 3)
    return saved(tmp_path / "c.pt", state, [{**GROUP, "params": list(state), "param_names": names}])


def table(out):
    """The lines of the table, without its headings."""
    return out.split("\n\n")[1].splitlines()[1:]


def test_a_thousand_parameters(thousand):
    """They fit on a screen: what differs only in a number shares a line, but not what is refused. --all has each."""
    status, out, _ = inspect(thousand)
    assert status == 1 and len(out.splitlines()) <= 25
    lines = [line.split() for line in table(out)[:5]]
    counts = {line[-1]: line[0] for line in lines}
    assert counts == {
        **{f"layers.*.{kind}.weight": "250" for kind in ("q", "up", "norm")},
        "layers.*.k.weight": "249",
        "layers.3.k.weight": "-",
    }
    assert "1000 parameters in 5 lines" in out and "3 to 5" in out
    _, out, _ = inspect(thousand, "--all")
    assert sum("layers." in line for line in table(out)) == 1000
    _, out, _ = inspect(thousand, "--json")
    assert len(json.loads(out)["parameters"]) == 1000


@pytest.mark.parametrize("sort", ["file", "name", "bytes", "step", "scale", "zeros", "codes", "nonfinite"])
def test_sorting(sort, tmp_path):
    """What --sort looks for comes first, in the table and in JSON."""
    nan = torch.full((600,), float("nan"))
    coded = {
        f"{m}_{part}": value
        for m in ("exp_avg", "exp_avg_sq")
        for part, value in pyadamw.quantize(torch.rand(300) * 9, m)._asdict().items()
        if value is not None
    }
    state = {
        0: {"step": 9, "exp_avg": torch.ones(10), "exp_avg_sq": torch.ones(10)},
        1: {"step": 1, **coded},
        2: {"step": 1, "exp_avg": nan, "exp_avg_sq": torch.ones(600)},
        3: {"step": 1, "exp_avg": torch.zeros(10), "exp_avg_sq": torch.zeros(10)},
    }
    names = ["p10", "p9", "p2", "p11"]
    path = saved(tmp_path / "c.pt", state, [{**GROUP, "params": list(state), "param_names": names}])
    first = {"file": "p10", "name": "p2", "bytes": "p2", "step": "p10", "scale": "p9", "zeros": "p11", "codes": "p9"}
    order = [one["name"] for one in figures(path, "--sort", sort)["parameters"]]
    assert order[0] == {**first, "nonfinite": "p2"}[sort]
    if sort == "name":
        assert order == ["p2", "p9", "p10", "p11"]
    assert [line.split()[-1] for line in table(inspect(path, "--sort", sort)[1])[:4]] == order


@pytest.mark.parametrize("columns", [40, 100, 300])
def test_on_a_terminal(columns, tmp_path, monkeypatch):
    """On a terminal of any width every name is there as a whole, and in each line of figures all of them."""
    names = [f"model.layers.{layer}.a_long_name_of_a_module.self_attention.projection.weight" for layer in range(3)]
    entry = {"step": 5, "exp_avg": torch.ones(4, 3), "exp_avg_sq": torch.ones(4, 3)}
    path = saved(
        tmp_path / "c.pt", dict.fromkeys(range(3), entry), [{**GROUP, "params": [0, 1, 2], "param_names": names}]
    )
    monkeypatch.setenv("COLUMNS", str(columns))
    status, out, _ = inspect(path, terminal=True)
    assert status == 0 and all(name in out for name in names)
    assert out.count("96 bytes") == out.count("4x3") == 3


def test_names_that_would_harm_a_terminal(tmp_path):
    """Control characters and halves of characters in names and keys are escaped, in text and in JSON."""
    state = {0: ZEROS, (1, 2): ZEROS}
    path = saved(tmp_path / "c.pt", state, [{**GROUP, "param_names": ["a\x1b[2J\nb\ud800"]}])
    status, out, _ = inspect(path)
    assert status == 1 and "a\\x1b[2J\\nb\\ud800" in out and "\x1b" not in out
    assert json.loads(inspect(path, "--json")[1])["parameters"][1]["key"] == "(1, 2)"
    status, out, _ = inspect(path, "--plot", tmp_path / "p.png")
    assert status == 1 and (tmp_path / "p.png").exists()


def test_a_reader_that_leaves(thousand):
    """Nobody reads stdout: no traceback."""
    script = """
import os, sys
from pyadamw import cli
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
sys.exit(cli.main(["inspect", sys.argv[1], "--all"]))
"""
    done = forked.run(script, thousand)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_without_extras(tmp_path, monkeypatch):
    """Without rich the table is the same; --plot without matplotlib says what to install."""
    saved_8bit(tmp_path / "c.pt")
    expected = inspect(tmp_path / "c.pt")
    for module in ("inspect", "output"):
        monkeypatch.setattr(f"pyadamw._commands.{module}.optional", lambda name: None)
    assert inspect(tmp_path / "c.pt", terminal=True) == expected
    status, _, error = inspect(tmp_path / "c.pt", "--plot", tmp_path / "p.png")
    assert status == 1 and 'pip install "pyadamw[demo]"' in error


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("count", [0, 1, 4, 100])
def test_pictures(count, suffix, tmp_path):
    """A picture of no, few and many parameters, of any names and only zeros, is one whole file with their names."""
    quantized = {m: pyadamw.quantize(torch.rand(40, 40), m) for m in ("exp_avg", "exp_avg_sq")}
    coded = {f"{m}_{part}": v for m, q in quantized.items() for part, v in q._asdict().items() if v is not None}
    state = {number: {"step": 1, **(coded if number % 2 else ZEROS)} for number in range(count)}
    names = [f"a$b.{number}_<x>" for number in range(count)]
    path = saved(tmp_path / "c.pt", state, [{**GROUP, "params": list(state), "param_names": names}])
    status, _, error = inspect(path, "--plot", tmp_path / f"p.{suffix}")
    assert (status, error) == (0, "")
    made = (tmp_path / f"p.{suffix}").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["c.pt", f"p.{suffix}"]
    if suffix == "png":
        assert made.startswith(b"\x89PNG") and len(made) > 5000
    elif count:
        assert b"a$b.0_&lt;x&gt;" in made and (b"exp_avg_sq" in made or count == 1)


def test_pictures_that_cannot_be_made(tmp_path, monkeypatch):
    """A wrong name for the picture is said before the checkpoint is read, and an old file stays."""
    monkeypatch.setattr(checkpoints, "opened", lambda *_: pytest.fail("it was read"))
    (tmp_path / "old.png").mkdir()
    for name in ("p.txt", "p", "nowhere/p.png", "old.png"):
        status, _, error = inspect("c.pt", "--plot", tmp_path / name)
        assert status == 1 and name in error and error.count("\n") == 1
    assert os.listdir(tmp_path) == ["old.png"]
