"""Owns the law of the facts of the doctor: they are what the files of the system and the driver say, here those that
are made up; no driver is called in vain. Must not know what is made of facts.
"""

import ctypes
import os

import pytest

from pyadamw._diagnosis import disk, gpu, host, shared_library

# ---- files -----------------------------------------------------------------------------------------------------------


def files(root, **content):
    """Files under `root`: a "/" in a name is written as "__"."""
    for name, text in content.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_quotas(tmp_path, monkeypatch):
    """The smallest quota of the control groups counts, of either version, also where only the topmost is there."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    groups = "0::/a/b\n"
    root = files(
        tmp_path / "2",
        proc__self__cgroup=groups,
        **{"sys__fs__cgroup__a__cpu.max": "250000 100000\n", "sys__fs__cgroup__a__b__cpu.max": "max 100000\n"},
    )
    assert host.facts(1, root)["processors"] == {"machine": os.cpu_count(), "allowed": 16, "quota": 2.5, "usable": 3}
    root = files(tmp_path / "top", proc__self__cgroup="0::/not/here\n", **{"sys__fs__cgroup__cpu.max": "50000 100000"})
    assert host.facts(1, root)["processors"]["usable"] == 1
    root = files(
        tmp_path / "1",
        proc__self__cgroup="4:memory:/x\n3:cpu,cpuacct:/docker/x\n",
        **{
            "sys__fs__cgroup__cpu,cpuacct__cpu.cfs_quota_us": "400000\n",
            "sys__fs__cgroup__cpu,cpuacct__cpu.cfs_period_us": "100000\n",
        },
    )
    assert host.facts(1, root)["processors"]["quota"] == 4
    root = files(
        tmp_path / "none",
        proc__self__cgroup="3:cpu:/\n",
        **{"sys__fs__cgroup__cpu__cpu.cfs_quota_us": "-1\n", "sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000\n"},
    )
    assert host.facts(1, root)["processors"] == {"machine": os.cpu_count(), "allowed": 16, "quota": None, "usable": 16}


def test_memory(tmp_path):
    """What is free is the least that the machine and the control groups leave."""
    meminfo = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable:    800 kB\n"
    assert host.facts(1, files(tmp_path / "a", proc__meminfo=meminfo))["memory"] == {
        "total": 1024000,
        "limit": None,
        "available": 819200,
    }
    for name, group, used in (("memory.max", "0::/g", "memory.current"), ("memory.limit_in_bytes", "9:memory:/g", "")):
        folder = "sys__fs__cgroup__g__" if used else "sys__fs__cgroup__memory__g__"
        limits = {folder + name: "500000\n", folder + (used or "memory.usage_in_bytes"): "450000\n"}
        root = files(tmp_path / name, proc__meminfo=meminfo, proc__self__cgroup=f"{group}\n", **limits)
        assert host.facts(1, root)["memory"] == {"total": 1024000, "limit": 500000, "available": 50000}
    huge = {"sys__fs__cgroup__memory__memory.limit_in_bytes": "9223372036854771712\n"}
    root = files(tmp_path / "huge", proc__meminfo=meminfo, proc__self__cgroup="9:memory:/\n", **huge)
    assert host.facts(1, root)["memory"]["limit"] is None
    nothing = host.facts(1, str(tmp_path / "nothing"))
    assert nothing["memory"] == {"total": None, "limit": None, "available": None} and nothing["openmp"] == []


def test_openmp_pools(tmp_path):
    """Libraries of OpenMP are found by their names, each once, and no others."""
    line = "7f0000000000-7f0000001000 r-xp 00000000 fe:00 12345    {}\n"
    own = ["/t/lib/libgomp-a34b3233.so.1", "/s s/libgomp.so.1.0.0", "/k/libiomp5.so", "/l/libomp.so.5"]
    others = ["/t/libtorch.so", "/l/libompd.so", "/x/libgompertz.so", "[heap]", ""]
    maps = "".join(line.format(path) for path in [*own, *others, *own])
    assert host.facts(1, files(tmp_path, proc__self__maps=maps))["openmp"] == sorted(own)


@pytest.mark.parametrize(
    "directory, expected", [("/data/x", "xfs"), ("/data", "xfs"), ("/database", "ext4"), ("/with space/x", "nfs4")]
)
def test_file_systems(directory, expected, tmp_path, monkeypatch):
    """The file system is that of the innermost mount; of two at one place, the later one."""
    monkeypatch.setattr(os.path, "realpath", lambda path: path)
    lines = ["1 0 254:0 / / rw - ext4 /dev/vda rw", "2 1 0:5 / /data rw shared:1 - tmpfs none rw"]
    lines += ["3 1 0:6 / /data rw - xfs /dev/b rw", "4 1 0:7 / /with\\040space rw - nfs4 server:/ rw", "torn line"]
    root = files(tmp_path, proc__self__mountinfo="\n".join(lines))
    monkeypatch.setenv("TMPDIR", directory)
    found = disk.facts({"library": {"path": None}}, root)["file_pages"]
    assert (found["file_system"], found["directory"], found["chosen_by"]) == (expected, directory, "TMPDIR")
    assert found["problem"] and found["free_bytes"] is None  # there is no such directory here


@pytest.mark.parametrize("flags, best", [("avx2 fma f16c sse2", "avx2"), ("sse2", "scalar")])
def test_the_best_kernel(flags, best, tmp_path):
    """Which kernel is the fastest here is told from the processor, whatever ADAMW_CPU says."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags\t\t: fpu {flags}\n\nprocessor : 1\nflags\t\t: fpu {flags}\n")
    assert shared_library._best(["avx512", "avx2", "scalar"], str(cpuinfo)) == best
    assert shared_library._best(["neon", "scalar"], str(tmp_path / "none")) == "neon"


def test_the_best_kernel_is_the_chosen_one(monkeypatch):
    """Without ADAMW_CPU, the library chooses the kernel that the doctor calls the fastest."""
    facts = shared_library.facts()["library"]
    if facts["kernel_chosen_by_environment"] is None:
        assert facts["best_kernel"] == facts["kernel"]


# ---- a driver --------------------------------------------------------------------------------------------------------


CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (dvs-builder@x)\n"


class Driver:
    """libcuda.so.1 with two devices. Calls beside those of the real one fail."""

    capabilities = ((9, 0), (7, 5))

    def __init__(self, status=0):
        self.status = status

    def cuDriverGetVersion(self, number):
        number._obj.value = 13000
        return 0

    def cuInit(self, flags):
        return self.status

    def cuDeviceGetCount(self, number):
        number._obj.value = 2
        return 0

    def cuDeviceGet(self, device, place):
        device._obj.value = place
        return 0

    def cuDeviceGetName(self, name, length, device):
        name.value = f"GPU number {device.value}".encode()
        return 0

    def cuDeviceTotalMem_v2(self, size, device):
        assert isinstance(size._obj, ctypes.c_size_t)
        size._obj.value = (device.value + 1) << 33
        return 0

    def cuDeviceGetAttribute(self, number, which, device):
        major, minor = self.capabilities[device.value]
        number._obj.value = {75: major, 76: minor, 89: 1 - device.value}[which]
        return 0


@pytest.mark.parametrize("text, version", [(CLOSED, "550.54.15"), (OPEN, "580.82.07")])
def test_devices(text, version, tmp_path, monkeypatch):
    """The driver's version comes from the kernel, the devices from the driver."""
    monkeypatch.setattr(gpu, "driver_library", Driver)
    found = gpu.facts({"library": {"cuda": 13}}, files(tmp_path, proc__driver__nvidia__version=text))
    assert found["driver"] == {"present": True, "version": version, "cuda": 13000, "status": 0}
    one, other = found["gpus"]
    assert one == {
        "name": "GPU number 0",
        "compute_capability": "9.0",
        "memory_bytes": 1 << 33,
        "concurrent_managed_access": True,
        "default_pages": "managed",
    }
    assert (other["compute_capability"], other["memory_bytes"]) == ("7.5", 1 << 34)
    assert other["default_pages"] == "pinned"


def test_a_driver_that_does_not_work(tmp_path, monkeypatch):
    root = files(tmp_path, proc__driver__nvidia__version=OPEN)
    monkeypatch.setattr(gpu, "driver_library", lambda: Driver(803))
    found = gpu.facts({"library": {"cuda": 13}}, root)
    assert found["driver"]["status"] == 803 and found["gpus"] is None
    monkeypatch.setattr(gpu, "driver_library", lambda: ctypes.CDLL("/nowhere/libcuda.so.1"))
    found = gpu.facts({"library": {"cuda": 13}}, root)
    assert "/nowhere" in found["driver"]["status"]


def test_no_call_of_cuda(tmp_path, monkeypatch):
    """Without a library for CUDA, or without a driver, the driver is not even loaded; WSL's driver has no version."""
    monkeypatch.setattr(gpu, "driver_library", lambda: pytest.fail("the driver was loaded"))
    empty, there = files(tmp_path / "a", x=""), files(tmp_path / "b", proc__driver__nvidia__version=OPEN)
    assert gpu.facts({"library": {"cuda": 13}}, empty)["driver"]["present"] is False
    assert gpu.facts({"library": {"cuda": None}}, there)["driver"]["version"] == "580.82.07"
    wsl = gpu.facts({"library": {"cuda": None}}, files(tmp_path / "c", dev__dxg=""))["driver"]
    assert (wsl["present"], wsl["version"]) == (True, None)
