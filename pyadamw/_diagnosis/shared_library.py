"""Owns what is to be known of libadamw here: which file it is, whether it loads and fits, its CPU kernel. Must not know
of GPUs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .._findings import Finding
from .._native import library as loading
from ..errors import AdamWError, LibraryNotFoundError, VersionError
from ..optim import AdamW8bit

OVERRIDE = "ADAMW_CPU"
# What /proc/cpuinfo must say for a kernel; others run everywhere.
_NEEDS = {
    "avx512": {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx2": {"avx2", "fma", "f16c"},
}


def facts(cpuinfo: str = "/proc/cpuinfo") -> dict[str, Any]:
    found: dict[str, Any] = {
        "path": None,
        "candidates": [{"path": str(path), "exists": os.path.lexists(path)} for path in loading.candidates()],
        "chosen_by_environment": os.environ.get(loading.ENVIRONMENT) or None,
        "version": None,
        "build": None,
        "cuda": None,
        "architectures": None,
        "refuses_gpus": None,
        "threads": None,
        "kernel": None,
        "kernels": None,
        "best_kernel": None,
        "kernel_chosen_by_environment": os.environ.get(OVERRIDE) or None,
        "step_problem": None,
        "problem": None,
        "problem_kind": None,
    }
    try:
        loaded = loading.library()
        build = loaded.build_info()
        found.update(path=str(loaded.path), version=loaded.version(), build=build, cuda=loaded.cuda)
        found["architectures"] = _words(r"architectures ([^,]*)", build)
        found["kernels"] = _words(r"kernels ([^,]*)", build)
        found["best_kernel"] = _best(found["kernels"], cpuinfo)
        found["threads"] = loaded.lib.adamw_get_num_threads()
        found["refuses_gpus"] = _why_no_gpu(loaded)
        found["kernel"] = loaded.cpu_kernel()
        found["step_problem"] = _why_no_step()
    except AdamWError as error:
        found.update(problem=" ".join(str(error).split()), problem_kind=type(error).__name__)
    return {"library": found}


def _words(pattern: str, build: str) -> list[str]:
    found = re.search(pattern, build)
    return found[1].split() if found else []


def _best(kernels: list[str], cpuinfo: str) -> str | None:
    """The first kernel that this processor can run: the library lists the fastest first."""
    try:
        flags = set(re.findall(r"^flags\s*:(.*)$", Path(cpuinfo).read_text(), re.MULTILINE)[0].split())
    except (OSError, IndexError):  # of other architectures
        flags = set()
    return next((name for name in kernels if _NEEDS.get(name, set()) <= flags), None)


def _why_no_gpu(loaded: Any) -> str | None:
    """Why it refuses parameters on a GPU, and what to do; None if it does not."""
    try:
        loaded.device_number(torch.device("cuda", 0), "a parameter")
        return None
    except AdamWError as error:
        return str(error).rpartition(f"{loaded.path} is for the CPU only. ")[2]


def _why_no_step() -> str | None:
    """Why a small step on the CPU fails; None if it does what it must."""
    param = torch.nn.Parameter(torch.ones(1024, dtype=torch.float32, device="cpu"))
    param.grad = torch.ones(1024, dtype=torch.float32, device="cpu")
    try:
        AdamW8bit([param], lr=0.1, weight_decay=0.0, min_8bit_size=0).step()
    except Exception as error:  # whatever it is
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    # The first step moves every weight by lr.
    return None if ((param - 0.9).abs() < 1e-3).all() else "it makes wrong numbers"


def findings(found: dict[str, Any]) -> Iterator[Finding]:
    facts_ = found["library"]
    environment = facts_["chosen_by_environment"]
    if facts_["path"] is None:
        yield Finding("error", "library", _sentence(facts_["problem"]), _cure(facts_))
        return
    fits = f"libadamw {facts_['version']} loads from {facts_['path']}, fits this pyadamw, and steps."
    if facts_["step_problem"] is not None:
        text = f"A step on the CPU fails: {_sentence(facts_['step_problem'])}"
        yield Finding("error", "step", text, "Install a pyadamw and a libadamw of one version and one build.")
    else:
        yield Finding("ok", "library", fits)
    if facts_["version"] != found["pyadamw"]:
        text = f"libadamw is version {facts_['version']}, and pyadamw is {found['pyadamw']}."
        yield Finding("note", "library", text, "They work together; versions that were tested together are equal.")
    if environment is not None:
        text = f"The environment variable {loading.ENVIRONMENT} = {environment} chose the library."
        yield Finding("note", "library", text, "Unset it to use the library that belongs to this pyadamw.")
    if facts_["build"] and "OpenMP" not in facts_["build"]:
        text = "libadamw has no OpenMP here: a step on the CPU starts threads of its own, which takes time."
        yield Finding("warning", "library", text, "Take a torch with it, or build libadamw with a compiler that does.")
    yield from _of_kernel(facts_)


def _of_kernel(facts_: dict[str, Any]) -> Iterator[Finding]:
    kernel, best, wanted = facts_["kernel"], facts_["best_kernel"], facts_["kernel_chosen_by_environment"]
    if kernel is None:
        yield Finding("error", "kernel", _sentence(facts_["problem"]), f"Unset {OVERRIDE}.")
    elif wanted is not None and best not in (None, kernel):
        text = f"{OVERRIDE} = {wanted} forces a CPU kernel that is slower than {best}, which this processor can run."
        yield Finding("warning", "kernel", text, f"Unset {OVERRIDE}. The results have the same bits.")
    elif wanted is not None:
        text = f"{OVERRIDE} = {wanted} chooses the CPU kernel that would be chosen anyway."
        yield Finding("note", "kernel", text, f"Unset {OVERRIDE}, so that other machines choose for themselves.")
    elif kernel == "scalar":
        text = "This processor can run only the scalar CPU kernel, which is slow: it has no AVX2."
        yield Finding("note", "kernel", text, "If this is a virtual machine, let it have the features of its host.")
    else:
        yield Finding("ok", "kernel", f"The CPU kernel is {kernel}, the fastest for this processor.")


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _cure(facts_: dict[str, Any]) -> str:
    name = loading.ENVIRONMENT
    if facts_["chosen_by_environment"]:
        return f"Unset {name}, or set it to a libadamw.so for this machine and this pyadamw."
    if facts_["problem_kind"] == VersionError.__name__:
        return "Install a pyadamw and a libadamw of one version."
    if facts_["problem_kind"] == LibraryNotFoundError.__name__:
        return f"Install pyadamw again (in a clone: `pip install .`), or set {name} to a libadamw.so."
    return "Install pyadamw again."
