"""Owns the laws of the planner about what it says of bytes: what fits, what is best, for which models. That the bytes
are right is the law of test_plan_bytes.py.
"""

from typing import ClassVar

import pytest
import torch
from plan_models import Awkward, code_of
from torch import nn

import pyadamw

GIB = 1 << 30


def choice_of(plan, optimizer, master=None, in_backward=False, package="pyadamw"):
    wanted = package, optimizer, master, in_backward
    found = [c for c in plan.choices if (c.package, c.optimizer, c.master_weight_bits, c.in_backward) == wanted]
    assert len(found) == 1
    return found[0]


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("7B", 7 * 10**9),
        ("7b", 7 * 10**9),
        ("350M", 350 * 10**6),
        ("1.5B", 15 * 10**8),
        ("7e9", 7 * 10**9),
        ("124439808", 124439808),
        ("0.25K", 250),
        ("2T", 2 * 10**12),
    ],
)
def test_a_number_has_exactly_so_many_parameters(text, count):
    """Also one that is no multiple of a block."""
    plan = pyadamw.plan(text)
    assert plan.parameters == count == pyadamw.plan(count).parameters
    assert {choice.parameters for choice in plan.choices} == {count}


def transformer():
    """Rows of 768, 2304 and 3072, as in GPT-2, and an embedding."""
    layer = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True)
    return nn.ModuleList([nn.Embedding(50257, 768), nn.TransformerEncoder(layer, 12)])


def convolutions():
    """Rows of 3 * 7 * 7, 64, 576, ..., as in ResNet: most are no multiples of 256."""
    channels = ((3, 64, 7), *((c, d, k) for c in (64, 128, 256, 512) for d in (c, 2 * c) for k in (1, 3)))
    return nn.ModuleList(nn.Sequential(nn.Conv2d(*one, bias=False), nn.BatchNorm2d(one[1])) for one in channels)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [transformer, convolutions])
def test_the_shapes_of_a_number_take_least(kind, dtype):
    """8-bit state has two codes an element and three scales a block of 256. Real models have more, but not 1% of all
    that they take, buffers aside."""
    assert choice_of(pyadamw.plan(256 * 1000), "AdamW8bit").state == 1000 * (2 * 256 + 12)
    with torch.device("meta"):
        real = pyadamw.plan(kind(), dtype=dtype)
    number = pyadamw.plan(real.parameters, dtype=dtype)
    for ours, least in zip(real.choices, number.choices, strict=True):
        if not (ours.in_backward or ours.paged):
            buffers = ours.weights - ours.gradients
            assert least.device <= ours.device - buffers < 1.01 * least.device, ours


@pytest.mark.parametrize("processes", [2, 8, 1000])
def test_a_number_is_sharded(processes):
    """Each process has its part, to a row of 256: nothing of it is gathered."""
    whole, part = pyadamw.plan("7B"), pyadamw.plan("7B", processes=processes)
    for name in ("AdamW32bit", "AdamW16bit", "AdamW8bit"):
        one, other = choice_of(whole, name), choice_of(part, name)
        assert one.device <= processes * other.device <= one.device + processes * 256 * 16 * 2
    assert not any("gathered" in note for note in part.notes)


# ---- what fits, and what is best -------------------------------------------------------------------------------------


def test_marks():
    """A choice fits if the GPU has the bytes that it takes there; "yes": a tenth of them, and 1 GiB, are left."""
    for gpu in (8 * GIB, 24 * GIB, 80 * GIB, 640 * GIB):
        plan = pyadamw.plan("7B", gpu=gpu)
        assert plan.room == max(gpu // 10, GIB)
        for choice in plan.choices:
            left = gpu - choice.device
            assert choice.fits == ("no" if left < 0 else "yes" if left >= plan.room else "tight")


def test_preference():
    """Of those that fit with room: weights that lose nothing, then no pages, then all gradients, then wide state (in
    pages: narrow). As the device shrinks, that order is gone through; the last one is tight."""
    named = []
    for gpu in range(130, 0, -1):
        plan = pyadamw.plan("7B", gpu=gpu * GIB)
        best = plan.best
        if best is None:
            named.append(None)
            continue
        name = ("in backward " if best.in_backward else "") + f"{best.optimizer} {best.master_weight_bits} {best.fits}"
        if not named or named[-1] != name:
            named.append(name)
        better = [c for c in plan.choices if c.package == "pyadamw" and c.preference < best.preference]
        assert all(choice.fits != "yes" for choice in better)
    assert list(dict.fromkeys(named)) == [
        "AdamW32bit 32 yes",
        "AdamW16bit 32 yes",
        "AdamW8bit 32 yes",
        "in backward AdamW8bit 32 yes",
        "PagedAdamW8bit 32 yes",
        "in backward PagedAdamW8bit 32 yes",
        "in backward PagedAdamW8bit 32 tight",
        None,
    ]


@pytest.mark.parametrize("gpu", ["200GiB", "120GiB", "80GiB", "40GiB", "24GiB", "18GiB"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_printed_code_runs(gpu, dtype):
    """As it stands in the table, with a model of that name: it makes the optimizer of the best choice."""
    plan = pyadamw.plan("7B", gpu=gpu, dtype=dtype)
    if plan.best is None:
        assert "Nothing fits" in str(plan)
        return
    printed = str(plan).splitlines()
    code = "\n".join(printed[-3:])
    assert code == plan.best.code
    model = nn.Linear(300, 300)
    optimizer = code_of(plan.best, model)
    assert model.weight.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    assert isinstance(optimizer, pyadamw.StepInBackward if plan.best.in_backward else pyadamw.optim._AdamW)
    group = optimizer.param_groups[0]
    assert group["optim_bits"] == int(plan.best.optimizer.removeprefix("PagedAdamW").removeprefix("AdamW")[:-3])
    assert group["is_paged"] == plan.best.paged and group["master_weight_bits"] == plan.best.master_weight_bits
    model(torch.ones(2, 300, dtype=model.weight.dtype)).square().mean().backward()
    optimizer.step()


def test_tight_is_said():
    """A fit that leaves little is not called best without saying so."""
    text = str(pyadamw.plan("7B", gpu="17GiB"))
    assert "Tight: none leaves 1.7 GiB" in text and "Best" not in text
    text = str(pyadamw.plan("7B", gpu="24GiB"))
    assert "Best takes" in text and "Tight" not in text


# ---- models ----------------------------------------------------------------------------------------------------------


def test_meta_models():
    """A model without memory has the plan of one with memory, and stays without."""
    with torch.device("meta"):
        meta = Awkward(True)
    assert pyadamw.plan(meta).choices == pyadamw.plan(Awkward(True)).choices
    assert all(param.device.type == "meta" and param.grad is None for param in meta.parameters())


def test_a_plan_leaves_the_model_alone():
    """It adds nothing to parameters: no state, no hooks, no gradients, no change of dtype."""
    model = Awkward()
    before = {name: (p.data_ptr(), p.dtype, p._version) for name, p in model.named_parameters()}
    pyadamw.plan(model, dtype="bf16", gpu="1GiB", processes=3)
    assert before == {name: (p.data_ptr(), p.dtype, p._version) for name, p in model.named_parameters()}
    assert all(p.grad is None and not p._post_accumulate_grad_hooks for p in model.parameters())


class Models:
    lazy = nn.LazyLinear(3)
    double = nn.Linear(3, 3, dtype=torch.float64)
    frozen = nn.Linear(3, 3).requires_grad_(False)
    empty = nn.Identity()
    sparse = nn.Module()
    sparse.weight = nn.Parameter(torch.eye(3).to_sparse())


WRONG: ClassVar = {
    "lazy": (Models.lazy, {}, "weight is not initialized yet"),
    "float64": (Models.double, {}, "weight is float64, and parameters must be float32, bfloat16 or float16"),
    "frozen": (Models.frozen, {}, "no parameters that train"),
    "empty": (Models.empty, {}, "no parameters that train"),
    "sparse": (Models.sparse, {}, "weight is not a dense tensor"),
    "list": ([1], {}, r"model = \[1\]: must be a torch.nn.Module"),
    "bool": (True, {}, "model = True"),
    "zero": (0, {}, "model = 0: must be a whole number of parameters"),
    "half": ("1.5", {}, "model = '1.5': must be a whole number"),
    "huge": ("9e99", {}, "model = '9e99'"),
    "unit": ("7Q", {}, "model = '7Q'"),
    "nothing": ("none/such", {}, "none/such: no such file or folder, and no number of parameters"),
    "gpu": (7, {"gpu": "24"}, None),
    "gpu unit": (7, {"gpu": "24 apples"}, "gpu = '24 apples': must be a number of bytes"),
    "gpu zero": (7, {"gpu": 0}, "gpu = 0"),
    "gpu float": (7, {"gpu": 24.5}, r"gpu = 24\.5"),
    "dtype": (7, {"dtype": "fp16"}, "dtype = 'fp16': must be"),
    "dtype of torch": (7, {"dtype": torch.float16}, r"dtype = torch\.float16"),
    "processes": (7, {"processes": 0}, "processes = 0: must be an integer in"),
    "processes float": (7, {"processes": 2.0}, r"processes = 2\.0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    """A ValueError that names the value."""
    model, options, message = WRONG[case]
    if message is None:
        assert pyadamw.plan(model, **options).gpu == 24  # a number of bytes
        return
    with pytest.raises(ValueError, match=message):
        pyadamw.plan(model, **options)


def test_other_dtypes():
    """float64 is cast if dtype says so; float16 refuses master weights, so the plan has none; of two dtypes, master
    weights are those of the bfloat16 parameters."""
    assert pyadamw.plan(Models.double, dtype=torch.bfloat16).parameters == 12
    half = pyadamw.plan(nn.Linear(9, 9, dtype=torch.float16))
    assert not any(choice.master_weight_bits for choice in half.choices)
    mixed = pyadamw.plan(nn.ModuleList([nn.Linear(9, 9), nn.Linear(9, 9, dtype=torch.bfloat16)]))
    assert choice_of(mixed, "AdamW8bit", 32).remainder == 2 * 90 and choice_of(mixed, "AdamW8bit", 24).remainder == 90
    assert choice_of(mixed, "AdamW8bit").dtype == "mixed"


def test_processes_of_a_plan():
    """Each process has its own plan; there is none beyond the last."""
    plan = pyadamw.plan(Awkward(), processes=3)
    weights = [plan.of_process(process).choices[0].weights for process in range(3)]
    assert weights[0] == plan.choices[0].weights == max(weights) and len(set(weights)) > 1
    with pytest.raises(ValueError, match=r"process = 3: must be an integer in \[0, 3\)"):
        plan.of_process(3)
    assert any("gathered" in note for note in plan.notes)
