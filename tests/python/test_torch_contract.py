"""Owns torch's own contract for optimizers, with torch's own inputs: an OptimizerInfo for each of the six classes, run
with min_8bit_size=1, so that 8-bit state is what is tested. What other files test (layouts, groups, GradScaler,
checkpoints) is not here again.

What of torch's contract cannot hold: parameters are float32, bfloat16 or float16 (complex and float64 ones are
refused), betas are floats, and there is no foreach, fused or differentiable: there is one implementation.
"""

import copy
import functools

import pytest
import torch
from harness import CLASSES, Late, assert_same_bits, bits, clones, parameters, point_problem, train
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from versions import older

import pyadamw

common_optimizers = Late("torch.testing._internal.common_optimizers")
OURS = {"min_8bit_size": 1}
# Of torch's error inputs, those about what is not there; the first words of their expected messages.
NOT_THERE = ("lr as a Tensor is not supported", "betas must be either", r"betas\[0\] as a Tensor")
# What torch's messages say, and ours.
MESSAGES = {
    "Invalid beta parameter at index 0: 1.0": "betas = .1.0, 0.0.: must be",
    "Invalid weight_decay value: -1": "weight_decay = -1: must be",
    "Tensor lr must be 1-element": "lr = tensor.*must be",
}


# What torch calls its inputs, all of them: to ask it takes seconds.
INPUTS = ("default", "non-default lr", "nonzero weight_decay", "maximize", "amsgrad")


def inputs(device, dtype=None):
    found = common_optimizers.optim_inputs_func_adamw(device, dtype)
    for entry in found:
        entry.kwargs = {**entry.kwargs, **OURS}
    return found


@functools.cache
def info_of(cls):
    return common_optimizers.OptimizerInfo(
        cls,
        optim_inputs_func=inputs,
        optim_error_inputs_func=common_optimizers.optim_error_inputs_func_adamw,
        supported_impls=(),
        supports_fused_on=(),
    )


@pytest.fixture
def options(cls, request):
    """Of torch's inputs, the arguments of the one that is asked for."""
    (found,) = (entry for entry in info_of(cls).optim_inputs_func("cpu") if entry.desc == request.param)
    return found.kwargs


def every_input(test):
    test = pytest.mark.parametrize("options", INPUTS, indirect=True, ids=lambda desc: desc.replace(" ", "_"))(test)
    return pytest.mark.parametrize("cls", CLASSES)(test)


every_class = pytest.mark.parametrize("cls", CLASSES)


def goes_down(optimizer, closure, maximize=False, after=lambda: None, steps=20):
    first = closure().item()
    for _ in range(steps):
        optimizer.step(closure)
        after()
    last = closure().item()
    assert (last > first) if maximize else (last < first)


def test_torch_has_no_other_inputs():
    assert tuple(entry.desc for entry in common_optimizers.optim_inputs_func_adamw("cpu")) == INPUTS


# ---- directions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contiguous", [True, False])
@every_input
def test_goes_the_right_way(cls, options, contiguous):
    weight, bias, closure = point_problem(contiguous)
    goes_down(cls([weight, bias], **options), closure, options.get("maximize", False))


@every_class
def test_averaged_models(cls):
    """SWA and EMA see every step."""
    torch.manual_seed(0)
    net = torch.nn.Linear(20, 300)
    optimizer = cls(net.parameters(), lr=1e-2, **OURS)
    mean, moving = AveragedModel(net), AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    seen = []
    for _ in range(3):
        net(torch.randn(4, 20)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        mean.update_parameters(net)
        moving.update_parameters(net)
        seen.append(net.weight.detach().clone())
    assert torch.allclose(mean.module.weight, sum(seen) / 3, atol=1e-6)
    assert torch.allclose(moving.module.weight, seen[0] / 4 + seen[1] / 4 + seen[2] / 2, atol=1e-6)


# ---- errors ----------------------------------------------------------------------------------------------------------


@every_class
def test_errors_are_torchs(cls):
    """What torch refuses is refused, with torch's words where the base class speaks and with ours where we do."""
    info, count = info_of(cls), 0
    for entry in info.optim_error_inputs_func("cpu", torch.float32):
        given = entry.optimizer_error_input
        if entry.error_regex.startswith(NOT_THERE):
            continue
        message = MESSAGES.get(entry.error_regex, entry.error_regex)
        if entry.error_type is UserWarning:
            with pytest.warns(UserWarning, match=message):
                info.optim_cls(given.params, **given.kwargs)
        elif entry.error_on.name == "CONSTRUCTION_ERROR":
            with pytest.raises(entry.error_type, match=message):
                info.optim_cls(given.params, **given.kwargs)
        else:
            optimizer = info.optim_cls(given.params, **given.kwargs)
            with pytest.raises(entry.error_type, match=message):
                optimizer.step()
        count += 1
    assert count >= (5 if older("torch", "2.13") else 8)  # torch 2.4 has 5


# ---- nothing to do ---------------------------------------------------------------------------------------------------


@every_input
def test_no_gradient_is_no_step(cls, options):
    params = parameters(((30, 40), (7,)))
    optimizer = cls(params, **options)
    before = list(map(bits, params))
    optimizer.step()
    for p in params:
        p.requires_grad_(False)
    optimizer.step()
    assert list(map(bits, params)) == before
    assert not optimizer.state


@every_input
def test_zero_gradients_decay_and_no_more(cls, options):
    params = parameters(((30, 40), (7,)))
    optimizer = cls(params, lr=0.5, **{key: value for key, value in options.items() if key != "lr"})
    decay = optimizer.param_groups[0]["weight_decay"]
    wanted = [p.detach() * torch.tensor(1 - 0.5 * decay, dtype=torch.float32) for p in params]
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert all(torch.equal(p, w) for p, w in zip(params, wanted, strict=True))


@every_class
def test_empty_parameters(cls):
    """Of no elements, alone and among others."""
    params = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((0,), (3, 0, 4), (20, 30))]
    optimizer = cls(params, **OURS)
    for _ in range(2):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert params[2].abs().min() > 0
    other = cls(clones(params), **OURS)
    other.load_state_dict(optimizer.state_dict())
    assert other.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()


# ---- the object ------------------------------------------------------------------------------------------------------


@every_input
def test_printing_and_copying(cls, options):
    params = parameters(((30, 40), (7,)))
    optimizer = cls(params, **options)
    assert cls.__name__ in str(optimizer)
    assert "lr: " in repr(optimizer)
    optimizer.label = ["mine"]
    train(optimizer, params, 2)
    assert "lr: " in str(optimizer)
    other = copy.deepcopy(optimizer)
    for name in ("defaults", "param_groups", "state"):
        assert type(getattr(other, name)) is type(getattr(optimizer, name))
    assert other.defaults == optimizer.defaults


@pytest.mark.parametrize("set_to_none", [True, False])
@every_class
def test_zero_grad(cls, set_to_none):
    weight, bias, closure = point_problem()
    optimizer = cls([weight, bias], **OURS)
    closure()
    optimizer.zero_grad(set_to_none=set_to_none)
    assert (weight.grad is None) if set_to_none else (weight.grad.count_nonzero() == 0)
    optimizer.step()


@every_class
def test_hooks_of_state_dict_and_loading(cls):
    """Called in their order, before and after; what a hook returns is taken."""
    params = parameters(((30, 40),))
    optimizer, calls = cls(params, **OURS), []
    train(optimizer, params, 1)
    optimizer.register_state_dict_pre_hook(lambda o: calls.append("pre"))
    optimizer.register_state_dict_post_hook(lambda o, sd: calls.append("post") or {**sd, "more": 1})
    optimizer.register_state_dict_post_hook(lambda o, sd: calls.append("first"), prepend=True)
    saved = optimizer.state_dict()
    assert calls == ["pre", "first", "post"]
    assert saved["more"] == 1
    calls.clear()
    optimizer.register_load_state_dict_pre_hook(lambda o, sd: calls.append("load pre"))
    optimizer.register_load_state_dict_post_hook(lambda o: calls.append(float(o.state[params[0]]["step"])))
    optimizer.load_state_dict(saved)
    assert calls == ["load pre", 1.0]


@every_class
def test_names_are_kept_and_named(cls):
    params = parameters(((30, 40), (7,)))
    optimizer = cls(zip(("layer.weight", "layer.bias"), params, strict=True), **OURS)
    train(optimizer, params, 1)
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["param_names"] == ["layer.weight", "layer.bias"]
    plain = cls(clones(params), **OURS)
    plain.load_state_dict(saved)
    params[1].grad = torch.zeros(7).to_sparse()
    with pytest.raises(RuntimeError, match=r"'layer\.bias'.*sparse"):
        optimizer.step()


# ---- compiled --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
@every_class
def test_compiled_steps_are_steps(cls, whole):
    """torch.compile() of step(), or of the function around it: the same bits."""
    made = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = torch.nn.Linear(30, 20)
        optimizer = cls(net.parameters(), lr=1e-2, **OURS)
        step = torch.compile(optimizer.step, backend="eager") if compiled and not whole else optimizer.step

        def once(x, net=net, step=step, optimizer=optimizer):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            step()

        if compiled and whole:
            once = torch.compile(once, backend="eager")
        for _ in range(3):
            once(torch.randn(4, 30))
        made.append((optimizer, list(net.parameters())))
    assert_same_bits(*made)


@every_class
def test_steps_are_compiled_after_ordinary_ones(cls):
    """A function that calls step() may be compiled when the optimizer has stepped before, with fewer gradients, too."""
    made = []
    for compiled in (False, True):
        params = [torch.nn.Parameter(torch.ones(size)) for size in (5000, 7)]
        optimizer = cls(params, lr=1e-2, **OURS)
        step = (
            torch.compile(lambda optimizer=optimizer: optimizer.step(), backend="eager") if compiled else optimizer.step
        )
        for number, call in enumerate((optimizer.step, step, step)):
            for param in params:
                param.grad = torch.full_like(param, number + 1.0)
            if number == 2:
                params[-1].grad = None
            call()
        made.append((optimizer, params))
    assert_same_bits(*made)


# ---- in backward -----------------------------------------------------------------------------------------------------


@every_class
def test_stepping_in_backward_is_stepping(cls):
    """The same bits as one optimizer after backward(), no gradient left, and a checkpoint goes on."""
    nets = []
    for _ in range(3):
        torch.manual_seed(0)
        nets.append(torch.nn.Sequential(torch.nn.Linear(30, 400), torch.nn.Tanh(), torch.nn.Linear(400, 3)))
    optimizer = cls(nets[0].parameters(), lr=1e-2, **OURS)
    steppers = [pyadamw.StepInBackward(net.named_parameters(), cls, lr=1e-2, **OURS) for net in nets[1:]]
    for step in range(6):
        x = torch.randn(4, 30)
        optimizer.zero_grad()
        nets[0](x).square().sum().backward()
        optimizer.step()
        if step == 3:
            nets[2].load_state_dict(nets[1].state_dict())
            steppers[1].load_state_dict(steppers[0].state_dict())
            steppers[0].remove()
        net = nets[1] if step < 3 else nets[2]
        net(x).square().sum().backward()
        assert all(p.grad is None for p in net.parameters())
        for p, q in zip(nets[0].parameters(), net.parameters(), strict=True):
            assert bits(p) == bits(q)
    nets[1](x).square().sum().backward()
    assert all(p.grad is not None for p in nets[1].parameters())
    assert len(steppers[1].param_groups) == 1
