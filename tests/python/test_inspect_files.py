"""Owns the laws of what `python -m pyadamw inspect` reads: files and folders of every form, in which it runs nothing
and writes nothing; what is wrong with them is said, with status 1. Must not know how state is stored inside.
"""

import json
import os
import pickle

import pytest
import torch
from commands import GROUP, ZEROS, figures, inspect, saved, saved_8bit, subjects, trained
from harness import Late
from versions import needs_safetensors

import pyadamw
from pyadamw import cli
from pyadamw._state import files

dcp, state_dict_of, safetensors = map(
    Late, ("torch.distributed.checkpoint", "torch.distributed.checkpoint.state_dict", "safetensors.torch")
)


# ---- where it lies ---------------------------------------------------------------------------------------------------


def without_place(found):
    return [{name: value for name, value in one.items() if name not in ("key", "name")} for one in found["parameters"]]


@pytest.mark.parametrize("kind", ["plain", "by names", "flat", "flat without weights"])
def test_folders_of_distributed_checkpoint(kind, tmp_path):
    """A folder has the figures of a file with the same state, in each form in which torch saves it."""
    model, optimizer = trained()
    expected = figures(
        saved(tmp_path / "c.pt", optimizer.state_dict()["state"], optimizer.state_dict()["param_groups"])
    )
    options = state_dict_of.StateDictOptions(flatten_optimizer_state_dict=kind.startswith("flat"))
    state = (
        optimizer.state_dict()
        if kind == "plain"
        else state_dict_of.get_optimizer_state_dict(model, optimizer, options=options)
    )
    whole = {
        "plain": lambda: {"model": model.state_dict(), "optim": state},
        "by names": lambda: {"model": model.state_dict(), "optim": state},
        "flat": lambda: {**model.state_dict(), **state},
        "flat without weights": lambda: state,
    }[kind]()
    dcp.save(whole, checkpoint_id=tmp_path / "folder")
    found = figures(tmp_path / "folder")
    assert found["key"] == (None if kind.startswith("flat") else "optim")
    assert without_place(found) == without_place(expected)
    titles = [one["name"] or one["key"] for one in found["parameters"]]
    assert titles == [name for name, _ in model.named_parameters()]


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("where", ["metadata", "a value", "a file"])
def test_no_code_is_run(where, tmp_path, monkeypatch):
    """What is pickled in a file or a folder makes nothing: it is refused; of a folder, it is said what that was."""
    monkeypatch.chdir(tmp_path)
    _, optimizer = trained()
    state = optimizer.state_dict()
    if where == "a value":
        state["state"][0]["extra"] = Harm()
    if where == "a file":
        torch.save({**state, "extra": Harm()}, "c")
    else:
        dcp.save({"optim": state}, checkpoint_id="c")
    if where == "metadata":
        (tmp_path / "c" / ".metadata").write_bytes(pickle.dumps(Harm()))
    if os.path.exists("harm"):  # dcp.save() itself may copy values by pickling them
        os.rmdir("harm")
    status, _, error = inspect("c")
    assert status == 1 and error.startswith("error: ") and error.count("\n") == 1
    assert "mkdir" in error or where == "a file"
    assert not os.path.exists("harm")


@needs_safetensors
def test_safetensors(tmp_path):
    """A file of safetensors has the figures of the file that it was converted from."""
    saved_8bit(tmp_path / "c.pt")
    assert cli.main(["convert", str(tmp_path / "c.pt"), str(tmp_path / "c.safetensors"), "--to", "safetensors"]) == 0
    one, other = figures(tmp_path / "c.pt"), figures(tmp_path / "c.safetensors")
    assert one["parameters"] == other["parameters"] and one["totals"] == other["totals"]


@pytest.mark.parametrize("zipped", [True, False])
def test_files_are_mapped_and_left_alone(zipped, tmp_path):
    """Tensors are read from the file when they are counted, if its form permits that; the file stays as it is."""
    _, optimizer = trained()
    path = tmp_path / "c.pt"
    torch.save(optimizer.state_dict(), path, _use_new_zipfile_serialization=zipped)
    before, time = path.read_bytes(), path.stat().st_mtime_ns
    found = files.read(path, mapped=True)
    with open("/proc/self/maps") as maps:
        assert (str(path) in maps.read()) == zipped
    assert torch.equal(found["state"][0]["exp_avg_codes"], optimizer.state_dict()["state"][0]["exp_avg_codes"])
    path.chmod(0o400)
    figures(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, time)
    assert os.listdir(tmp_path) == ["c.pt"]


def test_where_in_a_checkpoint(tmp_path):
    """The only state of an optimizer is found; of several, --key chooses, also in lists and by parts between dots."""
    state = {"state": {0: ZEROS}, "param_groups": [GROUP]}
    for content, key in (
        ({"epoch": 1, "optimizer": state}, "optimizer"),
        ({"state_dict": {"w": torch.zeros(3)}, "optimizer_states": [state]}, "optimizer_states.0"),
    ):
        torch.save(content, tmp_path / "c.pt")
        assert figures(tmp_path / "c.pt")["key"] == key
    torch.save({"a": state, "b.c": state, "d": {"e": [state, state]}}, tmp_path / "c.pt")
    status, _, error = inspect(tmp_path / "c.pt")
    assert status == 1 and "choose --key: 'a', 'b.c'" in error
    for key in ("a", "b.c", "d.e.1"):
        assert figures(tmp_path / "c.pt", "--key", key)["key"] == key
    for key in ("x", "d.e.2", "d.e"):
        status, _, error = inspect(tmp_path / "c.pt", "--key", key)
        assert status == 1 and key in error


# ---- what is wrong ---------------------------------------------------------------------------------------------------


def changed(optimizer, key, change):
    """Its state dict, with one tensor of parameter 0 changed in a copy."""
    state_dict = optimizer.state_dict()
    state_dict["state"][0][key] = change(state_dict["state"][0][key].clone())
    return state_dict


def with_first(number):
    def change(value):
        value.view(-1)[0] = number
        return value

    return change


DAMAGES = {
    "a NaN scale": ("exp_avg_absmax", with_first(float("nan")), "not finite", 1),
    "an infinite scale": ("exp_avg_sq_absmax", with_first(float("inf")), "not finite", 1),
    "a negative scale": ("exp_avg_absmax", with_first(-1.0), "negative", 0),
    "a NaN floor": ("exp_avg_sq_floor", with_first(float("nan")), "neither 0 nor", 1),
    "a scale too few": ("exp_avg_absmax", lambda value: value.flatten()[1:], "has shape", 0),
    "a fraction of a step": ("step", lambda value: value + 0.5, "step = ", 0),
    "memory for fewer codes": (
        "exp_avg_sq_codes",
        lambda v: v.flatten()[:1].clone().expand(70, 300),
        "memory for fewer",
        0,
    ),
    "memory for fewer elements": (
        "exp_avg_codes",
        lambda v: v.flatten()[:1].clone().expand(21000),
        "memory for fewer",
        0,
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage(damage, tmp_path):
    """State that load_state_dict() refuses is said with parameter and key, on stderr too; others keep their figures."""
    key, change, said, nonfinite = DAMAGES[damage]
    _, optimizer = trained()
    state_dict = changed(optimizer, key, change)
    torch.save(state_dict, tmp_path / "c.pt")
    if "memory" not in damage:  # where it loads, converting refuses it
        with pytest.raises(ValueError, match=r"0\.weight"):
            trained()[1].load_state_dict(state_dict)
    status, out, error = inspect(tmp_path / "c.pt", "--json")
    found = json.loads(out)
    first, *others = found["parameters"]
    assert status == 1 and "'0.weight'" in error and said in error and error.count("\n") == 1
    assert said in first["refused"] and subjects(found, "error") == ["refused"]
    assert first["nonfinite"] == nonfinite == found["totals"]["nonfinite"]
    assert all(one["refused"] is None and one["moments"] for one in others)
    if damage == "a NaN scale":
        assert "not finite" in subjects(found, "warning")
    status, out, error = inspect(tmp_path / "c.pt")
    assert status == 1 and "refused" in out and said in error


def test_infinite_gradients(tmp_path):
    """NaNs and infinities in 32-bit moments are counted; classes with 32-bit state load them, so the status is 0."""
    values = torch.tensor([1.0, float("nan"), float("inf"), 0.0, -7.0])
    found = figures(saved(tmp_path / "c.pt", {0: {**ZEROS, "exp_avg": values}}))
    (one,) = found["parameters"]
    assert one["nonfinite"] == 2 and one["moments"]["exp_avg"]["largest"] == 7.0
    assert one["moments"]["exp_avg"]["zeros"] == 0.2
    assert "8-bit" in next(finding["cure"] for finding in found["findings"] if finding["subject"] == "not finite")
    figures(saved(tmp_path / "c.pt", {0: {**ZEROS, "exp_avg": torch.full((5,), float("nan"))}}))


@pytest.mark.parametrize(
    "state, groups, said",
    [
        ({0: {**ZEROS, "exp_avg_sq": -torch.ones(5)}}, None, "negative"),
        ({0: {"step": 1, "exp_avg": torch.zeros(5)}}, None, "exp_avg_sq"),
        ({0: 3}, None, "must be a dict"),
        ({0: ZEROS, 7: ZEROS}, [GROUP], "none of its groups lists it"),
        ({0: ZEROS}, [{**GROUP, "amsgrad": True}], "no max_exp_avg_sq"),
        ({0: ZEROS}, [{**GROUP, "pyadamw_format": 99}], "from a later pyadamw"),
        ({0: {**ZEROS, "exp_avg": 3}}, None, "8 bits"),
        ({0: {"step": 1, "other": torch.zeros(5)}}, None, "has none of"),
        ({}, [{**GROUP, "params": 3}], "params = 3"),
        ([], [GROUP], "must be a dict"),
    ],
)
def test_refused_state(state, groups, said, tmp_path):
    """State that no class loads has status 1, and one line that says why."""
    path = tmp_path / "c.pt"
    torch.save({"state": state, "param_groups": groups or [GROUP]}, path)
    with pytest.raises(ValueError):
        pyadamw.AdamW32bit([torch.nn.Parameter(torch.zeros(5))]).load_state_dict(torch.load(path, weights_only=True))
    status, out, error = inspect(path, "--json")
    assert status == 1 and said in error and error.count("\n") == 1, error
    json.loads(out)


def wrong_inputs(folder):
    (folder / "text").write_text("no checkpoint")
    (folder / "empty").write_bytes(b"")
    (folder / "folder").mkdir()
    (folder / "trainer").mkdir()
    torch.save({}, folder / "trainer" / "optimizer.pt")
    (folder / "damaged").mkdir()
    (folder / "damaged" / ".metadata").write_bytes(b"no pickle")
    os.mkfifo(folder / "fifo")
    torch.save({"weight": torch.zeros(3)}, folder / "weights.pt")
    torch.save([1, 2], folder / "list.pt")
    safetensors.save_file({"weight": torch.zeros(3)}, folder / "weights.safetensors")
    whole = saved(folder / "whole.pt", {0: ZEROS}).read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    return {
        "missing": "No such file",
        "text": "torch.load",
        "empty": "torch.load",
        "folder": "without a file .metadata",
        "trainer": "optimizer.pt",
        "damaged": "dcp_to_torch",
        "fifo": "a FIFO",
        "weights.pt": "choose --key",
        "list.pt": "a list of 2",
        "weights.safetensors": "param_groups",
        "cut.pt": "torch.load",
    }


@needs_safetensors
def test_wrong_inputs(tmp_path):
    """What is no checkpoint is one line on stderr and status 1; with --json, stdout is valid JSON with the error."""
    for name, said in wrong_inputs(tmp_path).items():
        status, out, error = inspect(tmp_path / name)
        assert (status, out) == (1, "") and said in error and error.count("\n") == 1, (name, error)
        status, out, _ = inspect(tmp_path / name, "--json")
        found = json.loads(out)
        assert status == 1 and said in found["error"] and found["parameters"] == [], name
        assert set(found) == {"checkpoint", "key", "error", "parameters", "totals", "findings"}
