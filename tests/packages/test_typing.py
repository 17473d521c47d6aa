"""Owns the law of the type hints: a type checker follows a user's program by what is installed of pyadamw."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("typed_user.py")


@pytest.fixture(scope="session")
def python(request):
    """The Python whose pyadamw is checked: ADAMW_SITE_PYTHON, or that of the wheel's bare place, or this one."""
    if "ADAMW_SITE_PYTHON" in os.environ:
        return os.environ["ADAMW_SITE_PYTHON"]
    return str(request.getfixturevalue("place").python) if "ADAMW_WHEEL" in os.environ else sys.executable


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """What is known of torch and transformers, which takes a minute to read."""
    return tmp_path_factory.mktemp("mypy")


def run(folder, *arguments):
    """Runs a program in `folder`, from where the source tree is not seen."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def mypy(python, cache, folder):
    """mypy --strict on the user's program in `folder`, without anybody's configuration."""
    shutil.copy(PROGRAM, folder)
    options = ("--strict", "--warn-unused-ignores", "--config-file=", f"--cache-dir={cache}")
    return run(folder, sys.executable, "-m", "mypy", *options, "--python-executable", python, PROGRAM.name)


def installed(python, folder):
    """The folder of the pyadamw that `python` imports."""
    code, output = run(folder, python, "-c", "import pyadamw; print(pyadamw.__path__[0])")
    assert code == 0, output
    return Path(output.strip())


def test_users_program(python, cache, tmp_path):
    """mypy --strict finds every deliberate mistake in the program, and no other."""
    code, output = mypy(python, cache, tmp_path)
    assert code == 0, output


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [("py.typed", "missing library stubs or py.typed marker"), ("-> dict[str, int]", 'Expression is of type "Any"')],
)
def test_can_fail(missing, complaint, python, cache, tmp_path):
    """The program is refused where the package says no longer that it is typed, or lacks a hint."""
    copy = tmp_path / "copy"
    shutil.copytree(installed(python, tmp_path), copy / "pyadamw", ignore=shutil.ignore_patterns("lib", "__pycache__"))
    if missing == "py.typed":
        (copy / "pyadamw" / missing).unlink()
    else:
        paging = copy / "pyadamw" / "paging.py"
        paging.write_text(paging.read_text(encoding="utf-8").replace(missing, ""), encoding="utf-8")
    # A Python that finds the copy, and all else where `python` finds it.
    paths = run(tmp_path, python, "-c", "import sys; print(*sys.path, sep='\\n')")[1].splitlines()
    kept = [path for path in paths if path.endswith("-packages") and not Path(path, "pyadamw").exists()]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    other = tmp_path / "venv" / "bin" / "python"
    purelib = run(tmp_path, other, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")[1].strip()
    Path(purelib, "copy.pth").write_text("\n".join([str(copy), *kept]), encoding="utf-8")
    assert installed(other, tmp_path) == copy / "pyadamw"
    code, output = mypy(str(other), cache, tmp_path)
    assert code == 1 and complaint in output, output


def test_paged_signatures(python, tmp_path):
    """What optim.py declares for type checkers alone has the names, order, kinds and defaults of what runs."""
    code, output = run(tmp_path, python, "-m", "mypy.stubtest", "pyadamw.optim")
    assert code == 0, output


SOURCE = Path(__file__).parents[2]


def test_whole_package(cache):
    """Every function says what it takes and returns, and mypy finds nothing wrong in the package (pyproject.toml)."""
    code, output = run(SOURCE, sys.executable, "-m", "mypy", f"--cache-dir={cache}")
    assert code == 0, output


def test_whole_package_can_fail(cache, tmp_path):
    """A function without hints is found."""
    shutil.copytree(SOURCE / "pyadamw", tmp_path / "pyadamw", ignore=shutil.ignore_patterns("lib", "__pycache__"))
    shutil.copy(SOURCE / "pyproject.toml", tmp_path)
    with open(tmp_path / "pyadamw" / "_step" / "rows.py", "a", encoding="utf-8") as file:
        file.write("\n\ndef late(value):\n    return value\n")
    code, output = run(tmp_path, sys.executable, "-m", "mypy", f"--cache-dir={cache}")
    assert code == 1 and "no-untyped-def" in output, output
