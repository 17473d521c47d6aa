"""Owns the laws of the planner about files that are not what it takes: each is refused with a clear error."""

import errno
import json
import os

import pytest
import torch
from plan_models import Awkward, save_in_three, trained

import pyadamw


@pytest.fixture
def folder(tmp_path):
    return save_in_three(trained(Awkward()), tmp_path)


def _index(folder, **content):
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def _saved(value):
    return lambda folder: torch.save(value, folder / "x")


def _written(content):
    return lambda folder: (folder / "x").write_bytes(content)


WRONG = {
    "empty folder": (lambda folder: None, "", "has neither *.safetensors nor a config.json"),
    "empty file": (_written(b""), "x", "neither safetensors nor JSON"),
    "noise": (_written(bytes(range(200))), "x", "neither safetensors nor JSON"),
    "cut header": (_written((1000).to_bytes(8, "little") + b'{"w": '), "x", "not a safetensors file"),
    "cut data": (
        _written((60).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(60)),
        "x",
        "not a safetensors file",
    ),
    "json": (_written(b"{}"), "x", "has neither weight_map nor architectures"),
    "broken json": (_written(b"{"), "x", "not JSON"),
    "no architectures": (_written(b'{"model_type": "gpt2"}'), "x", "names no class in architectures"),
    "no class": (_written(b'{"architectures": ["torch"]}'), "x", "has no torch"),
    "no model": (_written(b'{"architectures": ["GPT2Config"]}'), "x", "has no GPT2Config"),
    "not names": (lambda folder: _index(folder, weight_map=["x"]), "", "weight_map must be a dict of file names"),
    "no shard": (
        lambda folder: _index(folder, weight_map={"w": "a.safetensors"}),
        "",
        "names a.safetensors, which is not",
    ),
    "elsewhere": (
        lambda folder: _index(folder, weight_map={"w": "../a.safetensors"}),
        "",
        "must be safetensors files in",
    ),
    "not a state dict": (_saved({"epoch": 3, "loss": 0.5}), "x", "its keys are 'epoch', 'loss'"),
    "a list": (_saved([torch.ones(3)]), "x", "it is not a dict"),
    "two": (
        _saved({"model": {"w": torch.ones(3)}, "state_dict": {"w": torch.ones(3)}}),
        "x",
        "its keys are 'model', 'state_dict'",
    ),
    "an optimizer's": (
        _saved({"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}),
        "x",
        "its keys are 'state'",
    ),
    "code": (_saved({"w": os.path.join}), "x", "torch.load(weights_only=True) cannot read it"),
    "integers": (_saved({"w": torch.arange(3)}), "x", "no parameters that train"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files(tmp_path, case):
    """A ValueError that names the file and what is wrong with it; no code in it is run."""
    make, name, message = WRONG[case]
    make(tmp_path)
    with pytest.raises(ValueError) as caught:
        pyadamw.plan(tmp_path / name)
    assert message in str(caught.value), caught.value
    assert case == "integers" or str(tmp_path) in str(caught.value)


def test_wrong_shards(folder):
    """A file that is missing, a tensor that its file lacks, a tensor that two files have."""
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["ghost"] = "model-00002-of-00003.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"has ghost in model-00002-of-00003\.safetensors, which lacks it"):
        pyadamw.plan(folder)
    index.unlink()
    (folder / "model-00002-of-00003.safetensors").rename(folder / "away")
    with pytest.raises(ValueError, match=r"but not model-00002-of-00003\.safetensors"):
        pyadamw.plan(folder)
    (folder / "away").rename(folder / "model-00002-of-00003.safetensors")
    (folder / "more.safetensors").write_bytes((folder / "model-00001-of-00003.safetensors").read_bytes())
    with pytest.raises(ValueError, match="and so has another file of the model"):
        pyadamw.plan(folder)


def test_two_models_in_a_folder(folder):
    """It is not guessed which is meant."""
    (folder / "model.safetensors.index.json").rename(folder / "a.safetensors.index.json")
    (folder / "b.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="has 2 models"):
        pyadamw.plan(folder)


def test_no_files(tmp_path):
    """What is not a file is not waited for."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a FIFO: must be a regular file"):
        pyadamw.plan(tmp_path / "pipe")
    os.symlink(tmp_path / "none", tmp_path / "link")
    with pytest.raises(OSError) as caught:
        pyadamw.plan(tmp_path / "link")
    assert caught.value.errno == errno.ENOENT


def test_without_packages(folder, monkeypatch):
    """What is missing is named, with how to install it."""
    from pyadamw._plan import files
    from pyadamw._state import files as state_files

    monkeypatch.setattr(state_files, "optional", lambda _name: None)
    with pytest.raises(ValueError, match="pip install safetensors"):
        pyadamw.plan(folder)
    monkeypatch.setattr(files, "optional", lambda _name: None)
    config = folder / "config.json"
    config.write_text('{"architectures": ["GPT2LMHeadModel"]}')
    with pytest.raises(ValueError, match="pip install transformers"):
        pyadamw.plan(config)
