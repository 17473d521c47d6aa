"""Owns building the conda packages of recipe/ with the system's compilers, and running the tests that they carry.

usage: conda_packages.py FOLDER [PLATFORM...]   writes FOLDER/channel (the packages) and FOLDER/stand-ins
(conda_stand_ins.py), for this platform and for others, such as linux-aarch64, whose cross compiler is here
conda_packages.py FOLDER --only PLATFORM   builds those of another platform in FOLDER/channel-PLATFORM
It must not know which packages a solver chooses: conda_environments.py does.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import conda_stand_ins
import rattler_build
from conda_stand_ins import SUBDIR
from rattler.index import index_fs

RECIPE = Path(__file__).resolve().parents[1] / "recipe" / "recipe.yaml"
VARIANTS = RECIPE.with_name("variants.yaml")
# What every package of the conda-forge variant must ask of its build environment.
COMPILERS = ("gxx_{0}", "sysroot_{0}", "cmake", "ninja")
CUDA_COMPILERS = (*COMPILERS, "python", "cuda-nvcc_{0}")
CONDA_FORGE = {"cpu": COMPILERS, "cuda12": CUDA_COMPILERS, "cuda13": CUDA_COMPILERS}


def render_for_conda_forge(target):
    """The variant that conda-forge would build: it cannot be built offline, but it must be what it would have to be."""
    variants = rattler_build.VariantConfig.from_file(VARIANTS)
    platform = rattler_build.PlatformConfig(target_platform=target, experimental=True)
    rendered = rattler_build.Stage0Recipe.from_file(RECIPE).render(variants, rattler_build.RenderConfig(platform))
    backends = []
    for recipe in (variant.recipe.to_dict() for variant in rendered):
        name, backend = recipe["package"]["name"], recipe["context"]["backend"]
        if "staging_caches" in recipe:
            found = {spec.split()[0] for spec in recipe["staging_caches"][0]["requirements"]["build"]}
            wanted = {name.format(target) for name in CONDA_FORGE[backend]}
            assert found == wanted, f"{name} for {backend} would be built with {found}"
        if name == "libadamw":
            backends.append(backend)
        print(f"  {target}: {name} {recipe['build']['string']}")
    assert sorted(backends) == sorted(CONDA_FORGE), f"libadamw is rendered for {backends}"


def build(channel, stand_ins, target):
    """The packages for a platform; those for every platform come with this machine's."""
    # The interface by single packages would compile once more for each package of a variant.
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        rattler_build.build_recipes(
            [RECIPE],
            channel=[channel.as_uri(), stand_ins.as_uri()],
            output_dir=channel,
            target_platform=target,
            variant_overrides={"toolchain": ["system"]},
            no_build_id=True,  # or each build has another path in it
            test="skip",  # not yet: they need each other
        )
    except rattler_build.RattlerBuildError as error:
        for log in channel.glob("bld/*/work/conda_build.log"):
            print(f"{log}:\n{log.read_text(errors='replace')}")
        sys.exit(f"FAILED: {error}")


def build_all(folder, channel, stand_ins, others):
    """{platform: its packages}. Platforms are built side by side, each by a process, as rattler_build keeps Python's
    global lock, and much of what it does takes one processor."""
    command = [sys.executable, __file__, folder, "--only"]
    running = {target: subprocess.Popen([*command, target]) for target in others}
    build(channel, stand_ins, SUBDIR)
    for target, process in running.items():
        if process.wait():
            sys.exit(f"FAILED: the packages for {target}")
        shutil.copytree(folder / f"channel-{target}" / target, channel / target)
    subdirs = {target: [target, "noarch"] if target == SUBDIR else [target] for target in (SUBDIR, *others)}
    return {t: sorted(path for s in names for path in channel.glob(f"{s}/*.conda")) for t, names in subdirs.items()}


def test(path, channels):
    """Runs the tests in a package; returns whether all have passed. For a CUDA package there seems to be a driver."""
    package = rattler_build.Package.from_file(path)
    driver = next((d.partition(">=")[2] for d in package.depends if d.startswith("__cuda ")), "")
    os.environ["CONDA_OVERRIDE_CUDA"] = driver
    # One by one: together, each has the output of all.
    results = [package.run_test(index, channel=channels) for index in range(len(package.tests))]
    # A test that has made no environment has tested nothing, and calls that a success.
    failed = [r for r in results if not r.success or not any("test environment" in line for line in r.output)]
    for result in failed:
        print(f"FAILED: test {result.test_index} of {path.name}:", *result.output, sep="\n")
    print(f"  {path.name}: {path.stat().st_size / 1e6:.1f} MB, {len(results)} tests, {len(failed)} failed")
    assert results, f"{path.name} has no tests"
    return not failed


def build_only(folder, target):
    os.environ["RATTLER_CACHE_DIR"] = str(folder / f"cache-{target}")
    channel = folder / f"channel-{target}"
    channel.mkdir()
    build(channel, folder / "stand-ins", target)


def main(folder, others):
    shutil.rmtree(folder, ignore_errors=True)
    channel, stand_ins = folder / "channel", folder / "stand-ins"
    channel.mkdir(parents=True)
    os.environ["RATTLER_CACHE_DIR"] = str(folder / "cache")

    print("-- what conda-forge would build")
    for target in ("linux-64", "linux-aarch64"):
        render_for_conda_forge(target)
    print("-- stand-ins for packages that cannot be had offline: they run this Python and show it what lies beside it")
    conda_stand_ins.write(stand_ins, folder / "stand-in-files", others)
    asyncio.run(index_fs(stand_ins))
    print("-- building with the system's compilers: libgomp is the system's, and no package depends on it")
    start = time.monotonic()
    packages = build_all(folder, channel, stand_ins, others)
    count = sum(map(len, packages.values()))
    print(f"  {', '.join(packages)}: {count} packages in {time.monotonic() - start:.0f} s")
    asyncio.run(index_fs(channel))
    print("-- the tests in the packages")
    passed = [test(path, [channel.as_uri(), stand_ins.as_uri()]) for path in packages[SUBDIR]]
    for path in (path for target in others for path in packages[target]):
        print(f"  {path.name}: {path.stat().st_size / 1e6:.1f} MB, for {path.parent.name}: its tests do not run here")
    return all(passed)


if __name__ == "__main__":
    place, arguments = Path(sys.argv[1]).resolve(), sys.argv[2:]
    if arguments[:1] == ["--only"]:
        build_only(place, arguments[1])
        status = 0
    else:
        status = 0 if main(place, arguments) else 1
    sys.stdout.flush()
    os._exit(status)  # rattler's threads can crash an interpreter that ends in the ordinary way
