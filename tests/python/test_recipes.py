"""Owns the law that every file in docs/recipes runs as its docstring says, in the folder that it was copied to, and
that what it prints is so. Must not know how a recipe is written.
"""

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from forked import TORCH, run
from harness import ROOT

import pyadamw._native.library

FOLDER = ROOT / "docs" / "recipes"
SAME_BITS = (r"the same bits: (?:True|yes)",)
HUGGING_FACE = (*TORCH, "accelerate", "transformers.trainer")


def below(limit):
    return lambda *numbers: all(number < limit for number in numbers)


def falls(to):
    """The last of the numbers is at most this part of the first."""
    return lambda *numbers: numbers[-1] <= to * numbers[0]


# For each recipe what must be found in its output: (pattern,), or (pattern, what its groups, as numbers, must be like).
CLAIMS = {
    "accelerate_fsdp2.py": [(r"2 processes: loss ([\d.]+) -> ([\d.]+)", falls(0.95)), SAME_BITS, (r"\n +8 +35,840 ",)],
    "compile.py": [
        (r"loss ([\d.]+) -> ([\d.]+)", falls(0.5)),
        # The same sums in another order, in 20 steps whose losses are 0.01 apart.
        (r"-> ([\d.]+)\nall in one function: loss ([\d.]+)", lambda one, other: abs(one - other) < 1e-3),
    ],
    "cuda_graphs.py": [
        (r"step 20: loss ([\d.]+)(?s:.*)step 60: loss ([\d.]+)", falls(0.9)),
        (r"steps counted by the optimizer: (\d+)", lambda steps: steps in (60, 63)),
    ],
    "fsdp2_dcp.py": [
        (r"2 processes, step 1: loss ([\d.]+)\n2 processes, step 20: loss ([\d.]+)", falls(0.5)),
        (r"process 0 of 2: ([\d,]+) bytes of state", below(200_000)),
    ],
    "kohya_class_path.py": [
        (r"step 10: loss ([\d.]+)(?s:.*)step 40: loss ([\d.]+)", falls(0.9)),
        (r"pyadamw\.optim\.AdamW, \['optim_bits=8', 'eps=1e-7'\]",),
        (r"\n +8 +10,624 ",),
    ],
    "lightning_module.py": [
        (r"loss after 2 epochs ([\d.]+), after 4 epochs ([\d.]+)", falls(0.95)),
        SAME_BITS,
        (r"\n +8 +32 +137,216 ",),
    ],
    "mixed_precision.py": [
        (r"step 20: loss ([\d.]+)(?s:.*)step 60: loss ([\d.]+)", falls(0.9)),
        (r"(\d+) of 60 steps were taken", lambda taken: 40 <= taken < 60),
    ],
    "out_of_memory.py": [
        # Megabytes of weights, gradients, state and their sum. The first two of torch's are 4 bytes a parameter.
        (r"AdamW8bit +([\d.]+) +([\d.]+) +([\d.]+)", lambda weights, gradients, state: state < 0.55 * weights),
        (r"master weights +([\d.]+) +([\d.]+)", below(1.6)),
        (r"the same, StepInBackward +[\d.]+ +([\d.]+)", below(0.3)),  # one tensor of 384 x 384, and no other
        (r"the same, paged +[\d.]+ +[\d.]+ +([\d.]+) .* ([\d.]+) \(file\)", lambda here, file: here < 0.1 * file),
        (r"AdamW +[\d.]+ +[\d.]+ +[\d.]+ +([\d.]+) (?s:.*)paged +[\d.]+ +[\d.]+ +[\d.]+ +([\d.]+)", falls(0.2)),
        (r"through which ([\d.]+) megabytes", below(0.27)),
    ],
    "plain_torch.py": [
        (r"step 60: loss ([\d.]+)", below(3.5)),  # guessing: log(256) = 5.5
        (r"(step 45: .*\nstep 60: .*\n)resumed from plain_torch\.pt\n\1",),
        SAME_BITS,
        (r"([\d.]+) bytes a parameter", below(6)),
        (r"\n +32 +24 .*shape \(256, 64\)\)\n",),  # the embeddings
    ],
    "step_in_backward.py": [
        (r"step 10: loss ([\d.]+)(?s:.*)step 40: loss ([\d.]+)", falls(0.9)),
        (r"gradients: at most 262,144 of 1,201,216 bytes",),  # one tensor of 256 x 256
        SAME_BITS,
        (r"two backward passes, 1 step\n",),
    ],
    "torchtitan_checkpoints.py": [
        (r"loss ([\d.]+) -> ([\d.]+)", falls(0.9)),
        (r"state\.layers\.0\.weight\.exp_avg_codes: torch\.uint8, shape \(512, 64\)",),
        SAME_BITS,
    ],
    "transformers_names.py": [
        (r"loss ([\d.]+) -> ([\d.]+)", falls(0.9)),
        (r"is pyadamw\.AdamW8bit\nstate of the embeddings: torch\.float32\n",),
        (r"\n +8 +35,840 ",),
    ],
    "transformers_trainer.py": [(r"\nloss ([\d.]+) -> ([\d.]+)", falls(0.8)), SAME_BITS],
    "trl_style.py": [
        (r"\nloss ([\d.]+) -> ([\d.]+)", falls(0.5)),
        (r"PagedAdamW8bit: .*'host': (\d+)", lambda paged: paged > 100_000),
    ],
    "train.c": [(r"loss ([\d.]+) -> ([\d.]+)", falls(0.1)), SAME_BITS],
    "train.cpp": [(r"loss ([\d.]+) -> ([\d.]+)", falls(0.1)), SAME_BITS, (r"(\d+) bytes of state", below(4000))],
    "CMakeLists.txt": [(r"(loss ([\d.]+)(?s:.*)same bits: yes\n(?s:.*)){2}",)],
}

# Further commands in the same folder, and their claims.
AGAIN = {
    "fsdp2_dcp.py": [
        (
            ("torchrun", "--standalone", "--nproc-per-node", "1", "fsdp2_dcp.py"),
            [(r"1 processes, step 21: loss ([\d.]+)\n1 processes, step 40", below(0.15))],
        )
    ],
    "kohya_class_path.py": [
        (
            shlex.split(
                "python kohya_class_path.py --optimizer_type pyadamw.AdamW8bit --optimizer_args 'betas=(0.9, 0.99)'"
            ),
            [(r"pyadamw\.optim\.AdamW8bit, \['betas=\(0\.9, 0\.99\)'\]",), (r"\n +8 +10,624 ",)],
        )
    ],
}


def check(claims, output, errors, folder):
    for pattern, *wanted in claims:
        found = re.search(pattern, output)
        assert found, f"{pattern!r} is not in:\n{output}\n{errors[-3000:]}"
        numbers = [float(group.replace(",", "")) for group in found.groups()] if wanted else []
        assert all(is_so(*numbers) for is_so in wanted), f"{pattern!r}: {numbers} in:\n{output}"
    warned = re.findall(rf"^.*(?:/pyadamw/|{re.escape(str(folder))}/)\S*:\d+: \w*Warning.*$", errors, re.MULTILINE)
    assert not warned, "\n".join(warned)


def command_of(recipe):
    """The words of the command that the docstring names."""
    docstring = ast.get_docstring(ast.parse(recipe.read_text(encoding="utf-8")))
    return shlex.split(re.search(r"Run: (.+)", docstring)[1])


def run_python(recipe, folder, command=None):
    """Runs a copy of a recipe in `folder`, by the command of its docstring or another one, in a fork of a process that
    has imported torch."""
    shutil.copy(recipe, folder)
    program, *words = command or command_of(recipe)
    start = f"import os, runpy, sys; os.chdir({str(folder)!r}); sys.argv = {words!r}; "
    if program == "torchrun":
        start += "sys.argv.insert(0, 'torchrun'); runpy.run_module('torch.distributed.run', run_name='__main__')"
    else:
        assert program == "python"
        start += "runpy.run_path(sys.argv[0], run_name='__main__')"
    modules = HUGGING_FACE if "from transformers import" in recipe.read_text(encoding="utf-8") else TORCH
    done = run(start, modules=modules, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout, done.stderr


def call(*command, folder):
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


def run_compiled(recipe, folder):
    """Compiles a recipe without a warning, with the library that pyadamw has loaded, and runs it."""
    compiler, standard = {".c": ("cc", "c99"), ".cpp": ("c++", "c++17")}[recipe.suffix]
    if shutil.which(compiler) is None:
        pytest.skip(f"no compiler: {compiler}")
    library = Path(pyadamw._native.library.library().path)
    for name in (library.name, "libadamw.so.1"):  # whichever its SONAME is
        shutil.copy(library, folder / name)
    flags = (f"-std={standard}", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I", ROOT / "include")
    call(compiler, *flags, recipe, "libadamw.so.1", "-lm", f"-Wl,-rpath,{folder}", "-o", "train", folder=folder)
    return call("./train", folder=folder)


def run_project(recipe, folder):
    """Builds the project with the library that is installed, and runs each of its programs."""
    build = ROOT / "build" / "release"
    if not (build / "cmake_install.cmake").exists() or shutil.which("cmake") is None:
        pytest.skip("needs cmake, and ci/cpp release --build-only (make test does that first)")
    call("cmake", "--install", build, "--prefix", folder / "installed", folder=folder)
    call("cmake", "-S", recipe.parent, "-B", "built", f"-DCMAKE_PREFIX_PATH={folder / 'installed'}", folder=folder)
    call("cmake", "--build", "built", folder=folder)
    programs = re.findall(r"add_executable\((\w+)", recipe.read_text(encoding="utf-8"))
    assert len(programs) == 2
    both = [call(folder / "built" / program, folder=folder) for program in programs]
    return "".join(output for output, _ in both), "".join(errors for _, errors in both)


RUNNERS = {".py": run_python, ".c": run_compiled, ".cpp": run_compiled, ".txt": run_project}


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir() if path.is_file()))
def test_recipe(name, tmp_path):
    """The command in the docstring succeeds, what the output claims is so, and neither pyadamw nor the recipe warns."""
    assert name in CLAIMS, f"add what {name} claims to CLAIMS"
    recipe = FOLDER / name
    check(CLAIMS[name], *RUNNERS[recipe.suffix](recipe, tmp_path), tmp_path)
    for words, claims in AGAIN.get(name, ()):
        check(claims, *run_python(recipe, tmp_path, words), tmp_path)


def test_every_claim_has_its_recipe():
    assert CLAIMS.keys() == {path.name for path in FOLDER.iterdir() if path.is_file()}
