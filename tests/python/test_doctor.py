"""Owns the laws of `python -m pyadamw info`, on this machine and with what can really be wrong on it: what is wrong is
said, as text and as JSON, and the status is 1 only if pyadamw does not work. Must not know how findings are made.
"""

import json
import os
import platform
import shutil
import subprocess

import forked
import pytest
import torch
from commands import command

from pyadamw._diagnosis import disk, packages
from pyadamw._native import library

LEVELS = {"ok", "note", "warning", "error"}
CPU = library.PACKAGED / "libadamw_cpu.so"
INFO = "import sys; from pyadamw import cli; sys.exit(cli.main(['info', *sys.argv[1:]]))"
KEYS = {
    *("pyadamw", "torch", "torch_cuda", "python", "machine", "packages", "library", "processors", "threads", "openmp"),
    *("memory", "limits", "file_pages", "driver", "gpus", "cuda_visible_devices"),
}


def info(*arguments, script=INFO, **environment):
    done = forked.run(script, *arguments, **environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def findings_of(**environment):
    """(the findings by subject and level, the exit status)"""
    done = info("--json", **environment)
    found = json.loads(done.stdout)
    assert set(found) == {"facts", "findings"} and set(found["facts"]) == KEYS
    assert all(set(one) == {"level", "subject", "text", "cure"} for one in found["findings"])
    assert done.returncode == int(any(one["level"] == "error" for one in found["findings"]))
    assert bool(done.stderr) == bool(done.returncode)
    return {(one["subject"], one["level"]): one for one in found["findings"]}, done.returncode


def test_this_machine():
    """Text and JSON say the same, every finding has a known level, and facts are facts of this process."""
    status, out, _ = command("info", "--json")
    found = json.loads(out)
    assert set(found["facts"]) == KEYS and {one["level"] for one in found["findings"]} <= LEVELS
    assert found["facts"]["library"]["path"] == str(library.library().path)
    assert found["facts"]["threads"]["torch"] == torch.get_num_threads() == 1
    assert found["facts"]["torch"] == torch.__version__
    again, out, _ = command("info")
    assert again == status
    for one in found["findings"]:
        assert one["text"].split(", with")[0] in out and one["cure"] in out
    assert [line.split()[0] for line in out.splitlines()[:4]] == ["pyadamw", "torch", "python", "machine"]
    assert all(f"\n{word}  " in out for word in ("library", "build", "threads", "kernel", "file pages", "driver"))


def test_versions_without_imports():
    """Versions of other packages are found without importing them."""
    script = (
        INFO.replace("sys.exit(", "status = (") + "\nprint(sorted({'transformers', 'bitsandbytes'} & set(sys.modules)))"
    )
    out = info("--json", script=script).stdout
    found, imported = out.rsplit("}\n", 1)
    versions = json.loads(found + "}")["facts"]["packages"]
    assert imported.strip() == "[]"
    assert versions["transformers"] and versions["bitsandbytes"]


def test_missing_packages(monkeypatch):
    """A package that is not there is None, and the commands that need it are named."""

    def version(name):
        raise packages.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "version", version)
    facts = packages.facts()
    assert set(facts["packages"].values()) == {None}
    assert [finding.level for finding in packages.findings(facts)] == ["note"] * 3


@pytest.mark.parametrize("what", ["text", "another library", "another ABI", "older", "a folder", "cut off"])
def test_a_wrong_library(what, tmp_path):
    """PYADAMW_LIBRARY that names a file that is none, or does not fit, is an error in valid JSON, with status 1."""
    path = tmp_path / "wrong.so"
    versions = "int adamw_abi_version(void) {{ return {}; }} int adamw_version(void) {{ return {}; }}"
    code = {
        "another library": "int another;",
        "another ABI": versions.format(77, 10000),
        "older": versions.format(1, 902),
    }
    if what == "text":
        path.write_text("no library")
    elif what == "a folder":
        path.mkdir()
    elif what == "cut off":
        path.write_bytes(CPU.read_bytes()[:4096])
    else:
        compiler = os.environ.get("CC", "cc")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", path], input=code[what], text=True, check=True
        )
    found, status = findings_of(PYADAMW_LIBRARY=str(path))
    assert status == 1
    assert str(path) in found["library", "error"]["text"] and "PYADAMW_LIBRARY" in found["library", "error"]["cure"]
    done = info(PYADAMW_LIBRARY=str(path))
    assert done.returncode == 1 and str(path) in done.stderr and f"{path} (there)" in done.stdout


def test_kernels():
    """A kernel that ADAMW_CPU forces is a warning if it is slower, an error if there is none of this name."""
    found, status = findings_of(ADAMW_CPU="scalar")
    assert status == 0 and (("kernel", "warning") in found or platform.machine() != "x86_64")
    found, status = findings_of(ADAMW_CPU="mmx")
    assert status == 1 and "mmx" in found["kernel", "error"]["text"]
    assert ("library", "ok") in found


def test_a_step_is_tried():
    """A library that loads, but whose step fails or makes wrong numbers, is an error."""
    for body, said in (("raise ValueError('it is broken')", "it is broken"), ("pass", "wrong numbers")):
        script = f"""
from pyadamw import optim
def step(self, closure=None):
    {body}
optim.AdamW8bit.step = step
{INFO}"""
        done = info("--json", script=script)
        found = json.loads(done.stdout)["findings"]
        (text,) = (one["text"] for one in found if one["level"] == "error")
        assert done.returncode == 1 and said in text


def test_two_openmp_pools(tmp_path):
    """A second OpenMP library in the process, as a package may bring it, is found and named."""
    (pool,) = json.loads(info("--json").stdout)["facts"]["openmp"]  # of a process in which only torch brings one
    shutil.copy(os.path.realpath(pool), tmp_path / "libgomp.so.1")
    script = f"import ctypes; ctypes.CDLL({str(tmp_path / 'libgomp.so.1')!r})\n{INFO}"
    found = json.loads(info("--json", script=script).stdout)
    assert found["facts"]["openmp"] == sorted([pool, str(tmp_path / "libgomp.so.1")])
    (text,) = (one["text"] for one in found["findings"] if (one["subject"], one["level"]) == ("openmp", "warning"))
    assert str(tmp_path) in text


def test_directories(tmp_path):
    """A directory for file pages that is missing, is none, cannot be written or is in memory is a warning."""
    (tmp_path / "file").write_text("")
    for directory, said in ((tmp_path / "none", "No such file"), (tmp_path / "file", "directory"), ("/proc", "/proc")):
        found, status = findings_of(TMPDIR=str(directory))
        assert status == 0
        assert said in found["file pages", "warning"]["text"] and "TMPDIR" in found["file pages", "warning"]["cure"]
    if disk._file_system("/dev/shm", disk.Path("/")) == "tmpfs":
        found, status = findings_of(TMPDIR="/dev/shm")
        assert (
            status == 0 and "/dev/shm (TMPDIR chose it), which is in memory" in found["file pages", "warning"]["text"]
        )


def test_a_full_directory(tmp_path):
    """Where no byte can be reserved, as on a full disk, the error of the library is the finding."""
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, -1))\nimport signal\n"
    limited += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    reader, writer = os.pipe()  # stdout is a file, which the limit would stop
    script = f"{limited}import os, sys\nos.dup2(os.open({str(tmp_path / 'pipe')!r}, os.O_WRONLY), 1)\n{INFO}"
    os.close(reader)
    os.close(writer)
    os.mkfifo(tmp_path / "pipe")
    kept = os.open(tmp_path / "pipe", os.O_RDWR)  # so that nobody waits for the other end
    info("--json", script=script, TMPDIR=str(tmp_path))
    found = json.loads(os.read(kept, 1 << 16))
    os.close(kept)
    (text,) = (one["text"] for one in found["findings"] if one["subject"] == "file pages")
    assert "does not have enough free space" in text and "Errno" not in text
    assert os.listdir(tmp_path) == ["pipe"]


def test_nothing_is_left(tmp_path):
    """Trying the directory leaves nothing in it."""
    findings_of(TMPDIR=str(tmp_path))
    findings_of(TMPDIR=str(tmp_path), PYADAMW_LIBRARY="/nowhere.so")
    assert os.listdir(tmp_path) == []


def test_without_a_library_the_rest_is_said():
    found, status = findings_of(PYADAMW_LIBRARY="/nowhere.so")
    assert status == 1 and ("library", "error") in found
    assert {subject for subject, _ in found} >= {"threads", "file pages"}


def test_on_a_terminal(monkeypatch):
    """On a terminal, with rich or without, each finding and each cure is there as a whole."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("ADAMW_CPU", "avx512")  # which is noted, with a cure
    found = json.loads(command("info", "--json")[1])["findings"]
    without_spaces = "".join(command("info", terminal=True)[1].split())
    for one in found:
        for text in (one["text"].split(", with")[0], one["cure"]):
            assert "".join(text.split()) in without_spaces
    monkeypatch.setattr("pyadamw._commands.output.optional", lambda name: None)
    out = command("info", terminal=True)[1]
    assert all(one["text"].split(", with")[0] in out and one["cure"] in out for one in found)
