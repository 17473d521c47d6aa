"""Owns what older versions of torch and of other packages lack of what a test needs. Must not know any law."""

from importlib import metadata

import pytest
from packaging.version import Version


def older(package, version):
    """Also where it is not installed."""
    try:
        return Version(metadata.version(package)) < Version(version)
    except metadata.PackageNotFoundError:
        return True


FSDP2_RUNS_ON_CPUS = not older("torch", "2.7")
needs_fsdp2 = pytest.mark.skipif(not FSDP2_RUNS_ON_CPUS, reason="FSDP2 runs on GPUs alone before torch 2.7")
needs_accelerate_fsdp2 = pytest.mark.skipif(
    not FSDP2_RUNS_ON_CPUS or older("accelerate", "1.6"),
    reason="accelerate has FSDP2 since its version 1.6, and FSDP2 runs on CPUs since torch 2.7",
)
needs_named_parameters = pytest.mark.skipif(
    older("torch", "2.6"), reason="optimizers take named parameters since torch 2.6"
)
# It has no wheel for free-threaded builds of Python.
needs_safetensors = pytest.mark.skipif(older("safetensors", "0"), reason="safetensors is not installed")
