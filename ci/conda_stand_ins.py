"""Owns the stand-ins: packages of a test-only channel with the names of conda-forge's, which cannot be had offline.

That of python makes a conda environment a virtual environment of the Python which runs this; those of pytorch, cffi and
so on show it the distributions that lie beside this Python, each only its own and what that requires. So a dependency
that a recipe forgets is missing here, too. Those of cuda-version hold conda-forge's constraints.
It must not know what is built with them.
"""

import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rattler.platform import Subdir
from rattler_build import assemble_package

# Conda's name: Python's. Compilers, cmake and ninja have no stand-ins: they are on the system's PATH.
DISTRIBUTIONS = {
    "pytorch": "torch",
    "cffi": "cffi",
    "numpy": "numpy",
    "pip": "pip",
    "scikit-build-core": "scikit-build-core",
}
CUDA_VERSIONS = ("12.9", "13.0")
SUBDIR = str(Subdir.current())
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def _with_requirements(name, found):
    """{name: distribution} of a distribution and of all that it requires here."""
    if (name := canonicalize_name(name)) not in found:
        found[name] = distribution(name)
        for requirement in map(Requirement, found[name].requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                _with_requirements(requirement.name, found)
    return found


def _show(folder, name):
    """Fills a folder with links to what a distribution and its requirements have in site-packages."""
    folder.mkdir(parents=True)
    site = Path(sysconfig.get_path("purelib"))
    entries = {file.parts[0] for found in _with_requirements(name, {}).values() for file in found.files}
    for entry in entries - {"..", "__pycache__"}:
        (folder / entry).symlink_to(site / entry)


def _package(channel, files, name, version, subdir=SUBDIR, **options):
    place = channel / subdir
    place.mkdir(parents=True, exist_ok=True)
    assemble_package(name, version, subdir, "stand_in_0", place, files_dir=files, detect_prefix=False, **options)
    print(f"  {subdir}: stand-in for {name} {version}")


def write(channel, work, others=()):
    """Writes the stand-ins into a channel. They point into the folder `work`, which must stay. Those for other
    platforms have the names and versions, and no files: a solver is asked about them, and nothing runs."""
    files = work / "python"
    (files / "bin").mkdir(parents=True)
    base = Path(sys._base_executable).resolve()
    for name in ("python", "python3", f"python{PYTHON}"):
        (files / "bin" / name).symlink_to(base)
    (files / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n", encoding="utf-8")
    _package(channel, files, "python", sys.version.split()[0])

    for name, python_name in DISTRIBUTIONS.items():
        shown = work / "shown" / name
        _show(shown, python_name)
        files = work / name
        site = files / "lib" / f"python{PYTHON}" / "site-packages"
        site.mkdir(parents=True)
        (site / f"stand_in_{name}.pth").write_text(f"{shown}\n", encoding="utf-8")
        version = distribution(python_name).version.partition("+")[0]
        _package(channel, files, name, version, depends=[f"python {PYTHON}.*"])

    empty = work / "empty"
    empty.mkdir()
    for subdir in others:
        _package(channel, empty, "python", sys.version.split()[0], subdir)
        for name, python_name in DISTRIBUTIONS.items():
            version = distribution(python_name).version.partition("+")[0]
            _package(channel, empty, name, version, subdir, depends=[f"python {PYTHON}.*"])
    for version in CUDA_VERSIONS:
        major = version.partition(".")[0]
        _package(channel, empty, "cuda-version", version, "noarch", constrains=[f"__cuda >={major}"])
