"""Owns float32 state dicts of models whose optimizer keeps master weights. Must not know how a weight is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch

from ._base import Base
from ._checks import shown
from ._native.memory import is_lazy, oddity
from ._state.formats import REMAINDER
from ._state.sharding import inner, is_sharded, placed_as, stepped_part
from ._state.weights import TakeOver, float32_weights, take_over

Optimizers: TypeAlias = "Base | Sequence[Base]"

_WIDENED = (torch.bfloat16, torch.float16)


class _Owner(NamedTuple):
    """Which optimizer steps a parameter, and where it is among the optimizer's groups."""

    optimizer: Base
    number: int
    position: int


def _unwrapped(optimizer: Any) -> Any:
    """The optimizer in the wrappers of Accelerate, Trainer and Lightning."""
    while not isinstance(optimizer, Base) and isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def _owners(optimizer: Any) -> dict[int, _Owner]:
    """{id of a parameter: its owner}."""
    found = list(map(_unwrapped, optimizer if isinstance(optimizer, (list, tuple)) else [optimizer]))
    for one in found:
        if not isinstance(one, Base):
            need = "an optimizer of pyadamw, or a list of them"
            raise ValueError(f"optimizer is {type(one).__name__}: must be {need}")
    return {
        id(param): _Owner(one, number, position)
        for one in found
        for number, group in enumerate(one.param_groups)
        for position, param in enumerate(group["params"])
    }


def _entries(model: Any, owners: Any) -> Any:
    """model.state_dict() with the parameters themselves. ValueError if master weights would be missed."""
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model is {type(model).__name__}: must be a torch.nn.Module")
    named = {id(param): name for name, param in model.named_parameters()}
    if owners and not owners.keys() & named.keys():
        raise ValueError("the optimizer has none of the parameters of the model: pass the model that it was made for")
    entries = model.state_dict(keep_vars=True)
    there = set(map(id, entries.values()))
    for key, name in named.items():
        owner = owners.get(key)
        if owner is not None and key not in there and _has_master(owner):
            raise ValueError(
                f"the model has parameter {name!r}, but its state_dict() has something else instead, as with "
                "FullyShardedDataParallel (FSDP1): shard the model with fully_shard (FSDP2), or use "
                "optimizer.fp32_weights()"
            )
    return entries


def _has_master(owner: _Owner) -> bool:
    group = owner.optimizer.param_groups[owner.number]
    state = owner.optimizer._state.get(group["params"][owner.position]) or {}
    return group.get("master_weight_bits") is not None or REMAINDER in state


def _is_ordinary(value: Any) -> bool:
    """Whether it is a tensor of plain numbers, sharded or not: other classes may mean something else by theirs."""
    return type(value) in (torch.Tensor, torch.nn.Parameter) or is_sharded(value)


def fp32_state_dict(model: torch.nn.Module, optimizer: Optimizers) -> dict[str, Any]:
    """Returns model.state_dict() with every parameter as float32: the master weights where the optimizer keeps them.

    The parameters are in new memory. A parameter with several names is one tensor under all of them. bfloat16 and
    float16 parameters without master weights are converted. Buffers, and parameters of other dtypes, are as they are in
    model.state_dict(). Sharded parameters (DTensors) have sharded weights: so torch.distributed.checkpoint can save the
    result.

    Args:
        model: the model whose parameters `optimizer` steps.
        optimizer: an optimizer of pyadamw, also as Accelerate, Trainer or Lightning wrap it. Or a list of them, each of
            some parameters of the model.

    Returns:
        A dict of tensors, with the names of model.state_dict().

    Raises:
        ValueError: the optimizer is not of pyadamw, or steps none of these parameters. Or the optimizer has master
            weights of a parameter that model.state_dict() does not show (FSDP1).

    Example:
        >>> import torch, pyadamw
        >>> model = torch.nn.Linear(64, 64, dtype=torch.bfloat16)
        >>> optimizer = pyadamw.AdamW8bit(model.parameters(), lr=1e-3, master_weight_bits=32)
        >>> model(torch.ones(8, 64, dtype=torch.bfloat16)).square().mean().backward()
        >>> optimizer.step()
        >>> weights = pyadamw.fp32_state_dict(model, optimizer)
        >>> weights["weight"].dtype, torch.equal(weights["weight"].to(torch.bfloat16), weights["weight"])
        (torch.float32, False)
    """
    owners = _owners(optimizer)
    entries, made = _entries(model, owners), {}
    for one in {owner.optimizer for owner in owners.values()}:
        one._settle_pages()
    params = set(map(id, model.parameters()))
    for key, value in entries.items():
        if not isinstance(value, torch.Tensor) or is_lazy(value):
            continue
        of = id(value)
        if of not in made:
            state = owners[of].optimizer._state.get(value) or {} if of in owners else {}
            widened = of in params and _is_ordinary(value) and value.dtype in (torch.float32, *_WIDENED)
            made[of] = float32_weights(value, state) if widened else value.detach()
        entries[key] = made[of]
    return entries


def load_fp32_state_dict(
    model: torch.nn.Module, optimizer: Optimizers, state_dict: Mapping[str, Any], strict: bool = True
) -> Any:
    """Loads float32 weights into a model, and what its bfloat16 parameters lack of them into the optimizer.

    It is the inverse of fp32_state_dict(): with master_weight_bits=32 no bit is lost. With 24, the weights are rounded
    to the nearest number of 24 bits. Parameters without master weights, and buffers, are loaded as
    model.load_state_dict() does. Moments and step counts stay as they are; before the first step they are made (zeros,
    step 0). Everything is checked before anything is written.

    If you also load the state of the optimizer, do that before: load_state_dict() of a state without master weights
    makes the parameters the master weights.

    Args:
        model: the model whose parameters `optimizer` steps.
        optimizer: as in fp32_state_dict().
        state_dict: {name: tensor}, with the names and shapes of model.state_dict(). Tensors may have any floating
            dtype, and may be whole for sharded parameters.
        strict: True: refuse missing and unexpected names. False: names that the two do not share are left as they are.

    Returns:
        A named tuple of the lists missing_keys and unexpected_keys, as from model.load_state_dict().

    Raises:
        ValueError: a name is missing or unexpected; a tensor has a wrong shape or dtype; the cases of
            fp32_state_dict(). Nothing has changed then.

    Example:
        >>> import torch, pyadamw
        >>> model = torch.nn.Linear(64, 64, dtype=torch.bfloat16)
        >>> optimizer = pyadamw.AdamW8bit(model.parameters(), lr=1e-3, master_weight_bits=32)
        >>> pretrained = {"weight": torch.randn(64, 64), "bias": torch.zeros(64)}
        >>> pyadamw.load_fp32_state_dict(model, optimizer, pretrained)
        <All keys matched successfully>
        >>> torch.equal(optimizer.fp32_weights()[0], pretrained["weight"])
        True
    """
    if not isinstance(state_dict, Mapping):
        raise ValueError(f"state_dict is {type(state_dict).__name__}: must be a dict of tensors")
    owners = _owners(optimizer)
    entries = _entries(model, owners)
    missing = [key for key in entries if key not in state_dict]
    unexpected = [key for key in state_dict if key not in entries]
    if strict and (missing or unexpected):
        lacks = [f"lacks {', '.join(map(repr, missing))}"] if missing else []
        has = [f"has {', '.join(map(shown, unexpected))}, which the model does not have"] if unexpected else []
        raise ValueError(f"the state dict {' and '.join(lacks + has)}: pass strict=False to load the rest")
    for one in {owner.optimizer for owner in owners.values()}:
        one._settle_pages()
    changed, made = _made(entries, state_dict, owners)
    loaded = type(entries)({**state_dict, **changed})
    if hasattr(state_dict, "_metadata"):
        loaded._metadata = state_dict._metadata
    result = model.load_state_dict(loaded, strict=False)
    for one in {owner.optimizer for owner in owners.values()}:
        one._take_over([entry for owner, entry in made if owner.optimizer is one])
    return type(result)(missing, unexpected)


def _made(entries: Any, state_dict: Any, owners: Any) -> tuple[dict[str, Any], list[tuple[_Owner, TakeOver]]]:
    """What to load into the model instead of the entries of `state_dict`, and what to load into optimizers."""
    last = {id(value): key for key, value in entries.items() if key in state_dict}  # of several names, as torch does
    changed: dict[str, Any] = {}
    made: list[tuple[_Owner, TakeOver]] = []
    for key, value in entries.items():
        if key not in state_dict or not isinstance(value, torch.Tensor):
            continue
        owner = owners.get(id(value))
        if is_lazy(value):
            if owner is not None and _has_master(owner):
                raise ValueError(f"{key} is not initialized yet: run the model once before you load its weights")
            continue
        _check(key, state_dict[key], value)
        if last[id(value)] != key:
            continue
        given = state_dict[key].detach()
        entry = None if owner is None else take_over(owner.optimizer._target(), owner.number, owner.position, given)
        if entry is not None:
            made.append((owner, entry))
            placed = entry.values
        elif is_sharded(value):
            given = given if is_sharded(given) else given.to(inner(value).device)
            placed = placed_as(stepped_part(given, value, False), value)
        else:
            placed = given.full_tensor() if is_sharded(given) else given
        changed.update({other: placed for other, same in entries.items() if same is value and other in state_dict})
    return changed, made


def _check(key: str, given: Any, value: Any) -> None:
    """Refuses a tensor that cannot be loaded into the parameter or buffer `value`."""
    problem = "" if is_sharded(given) else oddity(given)
    if problem:
        raise ValueError(f"{key} is {problem}: must be a dense tensor")
    if value.device.type == "meta":
        raise ValueError(f"{key} of the model is a meta tensor, which has no memory: make it with model.to_empty()")
    if given.shape != value.shape:
        raise ValueError(f"{key} has shape {tuple(given.shape)}: must be {tuple(value.shape)}")
    if (given.is_floating_point(), given.is_complex()) != (value.is_floating_point(), value.is_complex()):
        need = "complex" if value.is_complex() else "float" if value.is_floating_point() else "integer"
        raise ValueError(f"{key} has dtype {str(given.dtype).removeprefix('torch.')}: must be {need}")
