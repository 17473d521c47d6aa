"""Owns running the laws: processes of one thread each, and what is kept of them. Must not know any law."""

import os
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import lawbook
import torch


def measure_all(laws, jobs, workers):
    """Everybody by every law: a process takes one after the other. What takes longest begins first."""
    measured = {name: {} for name in laws}
    workers = min(len(jobs), workers or len(os.sched_getaffinity(0)))
    jobs = [job for wanted in (True, False) for job in reversed(jobs) if ("FlashOptim" in job[1]) is wanted]
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        for done in as_completed([pool.submit(measure_one, *job) for job in jobs]):
            name, who, result, missing, seconds = done.result()
            measured[name][who] = result, missing, seconds
            print(f"... {name}: {who}, {missing or f'{seconds:.0f} s'}", file=sys.stderr, flush=True)
    return {name: _part(law, measured[name]) for name, law in laws.items()}


def measure_one(name, who):
    """(law, optimizer, numbers or None, why there are none or None, seconds of a processor)."""
    warnings.simplefilter("ignore")  # of the peers
    torch.set_num_threads(1)
    law, start = lawbook.LAWS[name], time.process_time()
    try:
        result, missing = law.measure(law.contestants[who], law.sizes), None
    except Exception as error:  # whatever a foreign package raises; the others are measured
        result, missing = None, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return name, who, result, missing, time.process_time() - start


def _part(law, measured):
    ordered = {who: measured[who] for who in law.contestants if who in measured}
    results = {who: result for who, (result, _, _) in ordered.items() if result is not None}
    return {
        "title": law.title,
        "promise": law.promise,
        "sizes": law.sizes,
        "results": results,
        "kept": {who: law.kept(result, results) for who, result in results.items()},
        "missing": {who: missing for who, (_, missing, _) in ordered.items() if missing},
        "seconds": {who: round(seconds, 1) for who, (_, _, seconds) in ordered.items()},
    }
