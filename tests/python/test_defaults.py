"""Owns the law: nothing comes from torch's defaults. Tests of state, options and formats hold as they are where the
package's work is done under another default dtype, or on another default device.
"""

import defaults
import pytest
from forked import run_command

FILES = ("against_torch", "percentile_clipping", "state_dict", "noncontiguous", "gradscaler", "quantize", "addresses")
# What takes long and makes no more tensors.
LEFT = "not free and not module"


@pytest.mark.parametrize("choice", defaults.CHOICES)
def test_nothing_comes_from_defaults(choice):
    files = [f"tests/python/test_{name}.py" for name in FILES]
    arguments = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files, "-k", LEFT]
    done = run_command(*arguments, timeout=500, **{defaults.VARIABLE: choice})
    assert done.returncode == 0, done.stdout[-5000:]
