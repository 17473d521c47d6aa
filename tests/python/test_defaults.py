"""Owns the law: nothing comes from torch's defaults. Tests of state, options and formats hold as they are where the
package's work is done under another default dtype, or on another default device.
"""

import subprocess
import sys

import defaults
import pytest
from forked import changed_environment
from harness import ROOT

FILES = ("against_torch", "percentile_clipping", "state_dict", "noncontiguous", "gradscaler", "quantize", "addresses")
# What takes long and makes no more tensors.
LEFT = "not free and not module"


@pytest.mark.parametrize("choice", defaults.CHOICES)
def test_nothing_comes_from_defaults(choice):
    files = [f"tests/python/test_{name}.py" for name in FILES]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files, "-k", LEFT],
        env=changed_environment({defaults.VARIABLE: choice}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
