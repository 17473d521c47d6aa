"""Owns the laws of ci/layers: the tree keeps its rules, and whoever breaks one is named with what it may not use."""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "ci"))

import layers  # noqa: E402

COPIED = ["include", *(f"libadamw/{name}" for name in ("numerics", "check", "formats.h", "backend.h", "devices.h"))]
COPIED += [
    "libadamw/platform.h",
    "libadamw/status.h",
    "libadamw/pager/places.h",
    "libadamw/pager/pager.h",
    "libadamw/cpu/registers_scalar.h",
]

# File -> what it includes, and what is said of that.
FORBIDDEN = {
    "libadamw/pager/new.h": ('"../numerics/math.h"', "must not include libadamw/numerics/math.h: "),
    "libadamw/pager/up.h": ('"../check/check.h"', "must not include libadamw/check/check.h, which is on a floor above"),
    "libadamw/check/new.cpp": ('"../backend.h"', "must not include libadamw/backend.h: "),
    "libadamw/cpu/new.h": ('"../pager/pager.h"', "must not include libadamw/pager/pager.h: "),
    "libadamw/gpu/pages/new.cpp": ('"../../numerics/layout.h"', "must not include libadamw/numerics/layout.h: "),
    "libadamw/gpu/new.h": ('"../pager/places.h"', "must not include libadamw/pager/places.h: "),
    "libadamw/numerics/new.h": ('"../../include/adamw.h"', "must not include include/adamw.h: "),
    "libadamw/python/new.cpp": ("<Python.h>", "must not include Python.h: "),
    "libadamw/cpu/torch.cpp": ("<torch/extension.h>", "must not include torch/extension.h: "),
    "libadamw/check/system.cpp": ("<unistd.h>", "must not include unistd.h: platform.h has"),
    "libadamw/pager/places.cpp": ("<sys/mman.h>", "must not include sys/mman.h: platform.h has"),
    "libadamw/gpu/library.cpp": ("<dlfcn.h>", "must not include dlfcn.h: platform.h has"),
    "libadamw/cpu/wide.h": ("<immintrin.h>", "must not include immintrin.h: platform.h and the kernels have"),
    "libadamw/new.h": ("<cstdint>", "is on no floor: "),
    "libadamw/check/one.h": ('"other.h"', "and libadamw/check/other.h include each other"),
    "libadamw/check/other.h": ('"one.h"', None),
}
# And what is allowed, beside it.
ALLOWED = {
    "libadamw/gpu/kernels/new.h": '"../../cpu/registers_scalar.h"',
    "libadamw/gpu/pages/new.h": '"../../pager/pager.h"',
    "libadamw/check/new.h": '"../pager/pager.h"',
    "libadamw/platform_new.cpp": "<sys/mman.h>",
    "libadamw/pager/snapshot.cpp": "<sys/mman.h>",
    "libadamw/cpu/registers_new.h": "<immintrin.h>",
}
# File -> what it says, and what is said of that (None: nothing).
WORDS = {
    "libadamw/check/hot.h": ("inline __attribute__((cold)) void f();", "must not say __attribute__: platform.h does"),
    "libadamw/pager/windows.h": ("#ifdef _WIN32\n#endif", "must not say _WIN32: platform.h does"),
    "libadamw/cpu/ahead.h": ("inline int f(unsigned x) { return __builtin_ctz(x); }", "must not say __builtin_ctz: "),
    "libadamw/gpu/wait.h": ('inline void f() { asm("nop"); }', "must not say asm: "),
    "libadamw/check/said.h": ("// An __attribute__, in words.\n/* _WIN32,\n   asm */", None),
    "libadamw/platform_other.cpp": ("__attribute__((unused)) static int x;", None),
}
IMPORTS = {
    "_native/new.py": ("def late():\n    from .. import optim\n", "must not import pyadamw.optim, which is on a floor"),
    "_state/new.py": ("import pyadamw._step.plan\n", "must not import pyadamw._step.plan, which is on a floor above"),
    "_step/one.py": ("from .other import x\n", "and pyadamw._step.other import each other"),
    "_step/other.py": ("from . import one\n", None),
    "unknown.py": ("import os\n", "is on no floor: "),
    "_step/down.py": ("from .._state import spec\nfrom .. import errors\n", None),
}


def said(capsys, root):
    status = layers.main(root)
    return status, capsys.readouterr().out.splitlines()


def assert_said(lines, must):
    """Each sentence that must be there is, and no other."""
    for name, sentence in must.items():
        assert [line for line in lines if line.startswith(f"{name} {sentence}")], (name, sentence, lines)
    assert len(lines) == len(must), lines


def test_the_tree_keeps_its_rules(capsys):
    assert said(capsys, ROOT) == (0, [])


def test_who_includes_what_it_may_not_is_named(tmp_path, capsys):
    for name in COPIED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    assert said(capsys, tmp_path) == (0, [])
    for name, what in {**{name: what for name, (what, _) in FORBIDDEN.items()}, **ALLOWED}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#pragma once\n#include {what}\n")
    for name, (text, _) in WORDS.items():
        (tmp_path / name).write_text(f"{text}\n" if name.endswith(".cpp") else f"#pragma once\n{text}\n")
    header = tmp_path / "include" / "adamw.h"
    header.write_text(header.read_text().replace("#include <stddef.h>", "#include <stddef.h>\n#include <stdlib.h>"))
    status, lines = said(capsys, tmp_path)
    assert status == 1
    must = {name: sentence for name, (_, sentence) in {**FORBIDDEN, **WORDS}.items() if sentence is not None}
    assert_said(lines, {**must, "include/adamw.h": "must not include stdlib.h: "})


def test_who_imports_what_it_may_not_is_named(tmp_path, capsys):
    shutil.copytree(ROOT / "pyadamw", tmp_path / "pyadamw", ignore=shutil.ignore_patterns("lib", "__pycache__"))
    assert said(capsys, tmp_path) == (0, [])
    for name, (text, _) in IMPORTS.items():
        (tmp_path / "pyadamw" / name).write_text(text)
    status, lines = said(capsys, tmp_path)
    assert status == 1
    modules = {name[:-3].replace("/", "."): sentence for name, (_, sentence) in IMPORTS.items()}
    assert_said(lines, {f"pyadamw.{name}": sentence for name, sentence in modules.items() if sentence is not None})
