"""Owns the laws of the planner about a model's files: it finds the tensors that are there, and reads nothing else."""

import contextlib
import json
import os

import pytest
import torch
from harness import Late
from plan_models import Awkward, save_in_three, trained
from torch import nn

import pyadamw

transformers = Late("transformers")
save_file = pytest.importorskip("safetensors.torch").save_file


class Bag(nn.Module):
    """Parameters under names that have dots."""

    def __init__(self, tensors):
        super().__init__()
        for name, tensor in tensors.items():
            place = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(place, part):
                    place.add_module(part, nn.Module())
                place = getattr(place, part)
            place.register_parameter(last, nn.Parameter(tensor))


def assert_same(plan, other):
    assert plan.choices == other.choices and plan.parameters == other.parameters and plan.parameters > 0


# ---- safetensors -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tensors():
    return trained(Awkward())


@pytest.fixture
def folder(tmp_path, tensors):
    return save_in_three(tensors, tmp_path)


def test_safetensors(tmp_path, folder, tensors):
    """One file, a folder, the index, files without an index: each is planned as a module with these parameters."""
    expected = pyadamw.plan(Bag(tensors), gpu="1GiB")
    file = tmp_path / "other" / "model.safetensors"
    file.parent.mkdir()
    save_file(tensors, file)
    for path in (file, file.parent, str(folder), folder / "model.safetensors.index.json"):
        assert_same(pyadamw.plan(path, gpu="1GiB"), expected)
    (folder / "model.safetensors.index.json").unlink()
    assert_same(pyadamw.plan(folder, gpu="1GiB"), expected)
    assert_same(pyadamw.plan(folder, dtype="bf16"), pyadamw.plan(Bag(tensors), dtype="bf16"))


def test_a_name_of_a_file_wins_over_a_number(tmp_path, tensors, monkeypatch):
    save_file(tensors, tmp_path / "7B")
    monkeypatch.chdir(tmp_path)
    assert pyadamw.plan("7B").parameters == pyadamw.plan(Bag(tensors)).parameters


def test_dtypes_of_a_file(tmp_path):
    """Floating tensors train; others count as weights, and are named."""
    file = tmp_path / "x.safetensors"
    save_file({"w": torch.zeros(30, 64).bfloat16(), "positions": torch.arange(10), "mask": torch.ones(3).bool()}, file)
    plan = pyadamw.plan(file)
    choice = plan.choices[-1]
    assert (plan.parameters, plan.frozen, choice.dtype) == (1920, 13, "bfloat16")
    assert (choice.weights, choice.gradients) == (2 * 1920 + 80 + 3, 2 * 1920)
    assert any("2 tensors (mask, positions)" in note for note in plan.notes)
    save_file({"w": torch.zeros(30, 64).to(torch.float8_e4m3fn)}, file)
    with pytest.raises(ValueError, match="w is float8_e4m3fn, and parameters must be"):
        pyadamw.plan(file)
    assert pyadamw.plan(file, dtype="bf16").choices[-1].weights == 2 * 1920


def test_data_are_not_read(tmp_path):
    """A file of 20 GB, of which nothing but the header is on the disk, is planned, in little memory."""
    header = {"w": {"dtype": "BF16", "shape": [5000, 2_000_000], "data_offsets": [0, 20_000_000_000]}}
    text = json.dumps(header).encode()
    file = tmp_path / "large.safetensors"
    with open(file, "wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + 20_000_000_000)
    assert os.stat(file).st_blocks * 512 < 1 << 20
    with growth() as grown:
        plan = pyadamw.plan(file)
    assert plan.parameters == 10**10 and plan.choices[-1].weights == 2 * 10**10
    assert grown[0] < 50 << 20


@contextlib.contextmanager
def growth():
    """A list that gets the bytes by which this process has grown at most."""

    def peak():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))

    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew, at what is in use
    grown, before = [], peak()
    yield grown
    grown.append(peak() - before)


# ---- checkpoints of torch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("under", [None, "model", "state_dict", "model_state_dict"])
def test_checkpoints(tmp_path, tied, under):
    """A state dict, or a dict that has one; a tied weight is one weight, under the two names that a state dict has."""
    model = Awkward(tied)
    state = model.state_dict()
    torch.save(state if under is None else {under: state, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "c.pt")
    for param in model.parameters():
        param.requires_grad_(True)
    plan, expected = pyadamw.plan(tmp_path / "c.pt"), pyadamw.plan(model)
    assert plan.parameters == expected.parameters + 5  # the buffer
    ours = [(choice.gradients, choice.remainder) for choice in plan.choices if choice.in_backward]
    assert ours == [(choice.gradients, choice.remainder) for choice in expected.choices if choice.in_backward]


def test_checkpoint_data_are_not_read(tmp_path):
    """The storages of a checkpoint stay on the disk: without their pages in memory, it takes no more than its names."""
    torch.save({"w": torch.zeros(200 << 20, dtype=torch.uint8).view(torch.bfloat16)}, tmp_path / "c.pt")
    with growth() as grown:
        assert pyadamw.plan(tmp_path / "c.pt").parameters == 100 << 20
    assert grown[0] < 50 << 20


def test_old_checkpoints(tmp_path):
    """The format before torch 1.6."""
    torch.save(nn.Linear(30, 70).state_dict(), tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    assert pyadamw.plan(tmp_path / "c.pt").parameters == 70 * 31


# ---- config.json -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_config(tmp_path, tied):
    """The model of a config.json is that of its class, with tied weights once, and its dtype; nothing is made of it."""
    config = transformers.GPT2Config(n_layer=2, n_embd=96, n_head=4, vocab_size=1601, tie_word_embeddings=tied)
    config.architectures, config.dtype = ["GPT2LMHeadModel"], torch.bfloat16
    config.save_pretrained(tmp_path)
    model = transformers.GPT2LMHeadModel(config).bfloat16()
    for path in (tmp_path, tmp_path / "config.json"):
        plan = pyadamw.plan(path)
        assert_same(plan, pyadamw.plan(model))
        assert plan.parameters == sum(p.numel() for p in model.parameters())
    assert_same(pyadamw.plan(tmp_path, dtype="fp32", processes=2), pyadamw.plan(model, dtype="fp32", processes=2))
    model.save_pretrained(tmp_path)  # weights win over the configuration
    assert pyadamw.plan(tmp_path).parameters == plan.parameters


def test_code_beside_a_config_is_not_run(tmp_path):
    """Neither that which it names for its classes, nor that of its folder."""
    (tmp_path / "own.py").write_text("raise SystemExit('run')")
    content = {
        "architectures": ["Own"],
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.Own"},
    }
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"has no Own\. The code of the model is not run"):
        pyadamw.plan(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**content, "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(ValueError, match="GPT2LMHeadModel cannot be made from it"):
        pyadamw.plan(tmp_path)
