"""Owns the plan of a model: its source, its choices, the best of them. Must not know how bytes are counted, or how a
table looks.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import torch

from .._checks import is_integer, refuse, shown
from . import sources, table
from .choices import Choice, Planner, best, room
from .quantities import bytes_of
from .sizes import Process
from .weights import Model, block_unit, cast, check

_DTYPES = {"bf16": torch.bfloat16, "bfloat16": torch.bfloat16, "fp32": torch.float32, "float32": torch.float32}


@dataclasses.dataclass(eq=False, repr=False)
class Plan:
    """What each choice of optimizer takes for one model, as pyadamw.plan() finds it; str() is a table.

    Attributes:
        source: the model: its class, path or number.
        parameters: number of parameters that train, in all processes.
        frozen: number of elements of other tensors.
        tensors: number of tensors that train.
        has_shapes: whether the shapes of tensors are known; False for a number of parameters.
        processes: number of processes that FSDP2 shards the model over.
        process: the number of the process that the bytes are of. Process 0 has the most.
        gpu: bytes of memory of the device, or None.
        room: bytes of it that the best choice should leave for what is not counted, or None.
        choices: a list of Choice, in the order of the table.
        best: the first one of pyadamw's in the order of Choice.preference that fits and leaves `room`; else the first
            one that fits; None if none fits or `gpu` is None.
        notes: sentences about what was assumed.
    """

    source: str
    parameters: int
    frozen: int
    tensors: int
    has_shapes: bool
    processes: int
    process: int
    gpu: int | None
    room: int | None
    choices: list[Choice]
    best: Choice | None
    notes: list[str]
    _model: Model = dataclasses.field(init=False)

    def of_process(self, process: int) -> Plan:
        """The plan of another process.

        Args:
            process: its number, in [0, processes).

        Raises:
            ValueError: there is no such process.
        """
        if not (is_integer(process) and 0 <= process < self.processes):
            refuse("process", process, f"an integer in [0, {self.processes})")
        return _planned(self._model, self.gpu, Process(int(process), self.processes))

    def to_json(self) -> dict[str, Any]:
        """All of it, as objects of JSON. Numbers are bytes, if their names do not say otherwise."""
        return {
            "source": self.source,
            "parameters": self.parameters,
            "frozen": self.frozen,
            "tensors": self.tensors,
            "has_shapes": self.has_shapes,
            "processes": self.processes,
            "process": self.process,
            "gpu": self.gpu,
            "room": self.room,
            "choices": [_as_json(choice) for choice in self.choices],
            "best": None if self.best is None else self.choices.index(self.best),
            "code": None if self.best is None else self.best.code,
            "notes": self.notes,
        }

    def __str__(self) -> str:
        return table.table(self)

    __repr__ = __str__


def _planned(model: Model, gpu: int | None, process: Process) -> Plan:
    trained = [weight.form.numel for weight in model.weights if weight.form.trains]
    planner = Planner(model, process, gpu)
    choices = list(planner.choices())
    made = Plan(
        source=model.what,
        parameters=sum(trained),
        frozen=sum(weight.form.numel for weight in model.weights) - sum(trained),
        tensors=len(trained),
        has_shapes=model.has_shapes,
        processes=process.of,
        process=process.number,
        gpu=gpu,
        room=None if gpu is None else room(gpu),
        choices=choices,
        best=None if gpu is None else best(choices),
        notes=[*model.notes, *_notes(planner)],
    )
    made._model = model
    return made


def _notes(planner: Planner) -> list[str]:
    notes = []
    if not planner.takes_bitsandbytes:
        notes.append("bitsandbytes is left out: it does not step the DTensors of FSDP2.")
    gathered = planner.gathered()
    if gathered:
        first, why = next(iter(gathered.items()))
        text = f"8-bit state: {len(gathered)} tensors are gathered in each step, and their state is whole in every "
        notes.append(f"{text}process, such as that of {first}: {why}.")
    return notes


def _as_json(choice: Choice) -> dict[str, Any]:
    return {
        **dataclasses.asdict(choice),
        "device": choice.device,
        "bytes_per_parameter": choice.bytes_per_parameter,
    }


def plan(
    model: torch.nn.Module | str | os.PathLike[str] | int,
    *,
    gpu: int | str | None = None,
    dtype: torch.dtype | str | None = None,
    processes: int = 1,
) -> Plan:
    """What the weights, gradients and optimizer state of a model take, for each choice of optimizer: exactly, in bytes.

    Nothing is allocated, and no file is read but for names and shapes. Not counted: activations, the CUDA context, what
    torch's allocator keeps free, copies that exist only during a step or a backward (of FSDP2: layers that are whole),
    and step counts.

    Args:
        model: one of these:
            a torch.nn.Module, also on the meta device or with DTensors. Parameters that require a gradient train;
            others, and buffers, count as weights only. Of a model with DTensors, the plan is that of this process.
            a path: a file of safetensors, a folder with them, or the index.json of several; a config.json of Hugging
            Face, or a folder with one and without weights (needs transformers; code beside the file is not run); a
            file of torch.save() with a state dict, or with a dict that has one under "model", "state_dict" or
            "model_state_dict". A file does not say what trains: all floating tensors do.
            a number of parameters: an int, or text such as "7B", "350M", "7e9".
        gpu: bytes of memory of the device, or text such as "24GiB" or "80GB". None: nothing is said about what fits.
        dtype: of the weights when they train: torch.bfloat16, torch.float32, "bf16" or "fp32". None: as they are;
            bfloat16 for a number.
        processes: number of processes that fully_shard() (FSDP2) cuts each parameter over, on dimension 0. The bytes
            are those of the process that has most. 1 is also right for DistributedDataParallel.

    Raises:
        ValueError: an argument is wrong, or the model has parameters that cannot be stepped; the message says which.
        OSError: a file cannot be read.

    Returns:
        A Plan. print() shows it as a table; `best` is the choice that pyadamw would take, `best.code` makes it.

    Example:
        >>> import pyadamw
        >>> plan = pyadamw.plan("7B", gpu="80GiB")
        >>> plan.best.optimizer, plan.best.master_weight_bits, plan.best.in_backward
        ('AdamW16bit', 32, False)
        >>> print(plan.best.code)
        from pyadamw import AdamW16bit
        model.bfloat16()
        optimizer = AdamW16bit(model.parameters(), master_weight_bits=32)

    The rules are those of the optimizers: tests/python/test_plan_bytes.py compares plans with tensors after a step.
    """
    if not (dtype is None or dtype in _DTYPES.values() or (isinstance(dtype, str) and dtype.lower() in _DTYPES)):
        refuse("dtype", dtype, "torch.bfloat16, torch.float32, 'bf16', 'fp32' or None")
    if not (is_integer(processes) and 1 <= processes <= 2**16):
        refuse("processes", processes, "an integer in [1, 2^16]")
    room_for = None if gpu is None else bytes_of("gpu", gpu)
    found = cast(sources.read(model), _DTYPES[dtype.lower()] if isinstance(dtype, str) else dtype)
    if processes > 1:
        if found.is_placed:
            raise ValueError(f"processes = {shown(processes)}: must be 1, because the model is sharded already")
        weights = [weight._replace(unit=block_unit(weight.name), shared=False) for weight in found.weights]
        found = found._replace(weights=weights)
    check(found.weights)
    return _planned(found, room_for, Process(0, int(processes)))
