"""Owns what the GPU tests have in common. They run on a machine with a CUDA device: `make gpu`."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def cuda():
    if not torch.cuda.is_available():
        pytest.exit("tests/gpu needs a CUDA device", returncode=2)
    return torch.device("cuda", torch.cuda.current_device())
