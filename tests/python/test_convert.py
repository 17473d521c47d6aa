"""Owns the laws of the files of `python -m pyadamw convert`: OUT is replaced as a whole or not at all, nothing else is
touched or left, and what is wrong is one line and status 1. Must not know what is in the formats.
"""

import json
import os
import pickle
import pty
import stat
import struct
import subprocess
import sys

import foreign
import forked
import pytest
import torch
from harness import changed_environment
from versions import needs_safetensors

from pyadamw import cli

Z, NAN = torch.zeros(5), torch.full((5,), float("nan"))
CODES = torch.zeros(5, dtype=torch.uint8)
MOMENTS = ("exp_avg", "exp_avg_sq")
GROUP = {"params": [0], "lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0}
FORMATS = ["torch", "bitsandbytes", "pyadamw", pytest.param("safetensors", marks=needs_safetensors)]


def state(**entry):
    return {"state": {0: {"step": 1, "exp_avg": Z, "exp_avg_sq": Z, **entry}}, "param_groups": [GROUP]}


def today(**changes):
    """8-bit state as this version has it."""
    entry = {f"{moment}_{part}": value for moment in MOMENTS for part, value in (("codes", CODES), ("absmax", Z[:1]))}
    entry = {**entry, "step": 1, "exp_avg_sq_floor": Z[:1], **changes}
    return {"state": {0: {key: value for key, value in entry.items() if value is not None}}, "param_groups": [GROUP]}


def group(**changes):
    return {"state": {}, "param_groups": [{**GROUP, **changes}]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a good file in it."""
    monkeypatch.chdir(tmp_path)
    torch.save(state(), "good.pt")
    return tmp_path


@pytest.fixture
def convert(capsys):
    """The command, in this process: (its status, what it wrote to stderr)."""

    def run(*arguments):
        capsys.readouterr()
        status, said = cli.main(["convert", *map(str, arguments)]), capsys.readouterr()
        assert said.out == ""
        return status, said.err

    return run


def is_one_line(error):
    return error.startswith("error: ") and error.count("\n") == 1


def loaded(path):
    return torch.load(path, weights_only=True)["state"][0]["exp_avg"]


def test_torchao(folder):
    """A file of torchao, which torch reads only once torchao is imported, becomes the numbers that it stands for."""
    pytest.importorskip("torchao")
    state_dict, moments, _ = foreign.SOURCES["torchao 8"]()
    torch.save(state_dict, "torchao.pt")
    done = forked.run_command("-m", "pyadamw", "convert", folder / "torchao.pt", folder / "out.pt", "--to", "torch")
    assert done.returncode == 0, done.stderr
    state = torch.load("out.pt", weights_only=True)["state"]
    for number, (exp_avg, exp_avg_sq, _) in enumerate(moments):
        assert torch.equal(state[number]["exp_avg"], exp_avg)
        assert torch.equal(state[number]["exp_avg_sq"], exp_avg_sq)


# ---- OUT -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", FORMATS)
def test_modes(folder, convert, to):
    """A new file has the mode that the umask leaves, an old one the mode that it had."""
    before = os.umask(0o027)
    try:
        assert convert("good.pt", "new", "--to", to) == (0, "")
        assert stat.S_IMODE(os.stat("new").st_mode) == 0o640
        os.chmod("new", 0o604)
        assert convert("good.pt", "new", "--to", to) == (0, "")
        assert stat.S_IMODE(os.stat("new").st_mode) == 0o604
    finally:
        os.umask(before)
    assert sorted(os.listdir()) == ["good.pt", "new"]


def test_links_lead_to_what_is_replaced(folder, convert):
    os.mkdir("elsewhere")
    for there in (False, True):
        if there:
            (folder / "elsewhere/target").write_text("old")
        os.symlink("elsewhere/target", "out")
        assert convert("good.pt", "out", "--to", "torch") == (0, "")
        assert os.readlink("out") == "elsewhere/target" and torch.equal(loaded("elsewhere/target"), Z)
        os.unlink("out")
        os.unlink("elsewhere/target")
    assert os.listdir("elsewhere") == []
    os.symlink("circle", "circle")
    os.symlink("missing/file", "lost")
    for out in ("circle", "lost"):
        status, error = convert("good.pt", out, "--to", "torch")
        assert status == 1 and is_one_line(error) and out in error
        assert os.path.islink(out)


def test_out_may_be_in(folder, convert):
    assert convert("good.pt", "good.pt", "--to", "torch") == (0, "")
    assert torch.equal(loaded("good.pt"), Z)


@pytest.mark.parametrize("to", FORMATS)
def test_files_beside_out_are_left_alone(folder, convert, to):
    """Neither a file nor a link with a name that one could foresee is written to, or gone afterwards."""
    (folder / "precious").write_text("mine")
    (folder / "out.partial").write_text("mine")
    os.symlink("precious", "other.partial")
    for out in ("out", "other"):
        assert convert("good.pt", out, "--to", to) == (0, "")
        assert not os.path.islink(out)
    assert (folder / "precious").read_text() == (folder / "out.partial").read_text() == "mine"
    assert sorted(os.listdir()) == ["good.pt", "other", "other.partial", "out", "out.partial", "precious"]


def test_the_temporary_file_is_private(folder, convert, monkeypatch):
    """While it is written, no other user can read it, and its name is another each time."""
    seen, save = [], torch.save

    def saving(value, file):
        (name,) = set(os.listdir()) - {"good.pt", "out"}
        seen.append((name, stat.S_IMODE(os.stat(name).st_mode)))
        save(value, file)

    monkeypatch.setattr(torch, "save", saving)
    for _ in range(2):
        assert convert("good.pt", "out", "--to", "torch") == (0, "")
    (one, mode), (other, _) = seen
    assert one != other and mode == 0o600


def special_files(folder):
    os.mkfifo(folder / "fifo")
    os.mkdir(folder / "folder")
    found = ["fifo", "folder", "folder/", "missing/", "missing/file", "good.pt/file", "x" * 300, "a\0b"]
    try:
        os.mknod(folder / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        found.append("device")
    except PermissionError:  # only root may
        pass
    os.symlink("fifo", folder / "link")
    return [*found, "link"]


def test_only_regular_files_are_replaced(folder, convert):
    for out in special_files(folder):
        before = {name: os.lstat(name).st_mode for name in os.listdir()}
        status, error = convert("good.pt", out, "--to", "torch")
        assert status == 1 and is_one_line(error), (out, error)
        assert {name: os.lstat(name).st_mode for name in os.listdir()} == before, out


def test_only_regular_files_are_read(folder, convert):
    """At once: nobody writes into the FIFO."""
    for name in special_files(folder):
        status, error = convert(name, "out", "--to", "torch")
        assert status == 1 and is_one_line(error), (name, error)
        assert not os.path.exists("out")


@pytest.mark.parametrize("to", FORMATS)
def test_a_full_disk(folder, to):
    """Played by the size that a file may have: one line, and the old file is there."""
    large = torch.rand(100_000)
    torch.save(state(exp_avg=large, exp_avg_sq=large), "large.pt")
    (folder / "out").write_text("old")
    script = """
import os, resource, sys
from pyadamw import cli
os.chdir(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
sys.exit(cli.main(["convert", "large.pt", "out", "--to", sys.argv[2]]))
"""
    done = forked.run(script, folder, to)
    assert done.returncode == 1 and is_one_line(done.stderr), done.stderr
    assert "out cannot be written" in done.stderr
    assert (folder / "out").read_text() == "old"
    assert sorted(os.listdir()) == ["good.pt", "large.pt", "out"]


# ---- IN ------------------------------------------------------------------------------------------------------------


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def tensors(header, body=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + body


def with_groups(groups):
    return tensors({"__metadata__": {"param_groups": groups if isinstance(groups, str) else json.dumps(groups)}})


def wide(size):
    return torch.empty(1).expand(size)


MALFORMED = {
    "nothing": b"",
    "code": pickle.dumps(Harm()),
    "code in state": {"state": {0: Harm()}, "param_groups": []},
    "a list": [1, 2],
    "state is a list": {"state": [], "param_groups": []},
    "groups are a dict": {"state": {}, "param_groups": {}},
    "groups are numbers": {"state": {}, "param_groups": [1]},
    "groups are nothing": {"state": {}, "param_groups": None},
    "no params": {"state": {}, "param_groups": [{"lr": 0.1}]},
    "params are a number": group(params=5),
    "params are lists": group(params=[[0]]),
    "params twice": group(params=[0, 0]),
    "no betas": {"state": {}, "param_groups": [{"params": [0], "lr": 0.1}]},
    "of SGD": {"state": {}, "param_groups": [{"params": [0], "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}]},
    "betas are one": group(betas=(0.9, 1.0)),
    "betas are words": group(betas="ab"),
    "lr is a word": group(lr="x"),
    "lr is NaN": group(lr=float("nan")),
    "lr is meta": group(lr=torch.empty((), device="meta")),
    "format is a word": group(pyadamw_format="two"),
    "entry is a list": {"state": {0: [1]}, "param_groups": [GROUP]},
    "entry is empty of moments": {"state": {0: {"step": 1}}, "param_groups": [GROUP]},
    "step 1e300": state(step=1e300),
    "step is 10^400": state(step=10**400),
    "step is a word": state(step="x"),
    "step of two": state(step=torch.ones(2)),
    "step is meta": state(step=torch.empty((), device="meta")),
    "step below zero": state(step=-1),
    "negative": state(exp_avg_sq=Z - 1),
    "negative for amsgrad": state(max_exp_avg_sq=Z - 1),
    "NaN": state(exp_avg=NAN),
    "NaN squared": state(exp_avg_sq=NAN),
    "meta": state(exp_avg=Z.to("meta")),
    "sparse": state(exp_avg=torch.eye(3).to_sparse()),
    "nested": state(exp_avg=torch.nested.nested_tensor([Z, Z])),
    "quantized": state(exp_avg=torch.quantize_per_tensor(Z, 0.1, 0, torch.quint8)),
    "eight-bit floats": state(exp_avg=Z.to(torch.float8_e4m3fn)),
    "whole numbers": state(exp_avg=Z.long()),
    "a word": state(exp_avg="x"),
    "shapes differ": state(exp_avg_sq=torch.zeros(6)),
    "giant": state(exp_avg=wide(2**40), exp_avg_sq=wide(2**40)),
    "codes without scales": state(exp_avg=CODES, exp_avg_sq=CODES),
    "NaN scales": state(exp_avg=CODES, exp_avg_sq=CODES, exp_avg_absmax=NAN[:1], exp_avg_sq_absmax=Z[:1]),
    "negative scales": state(exp_avg=CODES, exp_avg_sq=CODES, exp_avg_absmax=Z[:1] - 1, exp_avg_sq_absmax=Z[:1]),
    "a floor of NaN": today(exp_avg_sq_floor=NAN[:1]),
    "a floor above 1": today(exp_avg_sq_floor=Z[:1] + 1.5),
    "no floor": today(exp_avg_sq_floor=None),
    "a damaged history": state(gnorm_history=torch.full((100,), -1.0)),
    "a short history": state(gnorm_history=torch.ones(3)),
    "later.safetensors": with_groups([{**GROUP, "pyadamw_format": 99}]),
    "groups5.safetensors": with_groups(5),
    "groupsnull.safetensors": with_groups(None),
    "deep.safetensors": with_groups("[" * 20_000),
    "nobetas.safetensors": with_groups([{"params": [0]}]),
    "betas5.safetensors": with_groups([{**GROUP, "betas": 5}]),
    "grouplist.safetensors": with_groups([[1]]),
    "nogroups.safetensors": tensors({"__metadata__": {}}),
    "nojson.safetensors": with_groups("{"),
    "truncated.safetensors": with_groups([])[:20],
    "hugeheader.safetensors": struct.pack("<Q", 2**63) + b"{" + b" " * 50,
    "giant.safetensors": tensors({"x": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files(folder, convert, name, to):
    content = MALFORMED[name]
    if isinstance(content, bytes):
        (folder / "in").write_bytes(content)
    else:
        torch.save(content, "in")
    status, error = convert("in", "out", "--to", to)
    assert status == 1 and is_one_line(error), error
    assert sorted(os.listdir()) == ["good.pt", "in"]


def test_what_safetensors_cannot_hold(folder, convert):
    for content, word in (
        (group(extra=torch.ones(3)), "group 0: extra"),
        (group(extra={"x": torch.ones(1)}), "group 0: extra"),
        ({**state(exp_avg=CODES, exp_avg_sq=CODES, exp_avg_absmax=Z[:1], exp_avg_sq_absmax=Z[:1], x="y")}, "x"),
    ):
        torch.save(content, "in")
        status, error = convert("in", "out", "--to", "safetensors")
        assert status == 1 and is_one_line(error) and word in error
        assert not os.path.exists("out")


def test_infinite_moments_are_kept(folder, convert):
    """A spike leaves them, and load_state_dict() takes them."""
    torch.save(state(exp_avg_sq=torch.full((5,), float("inf"))), "in")
    assert convert("in", "out", "--to", "torch") == (0, "")
    assert loaded("out").isfinite().all()


# ---- what lies in the current folder ---------------------------------------------------------------------------------


@needs_safetensors
@pytest.mark.parametrize("terminal", [False, True])
def test_packages_in_the_current_folder_are_not_imported(folder, terminal):
    """Not even those that draw progress at a terminal, or that read safetensors."""
    for package in ("rich", "safetensors"):
        os.mkdir(package)
        for module in ("__init__", "progress", "console", "torch"):
            (folder / package / f"{module}.py").write_text("import os; os.mkdir('imported')\n")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pyadamw", "convert", "good.pt", "out", "--to", "safetensors"]
    error = theirs if terminal else subprocess.DEVNULL
    done = subprocess.run(command, env=changed_environment({}), stderr=error, timeout=120, check=False)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0
    assert not os.path.exists("imported") and os.path.exists("out")


def test_out_of_memory(folder):
    """One line, too."""
    large = torch.rand(3_000_000)
    torch.save(state(exp_avg=large, exp_avg_sq=large), "large.pt")
    script = """
import os, resource, sys, torch
from pyadamw import cli
torch.set_num_threads(1)
os.chdir(sys.argv[1])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 30_000_000, resource.RLIM_INFINITY))
sys.exit(cli.main(["convert", "large.pt", "out", "--to", "torch"]))
"""
    done = forked.run(script, folder)
    assert done.returncode == 1 and is_one_line(done.stderr), done.stderr
    assert sorted(os.listdir()) == ["good.pt", "large.pt"]
