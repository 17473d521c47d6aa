"""Owns the budgets of the CUDA kernels (ci/kernel_budgets.json): registers, spills and what an element costs.

`check` (the default) compiles the kernels for both CUDA majors, reads what came out and fails with the figures that are
worse than those recorded, spills included; `record` writes today's. The figures in "aims" are what the kernels should
come to: the table tells how far they are, and record leaves them alone. What a kernel computes it must not know.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "ci"), str(ROOT / "libadamw" / "gpu" / "compile")]

import compile_kernels  # noqa: E402
import sass  # noqa: E402

BUDGETS = ROOT / "ci" / "kernel_budgets.json"
WHEELS = ROOT / ".venv" / "cuda"
ARCHITECTURES = ("80", "90", "120")
QUICK = ("90",)  # what ci/cuda compiles for make test-more; compiling takes long
ELEMENTS = 8  # that a lane handles once around the main loop: a warp owns a block of 256


class Failed(Exception):
    """What the user is told."""


def cubins(major, architectures, source, wheels, cache, flags=()):
    """{architecture: cubin}"""
    compiler = compile_kernels.find(major, wheels=str(wheels))
    if not isinstance(compiler, compile_kernels.Nvrtc):
        raise Failed(f"the wheels of CUDA {major} are not in {wheels}: ci/venv cuda")
    names = [f"sm_{a}" for a in architectures]
    flags = (*compile_kernels.FLAGS, *flags)
    images = compile_kernels.cached_images(compiler, source, names, flags, compile_kernels.Cache(cache))
    return {a: images[f"sm_{a}"] for a in architectures}


def listing(cubin, wheels):
    tool = next(Path(wheels).glob("nvidia/*/bin/nvdisasm"), None)
    if tool is None:
        raise Failed(f"nvdisasm is not in {wheels}: ci/venv cuda")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "-hex", file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"nvdisasm: {done.stderr.strip()}")
    return done.stdout


def figures(kernel):
    """What is budgeted of a sass.Kernel. Of several main loops (one for each layout) the cheapest counts."""
    result = {"registers": kernel.registers, "spills": kernel.spills, "stack": kernel.frame, "code": kernel.code}
    if kernel.loops:
        loop = min(kernel.loops, key=lambda x: x.instructions)
        result |= {
            "instructions": math.ceil(loop.instructions / ELEMENTS * 10) / 10,
            "loop_spills": loop.spills,
            "accesses": loop.accesses,
            "wide_loads": loop.wide_loads,
            "wide_stores": loop.wide_stores,
        }
        if loop.fetches:
            result["fetches"] = loop.fetches
        if loop.ahead >= READS_AHEAD:
            result["ahead"] = loop.ahead // READS_AHEAD * READS_AHEAD
    return result


def measure(wanted, source, wheels, cache, pattern="*", flags=()):
    """{kernel: {sm: {major: figures}}}, for {major: architectures}"""
    images = {(m, a): i for m in wanted for a, i in cubins(m, wanted[m], source, wheels, cache, flags).items()}
    with ThreadPoolExecutor(2) as pool:
        listings = pool.map(lambda cubin: listing(cubin, wheels), images.values())
    result = {}
    for (major, architecture), text in zip(images, listings, strict=True):
        for kernel in sass.kernels(text):
            if fnmatchcase(kernel.name, pattern):
                result.setdefault(kernel.name, {}).setdefault(f"sm_{architecture}", {})[major] = figures(kernel)
    return result


READS_AHEAD = 100  # a kernel with less than so many instructions between a load and its use does not read ahead
MORE_IS_BETTER = ("wide_loads", "wide_stores", "fetches", "ahead")
WORDS = {
    "registers": "{} registers",
    "spills": "{} accesses of local memory, all paths (spills)",
    "stack": "{} bytes of stack",
    "instructions": "{} instructions an element in the main loop",
    "loop_spills": "{} accesses of local memory in the main loop",
    "accesses": "{} global accesses in the main loop",
    "wide_loads": "{} 128-bit loads in the main loop",
    "wide_stores": "{} 128-bit stores in the main loop",
    "fetches": "{} requests for L2 in the main loop",
    "ahead": "{} instructions between a load of the next block and the first that waits for one",
}


def over(where, found, budget):
    """One sentence for every figure that is worse than its budget."""
    if "instructions" in budget and "instructions" not in found:
        yield f"{where}: no main loop with 128-bit accesses"
        return
    for name, most in budget.items():
        value = found.get(name, 0)
        worse = value < most if name in MORE_IS_BETTER else value > most
        if worse:
            yield f"{where}: {WORDS[name].format(value)}; the budget is {most}"


def check(measured, budgets, partial):
    """All that is wrong: what is worse than recorded, and budgets and aims of nothing."""
    wrong = []
    for kernel, by_architecture in measured.items():
        for architecture, by_major in by_architecture.items():
            recorded = budgets["kernels"].get(kernel, {}).get(architecture)
            for major, found in by_major.items():
                where = f"{kernel}, {architecture}, CUDA {major}"
                if recorded is None:
                    wrong.append(f"{where}: no budget is recorded: ci/budgets record")
                else:
                    wrong += over(where, found, recorded)
    if not partial:
        for architecture, aims in budgets["aims"].items():
            names = [pattern for pattern in aims if not any(fnmatchcase(kernel, pattern) for kernel in measured)]
            wrong += [f"the aim of {pattern}, {architecture}, is of no kernel" for pattern in names]
        gone = sorted(set(budgets["kernels"]) - set(measured))
        wrong += [f"{kernel}: has a budget, but there is no such kernel: ci/budgets record" for kernel in gone]
    return wrong


def distances(found, aims):
    """In words, for each figure that has an aim, how far it is from it."""
    for name, aim in aims.items():
        value = found.get(name, 0)
        far = aim - value if name in MORE_IS_BETTER else value - aim
        part = f" ({far / aim:.0%})" if aim else ""
        kind = "missing" if name in MORE_IS_BETTER else "more"
        yield f"{name} {value}, aim {aim}: " + ("reached" if far <= 0 else f"{far:.4g} {kind}{part}")


def recorded(measured, budgets, partial):
    """The budgets with today's figures, for each the worse of the two majors."""
    kernels = dict(budgets["kernels"]) if partial else {}
    for kernel, by_architecture in measured.items():
        entry = dict(kernels.get(kernel, {})) if partial else {}
        for architecture, by_major in by_architecture.items():
            names = [n for n in WORDS if all(n in f for f in by_major.values())]
            worst = {n: min if n in MORE_IS_BETTER else max for n in names}
            entry[architecture] = {n: worst[n](f[n] for f in by_major.values()) for n in names}
        kernels[kernel] = entry
    return {**budgets, "kernels": dict(sorted(kernels.items()))}


def dump(budgets):
    """One line for each kernel and architecture, so that a change reads well in a diff."""
    aims = [f'    "{architecture}": {json.dumps(aims)}' for architecture, aims in budgets["aims"].items()]
    lines = ["{", '  "aims": {', *([",\n".join(aims)] if aims else []), "  },", '  "kernels": {']
    blocks = []
    for kernel, entry in budgets["kernels"].items():
        rows = ",\n".join(f'      "{a}": {json.dumps(f)}' for a, f in entry.items())
        blocks.append(f'    "{kernel}": {{\n{rows}\n    }}')
    return "\n".join([*lines, ",\n".join(blocks), "  }", "}"]) + "\n"


def table(measured, aims):
    names = ("code", "registers", "spills", "instructions", "loop_spills", "accesses", "wide_loads", "wide_stores")
    row = "{:34} {:7}{:>5}{:>8}{:>6}{:>8}{:>16}{:>8}{:>10}{:>12}{:>4}"
    heads = ("code", "regs", "spills", "loop: instr/el", "spills", "accesses", "128-bit: ld", "st")
    yield row.format("kernel", "", "CUDA", *heads)
    for kernel, by_architecture in sorted(measured.items()):
        for architecture, by_major in by_architecture.items():
            for major, f in by_major.items():
                yield row.format(kernel, architecture, major, *(f.get(n, "-") for n in names))
    yield ""
    for architecture, patterns in aims.items():
        for pattern, aim in patterns.items():
            for kernel, by_architecture in sorted(measured.items()):
                if fnmatchcase(kernel, pattern):
                    for major, f in by_architecture.get(architecture, {}).items():
                        yield from (f"{kernel}, {architecture}, CUDA {major}: {d}" for d in distances(f, aim))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", nargs="?", choices=("check", "record"), default="check")
    parser.add_argument("--major", action="append", choices=tuple(compile_kernels.MAJORS))
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES)
    parser.add_argument("--kernel", default="*", help="only kernels with such names")
    parser.add_argument("--every", action="store_true", help="the code for sm_80 and sm_120, too; record has it")
    parser.add_argument("--source", type=Path, default=ROOT / "libadamw" / "gpu" / "kernels" / "kernels.cu")
    parser.add_argument("--budgets", type=Path, default=BUDGETS)
    parser.add_argument("--wheels", type=Path, default=WHEELS)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "cubins")
    parser.add_argument("--define", action="append", default=[], metavar="NAME=VALUE")
    o = parser.parse_args(arguments)
    partial = bool(o.major or o.arch or o.kernel != "*")
    every = partial or o.every or o.action == "record"
    wanted = dict.fromkeys(o.major or compile_kernels.MAJORS, o.arch or (ARCHITECTURES if every else QUICK))
    try:
        budgets = json.loads(o.budgets.read_text()) if o.budgets.exists() else {"aims": {}, "kernels": {}}
        measured = measure(
            wanted,
            o.source.resolve(),
            o.wheels,
            o.cache,
            o.kernel,
            [f"--define-macro={d}" for d in o.define],
        )
    except (Failed, compile_kernels.Failed) as failed:
        print(f"error: {failed}", file=sys.stderr)
        return 1
    print(*table(measured, budgets["aims"]), sep="\n")
    if o.action == "record":
        budgets = recorded(measured, budgets, partial)
        o.budgets.write_text(dump(budgets))
    wrong = check(measured, budgets, partial)
    for line in wrong:
        print(f"FAILED: {line}")
    if not wrong:
        print(f"{len(measured)} kernels within their budgets")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
