"""Owns building the conda packages of recipe/ with the system's compilers, and running the tests that they carry.

usage: conda_packages.py FOLDER   writes FOLDER/channel (the packages) and FOLDER/stand-ins (conda_stand_ins.py)
It must not know which packages a solver chooses: conda_environments.py does.
"""

import asyncio
import os
import shutil
import sys
import time
import warnings
from pathlib import Path

import conda_stand_ins
import rattler_build
from rattler.index import index_fs

RECIPE = Path(__file__).resolve().parents[1] / "recipe" / "recipe.yaml"
VARIANTS = RECIPE.with_name("variants.yaml")
# What every package of the conda-forge variant must ask of its build environment.
CONDA_FORGE = {
    "cpu": {"gxx_linux-64", "sysroot_linux-64", "cmake", "ninja"},
    "cuda12": {"gxx_linux-64", "sysroot_linux-64", "cmake", "ninja", "python", "cuda-nvcc_linux-64"},
    "cuda13": {"gxx_linux-64", "sysroot_linux-64", "cmake", "ninja", "python", "cuda-nvcc_linux-64"},
}


def render_for_conda_forge():
    """The variant that conda-forge would build: it cannot be built offline, but it must be what it would have to be."""
    variants = rattler_build.VariantConfig.from_file(VARIANTS)
    platform = rattler_build.PlatformConfig(target_platform="linux-64", experimental=True)
    rendered = rattler_build.Stage0Recipe.from_file(RECIPE).render(variants, rattler_build.RenderConfig(platform))
    backends = []
    for recipe in (variant.recipe.to_dict() for variant in rendered):
        name, backend = recipe["package"]["name"], recipe["context"]["backend"]
        if "staging_caches" in recipe:
            found = {spec.split()[0] for spec in recipe["staging_caches"][0]["requirements"]["build"]}
            assert found == CONDA_FORGE[backend], f"{name} for {backend} would be built with {found}"
        if name == "libadamw":
            backends.append(backend)
        print(f"  {name} {recipe['build']['string']}")
    assert sorted(backends) == sorted(CONDA_FORGE), f"libadamw is rendered for {backends}"


def build(channel, stand_ins):
    # The interface by single packages would compile once more for each package of a variant.
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        rattler_build.build_recipes(
            [RECIPE],
            channel=[channel.as_uri(), stand_ins.as_uri()],
            output_dir=channel,
            variant_overrides={"toolchain": ["system"]},
            no_build_id=True,  # or each build has another path in it
            test="skip",  # not yet: they need each other
        )
    except rattler_build.RattlerBuildError as error:
        for log in channel.glob("bld/*/work/conda_build.log"):
            print(f"{log}:\n{log.read_text(errors='replace')}")
        sys.exit(f"FAILED: {error}")
    return sorted(channel.glob("*/*.conda"))


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


def main(folder):
    shutil.rmtree(folder, ignore_errors=True)
    channel, stand_ins = folder / "channel", folder / "stand-ins"
    channel.mkdir(parents=True)
    os.environ["RATTLER_CACHE_DIR"] = str(folder / "cache")

    print("-- what conda-forge would build")
    render_for_conda_forge()
    print("-- stand-ins for packages that cannot be had offline: they run this Python and show it what lies beside it")
    conda_stand_ins.write(stand_ins, folder / "stand-in-files")
    asyncio.run(index_fs(stand_ins))
    print("-- building with the system's compilers: libgomp is the system's, and no package depends on it")
    start = time.monotonic()
    packages = build(channel, stand_ins)
    print(f"  {len(packages)} packages in {time.monotonic() - start:.0f} s")
    asyncio.run(index_fs(channel))
    print("-- the tests in the packages")
    passed = [test(path, [channel.as_uri(), stand_ins.as_uri()]) for path in packages]
    return all(passed)


if __name__ == "__main__":
    status = 0 if main(Path(sys.argv[1]).resolve()) else 1
    sys.stdout.flush()
    os._exit(status)  # rattler's threads can crash an interpreter that ends in the ordinary way
