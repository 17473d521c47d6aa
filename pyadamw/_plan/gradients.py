"""Owns how many bytes of gradients exist at once if each is stepped and dropped as soon as it has come. Must not know
of optimizer state.
"""

from __future__ import annotations

from collections.abc import Callable

from .weights import Form, Model

# A number of parameters says nothing about modules. One of so many is assumed to have a gradient at a time: in language
# models of 7 billion parameters and more, the largest module, an embedding or an output layer, has fewer. (Of
# transformers' default configurations: Llama 1 of 54, Qwen2 1 of 19; small models with tied embeddings up to 2 of 3.)
ASSUMED_SHARE = 4


def in_backward(model: Model, bytes_of: Callable[[Form], int]) -> int:
    """The largest number of bytes of gradients that exist at a time. `bytes_of`: of one tensor.

    The gradients of one module's own parameters (weight and bias) come together. That of a shared parameter (tied
    weights) exists from the first of its modules to the last, where another one of its size is added to it.
    """
    trained = [weight for weight in model.weights if weight.form.trains]
    if not model.has_shapes:
        return -(-sum(bytes_of(weight.form) for weight in trained) // ASSUMED_SHARE)
    units: dict[str, int] = {}
    shared = [bytes_of(weight.form) for weight in trained if weight.shared]
    for weight in trained:
        if not weight.shared:
            units[weight.unit] = units.get(weight.unit, 0) + bytes_of(weight.form)
    return sum(shared) + max([*units.values(), *shared], default=0)
