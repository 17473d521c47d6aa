"""Owns the law that `make laws` can tell: its laws separate an optimizer that keeps them from one that does not."""

import functools
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import tasks
import torch

import pyadamw

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "laws"
SIZES = {
    "ten_steps": {"shape": [64, 64], "steps": 10, "seeds": 1},
    "falling": {"elements": 4096, "before": 200, "after": 800, "window": 50},
    "stopped": {"elements": 4096, "before": 100, "after": 300},
    "zero": {"elements": 4096, "steps": 50},
    "embedding": {"rows": 200, "width": 64, "steps": 60, "tokens": 64},
    "noise": {"elements": 4096, "steps": 100, "shares": [1.0, 0.1], "blocks": 1, "spread_steps": 100},
    "weights": {"elements": 4096, "settings": [[6e-7, 220], [1e-6, 300], [1e-5, 100]]},
    "digits": {"steps": 100, "seeds": 3},
}


@pytest.fixture(scope="module")
def program():
    """The modules of tests/laws that are asked here."""
    sys.path.append(str(PROGRAM))
    yield {name: importlib.import_module(name) for name in ("contestants", "lawbook", "record")}
    sys.path.remove(str(PROGRAM))


class Drifting(pyadamw.AdamW32bit):
    """A state in which zero is stored as a small number, as in some quantizers."""

    def step(self, closure=None):
        super().step(closure)
        for state in self.state.values():
            state["exp_avg"] += 2e-5 * state["exp_avg"].abs().max()


class Large(pyadamw.AdamW32bit):
    """A state in which v loses what is below a thousandth of its largest, and m does not."""

    def step(self, closure=None):
        super().step(closure)
        for state in self.state.values():
            state["exp_avg_sq"] *= state["exp_avg_sq"] > 1e-3 * state["exp_avg_sq"].max()


BAD = {
    "ten_steps": functools.partial(tasks.Degraded, rule="nearest"),
    "falling": functools.partial(tasks.Degraded, rule="nearest"),
    "stopped": functools.partial(tasks.Degraded, rule="nearest"),
    "zero": Drifting,
    "embedding": Large,
    "noise": Large,
    "weights": pyadamw.AdamW32bit,  # on bfloat16 weights, which round to nearest
    "digits": Large,
}


def v_of(optimizer, param):
    return optimizer.to_torch_state_dict()["state"][0]["exp_avg_sq"]


@pytest.mark.parametrize("name", SIZES)
def test_a_law_separates(program, name):
    """8-bit state (in the law on weights: with master weights of 32 bits) keeps it, as float32 state does; an optimizer
    with the mistake that the law is about does not. The bounds are those of `make laws`, the sizes are tiny.
    """
    contestants, law = program["contestants"], program["lawbook"].LAWS[name]
    ours = functools.partial(pyadamw.AdamW8bit, **({"master_weight_bits": 32} if name == "weights" else {}))
    wide = torch.optim.AdamW if name != "weights" else functools.partial(pyadamw.AdamW32bit, master_weight_bits=32)
    results = {}
    for who, make in ((contestants.REFERENCE, wide), ("ours", ours), ("bad", BAD[name])):
        moment = (lambda o, p: o.state[p]["exp_avg_sq"]) if make is torch.optim.AdamW else v_of
        results[who] = law.measure(contestants.Contestant(lambda make=make: make, moment), SIZES[name])
    kept = {who: law.kept(result, results) for who, result in results.items()}
    assert kept == {contestants.REFERENCE: True, "ours": True, "bad": False}, results


def test_the_laws_are_those_listed(program):
    """Every law is rehearsed here, and judges 8-bit state."""
    laws = program["lawbook"].LAWS
    assert set(laws) == set(SIZES)
    assert all(any("pyadamw 8-bit" in who for who in law.contestants) for law in laws.values())


def test_no_number_is_null(program, tmp_path):
    """NaN and infinity, which JSON lacks, are null in the record, and all else comes back."""
    record, path = program["record"], tmp_path / "laws.json"
    record.write(path, {"laws": {"a": {"results": {"b": {"c": [1.5, math.nan], "d": -math.inf, "e": "f"}}}}})
    assert record.read(path)["laws"]["a"]["results"]["b"] == {"c": [1.5, None], "d": None, "e": "f"}


def test_the_record_has_numbers_and_pictures(tmp_path):
    """What is measured ends up in the record, in the tables and in a picture; a record that is none is an error in one
    line.
    """
    out, pictures = tmp_path / "laws.json", tmp_path / "pictures"

    def run(*arguments):
        command = [sys.executable, PROGRAM, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    done = run("--only", "zero", "--optimizers", "pyadamw", "--save", out)
    assert done.returncode == 0, done.stderr
    law = json.loads(out.read_text(encoding="utf-8"))["laws"]["zero"]
    assert law["kept"] == {"pyadamw 8-bit": True, "pyadamw 16-bit": True}
    assert "| pyadamw 8-bit | 0 | 0 | yes |" in done.stdout
    assert run("--tables", out).stdout in done.stdout
    done = run("--plots", pictures, out)
    assert done.returncode == 0, done.stderr
    assert (pictures / "law-zero.svg").read_text(encoding="utf-8").count("</svg>") == 1
    done = run("--tables", pictures / "law-zero.svg")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: cannot read ")
