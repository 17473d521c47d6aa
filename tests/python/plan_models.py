"""Owns models with awkward shapes for the tests of the planner, and what their tensors really take. Must not know what
the planner says.
"""

import json
import warnings
import weakref
from typing import NamedTuple

import torch
from harness import Late
from torch import nn

safetensors = Late("safetensors.torch")


class Numbers(nn.Module):
    """A parameter of any shape by itself, of which each element counts."""

    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) * 0.1)

    def forward(self, x):
        return x + self.weight.square().mean()


class Block(nn.Module):
    """Rows of 64, 257 and 192 (in three dimensions), biases, norms; rows of 63, which are too short for own blocks."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(64, 257), nn.Linear(257, 64, bias=False)
        self.norm, self.conv = nn.LayerNorm(64), nn.Conv1d(64, 64, 3, padding=1)
        self.short, self.vector, self.tiny = Numbers(100, 63), Numbers(5000), Numbers(3)

    def forward(self, x):
        x = self.norm(x + self.down(self.up(x).tanh()))
        return self.tiny(self.vector(self.short(x + self.conv(x.mT).mT)))


class Awkward(nn.Module):
    """Two blocks between an embedding and a head, which may share a weight of over 100,000 elements; something that
    is frozen; a buffer; something below and at 4096 elements; rows of 256."""

    def __init__(self, tied=False):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(1601, 64), nn.Linear(64, 1601, bias=not tied)
        if tied:
            self.head.weight = self.embedding.weight
        self.blocks = nn.ModuleList([Block(), Block()])
        self.below, self.at, self.rows = Numbers(4095), Numbers(64, 64), Numbers(17, 256)
        self.frozen = nn.Linear(64, 64)
        self.frozen.requires_grad_(False)
        self.register_buffer("scale", torch.ones(5))

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        x = self.rows(self.at(self.below(self.frozen(x) * self.scale[0])))
        return self.head(x)

    def loss(self):
        return self(torch.arange(16).reshape(2, 8)).float().square().mean()


class Taken(NamedTuple):
    """Bytes."""

    weights: int
    gradients: int
    remainder: int
    state: int
    host: int


def inner(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def bytes_of(tensors):
    """Of the elements of tensors, each piece of memory once."""
    found = {(t.data_ptr(), t.numel(), t.dtype): t.numel() * t.element_size() for t in map(inner, tensors)}
    return sum(found.values())


def code_of(choice, model):
    """The optimizer that the printed lines make."""
    names = {"model": model}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(choice.code, names)
    return names["optimizer"]


def taken(model, optimizer, gradients):
    """What model and optimizer take after a step. `gradients`: what those have taken."""
    weights = bytes_of([*model.parameters(), *model.buffers()])
    state, remainder = [], []
    for entry in optimizer.state.values():
        for key, value in entry.items():
            if key != "step" and isinstance(value, torch.Tensor):
                (remainder if key == "param_remainder" else state).append(value)
    places = optimizer.memory_report().places if hasattr(optimizer, "memory_report") else {}
    return Taken(weights, gradients, bytes_of(remainder), bytes_of(state), places.get("host", 0))


class Live:
    """The memory of gradients that exists at a time, from when a node of the graph has computed them: seen by the hooks
    of these nodes. Views, as a transposed weight has for its gradient, are no memory of their own."""

    VIEWS = ("TBackward0", "TransposeBackward0", "ViewBackward0", "UnsqueezeBackward0", "SqueezeBackward1")

    def __init__(self):
        self._live, self.peak = {}, 0

    def watch(self, loss):
        seen, new = set(), [loss.grad_fn]
        while new:
            node = new.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            new += [following for following, _ in node.next_functions]
        for node in seen:
            if any(map(self._leads_to_a_parameter, (following for following, _ in node.next_functions))):
                node.register_hook(lambda inputs, _outputs, node=node: self._computed(node, inputs))

    def _leads_to_a_parameter(self, node):
        while node is not None and type(node).__name__ in self.VIEWS:
            node = node.next_functions[0][0]
        return type(node).__name__ == "AccumulateGrad"

    def _computed(self, node, gradients):
        for (following, _), gradient in zip(node.next_functions, gradients, strict=True):
            if gradient is not None and self._leads_to_a_parameter(following):
                self.note(gradient)
        self.count()

    def note(self, gradient):
        storage = inner(gradient).untyped_storage()
        self._live[storage.data_ptr()] = weakref.ref(storage), storage.nbytes()

    def count(self):
        self._live = {address: entry for address, entry in self._live.items() if entry[0]() is not None}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))


def trained(model):
    """A model as files show it, which do not say what is frozen, or a buffer."""
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def save_in_three(tensors, folder):
    """Three files of safetensors with an index, as transformers saves a large model. Returns the folder."""
    parts = [{}, {}, {}]
    for number, (name, tensor) in enumerate(tensors.items()):
        parts[number % 3][name] = tensor
    names = [f"model-0000{number + 1}-of-00003.safetensors" for number in range(3)]
    for part, name in zip(parts, names, strict=True):
        safetensors.save_file(part, folder / name, metadata={"format": "pt"})
    weight_map = {name: file for part, file in zip(parts, names, strict=True) for name in part}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
