"""Owns the versions between which pyadamw is promised to work, and running its tests at both ends. Must not know how
the wheel is built, nor what a test says.

usage: version_range.py WHEEL [--keep] [--record FILE] [NAME...]; writes a table of versions and results.
"""

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

try:
    import tomllib
except ImportError:  # Python 3.10; what builds needs it, too
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "range"
LIBRARIES = (
    "numpy",
    "cffi",
    "safetensors",
    "transformers",
    "accelerate",
    "pytorch-lightning",
    "rich",
    "matplotlib",
)
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "expecttest")


class Row(NamedTuple):
    """A row of the table: torch and the libraries are the oldest, the newest, or as written."""

    name: str
    python: str
    torch: str  # "oldest", "newest", or a requirement
    libraries: str  # "oldest", "newest"
    without: tuple = ()  # libraries that have no wheel for this Python


# safetensors has no wheel for a Python without a lock, and the trainers need it.
TRAINERS = ("safetensors", "transformers", "accelerate", "pytorch-lightning")
# Every Python that pyproject.toml names, and the one without a lock. torch 2.6 is the first with named parameters, 2.13
# that of ci/constraints.txt.
ROWS = (
    Row("3.10-oldest", "3.10", "oldest", "oldest"),
    Row("3.10-newest", "3.10", "oldest", "newest"),
    Row("3.11", "3.11", "torch==2.13.*", "newest"),
    Row("3.12", "3.12", "torch==2.6.*", "newest"),
    Row("3.13", "3.13", "newest", "oldest"),
    Row("3.14", "3.14", "newest", "newest"),
    Row("3.14t", "3.14t", "newest", "newest", TRAINERS),
)
# The first release that works with a Python, where pyproject.toml allows older ones: there is a wheel, and Lightning no
# longer asks for pkg_resources.
FIRST_FOR = {
    "3.13": {
        "numpy": "2.1.0",
        "safetensors": "0.4.4",
        "cffi": "1.17.1",
        "matplotlib": "3.9.2",
        "pytorch-lightning": "2.4.0",
    },
}
# The newest releases that work with the oldest torch: transformers 5.14 says so, but looks for DTensors where torch 2.5
# has them.
LAST_FOR_THE_OLDEST_TORCH = {"transformers": "transformers<5.14"}
# What the tests below are about; a name is test_NAME.py.
GROUPS = {
    "import": "lazy library errors",
    "state": """formats accuracy8 properties quantize bfloat16_laws master_weights split_weights against_torch reference
        betas paging threads free_threaded forks addresses""",
    "checkpoints": """state_dict earlier_state fp32_state_dict convert flashoptim damaged mutated widths inspect
        inspect_files distributed_state sharded meshes fsdp1 plan_files""",
    "contract": """torch_contract torch_hooks private_names groups overrides optim_manager noncontiguous gradscaler
        schedulers clipping clipping_options clipping_sharded in_backward in_backward_models in_backward_optimizer
        describe signatures
        named_parameters""",
    "trainers": "transformers trainer_groups lightning",
}


# ---- what pyproject.toml says ----------------------------------------------------------------------------------------


def floors(text):
    """{package: the oldest release allowed}, of the dependencies and all extras."""
    project = tomllib.loads(text)["project"]
    found = {}
    for needed in itertools.chain(project["dependencies"], *project["optional-dependencies"].values()):
        match = re.fullmatch(r"([\w.-]+)>=([\w.]+)", needed)
        if match:
            found.setdefault(match[1], match[2])
    return found


def requirements(row, floor):
    """What pip is told of torch and the libraries."""
    oldest = floor | FIRST_FOR.get(row.python, {})
    given = {"oldest": f"torch=={floor['torch']}", "newest": "torch"}
    newest = LAST_FOR_THE_OLDEST_TORCH if row.torch == "oldest" else {}
    libraries = [
        f"{name}=={oldest[name]}" if row.libraries == "oldest" else newest.get(name, name)
        for name in LIBRARIES
        if name not in row.without
    ]
    return [given.get(row.torch, row.torch), *libraries]


# ---- Pythons and environments ----------------------------------------------------------------------------------------


def run(*command, **options):
    return subprocess.run([str(part) for part in command], text=True, check=False, **options)


def find_python(version):
    """The path of a Python of this version ("3.10", "3.14t" without a lock), or None."""
    named = [path for path in os.environ.get("ADAMW_PYTHONS", "").split(os.pathsep) if path]
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python"))
    for path in (*named, *pyenv, shutil.which(f"python{version}"), sys.executable):
        code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2], end=sys.abiflags)"
        if path and run(path, "-c", code, capture_output=True).stdout.strip() == version:
            return path
    return None


def install(row, python, folder, wheel, log):
    """Whether an environment has what the row says. Rows with the same Python and torch share one."""
    if not (folder / "bin" / "python").exists():
        shutil.rmtree(folder, ignore_errors=True)
        if run(python, "-m", "venv", folder, stdout=log, stderr=log).returncode:
            return False
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir")
    wanted = requirements(row, floors((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    upgrade = ("--upgrade", "--upgrade-strategy", "eager") if row.libraries == "newest" else ()
    if run(*pip, wanted[0], stdout=log, stderr=log).returncode:
        return False
    done = run(*pip, *upgrade, f"{wheel}", *wanted, *TOOLS, stdout=log, stderr=log)
    return done.returncode == 0


def copy_tree(folder):
    """The checkout without the package, so that tests import what is installed."""
    shutil.rmtree(folder, ignore_errors=True)
    files = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT, capture_output=True).stdout.splitlines()
    for name in files:
        if not name.startswith("pyadamw/") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def installed(python):
    """{package: version} of an environment, with "python"."""
    listed = run(
        python, "-m", "pip", "list", "--disable-pip-version-check", "--format=freeze", capture_output=True
    ).stdout
    found = {line.partition("==")[0].lower(): line.partition("==")[2] for line in listed.split()}
    found["python"] = run(
        python, "-c", "import platform; print(platform.python_version())", capture_output=True
    ).stdout.strip()
    return found


# ---- tests -----------------------------------------------------------------------------------------------------------


def groups_of(row):
    """The groups of tests that a row runs."""
    return [group for group in GROUPS if group != "trainers" or not row.without]


def run_tests(row, python, tree, log):
    """The file with the results."""
    results = WORK / f"{row.name}.xml"
    results.unlink(missing_ok=True)
    files = [f"tests/python/test_{name}.py" for group in groups_of(row) for name in GROUPS[group].split()]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYADAMW"))}
    # Without it, torch's triton brings the lock back where Python has none.
    environment |= {"PYTHON_GIL": "0"} if row.python.endswith("t") else {}
    environment["PATH"] = f"{Path(python).parent}{os.pathsep}{environment['PATH']}"
    options = (
        "-q",
        "-n",
        str(min(os.cpu_count() or 1, 8)),
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
        "-p",
        "no:cacheprovider",
    )
    run(
        python,
        "-m",
        "pytest",
        *options,
        f"--junitxml={results}",
        *files,
        cwd=tree,
        env=environment,
        stdout=log,
        stderr=log,
    )
    return results


class Outcome(NamedTuple):
    counts: dict  # {group: Counter of "passed", "failed", "skipped"}
    failures: list  # names of tests
    skips: Counter  # reasons

    def holds(self, row):
        return not self.failures and all(self.counts[group]["passed"] for group in groups_of(row))


def read_results(path):
    """The Outcome in pytest's file; None if there is none."""
    if not path.exists():
        return None
    group_of = {f"test_{name}": group for group, names in GROUPS.items() for name in names.split()}
    outcome = Outcome({group: Counter() for group in GROUPS}, [], Counter())
    for case in ElementTree.parse(path).iter("testcase"):
        module = (case.get("classname") or case.get("name")).split(".")
        name = next((part for part in module if part in group_of), None)
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            result = "failed"
            outcome.failures.append(f"{name}.py::{case.get('name')}")
        elif skipped is not None:
            result = "skipped"
            outcome.skips[skipped.get("message")] += 1
        else:
            result = "passed"
        outcome.counts[group_of[name]][result] += 1
    return outcome


# ---- the record ------------------------------------------------------------------------------------------------------

COLUMNS = ("python", "torch", *LIBRARIES)


def line(cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def table(outcomes):
    """The lines of the record; outcomes: {row: (versions, Outcome, or why there is none)}"""
    yield line(("row", *COLUMNS))
    yield line(["---"] * (1 + len(COLUMNS)))
    for row, (versions, _) in outcomes.items():
        yield line((row.name, *(versions.get(name, "-") for name in COLUMNS)))
    yield ""
    yield "Tests passed / failed / skipped:"
    yield ""
    yield line(("row", *GROUPS))
    yield line(["---"] * (1 + len(GROUPS)))
    for row, (_, outcome) in outcomes.items():
        counts = [] if isinstance(outcome, str) else [outcome.counts[group] for group in GROUPS]
        cells = [" / ".join(str(count[kind]) for kind in ("passed", "failed", "skipped")) for count in counts]
        yield line((row.name, *(cells or [outcome])))
    for row, (_, outcome) in outcomes.items():
        if isinstance(outcome, str) or not (outcome.failures or outcome.skips):
            continue
        yield ""
        yield f"{row.name}:"
        yield ""
        yield from (f"- failed: {name}" for name in outcome.failures)
        yield from (f"- skipped, {count}: {reason}" for reason, count in sorted(outcome.skips.items()))


def try_row(row, wheel, tree):
    """(versions, Outcome, or why there is none)"""
    python = find_python(row.python)
    if python is None:
        return {}, f"not run: no Python {row.python} here (name one in ADAMW_PYTHONS)"
    folder = WORK / f"python{row.python}"
    with (WORK / f"{row.name}.log").open("w") as log:
        if not install(row, python, folder, wheel, log):
            return {}, f"not installed: see {Path(log.name).relative_to(ROOT)}"
        python = folder / "bin" / "python"
        versions = installed(python)
        results = run_tests(row, python, tree, log)
    return versions, read_results(results) or f"no results: see {Path(log.name).relative_to(ROOT)}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--record", type=Path, default=WORK / "range.md")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_intermixed_args()  # rows may follow options
    unknown = set(options.names) - {row.name for row in ROWS}
    if unknown:
        sys.exit(f"error: no row {', '.join(sorted(unknown))}; there are: {' '.join(row.name for row in ROWS)}")
    rows = [row for row in ROWS if not options.names or row.name in options.names]
    copy_tree(WORK / "tree")
    outcomes = {}
    for number, row in enumerate(rows):
        print(f"-- {row.name}", flush=True)
        outcomes[row] = try_row(row, options.wheel.resolve(), WORK / "tree")
        last = all(other.python != row.python for other in rows[number + 1 :])
        if last and not options.keep:
            shutil.rmtree(WORK / f"python{row.python}", ignore_errors=True)
    text = "\n".join(table(outcomes)) + "\n"
    options.record.write_text(text, encoding="utf-8")
    print(text)
    return not all(isinstance(outcome, Outcome) and outcome.holds(row) for row, (_, outcome) in outcomes.items())


if __name__ == "__main__":
    sys.exit(main())
