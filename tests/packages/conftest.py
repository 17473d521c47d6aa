"""Owns what the tests of packages share: the wheel under test, and a bare place where it is installed."""

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

FIGURES = []  # what was measured; shown at the end, judged by nobody


def pytest_terminal_summary(terminalreporter):
    for line in FIGURES:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def wheel():
    path = os.environ.get("ADAMW_WHEEL")
    if not path:
        pytest.fail("ADAMW_WHEEL must name the wheel to test: ci/wheel sets it")
    return Path(path).resolve()


@pytest.fixture(scope="session")
def aarch64_wheel():
    path = os.environ.get("ADAMW_WHEEL_AARCH64")
    if not path:
        pytest.skip("ADAMW_WHEEL_AARCH64 names no wheel for AArch64: ci/wheel says why none is built")
    return Path(path).resolve()


@pytest.fixture(params=("x86_64", "aarch64"))
def each_wheel(request):
    """The wheels by their processors, one after the other: (processor, path)."""
    return request.param, request.getfixturevalue({"x86_64": "wheel", "aarch64": "aarch64_wheel"}[request.param])


class Place:
    """A virtual environment with the wheel and nothing else of the project, and no compiler on PATH.

    torch, cffi and numpy are those of the environment that runs the tests: they are not what is tested.
    """

    def __init__(self, folder, python=sys.executable, borrow=True):
        self.folder, self.home = folder, folder / "home"
        subprocess.run([python, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        self.home.mkdir()
        self.python = folder / "venv" / "bin" / "python"
        self.site = Path(self.run("import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
        if borrow:
            # Read as a .pth: that of the project's editable install, which lies there, is then not followed.
            (self.site / "borrowed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")

    def pip(self, *arguments):
        command = [sys.executable, "-m", "pip", "--python", self.python, "-q", "--disable-pip-version-check"]
        subprocess.run([*command, *arguments], check=True)

    def install(self, wheel):
        self.pip("install", "--no-index", "--no-deps", wheel)

    def run(self, *arguments, code=0, **environment):
        """Runs Python: source text, or several arguments. The environment is bare but for what is given."""
        arguments = ("-c", *arguments) if len(arguments) == 1 else arguments
        bare = {"PATH": str(self.folder / "venv" / "bin"), "HOME": str(self.home), "LC_ALL": "C.UTF-8", **environment}
        done = subprocess.run(
            [self.python, *arguments], env=bare, cwd="/", capture_output=True, text=True, errors="replace", check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


@pytest.fixture(scope="session")
def place(wheel, tmp_path_factory):
    """Where the wheel is installed: the path has a space and a letter that is not ASCII."""
    start = time.perf_counter()
    place = Place(tmp_path_factory.mktemp("wheel ü"))
    place.install(wheel)
    FIGURES.append(f"installed in a new environment in {time.perf_counter() - start:.1f} s")
    return place
