"""Owns the ways into Hugging Face's Trainer. Must not know how a step is done.

    from pyadamw.integrations import transformers as hf

    Trainer(model, args, optimizer_cls_and_kwargs=hf.optimizer_cls_and_kwargs(args))       # or
    Trainer(model, args, optimizer_cls_and_kwargs=hf.with_32bit_embeddings(args))          # or
    hf.enable()             # from now on optim="adamw_bnb_8bit" is pyadamw's; bitsandbytes need not be there

What TrainingArguments says is taken: learning_rate, adam_beta1, adam_beta2, adam_epsilon, and weight_decay for the
parameters that Trainer decays. (Trainer itself hands none of it to an optimizer_cls_and_kwargs of the user's.)
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from .. import optim

# Values of TrainingArguments.optim that enable() takes over.
CLASSES: dict[str, type[optim._AdamW]] = {
    "adamw_bnb_8bit": optim.AdamW8bit,
    "adamw_8bit": optim.AdamW8bit,
    "paged_adamw_8bit": optim.PagedAdamW8bit,
    "paged_adamw_32bit": optim.PagedAdamW32bit,
}

_originals: list[Any] = []  # Trainer.get_optimizer_cls_and_kwargs as it was, while another is in its place


def optimizer_cls_and_kwargs(
    args: TrainingArguments, cls: type[optim._AdamW] = optim.AdamW8bit, **options: Any
) -> tuple[type[optim._AdamW], dict[str, Any]]:
    """(class, keyword arguments) for Trainer's argument of this name.

    Args:
        args: TrainingArguments.
        cls: one of pyadamw's six classes.
        options: more arguments of `cls`; they win over those from `args`.
    """
    from_args = {"lr": args.learning_rate, "betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    return cls, {**from_args, **options}


def with_32bit_embeddings(
    args: TrainingArguments, cls: type[optim._AdamW] = optim.AdamW8bit, **options: Any
) -> tuple[type[Factory], dict[str, Any]]:
    """The same, as a factory that sees the model: embeddings keep 32-bit state, as Trainer does with bitsandbytes.

    Rows of rare tokens have no gradient for long, and state of their own that is not rounded.
    """
    _, keywords = optimizer_cls_and_kwargs(args, cls, **options)
    return Factory, {"cls": cls, "weight_decay": args.weight_decay, **keywords}


class Factory:
    """What Trainer calls as Factory()(model, **keywords)."""

    def __call__(
        self, model: torch.nn.Module, *, cls: type[optim._AdamW], weight_decay: float, **keywords: Any
    ) -> optim._AdamW:
        """An optimizer of class `cls` with a group for each kind of parameter that the model has: decayed by
        `weight_decay` or not, embeddings or not."""
        decayed = set(Trainer.get_decay_parameter_names(None, model))
        embeddings = {
            id(param)
            for module in model.modules()
            if isinstance(module, torch.nn.Embedding)
            for param in module.parameters(recurse=False)
        }
        kinds = {}
        for name, param in model.named_parameters():
            if param.requires_grad:
                kinds.setdefault((name in decayed, id(param) in embeddings), []).append((name, param))
        groups = []
        for (decay, embedding), params in kinds.items():
            group = {"params": params, "weight_decay": weight_decay if decay else 0.0}
            groups.append({**group, "optim_bits": 32} if embedding else group)
        return cls(groups, **keywords)


def enable() -> contextlib.closing[_Switch]:
    """Makes the values of TrainingArguments.optim in CLASSES mean pyadamw's classes, in this process, until disable().

    8-bit ones keep embeddings in 32 bits. Returns a context manager whose end is disable().
    """
    if not _originals:
        original = Trainer.get_optimizer_cls_and_kwargs

        def chosen(args, model=None):
            name = str(getattr(args.optim, "value", args.optim))
            if name not in CLASSES:
                return original(args, model)
            choose = with_32bit_embeddings if "8bit" in name else optimizer_cls_and_kwargs
            return choose(args, CLASSES[name])

        _originals.append(original)
        Trainer.get_optimizer_cls_and_kwargs = staticmethod(chosen)
    return contextlib.closing(_Switch())


def disable() -> None:
    """Ends what enable() began."""
    if _originals:
        Trainer.get_optimizer_cls_and_kwargs = staticmethod(_originals.pop())


class _Switch:
    def close(self) -> None:
        disable()
