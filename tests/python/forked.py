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


# ---- here ------------------------------------------------------------------------------------------------------------


def changed_environment(changes):
    """This process's environment with changes (None removes a variable), in which Python finds what it finds here."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **changes}
    return {name: value for name, value in env.items() if value is not None}


@functools.cache
def _process(modules, settings):
    """The one that is forked, of this process; it ends when its input does."""
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
    return started


def run(script, *arguments, modules=("torch", "torch._dynamo"), settings=(), timeout=300, **environment):
    """Runs a script in a fork with changed environment variables (None removes one); settings, pairs, are those that
    the forked process has been started with."""
    process = _process(modules, settings)
    with tempfile.TemporaryDirectory() as folder:
        out, error = Path(folder) / "out", Path(folder) / "error"
        job = {
            "script": script,
            "arguments": ["-c", *map(str, arguments)],
            "environment": changed_environment(environment),
            "output": [str(out), str(error)],
        }
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        child, late = int(process.stdout.readline()), threading.Event()
        # It and all that it has forked.
        timer = threading.Timer(timeout, lambda: (late.set(), os.killpg(child, signal.SIGKILL)))
        timer.start()
        try:
            status = int(process.stdout.readline())
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
    done = run(script, folder, *arguments, modules=("sharded_script",), timeout=600, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    for mode in {mode for mode, _ in jobs}:
        assert done.stdout.count(f"{mode}: holds") == sum(processes for m, processes in jobs if m == mode)


# ---- there -----------------------------------------------------------------------------------------------------------


def wait_for_jobs():
    """Returns in children only, with their job."""
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            return job
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)


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
    for name in sys.argv[1:]:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "threads are not forked"
    gc.freeze()  # a child's collector does not go through all of torch
    task = wait_for_jobs()
    become(task)
    sys.path.remove(str(Path(__file__).parent))
    exec(compile(task["script"], "<string>", "exec"), {"__name__": "__main__"})
