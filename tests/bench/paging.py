"""Owns what paging costs on the CPU: host pages against none, the file against plain reads and writes of such a file.
Must not know how results are shown.
"""

import math
import mmap
import os
import tempfile

import figures
import measure
import torch
import workloads

import pyadamw

CHUNK = 16 << 20
HOST_BAR, FILE_BAR = (
    1.03,
    0.7,
)  # what issue 4 asks: time of host pages / no pages at most, bytes a second / plain at least


class PlainFile:
    """A file of `size` bytes that is read and written in place from one end to the other, a chunk at a time, past the
    page cache where the file system can."""

    def __init__(self, directory, size):
        self.size = math.ceil(size / CHUNK) * CHUNK
        flags = os.O_RDWR | os.O_TMPFILE
        try:
            self.file = os.open(directory, flags | os.O_DIRECT, 0o600)
        except OSError:
            self.file = os.open(directory, flags, 0o600)
        self.memory = mmap.mmap(-1, CHUNK)
        os.posix_fallocate(self.file, 0, self.size)
        self.memory[:] = os.urandom(CHUNK)
        for offset in range(0, self.size, CHUNK):
            self._write(offset)

    def _write(self, offset):
        done = os.pwritev(self.file, [self.memory], offset)
        if done != CHUNK:
            raise OSError(f"{done} bytes of {CHUNK} were written")

    def copy(self):
        for offset in range(0, self.size, CHUNK):
            if os.preadv(self.file, [self.memory], offset) != CHUNK:
                raise OSError("the file is shorter than it was")
            self._write(offset)

    def close(self):
        os.close(self.file)


def _sides(cls, shapes, dtype, paged, settings):
    def make(manager):
        options = {} if manager is None else {"is_paged": True, "page_manager": manager}
        return lambda params: cls(params, lr=workloads.LR, **options)

    sides = [workloads.Side(make(manager), shapes, dtype, settings.keep_gradients) for manager in (paged, None)]
    for _ in range(figures.WARM_UP):
        for side in sides:
            side.fresh_gradients()
            side.step()
    if not all(torch.equal(a, b) for a, b in zip(sides[0].params, sides[1].params, strict=True)):
        raise workloads.WrongResultError("paged and unpaged steps differ")
    return sides


def measure_host(cls, settings):
    """Host pages against ordinary memory."""
    shapes = [(1 << 18,)] * 4 if settings.quick else [(1 << 22,)] * 16
    sides = _sides(cls, shapes, torch.float32, pyadamw.PageManager("host"), settings)
    pairs = figures.time_pairs(sides, settings)
    return {
        "title": f"host pages / no pages, {cls.__name__}, fp32",
        "elements": sum(sides[0].sizes),
        "bar": f"<= {HOST_BAR}",
        "met": pairs.ratio().median <= HOST_BAR,
        "pairs": len(pairs.first),
        "ratio": pairs.ratio()._asdict(),
        "seconds": measure.Quartiles.of(pairs.first)._asdict(),
        "rival_seconds": measure.Quartiles.of(pairs.second)._asdict(),
    }


def measure_file(cls, settings):
    """Bytes a second that steps bring in and write back, against those of a plain pass over a file of the same size."""
    directory = os.environ.get("TMPDIR") or "/var/tmp"
    size = 1 << (25 if settings.quick else 30)
    width = 8 if cls is pyadamw.AdamW32bit else 2
    shapes = [(1 << 20,)] * (size // width >> 20)
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        manager = pyadamw.PageManager("file", directory=folder)
        sides = _sides(cls, shapes, torch.bfloat16, manager, settings)
        del sides[1]
        plain = PlainFile(folder, manager.stats()["file_bytes"])
        before = manager.stats()
        least = 3 if settings.quick else 5
        pairs = measure.paired(
            sides[0].step, plain.copy, lambda _: sides[0].fresh_gradients(), least, settings.most, settings.budget
        )
        after = manager.stats()
        plain.close()
    steps = len(pairs.first) + 1
    moved = (after["bytes_in"] + after["bytes_out"] - before["bytes_in"] - before["bytes_out"]) / steps
    speed = [moved / a / (2 * plain.size / b) for a, b in zip(pairs.first, pairs.second, strict=True)]
    ratio = measure.Quartiles.of(speed)
    return {
        "title": f"file pages: bytes a second / plain, {cls.__name__}, bf16",
        "elements": sum(sides[0].sizes),
        "bar": f">= {FILE_BAR}",
        "met": ratio.median >= FILE_BAR,
        "pairs": len(pairs.first),
        "ratio": ratio._asdict(),
        "seconds": measure.Quartiles.of(pairs.first)._asdict(),
        "rival_seconds": measure.Quartiles.of(pairs.second)._asdict(),
        "bytes": moved,
        "waiting_share": (after["wait_ns"] - before["wait_ns"]) / 1e9 / sum(pairs.first),
        "resident_peak_bytes": after["resident_peak_bytes"],
    }


def measure_all(settings):
    classes = (pyadamw.AdamW8bit, pyadamw.AdamW32bit)
    return [measure_host(cls, settings) for cls in classes] + [measure_file(cls, settings) for cls in classes]
