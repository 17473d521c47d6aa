"""Owns the ways into Hugging Face's Trainer. Must not know how a step is done.

Usage::

    from pyadamw.integrations import transformers as hf

    Trainer(model, args, optimizer_cls_and_kwargs=hf.optimizer_cls_and_kwargs(args))       # or
    Trainer(model, args, optimizer_cls_and_kwargs=hf.with_32bit_embeddings(args))          # or
    hf.enable()             # from now on optim="adamw_bnb_8bit" means pyadamw; bitsandbytes need not be installed

The optimizer gets its options from TrainingArguments: learning_rate, adam_beta1, adam_beta2, adam_epsilon, and
weight_decay for the parameters that Trainer decays. The groups are always Trainer's two (decayed, not decayed), so that
a run can continue from the checkpoint of another optimizer.

Embeddings keep 32 bits by options of single parameters (GlobalOptimManager), whatever their group. keep_embeddings()
sets these options, for any optimizer of these classes. Use it with trainers that make other groups.

With clip_in_step=True, the optimizer clips (max_grad_norm of pyadamw's classes) instead of Trainer: the functions hand
args.max_grad_norm over to it and set args.max_grad_norm = 0, so that nobody clips twice. Since transformers 5.3,
Trainer's log has the same grad_norm as before, for which Trainer still goes through the gradients once; the
optimizer's costs nothing more::

    Trainer(model, args, optimizer_cls_and_kwargs=hf.optimizer_cls_and_kwargs(args, clip_in_step=True))

Some functions, such as create_loraplus_optimizer() of peft, import bitsandbytes if a class is named AdamW8bit or
PagedAdamW8bit. Give them AdamW or PagedAdamW with optim_bits=8, which are the same optimizers::

    hf.keep_embeddings(model)
    create_loraplus_optimizer(model, pyadamw.AdamW, lr=1e-4, loraplus_lr_ratio=16, optim_bits=8)
"""

from __future__ import annotations

import contextlib
import functools
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from transformers import Trainer, TrainingArguments

from .. import optim

# Values of TrainingArguments.optim that enable() takes over.
CLASSES: dict[str, type[optim._AdamW]] = {
    "adamw_bnb_8bit": optim.AdamW8bit,
    "adamw_8bit": optim.AdamW8bit,
    "paged_adamw_8bit": optim.PagedAdamW8bit,
    "paged_adamw_32bit": optim.PagedAdamW32bit,
}

_originals: dict[str, Any] = {}  # {name: attribute of Trainer}, while enable() has replaced these attributes
_clipping = {"in step": False}  # as enable() was told


def optimizer_cls_and_kwargs(
    args: TrainingArguments,
    cls: type[optim._AdamW] = optim.AdamW8bit,
    *,
    clip_in_step: bool = False,
    **options: Any,
) -> tuple[type[optim._AdamW], dict[str, Any]]:
    """Returns a value for the argument optimizer_cls_and_kwargs of Trainer: a class and its keyword arguments.

    Args:
        args: the TrainingArguments of the Trainer. lr, betas and eps come from them; Trainer adds weight_decay.
        cls: one of the optimizer classes of pyadamw.
        clip_in_step: True: the optimizer clips instead of Trainer. This sets args.max_grad_norm to 0.
        **options: more arguments of `cls`; they win over the values in `args`.

    Returns:
        The pair (cls, keyword arguments).

    Raises:
        ValueError: `options` has max_grad_norm and Trainer would clip, too.

    Example:
        >>> import pyadamw
        >>> from pyadamw.integrations import transformers as hf
        >>> from transformers import TrainingArguments
        >>> args = TrainingArguments(output_dir="out", learning_rate=1e-4, use_cpu=True)
        >>> hf.optimizer_cls_and_kwargs(args, pyadamw.AdamW8bit, seed=1)
        (<class 'pyadamw.optim.AdamW8bit'>, {'lr': 0.0001, 'betas': (0.9, 0.999), 'eps': 1e-08, 'seed': 1})
    """
    from_args = {"lr": args.learning_rate, "betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    if clip_in_step:
        from_args["max_grad_norm"] = _take_over_clipping(args)
    elif options.get("max_grad_norm") is not None and (args.max_grad_norm or 0) > 0:
        raise ValueError(
            f"max_grad_norm = {options['max_grad_norm']}, and Trainer would clip before the step, because "
            f"args.max_grad_norm = {args.max_grad_norm}: pass clip_in_step=True, or set args.max_grad_norm = 0"
        )
    return cls, {**from_args, **options}


def _take_over_clipping(args: TrainingArguments) -> float | None:
    """The limit in `args`, for which Trainer does not clip any more; the same limit if it is asked again."""
    if (args.max_grad_norm or 0) > 0:
        args.pyadamw_max_grad_norm = args.max_grad_norm  # type: ignore[attr-defined]  # no field: it is not saved
        args.max_grad_norm = 0.0
    return getattr(args, "pyadamw_max_grad_norm", None)


def keep_embeddings(model: torch.nn.Module) -> None:
    """Makes optimizers keep 32-bit state for the embeddings of `model`, as Trainer does with bitsandbytes.

    It works for optimizers that have not stepped the embeddings yet. Rows of rare tokens have no gradient for a long
    time; with 32 bits their state is not rounded.

    For each nn.Embedding it calls GlobalOptimManager.register_module_override(embedding, "weight", {"optim_bits": 32}).

    Args:
        model: the model, whose embeddings are found among its modules().
    """
    manager = optim.GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and isinstance(getattr(module, "weight", None), torch.Tensor):
            manager.register_module_override(module, "weight", {"optim_bits": 32})


def with_32bit_embeddings(
    args: TrainingArguments,
    cls: type[optim._AdamW] = optim.AdamW8bit,
    *,
    clip_in_step: bool = False,
    **options: Any,
) -> tuple[type[Factory], dict[str, Any]]:
    """Returns a value for the argument optimizer_cls_and_kwargs of Trainer, with which embeddings keep 32 bits.

    The first value is a factory instead of a class: it gets the model, calls keep_embeddings(model), and makes an
    optimizer with Trainer's groups.

    Args:
        args: as in optimizer_cls_and_kwargs().
        cls: as in optimizer_cls_and_kwargs().
        clip_in_step: as in optimizer_cls_and_kwargs().
        **options: as in optimizer_cls_and_kwargs().

    Returns:
        The pair (Factory, keyword arguments).

    Raises:
        ValueError: `options` has max_grad_norm and Trainer would clip, too.
        RuntimeError: this version of transformers takes no factories; it must be 5.2 or newer.
    """
    if not hasattr(transformers.trainer, "is_optimizer_factory"):
        raise RuntimeError(
            f"transformers {transformers.__version__} takes no factories of optimizers, and with_32bit_embeddings() "
            "returns one: update it to 5.2 or newer, or use enable() or keep_embeddings(model)"
        )
    _, keywords = optimizer_cls_and_kwargs(args, cls, clip_in_step=clip_in_step, **options)
    return Factory, {"cls": cls, "weight_decay": args.weight_decay, **keywords}


class Factory:
    """Makes an optimizer for a model: the factory of with_32bit_embeddings().

    Trainer makes one without arguments, and calls it with the model and the keyword arguments.
    """

    def __call__(
        self, model: torch.nn.Module, *, cls: type[optim._AdamW], weight_decay: float, **keywords: Any
    ) -> optim._AdamW:
        """Returns an optimizer of class `cls` with Trainer's groups, after keep_embeddings(model).

        Args:
            model: the model to train.
            cls: one of the optimizer classes of pyadamw.
            weight_decay: of the group that Trainer decays; the other group has 0.
            **keywords: more arguments of `cls`.
        """
        keep_embeddings(model)
        # Trainer makes the groups: their number and order may differ between its versions.
        trainer = SimpleNamespace(
            model=model,
            args=SimpleNamespace(weight_decay=weight_decay),
            optimizer=None,
            optimizer_cls_and_kwargs=(cls, keywords),
            get_decay_parameter_names=functools.partial(Trainer.get_decay_parameter_names, None),  # type: ignore[arg-type]
        )
        create = _originals.get("create_optimizer", Trainer.create_optimizer)
        optimizer: optim._AdamW = create(trainer)
        return optimizer


def enable(*, clip_in_step: bool = False) -> contextlib.closing[_Switch]:
    """Makes the values of TrainingArguments.optim in CLASSES mean pyadamw's classes, in this process, until disable().

    Trainer.get_optimizer_cls_and_kwargs() then returns a class of pyadamw and keyword arguments for it. Trainers that
    make other groups can call this class like any other.

    With 8-bit classes, embeddings keep 32-bit state. This holds for the model that is passed to
    get_optimizer_cls_and_kwargs(), and for the model that Trainer.create_optimizer() makes an optimizer for.

    Args:
        clip_in_step: as in optimizer_cls_and_kwargs(); the last call of enable() decides.

    Returns:
        A context manager that calls disable() at its end.

    Example:
        >>> from pyadamw.integrations import transformers as hf
        >>> from transformers import Trainer, TrainingArguments
        >>> args = TrainingArguments(output_dir="out", optim="adamw_bnb_8bit", use_cpu=True)
        >>> with hf.enable():
        ...     Trainer.get_optimizer_cls_and_kwargs(args)[0]
        <class 'pyadamw.optim.AdamW8bit'>
    """
    _clipping["in step"] = clip_in_step
    if not _originals:
        _originals["get_optimizer_cls_and_kwargs"] = Trainer.__dict__["get_optimizer_cls_and_kwargs"]
        _originals["create_optimizer"] = Trainer.create_optimizer
        original, create = Trainer.get_optimizer_cls_and_kwargs, Trainer.create_optimizer

        @functools.wraps(original)
        def chosen(args: TrainingArguments, model: torch.nn.Module | None = None) -> tuple[Any, dict[str, Any]]:
            name = str(getattr(args.optim, "value", args.optim))
            if name not in CLASSES:
                return original(args, model)  # type: ignore[arg-type]
            eight = "8bit" in name
            if eight and model is not None:
                keep_embeddings(model)
            bits = 8 if eight else 32
            return optimizer_cls_and_kwargs(args, CLASSES[name], clip_in_step=_clipping["in step"], optim_bits=bits)

        @functools.wraps(create)
        def created(self: Trainer, *arguments: Any, **keywords: Any) -> Any:
            begun = self.optimizer is not None
            optimizer = create(self, *arguments, **keywords)
            given = getattr(self, "optimizer_cls_and_kwargs", None)
            asked = given is None or given[1].get("optim_bits") == 8  # as Trainer asks about bitsandbytes' classes
            if not begun and asked and isinstance(optimizer, optim._AdamW) and optimizer.defaults["optim_bits"] == 8:
                model = arguments[0] if arguments else keywords.get("model")
                keep_embeddings(self.model if model is None else model)  # type: ignore[arg-type]
            return optimizer

        Trainer.get_optimizer_cls_and_kwargs = staticmethod(chosen)  # type: ignore[method-assign]
        Trainer.create_optimizer = created  # type: ignore[method-assign]
    return contextlib.closing(_Switch())


def disable() -> None:
    """Undoes enable(). Existing optimizers do not change."""
    while _originals:
        setattr(Trainer, *_originals.popitem())


class _Switch:
    def close(self) -> None:
        disable()
