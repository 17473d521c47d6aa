"""Owns the report on the size and the place of optimizer state. Must not know how state is made or stepped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from .._native.layout import kind
from .._native.memory import is_lazy
from .._native.pager import home
from .._options.overrides import Overrides
from ..paging import PageManager, manager_of
from .sharding import inner
from .spec import describe, state_spec, stepped_view


class Entry(NamedTuple):
    """The state of one parameter, in a MemoryReport.

    Attributes:
        name: such as "parameter 'layer.weight' (shape (10, 20))", or the number and the group of the parameter.
        numel: the number of elements of the parameter. Of a sharded parameter, these are the elements of all shards.
        bits: bits of an element of exp_avg: 8, 16 or 32.
        why: why it has 32 bits or is not paged although the options ask for it, or is whole in every process. Else "".
        places: {place: bytes}. "host", "file", "pinned", "managed" and "device" are pages, others torch devices.
        master_weight_bits: 24 or 32: the state also has what the parameter lacks of a master weight. Otherwise None.
    """

    name: str
    numel: int
    bits: int
    why: str
    places: dict[str, int]
    master_weight_bits: int | None = None

    @property
    def bytes(self) -> int:
        """The bytes of the state of the parameter in this process, in all places."""
        return sum(self.places.values())


class MemoryReport:
    """The result of optimizer.memory_report(), of which str() makes a table.

    It describes the state at the time of the call, in this process. Step counts are not counted.

    Attributes:
        entries: an Entry for each parameter, in the order of the groups. A parameter without state has 0 bytes.
        places: {place: bytes} of all state.
        managers: [(PageManager, its stats())] of the page managers that the groups use.

    Example:
        >>> import torch, pyadamw
        >>> model = torch.nn.Linear(256, 256)
        >>> optimizer = pyadamw.AdamW8bit(model.named_parameters())
        >>> model(torch.ones(8, 256)).square().mean().backward()
        >>> optimizer.step()
        >>> report = optimizer.memory_report()
        >>> report.places
        {'cpu': 136192}
        >>> report.entries[1].why
        '32 bits because it has fewer than min_8bit_size = 4096 elements'
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        states: Mapping[torch.Tensor, dict[str, Any]],
        default: PageManager,
        overrides: Overrides,
    ) -> None:
        """Makes the report; memory_report() of an optimizer calls it.

        Args:
            groups: the parameter groups.
            states: the state of each parameter.
            default: the page manager of groups whose page_manager is None.
            overrides: the options of single parameters.
        """
        self.entries: list[Entry] = [
            _entry(
                describe(groups, number, position),
                param,
                overrides.applied(group, param, bool(states.get(param))),
                states.get(param) or {},
                default,
            )
            for number, group in enumerate(groups)
            for position, param in enumerate(group["params"])
        ]
        self.places: dict[str, int] = {}
        for entry in self.entries:
            for place, count in entry.places.items():
                self.places[place] = self.places.get(place, 0) + count
        managers = {id(m): m for m in (group["page_manager"] or default for group in groups if group["is_paged"])}
        self.managers: list[tuple[PageManager, dict[str, int]]] = [(m, m.stats()) for m in managers.values()]

    @property
    def bytes(self) -> int:
        """The bytes of all state in this process, in all places."""
        return sum(self.places.values())

    def __str__(self) -> str:
        lines = [f"{'bits':>4} {'master':>6} {'bytes':>15}  {'place':<24} parameter"]
        for entry in self.entries:
            place = ", ".join(entry.places) or "no state yet"
            why = f": {entry.why}" if entry.why else ""
            master = entry.master_weight_bits or ""
            lines.append(f"{entry.bits:>4} {master:>6} {entry.bytes:>15,}  {place:<24} {entry.name}{why}")
        lines.append(f"{'':>4} {'':>6} {self.bytes:>15,}  " + ", ".join(f"{k} {v:,}" for k, v in self.places.items()))
        for manager, stats in self.managers:
            lines.append(repr(manager))
            lines += [f"  {name:<20} {value:>17,}" for name, value in stats.items()]
        return "\n".join(lines)

    __repr__ = __str__


def _entry(name: str, param: torch.Tensor, group: dict[str, Any], state: dict[str, Any], default: PageManager) -> Entry:
    if is_lazy(param):
        return Entry(name, 0, group["optim_bits"], "the parameter is not initialized yet", {})
    view = stepped_view(param, group, name)
    spec = state_spec(view, group, default)
    reasons: list[str] = []
    places: dict[str, int] = {}
    if group["optim_bits"] == 8 and not kind(spec.format).coded:
        reasons.append(f"32 bits because it has fewer than min_8bit_size = {group['min_8bit_size']} elements")
    if group["is_paged"] and manager_of(group, param.numel(), default) is None:
        minimum = (group["page_manager"] or default).min_numel
        reasons.append(f"not paged because it has fewer than min_numel = {minimum} elements")
    if view.whole:
        reasons.append(f"gathered for each step, and its state is whole in every process, because {view.gathered}")
    for key, value in state.items():
        if key != "step" and isinstance(value, torch.Tensor):
            local = inner(value)
            place = home(local)[1] or str(local.device)
            places[place] = places.get(place, 0) + local.numel() * local.element_size()
    master = spec.remainder_bits + 16 if spec.remainder_bits else None
    return Entry(name, param.numel(), kind(spec.format).bits, "; ".join(reasons), places, master)
