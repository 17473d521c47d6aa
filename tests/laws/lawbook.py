"""Owns the list of the laws: what each promises, who is measured by it, and how large. Must not know how.

A promise is what this project promises of its 8-bit state (of its master weights, in the law on those). Whether an
optimizer keeps it is said of everybody, by the same bounds: about those of the tests in tests/python.
"""

import statistics
from typing import NamedTuple

import contestants
import small_step_laws
import state_laws


class Law(NamedTuple):
    title: str
    promise: str
    measure: object  # (contestant, sizes) -> numbers
    kept: object  # (numbers, numbers of everybody) -> whether the promise is kept
    contestants: dict
    sizes: dict


def at_most(value, bound):
    """None stands for what is no number: NaN or infinity."""
    return value is not None and value <= bound


def within(value, lowest, largest):
    return value is not None and lowest <= value <= largest


def _ten_steps(result, _):
    bounds = {"normal": 3.5e-4, "sparse": 2e-3, "heavy": 9e-3}
    return all(at_most(result[kind]["largest"], bound) for kind, bound in bounds.items())


def _falling(result, _):
    return within(result["fallen"], 0.98, 1.02) and within(result["others"], 0.98, 1.02)


def _embedding(result, _):
    return all(
        at_most(part["error"], 0.05) and at_most(part["largest"], 1.1 * part["largest_float32"])
        for part in result.values()
    )


def _weights(result, _):
    settings = result["settings"]
    return all(within(setting["arrives"], 0.98, 1.02) for setting in settings) and at_most(settings[-2]["error"], 0.04)


def _digits(result, everybody):
    wide = everybody[contestants.REFERENCE]
    if None in result["losses"] or None in result["largest"]:
        return False
    pairs = zip(result["losses"], wide["losses"], strict=True)
    off = statistics.mean((loss - reference) ** 2 for loss, reference in pairs) ** 0.5
    return off <= statistics.stdev(wide["losses"]) and max(result["largest"]) <= 1.5 * max(wide["largest"])


LAWS = {
    "ten_steps": Law(
        "The first ten steps end where float32 state ends",
        "After ten steps at lr 1e-3 no parameter differs from the float32 run's by more than 3.5e-4 (normal "
        "gradients), 2e-3 (sparse) or 9e-3 (heavy-tailed).",
        state_laws.ten_steps,
        _ten_steps,
        contestants.STATE,
        {"shape": [144, 144], "steps": 10, "seeds": 9},
    ),
    "falling": Law(
        "Updates keep their size when gradients fall tenfold",
        "3000 steps after half of the gradients fell tenfold, the updates of both halves are 0.98 to 1.02 times those "
        "of the float32 run.",
        state_laws.falling,
        _falling,
        contestants.STATE,
        {"elements": 8192, "before": 1000, "after": 3100, "window": 25},
    ),
    "stopped": Law(
        "What gets no more gradient comes to rest",
        "After their gradients stop, elements move 0.95 to 1.05 times as far as in the float32 run.",
        state_laws.stopped,
        lambda result, _: within(result["moved"], 0.95, 1.05),
        contestants.STATE,
        {"elements": 8192, "before": 100, "after": 3000},
    ),
    "zero": Law(
        "What never had a gradient never moves",
        "Without gradient and decay no bit of a parameter changes.",
        state_laws.zero,
        lambda result, _: at_most(result["farthest"], 0.0),
        contestants.STATE,
        {"elements": 8192, "steps": 1000},
    ),
    "embedding": Law(
        "Rows that are seldom seen end where float32 state ends",
        "The displacement is that of the float32 run to 0.05, and no update is 1.1 times its largest, also with tiny "
        "gradients.",
        small_step_laws.embedding,
        _embedding,
        contestants.STATE,
        {"rows": 2000, "width": 64, "steps": 300, "tokens": 512},
    ),
    "noise": Law(
        "The noise of the state is small",
        "After 1000 steps at lr 1e-5 the displacement is that of the float32 run to 0.06, also with gradients of "
        "lognormal sizes.",
        small_step_laws.noise_of_state,
        lambda result, _: at_most(result["one_size"], 0.06) and at_most(result["lognormal"], 0.06),
        contestants.STATE,
        {
            "elements": 20_480,
            "steps": 1000,
            "shares": [1.0, 0.5, 0.25, 0.12, 0.05, 0.02, 0.01],
            "blocks": 8,
            "spread_steps": 3000,
        },
    ),
    "weights": Law(
        "bfloat16 weights lose no update",
        "0.98 to 1.02 of the displacement of float32 weights arrives, and at lr 1e-6 it is right to 0.04.",
        small_step_laws.weights,
        _weights,
        contestants.WEIGHTS,
        {"elements": 20_480, "settings": [[6e-7, 220], [1e-6, 2000], [1e-5, 2000]]},
    ),
    "digits": Law(
        "Training ends where it ends with float32 state",
        "The losses differ from those of float32 state by less than these differ from seed to seed, and no weight is "
        "1.5 times the largest one there.",
        small_step_laws.digits,
        _digits,
        contestants.WITH_REFERENCE,
        {"steps": 800, "seeds": 4},
    ),
}
