"""Owns what a user may write with pyadamw, for a type checker alone: it never runs. Must not know pyadamw's inside.

Each deliberate mistake is marked with the error that the checker has to find in it: one that it does not find makes the
mark superfluous, which `mypy --strict` (test_typing.py) refuses.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from transformers import Trainer, TrainingArguments
from typing_extensions import assert_type

import pyadamw
from pyadamw.functional import absmax_shape
from pyadamw.integrations import transformers as hf


class Documented(Protocol):
    """The arguments that bitsandbytes documents for all classes, and the new ones."""

    def __call__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, torch.Tensor]],
        lr: float | torch.Tensor = ...,
        betas: tuple[float, float] = ...,
        eps: float = ...,
        weight_decay: float = ...,
        amsgrad: bool = ...,
        optim_bits: Literal[8, 16, 32] = ...,
        args: object = ...,
        min_8bit_size: int = ...,
        percentile_clipping: int = ...,
        block_wise: bool = ...,
        *,
        maximize: bool = ...,
        stochastic_rounding: bool = ...,
        seed: int = ...,
        capturable: bool = ...,
        page_manager: pyadamw.PageManager | None = ...,
        master_weight_bits: Literal[24, 32] | None = ...,
    ) -> torch.optim.Optimizer: ...


class Unpaged(Documented, Protocol):
    """The same for the classes that have is_paged: the last argument with a position."""

    def __call__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, torch.Tensor]],
        lr: float | torch.Tensor = ...,
        betas: tuple[float, float] = ...,
        eps: float = ...,
        weight_decay: float = ...,
        amsgrad: bool = ...,
        optim_bits: Literal[8, 16, 32] = ...,
        args: object = ...,
        min_8bit_size: int = ...,
        percentile_clipping: int = ...,
        block_wise: bool = ...,
        is_paged: bool = ...,
        *,
        maximize: bool = ...,
        stochastic_rounding: bool = ...,
        seed: int = ...,
        capturable: bool = ...,
        page_manager: pyadamw.PageManager | None = ...,
        master_weight_bits: Literal[24, 32] | None = ...,
    ) -> torch.optim.Optimizer: ...


unpaged: list[Unpaged] = [pyadamw.AdamW, pyadamw.AdamW8bit, pyadamw.AdamW16bit, pyadamw.AdamW32bit]
paged = [pyadamw.PagedAdamW, pyadamw.PagedAdamW8bit, pyadamw.PagedAdamW16bit, pyadamw.PagedAdamW32bit]
documented: list[Documented] = [*paged, *unpaged]
not_unpaged: Unpaged = pyadamw.optim.PagedAdamW  # type: ignore[assignment]

model = torch.nn.Sequential(torch.nn.Embedding(100, 64), torch.nn.Linear(64, 64))
weight = torch.nn.Parameter(torch.ones(4, 64))


def constructors() -> None:
    assert_type(pyadamw.AdamW(model.parameters()), pyadamw.AdamW)
    assert_type(pyadamw.AdamW32bit([weight], 1e-4, (0.9, 0.95), 1e-8, 0.1, True, 32), pyadamw.AdamW32bit)
    assert_type(pyadamw.optim.AdamW8bit(model.named_parameters(), lr=torch.tensor(1e-4)), pyadamw.AdamW8bit)
    assert_type(pyadamw.PagedAdamW([weight], optim_bits=8, page_manager=pyadamw.PageManager()), pyadamw.PagedAdamW)
    assert_type(pyadamw.PagedAdamW8bit([weight], args={"max_unorm": 1.0}), pyadamw.PagedAdamW8bit)
    assert_type(pyadamw.PagedAdamW32bit([weight], seed=1, maximize=True), pyadamw.PagedAdamW32bit)
    assert_type(pyadamw.AdamW16bit([weight], master_weight_bits=24), pyadamw.AdamW16bit)
    pyadamw.AdamW(
        [{"params": [model[0].weight], "optim_bits": 32}, {"params": model[1].parameters(), "lr": 1e-4}],
        optim_bits=8,
        is_paged=True,
    )

    pyadamw.AdamW(weight.shape)  # type: ignore[arg-type]
    pyadamw.AdamW([weight], lr="1e-3")  # type: ignore[arg-type]
    pyadamw.AdamW8bit([weight], betas=0.9)  # type: ignore[arg-type]
    pyadamw.AdamW8bit([weight], betas=(0.9, 0.95, 0.999))  # type: ignore[arg-type]
    pyadamw.AdamW8bit([weight], eps=None)  # type: ignore[arg-type]
    pyadamw.AdamW([weight], optim_bits=24)  # type: ignore[arg-type]
    pyadamw.AdamW([weight], master_weight_bits=16)  # type: ignore[arg-type]
    pyadamw.AdamW([weight], foreach=True)  # type: ignore[call-arg]
    pyadamw.AdamW([weight], page_manager="host")  # type: ignore[arg-type]
    pyadamw.PagedAdamW([weight], is_paged=True)  # type: ignore[call-arg]
    pyadamw.PagedAdamW8bit([weight], 1e-3, (0.9, 0.999), 1e-8, 0.1, False, 32, None, 4096, 100, True, True)  # type: ignore[call-arg]
    pyadamw.AdamW64bit([weight])  # type: ignore[attr-defined]


def training() -> None:
    optimizer = pyadamw.AdamW8bit(model.parameters(), lr=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)

    def number() -> float:
        return 0.0

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = model(torch.tensor([1])).sum()
        value.backward()
        assert isinstance(value, torch.Tensor)
        return value

    optimizer.step()
    assert_type(optimizer.step(number), float)
    assert_type(optimizer.step(closure=loss), torch.Tensor)
    scheduler.step()
    optimizer.add_param_group({"params": [weight], "optim_bits": 32})
    optimizer.param_groups[0]["lr"] = 1e-5
    assert_type(optimizer.skipped_elements, int)
    assert_type(optimizer.state[weight]["step"], Any)
    unscaled: torch.optim.Optimizer = optimizer
    torch.amp.GradScaler("cpu").step(unscaled)

    optimizer.step(1)  # type: ignore[call-overload]
    optimizer.step(lambda batch: batch)  # type: ignore[arg-type, misc]
    optimizer.skipped_elements = 0  # type: ignore[misc]
    optimizer.add_param_group([weight])  # type: ignore[arg-type]


def checkpoints(path: Path) -> None:
    optimizer = pyadamw.PagedAdamW8bit([("weight", weight)])
    assert_type(optimizer.state_dict(), dict[str, Any])
    assert_type(optimizer.to_torch_state_dict(), dict[str, Any])
    assert_type(optimizer.to_bitsandbytes_state_dict(), dict[str, Any])
    torch.save(optimizer.state_dict(), path)
    optimizer.load_state_dict(torch.load(path, weights_only=True))
    optimizer.load_state_dict(state_dict=torch.optim.AdamW([weight]).state_dict())

    optimizer.load_state_dict(path)  # type: ignore[arg-type]


def master_weights(path: Path) -> None:
    optimizer = pyadamw.AdamW(model.parameters(), optim_bits=16, master_weight_bits=32)
    assert_type(optimizer.fp32_weights(), dict[str | int, torch.Tensor])
    assert_type(pyadamw.fp32_state_dict(model, optimizer), dict[str, Any])
    pyadamw.fp32_state_dict(model, [optimizer, pyadamw.AdamW8bit([weight])])
    stepper = pyadamw.StepInBackward(model.parameters(), master_weight_bits=24)
    print(pyadamw.load_fp32_state_dict(model, stepper, torch.load(path), strict=False).missing_keys)
    param, remainder = pyadamw.functional.split_weights(weight, 24, rounding="stochastic", step=1, seed=2)
    assert_type(pyadamw.functional.join_weights(param, remainder), torch.Tensor)
    assert_type(pyadamw.functional.split_weights(weight).remainder, torch.Tensor)

    pyadamw.fp32_state_dict(optimizer, model)  # type: ignore[arg-type]
    pyadamw.fp32_state_dict(model, torch.optim.AdamW([weight]))  # type: ignore[arg-type]
    pyadamw.load_fp32_state_dict(model, optimizer)  # type: ignore[call-arg]
    pyadamw.functional.split_weights(weight, 16)  # type: ignore[arg-type]


def pages(path: Path) -> None:
    manager = pyadamw.PageManager("file", resident_bytes=2**30, directory=path, min_numel=1000)
    optimizer = pyadamw.AdamW([weight], optim_bits=8, is_paged=True, page_manager=manager)
    assert_type(manager.stats(), dict[str, int])
    assert_type(manager.stats()["bytes_in"], int)
    assert_type(manager.backing, Literal["host", "file", "pinned", "managed"] | None)
    assert_type(manager.directory, str | None)
    assert_type(manager.min_numel, int)
    assert_type(optimizer.default_pages, pyadamw.PageManager)
    manager.wait()

    report = optimizer.memory_report()
    assert_type(report.bytes, int)
    assert_type(report.places, dict[str, int])
    assert_type(report.managers, list[tuple[pyadamw.PageManager, dict[str, int]]])
    for entry in report.entries:
        assert_type((entry.name, entry.numel, entry.bits, entry.why), tuple[str, int, int, str])
        assert_type(entry.master_weight_bits, int | None)
        assert_type(entry.places, dict[str, int])
        assert_type(entry.bytes, int)
    print(report)

    pyadamw.PageManager("disk")  # type: ignore[arg-type]
    pyadamw.PageManager(None, 2**30)  # type: ignore[call-arg]
    pyadamw.PageManager("file", resident_bytes="1 GB")  # type: ignore[arg-type]
    print(manager.stats().missing)  # type: ignore[attr-defined]
    print(report.entries[0].device)  # type: ignore[attr-defined]


def in_backward() -> None:
    stepper = pyadamw.StepInBackward(model.named_parameters(), pyadamw.PagedAdamW8bit, lr=1e-4)
    pyadamw.StepInBackward(model.parameters())
    assert_type(stepper.param_groups, list[dict[str, Any]])
    torch.optim.lr_scheduler.ExponentialLR(stepper, 0.9)
    stepper.load_state_dict(stepper.state_dict())
    assert_type(stepper.step(), None)
    assert_type(stepper.step(lambda: 1.0), float)
    assert_type(stepper.skipped_elements, int)
    with stepper.accumulate():
        pass
    stepper.add_param_group({"params": [weight]})
    stepper.remove()

    pyadamw.StepInBackward(model.parameters(), torch.optim.AdamW)  # type: ignore[arg-type]
    stepper.optimizers  # type: ignore[attr-defined]  # noqa: B018


def overrides() -> None:
    manager = pyadamw.GlobalOptimManager.get_instance()
    assert_type(manager, pyadamw.GlobalOptimManager)
    manager.register_parameters(model.parameters())
    manager.register_module_override(model[0], "weight", {"optim_bits": 32})
    manager.override_config(weight, "lr", 1e-5)
    manager.override_config([weight], key_value_dict={"lr": 1e-5, "betas": (0.9, 0.95)})
    assert_type(manager.config_of(weight), dict[str, Any])

    manager.register_module_override("embedding", "weight", {"optim_bits": 32})  # type: ignore[arg-type]
    manager.override_config(weight, key_value_dict=["lr"])  # type: ignore[arg-type]


def quantization() -> None:
    quantized = pyadamw.quantize(weight, "exp_avg_sq", block_wise=False, rounding="stochastic", step=1, seed=2)
    codes, absmax, floor = quantized
    assert_type(codes, torch.Tensor)
    assert_type(quantized.absmax, torch.Tensor)
    assert_type(floor, torch.Tensor | None)
    assert_type(pyadamw.dequantize(codes, absmax, floor, moment="exp_avg_sq", block_wise=False), torch.Tensor)
    assert_type(pyadamw.dequantize(*pyadamw.quantize(weight)), torch.Tensor)
    assert_type(pyadamw.dequantize(*quantized, "exp_avg_sq"), torch.Tensor)
    assert_type(absmax_shape(weight.shape), tuple[int, ...])

    pyadamw.quantize(weight, "unsigned")  # type: ignore[arg-type]
    pyadamw.quantize(weight, rounding="up")  # type: ignore[arg-type]
    pyadamw.quantize([1.0, 2.0])  # type: ignore[arg-type]
    pyadamw.dequantize(codes)  # type: ignore[call-arg]
    pyadamw.dequantize(pyadamw.quantize(weight), absmax)  # type: ignore[arg-type]
    pyadamw.dequantize(codes, absmax, "exp_avg")  # type: ignore[arg-type]


def failures(optimizer: pyadamw.AdamW) -> OSError | None:
    try:
        optimizer.step()
    except pyadamw.StorageError as error:
        assert_type(error.stepped, tuple[torch.Tensor, ...])
        return error
    except (pyadamw.InvalidArgumentError, pyadamw.VersionError, pyadamw.UnsupportedError) as error:
        print(error.args)
    except (pyadamw.OutOfMemoryError, pyadamw.InternalError, pyadamw.DeviceError) as error:
        assert_type(error.stepped, tuple[torch.Tensor, ...])
    except pyadamw.LibraryNotFoundError as missing:
        return missing
    except pyadamw.AdamWError as other:
        return other  # type: ignore[return-value]
    return None


def hugging_face(arguments: TrainingArguments) -> None:
    Trainer(model, arguments, optimizer_cls_and_kwargs=hf.optimizer_cls_and_kwargs(arguments))
    cls, keywords = hf.optimizer_cls_and_kwargs(arguments, pyadamw.PagedAdamW, optim_bits=8)
    assert_type(keywords, dict[str, Any])
    assert_type(cls([weight], lr=1e-4, **keywords).skipped_elements, int)
    factory, more = hf.with_32bit_embeddings(arguments, cls=pyadamw.AdamW)
    assert_type(more, dict[str, Any])
    assert_type(factory()(model, cls=pyadamw.AdamW, weight_decay=0.1).skipped_elements, int)
    with hf.enable():
        Trainer(model, arguments)
    hf.disable()

    hf.optimizer_cls_and_kwargs(arguments, torch.optim.AdamW)  # type: ignore[arg-type]
    hf.optimizer_cls_and_kwargs({"learning_rate": 1e-4})  # type: ignore[arg-type]


assert_type(pyadamw.__version__, str)
