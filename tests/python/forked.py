"""Owns fresh processes for tests that would wait longest for an interpreter to import torch: one that has done so is
forked for each. Must not know any law. As a script it is that process: forked.py MODULE...

A child has what importing the modules leaves and nothing else: of pyadamw nothing, unless MODULE says so, so that it
loads the library by its own environment. It ends as an interpreter ends. What the environment says to Python, torch or
OpenMP has been read before: a test that changes such a thing, or is about imports, takes harness.run_python.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TORCH = ("torch", "torch._dynamo")
SHARDED = (*TORCH, "sharded_script")


# ---- here ------------------------------------------------------------------------------------------------------------


def changed_environment(changes):
    """This process's environment with changes (None removes a variable), in which Python finds what it finds here."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **changes}
    return {name: value for name, value in env.items() if value is not None}


@functools.cache
def _process(modules, settings):
    """(input, output) of the one that is forked, of this process; it ends when its input does."""
    if modules[: len(TORCH)] == TORCH != modules:
        return _fork_of(modules, settings)
    # passive: threads that wait leave the processors to others. Without BLAS threads of numpy, no thread is forked.
    settings = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1", **dict(settings)}
    started = subprocess.Popen(
        [sys.executable, __file__, *modules],
        env=changed_environment(settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(started.stdin.close)
    return started.stdin, started.stdout


def _fork_of(modules, settings):
    """One that is itself a fork of the one that has torch, and imports the other modules only."""
    jobs, _ = _process(TORCH, settings)
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("jobs", "answers")]
        for path in paths:
            os.mkfifo(path)
        jobs.write(json.dumps({"modules": modules[len(TORCH) :], "pipes": paths}) + "\n")
        jobs.flush()
        own, answers = open(paths[0], "w"), open(paths[1])  # noqa: SIM115 (as long as this process)
    atexit.register(own.close)
    return own, answers


def run(script, *arguments, modules=TORCH, settings=(), timeout=300, **environment):
    """Runs a script in a fork with changed environment variables (None removes one); settings, pairs, are those that
    the forked process has been started with."""
    jobs, answers = _process(modules, settings)
    with tempfile.TemporaryDirectory() as folder:
        out, error = Path(folder) / "out", Path(folder) / "error"
        job = {
            "script": script,
            "arguments": ["-c", *map(str, arguments)],
            "environment": changed_environment(environment),
            "output": [str(out), str(error)],
        }
        jobs.write(json.dumps(job) + "\n")
        jobs.flush()
        child, late = int(answers.readline()), threading.Event()
        # It and all that it has forked.
        timer = threading.Timer(timeout, lambda: (late.set(), os.killpg(child, signal.SIGKILL)))
        timer.start()
        try:
            status = int(answers.readline())
        finally:
            timer.cancel()
        if late.is_set():
            raise subprocess.TimeoutExpired(script, timeout)
        return subprocess.CompletedProcess(script, status, out.read_text(), error.read_text())


# What `python ARGUMENT...` does, of a child's own.
COMMAND = """
import os, runpy, sys
sys.path[:0] = [path for path in os.environ["PYTHONPATH"].split(os.pathsep) if path not in sys.path]
how, sys.argv[:] = sys.argv[1], sys.argv[2:]
if how == "-m":
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_command(*arguments, **options):
    """Runs the arguments of a Python, -c SCRIPT, -m MODULE or FILE and those that follow, in a fork."""
    first, *others = arguments
    if first == "-c":
        return run(*others, **options)
    return run(COMMAND, *([first] if first == "-m" else ["file", first]), *others, **options)


def run_processes(module, folder, *jobs):
    """Jobs are (mode, number of processes) of a script that is made like sharded_script.py: all of them hold."""
    arguments = [f"{mode}:{processes}" for mode, processes in jobs]
    script = f"import sharded_script, {module}; sharded_script.main()"
    done = run(script, folder, *arguments, modules=SHARDED, timeout=600, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    for mode in {mode for mode, _ in jobs}:
        assert done.stdout.count(f"{mode}: holds") == sum(processes for m, processes in jobs if m == mode)


# ---- there -----------------------------------------------------------------------------------------------------------


def wait_for_jobs(modules):
    """Returns in children only, with their job, when the modules have been imported."""
    for name in modules:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "threads are not forked"
    gc.freeze()  # a child's collector does not go through all of torch
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            return wait_as(job) if "modules" in job else job
        if "modules" in job:
            continue
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)


def wait_as(job):
    """As one of those that are forked, with pipes of its own."""
    for target, path, flags in zip((0, 1), job["pipes"], (os.O_RDONLY, os.O_WRONLY), strict=True):
        pipe = os.open(path, flags)
        os.dup2(pipe, target)
        os.close(pipe)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (without what the other one has read)
    return wait_for_jobs(job["modules"])


def become(job):
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, *(os.open(path, os.O_WRONLY | os.O_CREAT) for path in job["output"]))):
        os.dup2(source, target)
        os.close(source)
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(ROOT)
    sys.argv = job["arguments"]


if __name__ == "__main__":
    task = wait_for_jobs(sys.argv[1:])
    become(task)
    sys.path.remove(str(Path(__file__).parent))
    exec(compile(task["script"], "<string>", "exec"), {"__name__": "__main__"})
