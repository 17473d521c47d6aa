"""Owns what is to be known of GPUs: driver, devices, and whether torch, libadamw and they fit together. Must not know
of steps on the CPU.

Without a library for CUDA, or without a driver, no function of CUDA is called. Where there are both, the driver is
asked for what it knows of its devices; no context is made on them.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._findings import Finding

OLDEST_DRIVER, OLDEST_CUDA = 530, 12010  # as libadamw/gpu/driver.cpp says
DRIVER_OF_CUDA = {13: 580}  # the oldest driver for a torch of this major, where OLDEST_DRIVER is too old
OLDEST_CAPABILITY = (7, 5)
JETSON_ORIN = (8, 7)
# Of CUdevice_attribute
_MAJOR, _MINOR, _CONCURRENT_MANAGED = 75, 76, 89
_SAID = {
    100: (
        "it sees no GPU",
        "Look at CUDA_VISIBLE_DEVICES; in a container, start it with its GPUs (docker: --gpus all).",
    ),
    802: ("the system is not ready", "Start nvidia-fabricmanager."),
    803: ("its parts have different versions", "Restart the machine, or install the driver again."),
}


def facts(found: dict[str, Any], root: str = "/") -> dict[str, Any]:
    """`found`: facts of the library. `root`: where the folders proc and dev are."""
    version = _driver_version(Path(root))
    present = version is not None or any((Path(root) / "dev" / name).exists() for name in ("nvidiactl", "dxg"))
    asked = _asked() if present and found["library"]["cuda"] else {"cuda": None, "status": None, "gpus": None}
    driver = {"present": present, "version": version, "cuda": asked["cuda"], "status": asked["status"]}
    return {
        "driver": driver,
        "gpus": asked["gpus"],
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def _driver_version(root: Path) -> str | None:
    try:
        text = (root / "proc/driver/nvidia/version").read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)", text)
    return found[1] if found else None


def driver_library() -> Any:
    """The CUDA driver."""
    return ctypes.CDLL("libcuda.so.1")


def _asked() -> dict[str, Any]:
    """What the driver says: the newest CUDA that it knows, its status (0: all is well), its devices."""
    try:
        driver = driver_library()
    except OSError as error:
        return {"cuda": None, "status": str(error), "gpus": None}
    number = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(number))
    cuda = number.value
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(number))
    if status:
        return {"cuda": cuda, "status": status, "gpus": None}
    return {"cuda": cuda, "status": 0, "gpus": [_device(driver, place) for place in range(number.value)]}


def _device(driver: Any, place: int) -> dict[str, Any]:
    device, number = ctypes.c_int(0), ctypes.c_int(0)
    name, size = ctypes.create_string_buffer(256), ctypes.c_size_t(0)
    driver.cuDeviceGet(ctypes.byref(device), place)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)

    def attribute(which: int) -> int:
        number.value = 0
        driver.cuDeviceGetAttribute(ctypes.byref(number), which, device)
        return number.value

    managed = bool(attribute(_CONCURRENT_MANAGED))
    return {
        "name": name.value.decode("utf-8", "replace"),
        "compute_capability": f"{attribute(_MAJOR)}.{attribute(_MINOR)}",
        "memory_bytes": size.value,
        "concurrent_managed_access": managed,
        "default_pages": "managed" if managed else "pinned",  # as PageManager chooses
    }


# ---- findings --------------------------------------------------------------------------------------------------------


def findings(found: dict[str, Any]) -> Iterator[Finding]:
    library, driver = found["library"], found["driver"]
    major = int(found["torch_cuda"].split(".")[0]) if found["torch_cuda"] else None
    named = f"NVIDIA driver {driver['version']}" if driver["version"] else "an NVIDIA driver"
    if library["path"] is not None and not library["cuda"] and major is not None:
        text = f"libadamw is for the CPU only, and torch is for CUDA {found['torch_cuda']}: GPUs are refused."
        if driver["present"]:
            yield Finding("error", "gpu", text, f"{library['refuses_gpus']}.")
        else:
            yield Finding("note", "gpu", text, f"On a machine with a GPU: {library['refuses_gpus']}.")
    if major is None and driver["present"]:
        text = f"This machine has {named}, but torch is built without CUDA: nothing runs on its GPUs."
        cure = 'Install a torch for CUDA 12 or 13 (see "Get Started" on PyTorch\'s site), then run this command again.'
        yield Finding("warning", "gpu", text, cure)
    if library["cuda"]:
        yield from _of_cuda_library(found, major, named)
    elif library["path"] is not None and major is None and not driver["present"]:
        yield Finding("ok", "gpu", "No NVIDIA driver is here: torch and libadamw are for the CPU.")


def _of_cuda_library(found: dict[str, Any], major: int | None, named: str) -> Iterator[Finding]:
    library, driver = found["library"], found["driver"]
    if major not in (None, library["cuda"]):
        text = f"libadamw is for CUDA {library['cuda']}, and torch is for CUDA {found['torch_cuda']}."
        cure = f"Install a libadamw for CUDA {major}: only builds of one CUDA are tested together."
        yield Finding("warning", "gpu", text, cure)
    if not driver["present"]:
        text = f"libadamw is for CUDA {library['cuda']}, but no NVIDIA driver is here: steps run on the CPU."
        yield Finding("note", "gpu", text, "In a container, start it with the host's GPUs (docker: --gpus all).")
        return
    number = int(driver["version"].split(".")[0]) if driver["version"] else None
    needed = DRIVER_OF_CUDA.get(major or 0, OLDEST_DRIVER)
    if (number is not None and number < OLDEST_DRIVER) or (driver["cuda"] and driver["cuda"] < OLDEST_CUDA):
        text = f"This machine has {named}, but libadamw needs {OLDEST_DRIVER} (CUDA 12.1) or newer."
        yield Finding("error", "driver", text, f"Install NVIDIA driver {needed} or newer.")
        return
    if number is not None and number < needed:
        text = f"This machine has {named}, but a torch for CUDA {major} needs {needed} or newer."
        yield Finding("warning", "driver", text, f"Install NVIDIA driver {needed} or newer, or a torch for CUDA 12.")
    if driver["status"]:
        said, cure = _SAID.get(driver["status"], ("it does not start", "Look at the system's log (dmesg)."))
        text = f"The driver cannot be used: {said} ({driver['status']})."
        hidden = found["cuda_visible_devices"]
        text += f" CUDA_VISIBLE_DEVICES is {hidden!r}." if hidden is not None else ""
        yield Finding("warning", "driver", text, cure)
        return
    known = f"CUDA {driver['cuda'] // 1000}.{driver['cuda'] % 1000 // 10}" if driver["cuda"] else "an unknown CUDA"
    yield Finding("ok", "driver", f"This machine has {named}, which knows {known}.")
    yield from _of_devices(found)


def _of_devices(found: dict[str, Any]) -> Iterator[Finding]:
    gpus = found["gpus"] or []
    none_usable = all(_capability(gpu) < OLDEST_CAPABILITY for gpu in gpus)
    for place, gpu in enumerate(gpus):
        who = f"GPU {place}, {gpu['name']},"
        capability = _capability(gpu)
        if capability < OLDEST_CAPABILITY:
            oldest = ".".join(map(str, OLDEST_CAPABILITY))
            text = f"{who} has compute capability {gpu['compute_capability']}: libadamw needs {oldest} or newer."
            yield Finding(
                "error" if none_usable else "warning",
                "gpu",
                text,
                "Use another GPU, or keep these parameters on the CPU.",
            )
            continue
        how = _code(capability, found["library"]["architectures"] or [])
        if how == "none":
            text = f"libadamw has no code for {who} with compute capability {gpu['compute_capability']}."
            build = f"ADAMW_CUDA={found['library']['cuda']} pip install ."
            option = f"-C cmake.define.ADAMW_CUDA_ARCHITECTURES={''.join(map(str, capability))}"
            yield Finding("error", "gpu", text, f"Build it for this GPU: {build} {option}")
            continue
        if how == "ptx":
            text = f"libadamw has no machine code for {who} with compute capability {gpu['compute_capability']}."
            yield Finding(
                "note", "gpu", text, "The driver compiles its kernels when they are first used, and keeps them."
            )
        managed = gpu["concurrent_managed_access"]
        pages = (
            "unified memory"
            if managed
            else "page-locked host memory, since unified memory cannot be oversubscribed here"
        )
        yield Finding(
            "ok",
            "gpu",
            f"{who} has compute capability {gpu['compute_capability']} and {gpu['memory_bytes'] / 2**30:,.1f} GiB; the "
            f'default of paged state is "{gpu["default_pages"]}": {pages}.',
        )
    limit = found["limits"]["locked_memory_bytes"]
    if limit is not None and any(not gpu["concurrent_managed_access"] for gpu in gpus):
        text = (
            f'This process may lock {limit >> 20:,} MiB of memory (ulimit -l); "pinned" pages are locked by the driver.'
        )
        cure = "If they are refused for lack of memory: ulimit -l unlimited (docker: --ulimit memlock=-1)."
        yield Finding("note", "locked memory", text, cure)


def _capability(gpu: dict[str, Any]) -> tuple[int, ...]:
    return tuple(map(int, gpu["compute_capability"].split(".")))


def _code(capability: tuple[int, ...], architectures: list[str]) -> str:
    """Which code of the library such a device runs: "machine", which is for one major version, "ptx" or "none".

    Jetson Orin is of a version that others have, and runs no other code than its own."""
    real = [divmod(int(name), 10) for name in architectures if name.isdecimal()]
    same = [minor for major, minor in real if major == capability[0]]
    fits = capability in real if capability == JETSON_ORIN else any(minor <= capability[1] for minor in same)
    if not real or fits:
        return "machine"
    virtual = [divmod(int(name[3:]), 10) for name in architectures if re.fullmatch(r"ptx\d+", name)]
    return "ptx" if any(one <= capability for one in virtual) else "none"
