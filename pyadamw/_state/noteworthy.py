"""Owns what is worth saying about the statistics of all parameters, in words. Must not know how they were counted or
how the findings are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._findings import Finding
from .marks import FORMAT, FORMAT_KEY
from .statistics import Statistics

SHOWN = 3  # names in a sentence
FEW_CODES = 16 / 256
MANY_ELEMENTS = 65536  # of which few codes are noteworthy
MOSTLY = 0.5


def noteworthy(groups: Sequence[Mapping[str, Any]], found: Sequence[Statistics]) -> list[Finding]:
    """The findings of a checkpoint; the level "error" is for state that cannot be loaded or converted."""
    return [
        *_refused(found),
        *_not_finite(found),
        *_steps(found),
        *_moved(found),
        *_codes(found),
        *_others(groups, found),
    ]


def _names(found: Sequence[Statistics]) -> str:
    """'a', 'b', 'c' and 4 more."""
    names = [repr(one.title) for one in found[:SHOWN]]
    more = len(found) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _count(found: Sequence[Statistics], verb: str, verbs: str) -> str:
    return f"1 parameter {verb}" if len(found) == 1 else f"{len(found)} parameters {verbs}"


def _refused(found: Sequence[Statistics]) -> Iterator[Finding]:
    refused = [one for one in found if one.refused]
    for one in refused[:SHOWN]:
        cure = "Go back to an earlier checkpoint, or delete the state of this parameter: it then starts anew."
        yield Finding("error", "refused", f"Loading or converting refuses this state: {one.refused}.", cure)
    if len(refused) > SHOWN:
        text = f"It refuses the state of {_count(refused[SHOWN:], '', '').strip()} more: {_names(refused[SHOWN:])}."
        yield Finding("error", "refused", text, "See --all, or --json for the reasons.")


def _not_finite(found: Sequence[Statistics]) -> Iterator[Finding]:
    scales = [one for one in found if any(m.scales and m.scales.nonfinite for m in one.moments.values())]
    if scales:
        text = f"{_count(scales, 'has', 'have')} scales that are infinite or NaN: {_names(scales)}."
        yield Finding("warning", "not finite", text, "Go back to an earlier checkpoint: no step makes such scales.")
    numbers = [one for one in found if one.nonfinite and one not in scales]
    if numbers:
        text = f"{_count(numbers, 'has', 'have')} infinities or NaNs in the moments: {_names(numbers)}."
        cure = (
            "Such gradients came at some step. 32-bit and 16-bit state carries them on; classes with 8-bit state "
            "refuse them. Set these elements of all moments to 0, or go back to an earlier checkpoint."
        )
        yield Finding("warning", "not finite", text, cure)


def _steps(found: Sequence[Statistics]) -> Iterator[Finding]:
    at: dict[float, list[Statistics]] = {}
    for one in found:
        if one.step is not None:
            at.setdefault(one.step, []).append(one)
    if len(at) < 2:
        return
    usual = max(at, key=lambda step: (len(at[step]), step))
    others = [one for step in sorted(at) if step != usual for one in at[step]]
    counts = ", ".join(f"{len(at[step])} at {step:.0f}" for step in sorted(at, reverse=True)[:SHOWN])
    more = f" and {len(at) - SHOWN} more counts" if len(at) > SHOWN else ""
    yield Finding(
        "note",
        "steps",
        f"Step counts differ between parameters ({counts}{more}): not at {usual:.0f}: {_names(others)}.",
        "This is right if these parameters had no gradient in some steps, or came later.",
    )


def _moved(found: Sequence[Statistics]) -> Iterator[Finding]:
    without = [one for one in found if not one.moments and not one.refused]
    if without:
        text = f"{_count(without, 'has', 'have')} no state: {_names(without)}."
        yield Finding("note", "no state", text, "This is right if they are frozen, or had no gradient so far.")
    whole, part = [], []
    for one in found:
        moment = one.moments.get("exp_avg_sq")
        if moment is None or moment.zeros is None or not one.numel:
            continue
        if all(m.zeros == one.numel for m in one.moments.values()):
            whole.append(one)
        elif moment.zeros > MOSTLY * one.numel:
            part.append(one)
    if whole:
        text = f"{_count(whole, 'has', 'have')} moments that are all zero, so it never moved: {_names(whole)}."
        text = text if len(whole) == 1 else text.replace("so it never", "so they never")
        yield Finding("note", "never moved", text, "Look whether its gradient reaches it.")
    if part:
        share = ", ".join(f"{one.title!r} {_zeros(one):.0%}" for one in part[:SHOWN])
        more = f" and {len(part) - SHOWN} more" if len(part) > SHOWN else ""
        text = f"Most elements of {_count(part, 'has', 'have').rsplit(' ', 1)[0]} never had a gradient: {share}{more}."
        yield Finding("note", "zeros", text, "This is usual for rows of embeddings that the data does not use.")


def _zeros(one: Statistics) -> float:
    return (one.moments["exp_avg_sq"].zeros or 0) / one.numel


def _codes(found: Sequence[Statistics]) -> Iterator[Finding]:
    few = [
        one
        for one in found
        if one.numel >= MANY_ELEMENTS
        and any(
            m.codes_used is not None and m.codes_used < FEW_CODES and m.zeros is not None and m.zeros < one.numel
            for m in one.moments.values()
        )
    ]
    if few:
        text = f"{_count(few, 'uses', 'use')} less than {256 * FEW_CODES:.0f} of the 256 codes: {_names(few)}."
        yield Finding(
            "note", "codes", text, "Their numbers hardly vary within a block; if that is a surprise, look at them."
        )


def _others(groups: Sequence[Mapping[str, Any]], found: Sequence[Statistics]) -> Iterator[Finding]:
    masters = sorted({one.master_weight_bits for one in found if one.master_weight_bits})
    if masters:
        count = _count([one for one in found if one.master_weight_bits], "has", "have")
        yield Finding(
            "note",
            "master weights",
            f"{count} master weights of {' and '.join(map(str, masters))} bits: the state belongs to the bfloat16 "
            "weights of the same step, and optimizers without master weights refuse it.",
            f"Load the weights first, then the state into a class with master_weight_bits={masters[-1]}.",
        )
    formats: set[Any] = {group.get(FORMAT_KEY) for group in groups} - {None, FORMAT}
    formats |= {1 for one in found for m in one.moments.values() if "format 1" in m.format}
    formats |= {2 for one in found for m in one.moments.values() if "format 2" in m.format}
    if formats:
        yield Finding(
            "note",
            "earlier build",
            f"An earlier build of pyadamw wrote this state (format {' and '.join(map(str, sorted(formats)))}; today: "
            f"{FORMAT}), with other 8-bit codes.",
            "load_state_dict() converts it; `python -m pyadamw convert IN OUT --to pyadamw` makes a file of today.",
        )
    if found and all(one.name is None for one in found):
        yield Finding(
            "note",
            "names",
            "The state has no names of parameters: they are numbered in the order in which the optimizer got them.",
            "For names, make the optimizer from model.named_parameters() (torch 2.6 or newer).",
        )
