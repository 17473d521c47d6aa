"""Owns how text becomes batches: vocabulary, split, windows. It must not know the model or the optimizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch

TRAINING_SHARE = 0.9
MAX_VOCABULARY = 256
UNKNOWN = 0


class Corpus:
    """A text as character numbers, the first 90% for training and the rest for validation.

    The vocabulary is made from the training part alone. Number 0 stands for every other character, and for the
    rarest ones of a text that has more than 255.
    """

    def __init__(self, text: str, context: int) -> None:
        split = int(len(text) * TRAINING_SHARE)
        common = [character for character, _ in Counter(text[:split]).most_common(MAX_VOCABULARY - 1)]
        number = {character: i for i, character in enumerate(sorted(common), start=1)}
        tokens = torch.tensor([number.get(character, UNKNOWN) for character in text], dtype=torch.int16)
        self.vocabulary = len(number) + 1
        self.training, self.validation = tokens[:split], tokens[split:]
        self.window = torch.arange(context + 1)

    def training_batches(self, size: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Endless (inputs, targets), int64 of shape (size, context): random windows, the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        starts = len(self.training) - len(self.window) + 1
        while True:
            yield self._cut(self.training, torch.randint(starts, (size,), generator=generator))

    def validation_batches(self, size: int, windows: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Always the same (inputs, targets): at most `windows` windows, spread evenly, none overlapping another."""
        context = len(self.window) - 1
        starts = torch.arange(0, len(self.validation) - context, context)
        if len(starts) > windows:
            starts = starts[torch.arange(windows) * len(starts) // windows]
        return [self._cut(self.validation, part) for part in starts.split(size)]

    def _cut(self, tokens: torch.Tensor, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        windows = tokens[starts[:, None] + self.window].long()
        return windows[:, :-1], windows[:, 1:]
