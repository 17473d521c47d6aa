"""Owns the processes: does one training in a child and keeps what it reports. It must not know how that is shown."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .text import DemoError

# How they are called in bars, table and picture; training.py has the contestant of each name.
NAMES = ("torch AdamW", "AdamW32bit", "AdamW8bit", "AdamW8bit, bf16")
SECONDS_TO_END = 5


@dataclass
class Result:
    """What a run measured: bytes, milliseconds (a median), and (step, bits per character) on validation text."""

    name: str
    parameters: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)
    weight_bytes: int = 0
    state_bytes: int = 0
    step_milliseconds: float = 0.0
    memory_before: int = 0
    peak_memory: int = 0

    @property
    def bits_per_character(self) -> float:
        return self.curve[-1][1]

    @property
    def held_bytes(self) -> int:
        """What stays from step to step."""
        return self.weight_bytes + self.state_bytes


def run(result: Result, steps: int, seed: int, text: str) -> Iterator[int]:
    """Trains with the optimizer `result.name`, filling `result`. Yields the number of steps done, now and then.

    The child ends with this generator, however it is left. Raises DemoError if it fails.
    """
    for event in _events({"optimizer": result.name, "steps": steps, "seed": seed}, text):
        kind, step = event.pop("event"), event.pop("step", 0)
        if kind == "validation":
            result.curve.append((step, event["bits_per_character"]))
        else:
            for name, value in event.items():
                setattr(result, name, value)
        if kind != "done":
            yield step


def _events(settings: dict[str, Any], text: str) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", f"{__package__}.training"]
    with tempfile.TemporaryFile() as messages, contextlib.ExitStack() as ends:
        with _interrupts_later():
            pipe = subprocess.PIPE
            child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=messages, env=_environment())
            ends.callback(_end, child)
        try:
            with child.stdin as settings_and_text:  # type: ignore[union-attr]
                settings_and_text.write(json.dumps(settings).encode() + b"\n" + text.encode())
        except BrokenPipeError:
            pass  # It died while starting; its exit status says so below.
        for line in child.stdout:  # type: ignore[union-attr]
            yield json.loads(line)
        status = child.wait()
        if status != 0:
            raise DemoError(f"the {settings['optimizer']} run failed (exit status {status}): {_last_line(messages)}")


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C comes after this: within Popen() it would leave a child that nobody knows of."""
    came = []
    handler = signal.getsignal(signal.SIGINT)
    # Only the main thread has interrupts, and may say what they do. Where they are ignored, so does the child.
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        signal.raise_signal(signal.SIGINT)


def _environment() -> dict[str, str]:
    """The child imports exactly what this process would, wherever pyadamw was found, and yields a busy machine's cores.

    OpenMP threads wait for each other some thousand times a second here. By default they spin all the while, which on
    idle cores is as fast as this shorter spinning, and many times slower as soon as other programs want the cores.
    """
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {"GOMP_SPINCOUNT": "10000", **os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def _end(child: subprocess.Popen) -> None:
    child.stdout.close()  # type: ignore[union-attr]
    child.terminate()  # Does nothing to a child that has been waited for.
    try:
        child.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _last_line(messages: Any) -> str:
    messages.seek(0)
    lines = messages.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it left no message"
