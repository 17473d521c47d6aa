"""Owns the law of the tables: a state format, a dtype or a page backing that is added does not compile until every
place that needs it has it, and these places are the files that CONTRIBUTING.md names for it. Each trial is made on a
copy of the sources.
"""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKS, CPU, CHOICE = "libadamw/check/rows.cpp", "libadamw/cpu/kernels_scalar.cpp", "libadamw/gpu/backend.cpp"
KERNELS, PAGES = "tests/simt/kernels.cpp", "libadamw/pager/places.cpp"
# Who notices that a file lacks its part: the unit that is compiled then.
NOTICES = {
    "libadamw/formats.h": CHECKS,
    "libadamw/numerics/codes.h": CPU,
    "libadamw/numerics/trial_codes.h": CPU,
    "libadamw/cpu/block_memory.h": CPU,
    "libadamw/gpu/table.h": CHOICE,
    "libadamw/gpu/kernels/kernels.cu": KERNELS,
    "libadamw/gpu/kernels/elements.h": KERNELS,
    "libadamw/pager/places.h": PAGES,
    "libadamw/pager/places.cpp": PAGES,
}

# {file: [(where, what to put behind it)]}, or the text of a new file.
FORMAT = {
    "include/adamw.h": [("ADAMW_STATE_BFLOAT16 = 3", ", ADAMW_STATE_TRIAL = 4")],
    "libadamw/formats.h": [
        ("struct RootCodes;", " struct TrialCodes;"),
        ("#define ADAMW_STATE_FORMAT_TABLE(F)", ' F(ADAMW_STATE_TRIAL, TrialCodes, "_trial", 1, Scaling::block, true)'),
    ],
    "libadamw/numerics/codes.h": [('#include "root_codes.h"', '\n#include "trial_codes.h"')],
    "libadamw/numerics/trial_codes.h": """
#pragma once
#include "root_codes.h"
namespace adamw {
struct TrialCodes {
  static constexpr PerMoment<std::uint8_t> zero{0, 0, 0};
  template <class V, class I>
  static ADAMW_INLINE PerMoment<V> decode(bool, const PerMoment<I> &codes, const PerMoment<CodeLine> &) {
    return map_moments(true, [](const I &code) { return to_float(code); }, codes);
  }
  template <bool Zeros, class V, class I>
  static ADAMW_INLINE PerMoment<I> encode(bool, const PerMoment<V> &x, const PerMoment<Scale> &, I) {
    return map_moments(true, [](const V &value) { return truncate(value); }, x);
  }
  static ADAMW_INLINE bool zeros(bool, const PerMoment<Scale> &) { return false; }
  template <class F = float>
  static ADAMW_INLINE PerMoment<Scale> scales(bool amsgrad, const PerMoment<Extremes> &found) {
    return RootCodes::scales<F>(amsgrad, found);
  }
  template <class V, class I>
  static ADAMW_INLINE V decode_one(bool, I code, float) { return to_float(code); }
  template <class V, class I>
  static ADAMW_INLINE I encode_one(bool, V x, const Scale &, I) { return truncate(x); }
  static ADAMW_INLINE Scale scale_one(bool is_signed, const Extremes &found) {
    return RootCodes::scale_one(is_signed, found);
  }
};
}  // namespace adamw
""",
    "libadamw/gpu/table.h": [
        (
            "#define ADAMW_KERNELS(F)",
            " ADAMW_STEP_KERNELS(F, step_trial, wide_threads)"
            " ADAMW_MEASURE_KERNELS(F, _trial)"
            " F(adamw_quantize_trial, QuantizeTable, block_threads_used)"
            " F(adamw_dequantize_trial, QuantizeTable, block_threads_used)",
        )
    ],
    "libadamw/gpu/kernels/kernels.cu": [
        (
            "FORMAT_KERNELS(8, at_once_codes, Codes8)",
            """
FORMAT_KERNELS(_trial, at_once_codes, Codes8)
ADAMW_KERNEL adamw_quantize_trial(ADAMW_PARAMS QuantizeTable table) { quantize_blocks(table); }
ADAMW_KERNEL adamw_dequantize_trial(ADAMW_PARAMS QuantizeTable table) { dequantize_blocks(table); }""",
        )
    ],
}
NUMBERS = {
    "include/adamw.h": [("ADAMW_STATE_BFLOAT16 = 3", ", ADAMW_STATE_TRIAL = 4")],
    "libadamw/formats.h": [
        (
            "#define ADAMW_STATE_FORMAT_TABLE(F)",
            ' F(ADAMW_STATE_TRIAL, Numbers<ADAMW_FLOAT16>, "_trial", 2, Scaling::none, true)',
        )
    ],
    "libadamw/gpu/table.h": [("F(G, 16, Bfloat16)", " F(G, _trial, Float16)")],
}
DTYPE = {
    "include/adamw.h": [("ADAMW_BFLOAT16 = 1,", " ADAMW_TRIAL16 = 3,")],
    "libadamw/formats.h": [("#define ADAMW_DTYPE_TABLE(F)", ' F(ADAMW_TRIAL16, "trial16", 2)')],
    "libadamw/cpu/block_memory.h": [
        (
            "ADAMW_INLINE void store_rounded(Dtype<ADAMW_FLOAT32>, void *, int, V, I) {}  // they are never rounded",
            """
ADAMW_INLINE V load_as(Dtype<ADAMW_TRIAL16>, const void *p, int i) {
  return bfloat16_to_float<V>(load(half_words(p) + i));
}
ADAMW_INLINE void store_as(Dtype<ADAMW_TRIAL16>, void *p, int i, V x) {
  store(static_cast<std::uint16_t *>(p) + i, float_to_bfloat16(x));
}
ADAMW_INLINE void store_rounded(Dtype<ADAMW_TRIAL16>, void *p, int i, V x, I word) {
  store(static_cast<std::uint16_t *>(p) + i, float_to_bfloat16_stochastic(x, word));
}""",
        )
    ],
    "libadamw/gpu/table.h": [("F(2, Float16)", " F(3, Trial16)")],
    "libadamw/gpu/kernels/elements.h": [
        (
            "float_to_float16_stochastic(high, high_word) << 16;\n  }\n};",
            "\nstruct Trial16 : Bfloat16 {};",
        )
    ],
}
BACKING = {
    "include/adamw.h": [("ADAMW_PLACE_MANAGED = 3,", " ADAMW_PLACE_TRIAL = 5,")],
    "libadamw/pager/places.h": [("MakesBacking host_backing,", " trial_backing,")],
    "libadamw/pager/places.cpp": [
        (
            "switch (place) {",
            ' case ADAMW_PLACE_TRIAL: return {"TRIAL", is_backing, &Statistics::host_bytes, 0, trial_backing};',
        )
    ],
}
TRIALS = {"a state format": FORMAT, "a state format of numbers": NUMBERS, "a dtype": DTYPE, "a page backing": BACKING}


def copy(folder, trial, without=None):
    """The sources with a trial in them, but for one of its files."""
    for name in ("include", "libadamw", "tests/simt"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    shutil.copytree(ROOT / "tests" / "cpp", folder / "tests" / "cpp", dirs_exist_ok=True)
    for name, edits in trial.items():
        path = folder / name
        if name == without:
            continue
        if isinstance(edits, str):
            path.write_text(edits)
            continue
        text = path.read_text(encoding="utf-8")
        for where, what in edits:
            assert text.count(where) == 1, f"{name}: {where} is there {text.count(where)} times"
            text = text.replace(where, where + what)
        path.write_text(text, encoding="utf-8")
    return folder


def refusals(folder, units):
    """{unit: the compiler's first error} of those that do not compile."""
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-fsyntax-only", "-Wall", "-Werror=switch", "-Iinclude"]
    command += ["-iquote", "tests", "-DADAMW_CUDA_MAJOR=13", "-DADAMW_STATIC"]

    def compiled(unit):
        return subprocess.run([*command, unit], cwd=folder, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(units, pool.map(compiled, units), strict=True))
    errors = {unit: re.search(r".*error: .*", r.stderr) for unit, r in results.items() if r.returncode != 0}
    return {unit: error[0] if error else "no error" for unit, error in errors.items()}


@pytest.mark.parametrize("kind", TRIALS)
def test_what_is_complete_compiles(kind, tmp_path):
    """With all of its places a trial compiles: what is missing below is missed for itself."""
    units = {NOTICES[name] for name in TRIALS[kind] if name in NOTICES}
    assert refusals(copy(tmp_path, TRIALS[kind]), sorted(units)) == {}


@pytest.mark.parametrize(
    ("kind", "without"), [(kind, name) for kind, trial in TRIALS.items() for name in trial if name != "include/adamw.h"]
)
def test_what_is_forgotten_does_not_compile(kind, without, tmp_path):
    """Without any one of its places a trial does not compile, and the error speaks of the trial."""
    errors = refusals(copy(tmp_path, TRIALS[kind], without), [NOTICES[without]])
    assert any(re.search("trial|lacks", error, re.I) for error in errors.values()), errors


@pytest.mark.parametrize("kind", TRIALS)
def test_contributing_names_the_places(kind):
    """CONTRIBUTING.md's list of what to change has the files that the trial changes, and no others of the library."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    entry = re.search(rf"^- \*\*{kind}\*\*.*?(?=^- |\Z)", text, re.M | re.S)[0]
    named = {name.replace("NAME", "trial") for name in re.findall(r"`((?:include|libadamw)/[\w/.]+)`", entry)}
    assert named == set(TRIALS[kind]) | OWN_FILES.get(kind, set())


# A backing's own file, which the trial does without: the table only needs its declaration.
OWN_FILES = {"a page backing": {"libadamw/pager/trial_backing.cpp", "libadamw/pager/pager.h"}}
