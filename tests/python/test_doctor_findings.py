"""Owns the law of the findings of the doctor, `python -m pyadamw info`: each thing that can be wrong is found in facts
that are made up, and has a cure; what is right is not called wrong. Must not know how facts are found out.
"""

import pytest

from pyadamw._diagnosis import doctor

H200 = {
    "name": "NVIDIA H200",
    "compute_capability": "9.0",
    "memory_bytes": 139 << 30,
    "concurrent_managed_access": True,
    "default_pages": "managed",
}


@pytest.fixture
def healthy():
    """Facts of a machine on which nothing is wrong, without a GPU."""
    return {
        "pyadamw": "1.0.0",
        "torch": "2.13.0",
        "torch_cuda": None,
        "python": "3.11.7",
        "machine": "Linux",
        "packages": {"rich": "15.0", "matplotlib": "3.10", "safetensors": "0.8"},
        "library": {
            "path": "/lib/libadamw.so",
            "candidates": [{"path": "/lib/libadamw.so", "exists": True}],
            "chosen_by_environment": None,
            "version": "1.0.0",
            "build": "libadamw 1.0.0, threads: OpenMP",
            "cuda": None,
            "architectures": [],
            "refuses_gpus": "Install a libadamw for CUDA",
            "threads": 8,
            "kernel": "avx512",
            "kernels": ["avx512", "avx2", "scalar"],
            "best_kernel": "avx512",
            "kernel_chosen_by_environment": None,
            "step_problem": None,
            "problem": None,
            "problem_kind": None,
        },
        "processors": {"machine": 8, "allowed": 8, "quota": None, "usable": 8},
        "threads": {"torch": 8, "libadamw": 8, "omp_num_threads": None},
        "openmp": ["/lib/libgomp.so.1"],
        "memory": {"total": 64 << 30, "limit": None, "available": 60 << 30},
        "limits": {"locked_memory_bytes": 8 << 20, "file_bytes": None},
        "file_pages": {
            "directory": "/var/tmp",
            "chosen_by": None,
            "file_system": "ext4",
            "free_bytes": 500 << 30,
            "past_page_cache": True,
            "problem": None,
        },
        "driver": {"present": False, "version": None, "cuda": None, "status": None},
        "gpus": None,
        "cuda_visible_devices": None,
    }


@pytest.fixture
def with_gpu(healthy):
    """Facts of a machine with one GPU, on which nothing is wrong."""
    healthy["torch_cuda"] = "13.0"
    healthy["library"].update(cuda=13, architectures=["75", "80", "90", "ptx90"], refuses_gpus=None)
    healthy["driver"] = {"present": True, "version": "580.65.06", "cuda": 13000, "status": 0}
    healthy["gpus"] = [dict(H200)]
    return healthy


def changed(facts, changes):
    """Facts with other values: {"file_pages.problem": ...}."""
    for path, value in changes.items():
        place, *names = path.split(".")
        if names:
            facts[place][names[0]] = value
        else:
            facts[place] = value
    return facts


def beyond_ok(facts):
    return [finding for finding in doctor.findings(facts) if finding.level != "ok"]


ON_THE_CPU = {
    "library": (
        {"library.path": None, "library.problem": "it is gone"},
        "error",
        "it is gone",
        "Install pyadamw again",
    ),
    "version": (
        {"library.path": None, "library.problem": "ABI 7", "library.problem_kind": "VersionError"},
        *("error", "ABI 7", "of one version"),
    ),
    "chosen": ({"library.chosen_by_environment": "/x.so"}, "note", "PYADAMW_LIBRARY = /x.so", "Unset it"),
    "other version": ({"library.version": "1.1.0"}, "note", "1.1.0", "equal"),
    "no step": ({"library.step_problem": "InternalError: x"}, "error", "InternalError: x", "one build"),
    "no OpenMP": ({"library.build": "threads: none"}, "warning", "without OpenMP", "compiler"),
    "unknown kernel": ({"library.kernel": None, "library.problem": "ADAMW_CPU=mmx"}, "error", "mmx", "Unset ADAMW_CPU"),
    "slow kernel": (
        {"library.kernel": "scalar", "library.kernel_chosen_by_environment": "scalar"},
        *("warning", "slower than avx512", "Unset ADAMW_CPU"),
    ),
    "needless kernel": ({"library.kernel_chosen_by_environment": "avx512"}, "note", "anyway", "Unset ADAMW_CPU"),
    "old processor": (
        {"library.kernel": "scalar", "library.best_kernel": "scalar"},
        *("note", "no AVX2", "virtual machine"),
    ),
    "too many threads": ({"threads.torch": 9}, "warning", "9 threads", "OMP_NUM_THREADS=8"),
    "quota": (
        {"processors.quota": 1.5, "processors.usable": 2},
        *("warning", "allows 1.5", "torch.set_num_threads(2)"),
    ),
    "few threads": (
        {"threads.torch": 1, "threads.omp_num_threads": "1"},
        *("note", "1 of 8 processors (OMP_NUM_THREADS = 1)", "OMP_NUM_THREADS=8"),
    ),
    "two pools": ({"openmp": ["/a/libgomp.so.1", "/b/libomp.so"]}, "warning", "/b/libomp.so", "Import torch before"),
    "memory": ({"memory.available": 300 << 20}, "warning", "300 MiB", "PageManager('file')"),
    "no directory": ({"file_pages.problem": "No such file"}, "warning", "No such file", "TMPDIR"),
    "in memory": ({"file_pages.file_system": "tmpfs"}, "warning", "in memory (tmpfs)", "local disk"),
    "network": ({"file_pages.file_system": "nfs4"}, "warning", "network (nfs4)", "local disk"),
    "fuse": ({"file_pages.file_system": "fuse.sshfs"}, "warning", "network (fuse.sshfs)", "local disk"),
    "page cache": ({"file_pages.past_page_cache": False}, "note", "page cache", "ext4"),
    "full": ({"file_pages.free_bytes": 5 << 20, "file_pages.chosen_by": "TMPDIR"}, "warning", "5 MiB", "TMPDIR"),
    "ulimit -f": ({"limits.file_bytes": 1 << 20}, "warning", "ulimit -f", "unlimited"),
    "old torch": ({"torch": "2.3.1+cu121"}, "warning", "2.3.1", "torch 2.4 or newer"),
    "rich": ({"packages": {"rich": None, "matplotlib": "3", "safetensors": "1"}}, "note", "rich", "pyadamw[demo]"),
    "safetensors": (
        {"packages": {"rich": "1", "matplotlib": "3", "safetensors": None}},
        *("note", "safetensors", "pyadamw[safetensors]"),
    ),
    "torch without CUDA": (
        {"driver": {"present": True, "version": "580.65", "cuda": None, "status": None}},
        *("warning", "driver 580.65", "Install a torch for CUDA"),
    ),
    "library without CUDA": ({"torch_cuda": "12.8"}, "note", "CUDA 12.8", "Install a libadamw for CUDA"),
    "the same, with a GPU": (
        {"torch_cuda": "12.8", "driver": {"present": True, "version": "580.65", "cuda": None, "status": None}},
        *("error", "GPUs are refused", "Install a libadamw for CUDA"),
    ),
}
ON_A_GPU = {
    "no driver": ({"driver.present": False, "gpus": None}, "note", "no NVIDIA driver", "--gpus all"),
    "another CUDA": ({"torch_cuda": "12.8"}, "warning", "libadamw is for CUDA 13", "libadamw for CUDA 12"),
    "old driver": (
        {"driver.version": "525.60.13", "torch_cuda": "12.1", "library.cuda": 12},
        "error",
        "525",
        "driver 530",
    ),
    "old driver, by its CUDA": (
        {"driver.version": None, "driver.cuda": 12000, "torch_cuda": "12.1", "library.cuda": 12},
        *("error", "an NVIDIA driver", "driver 530"),
    ),
    "too old for torch": ({"driver.version": "550.54.15"}, "warning", "580", "driver 580"),
    "hidden": (
        {"driver.status": 100, "gpus": None, "cuda_visible_devices": ""},
        *("warning", "it sees no GPU (100). CUDA_VISIBLE_DEVICES is ''", "CUDA_VISIBLE_DEVICES"),
    ),
    "mixed driver": ({"driver.status": 803, "gpus": None}, "warning", "different versions", "Restart"),
    "libcuda.so.1": ({"driver.status": "cannot open libcuda", "gpus": None}, "warning", "cannot open libcuda", "log"),
    "old GPU": ({"gpus": [{**H200, "compute_capability": "7.0"}]}, "error", "needs 7.5", "Use another GPU"),
    "one old GPU": ({"gpus": [H200, {**H200, "compute_capability": "6.1"}]}, "warning", "GPU 1", "Use another GPU"),
    "new GPU": ({"gpus": [{**H200, "compute_capability": "12.0"}]}, "note", "no machine code", "first used"),
    "no code": (
        {"library.architectures": ["90", "ptx90"], "gpus": [{**H200, "compute_capability": "8.6"}]},
        *("error", "no code for GPU 0", "ADAMW_CUDA=13 pip install . -C cmake.define.ADAMW_CUDA_ARCHITECTURES=86"),
    ),
    "no code of its own": (  # Jetson Orin's GPU runs no other, though it is of the same generation
        {"library.architectures": ["80", "90", "ptx90"], "gpus": [{**H200, "compute_capability": "8.7"}]},
        *("error", "no code for GPU 0", "ADAMW_CUDA_ARCHITECTURES=87"),
    ),
    "locked memory": (
        {"gpus": [{**H200, "concurrent_managed_access": False, "default_pages": "pinned"}]},
        *("note", "lock 8 MiB", "ulimit -l unlimited"),
    ),
}


def test_healthy_machines(healthy, with_gpu):
    """Where nothing is wrong, nothing is said to be."""
    assert beyond_ok(healthy) == []
    assert beyond_ok(with_gpu) == []


@pytest.mark.parametrize("what", ON_THE_CPU)
def test_findings_on_the_cpu(what, healthy):
    """One thing that is wrong is one finding, of its level, that names the value and says what to do."""
    changes, level, said, cure = ON_THE_CPU[what]
    (finding,) = beyond_ok(changed(healthy, changes))
    assert finding.level == level and said in finding.text and cure in finding.cure
    assert finding.text.endswith((".", "!")) and finding.cure.endswith(".")


@pytest.mark.parametrize("what", ON_A_GPU)
def test_findings_on_a_gpu(what, with_gpu):
    changes, level, said, cure = ON_A_GPU[what]
    (finding,) = beyond_ok(changed(with_gpu, changes))
    assert finding.level == level and said in finding.text and cure in finding.cure


@pytest.mark.parametrize("capability, runs", [("7.5", 1), ("8.0", 1), ("8.9", 1), ("9.0", 1), ("10.0", 1), ("7.4", 0)])
def test_which_code_a_gpu_runs(capability, runs, with_gpu):
    """Machine code of the same major version, or PTX that is not newer, is enough."""
    with_gpu["gpus"][0]["compute_capability"] = capability
    assert any(f.level == "error" for f in doctor.findings(with_gpu)) != bool(runs)


def test_the_default_of_pages_is_said(with_gpu):
    for managed, word in ((True, "unified memory"), (False, "page-locked")):
        pages = "managed" if managed else "pinned"
        with_gpu["gpus"] = [{**H200, "concurrent_managed_access": managed, "default_pages": pages}]
        (text,) = (f.text for f in doctor.findings(with_gpu) if f.level == "ok" and f.subject == "gpu")
        assert f'"{pages}": {word}' in text and "139.0 GiB" in text
