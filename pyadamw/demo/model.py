"""Owns the model: a character-level GPT of 1.2 M parameters in plain torch. It must not know how it is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Shape:
    context: int = 64
    width: int = 176
    layers: int = 3
    heads: int = 4


class GPT(nn.Module):
    """Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, with pre-norm blocks.

    Two changes make it learn from few characters: tokens start at unit scale beside the blocks' small outputs, and
    half of each block's channels come from the character before (token shift, Peng et al., "RWKV", 2023).
    """

    def __init__(self, vocabulary: int, shape: Shape) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, shape.width)
        self.position = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, vocabulary, bias=False)
        nn.init.normal_(self.token.weight, std=0.5)
        nn.init.normal_(self.position.weight, std=0.02)
        # Zero: the first prediction is uniform, log2(vocabulary) bits per character.
        nn.init.zeros_(self.head.weight)

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy in nats of `targets` given `inputs`, both int64 of shape (batch, context)."""
        hidden = self.token(inputs) + self.position.weight[: inputs.shape[1]]
        logits = self.head(self.norm(self.blocks(hidden)))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width, bias=False)
        self.mlp_out = nn.Linear(4 * width, width, bias=False)
        # Keeps the variance of the residual stream independent of the depth.
        for layer in (self.attention_out, self.mlp_out):
            nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * shape.layers))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden + self._attend(_token_shift(self.attention_norm(hidden)))
        # Squared ReLU: So et al., "Primer", 2021.
        return hidden + self.mlp_out(F.relu(self.mlp_in(self.mlp_norm(hidden))).square())

    def _attend(self, hidden: torch.Tensor) -> torch.Tensor:
        batch, context, width = hidden.shape
        split = self.query_key_value(hidden).view(batch, context, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.attention_out(mixed.transpose(1, 2).reshape(batch, context, width))


def _token_shift(hidden: torch.Tensor) -> torch.Tensor:
    """The second half of the channels moved one position later, so that each position also sees its predecessor."""
    kept, moved = hidden.chunk(2, dim=-1)
    return torch.cat((kept, F.pad(moved[:, :-1], (0, 0, 1, 0))), dim=-1)
