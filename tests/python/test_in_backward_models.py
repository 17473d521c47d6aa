"""Owns the laws of StepInBackward about what models do in backward(), about copies, and about errors and refusals."""

import copy
import io
import pickle

import pytest
import torch
from harness import bits
from test_in_backward_optimizer import OPTIONS, assert_same, backward, batch, model, optimizer_of, without_gradients
from torch.utils.checkpoint import checkpoint

import pyadamw


class Tied(torch.nn.Module):
    """One weight in two layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = (torch.nn.Linear(60, 60) for _ in range(3))
        self.third.weight = self.first.weight

    def forward(self, x):
        return self.third(self.second(self.first(x)).tanh())


class Checkpointed(torch.nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.net, self.reentrant = model(), reentrant

    def forward(self, x):
        x = x.clone().requires_grad_(True)
        for layer in self.net:
            x = checkpoint(layer, x, use_reentrant=self.reentrant).tanh()
        return x


def compiled():
    return torch.compile(model(), backend="aot_eager")


def lazy():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.LazyLinear(70), torch.nn.Linear(70, 30))


MODELS = {
    "tied": Tied,
    "checkpointed": lambda: Checkpointed(False),
    "reentrant": lambda: Checkpointed(True),
    "compiled": compiled,
    "lazy": lazy,
}


@pytest.mark.parametrize("name", MODELS)
def test_what_models_do_in_backward(name):
    """Each parameter is stepped once with the whole of its gradient, as after backward()."""
    runs = []
    for in_backward in (False, True):
        torch.manual_seed(0)
        net = MODELS[name]()
        optimizer = optimizer_of(net, in_backward)
        for step in range(3):
            torch.manual_seed(step)  # of lazy parameters
            net(torch.randn(4, 60)).square().mean().backward()
            assert without_gradients(net) == in_backward
            optimizer.step()
            optimizer.zero_grad()
        assert {float(state["step"]) for state in optimizer.state.values()} == {3}
        runs.append((net, optimizer))
    assert_same(*runs)


@pytest.mark.filterwarnings("ignore:Using backward")
def test_backward_with_a_graph():
    """backward(create_graph=True) enables gradients in hooks; the step is the same."""
    nets = model(), model()
    plain, ours = (optimizer_of(net, kind) for kind, net in enumerate(nets))
    for step in range(2):
        for net in nets:
            net(batch(step, net)).square().mean().backward(create_graph=True)
        assert without_gradients(nets[1])
        plain.step()
        plain.zero_grad()
    assert_same((nets[0], plain), (nets[1], ours))


# ---- the end of it, and copies ---------------------------------------------------------------------------------------


def test_remove():
    """Then backward() keeps gradients and step() steps; loading and new groups bring no hooks back."""
    nets = model(), model()
    plain, ours = (optimizer_of(net, kind) for kind, net in enumerate(nets))
    for step in range(4):
        if step == 2:
            ours.remove()
            ours.load_state_dict(copy.deepcopy(ours.state_dict()))
        for net, optimizer in zip(nets, (plain, ours), strict=True):
            backward(net, step)
            assert without_gradients(net) == (optimizer is ours and step < 2)
            optimizer.step()
            assert without_gradients(net) == (optimizer is ours)
            optimizer.zero_grad()
    assert_same((nets[0], plain), (nets[1], ours))
    again = optimizer_of(nets[1], True)
    backward(nets[1], 4)
    assert without_gradients(nets[1]) and len(again.state) == 8
    ours.remove()  # twice, when another has hooks
    backward(nets[1], 5)
    assert without_gradients(nets[1])


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_copies_step_their_own_parameters(how):
    """A copy of model and optimizer goes on as the original does, which does not notice."""
    net = model()
    optimizer = optimizer_of(net, True, amsgrad=True)
    backward(net, 0)
    if how == "deepcopy":
        other, copied = copy.deepcopy((net, optimizer))
    elif how == "pickle":
        other, copied = pickle.loads(pickle.dumps((net, optimizer)))
    else:
        file = io.BytesIO()
        torch.save((net, optimizer), file)
        file.seek(0)
        other, copied = torch.load(file, weights_only=False)
    for both in (net, other):
        backward(both, 1)
    assert without_gradients(net) and without_gradients(other)
    assert_same((net, optimizer), (other, copied))
    optimizer.remove()
    removed = copy.deepcopy((net, optimizer))
    backward(removed[0], 2)
    assert not without_gradients(removed[0])


def test_nothing_is_decided_before_the_first_step():
    """state_dict() shows the state that will be; saved and loaded, the optimizer still has none."""
    net = model()
    optimizer = optimizer_of(net, True)
    shown = optimizer.state_dict()
    assert len(shown["state"]) == 8 and not optimizer.state
    optimizer.load_state_dict(shown)
    assert not optimizer.state
    optimizer.param_groups[0]["optim_bits"] = 32
    backward(net, 0)
    assert all("exp_avg" in state for state in optimizer.state.values())


# ---- errors and refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
def test_a_bad_gradient(named):
    """It is an error with the parameter's name; those before it have been stepped, those after it are not, and the next
    backward() goes on from there."""
    net = model()
    made = net.named_parameters() if named else net.parameters()
    embedding = torch.nn.Embedding(10, 60, sparse=True)
    groups = [{"params": list(made)}, {"params": [("words", embedding.weight)] if named else [embedding.weight]}]
    optimizer = pyadamw.StepInBackward(groups, pyadamw.AdamW8bit, **OPTIONS)

    def run(step):
        hidden = net[1](net[0](batch(step, net)) + embedding(torch.tensor([1, 2, 3, 4])))
        net[3](net[2](hidden)).square().mean().backward()

    before = [bits(p) for p in net.parameters()]
    name = "parameter 'words'" if named else "parameter 0 of group 1"
    with pytest.raises(RuntimeError, match=rf"{name} \(shape \(10, 60\)\) has a sparse gradient"):
        run(0)
    assert embedding.weight.grad is None and embedding.weight not in optimizer.state
    for param, old in zip(net.parameters(), before, strict=True):
        stepped = param in optimizer.state
        assert stepped == (bits(param) != old)
        assert not stepped or float(optimizer.state[param]["step"]) == 1
    assert net[3].weight in optimizer.state
    net.zero_grad()
    embedding.sparse = False
    run(1)
    assert without_gradients(net) and embedding.weight.grad is None
    assert float(optimizer.state[net[3].weight]["step"]) == 2 and float(optimizer.state[embedding.weight]["step"]) == 1


def test_a_bad_option():
    """It is an error that names the group, and nothing of it is stepped."""
    net = model()
    layers = [{"params": layer.parameters()} for layer in net]
    optimizer = pyadamw.StepInBackward(layers, pyadamw.AdamW8bit, **OPTIONS)
    backward(net, 0)
    for option, value in (("lr", -1.0), ("betas", (2.0, 0.9)), ("eps", -1.0)):
        good, optimizer.param_groups[2][option] = optimizer.param_groups[2][option], value
        with pytest.raises(ValueError, match=rf"group 2: {option}|^{option}"):
            backward(net, 1)
        optimizer.param_groups[2][option] = good
        net.zero_grad()
    steps = [float(optimizer.state[layer.weight]["step"]) for layer in net]
    assert steps == [1, 1, 1, 4]


def test_clipping_by_the_norm_of_all_is_refused():
    """In a group, in a state dict, and when it is set later: before anything is stepped with it."""
    net = model()
    optimizer = optimizer_of(net, True)
    with pytest.raises(ValueError, match=r"group 1: max_grad_norm = 1.0: must be None"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(3))], "max_grad_norm": 1.0})
    assert len(optimizer.param_groups) == 1
    saved = optimizer.state_dict()
    saved["param_groups"][0]["max_grad_norm"] = 0.5
    with pytest.raises(ValueError, match=r"group 0 of the state dict: max_grad_norm = 0.5"):
        optimizer.load_state_dict(saved)
    optimizer.param_groups[0]["max_grad_norm"] = 2.0
    with pytest.raises(ValueError, match=r"max_grad_norm = 2.0: .* not known when the first parameter is stepped"):
        backward(net, 0)
    assert not optimizer.state


def test_scalers_are_refused():
    net = model()
    optimizer = optimizer_of(net, True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(net(batch(0, net)).square().mean()).backward()
    with pytest.raises(RuntimeError, match="does not work with GradScaler"):
        scaler.step(optimizer)
    off = torch.amp.GradScaler("cpu", enabled=False)
    off.scale(net(batch(0, net)).square().mean()).backward()
    off.step(optimizer)


def test_two_at_one_parameter_are_refused():
    """They would step it twice. When the first one is removed or gone, another may come."""
    net = model()
    first = optimizer_of(net, True)
    for call in (lambda: optimizer_of(net, True), lambda: copy.copy(first)):
        with pytest.raises(ValueError, match=r"parameter 0 of group 0 .* belongs to another StepInBackward"):
            call()
    other = model()
    second = optimizer_of(other, True)
    with pytest.raises(ValueError, match=r"parameter 1 of group 1 .* belongs to another StepInBackward"):
        second.add_param_group({"params": [torch.nn.Parameter(torch.zeros(3)), net[0].weight]})
    assert len(second.param_groups) == 1
    backward(other, 0)
    first.remove()
    second = optimizer_of(net, True)
    backward(net, 0)
    assert {float(state["step"]) for state in second.state.values()} == {1} and not first.state


def test_wrong_arguments():
    net = model()
    for cls in (torch.optim.AdamW, pyadamw.StepInBackward, "AdamW8bit"):
        with pytest.raises(ValueError, match=r"cls = .*must be a class of pyadamw"):
            pyadamw.StepInBackward(net.parameters(), cls)
    with pytest.raises(TypeError, match=r"AdamW8bit.__init__\(\) .*fused"):
        pyadamw.StepInBackward(net.parameters(), fused=True)
    with pytest.raises(ValueError, match="lr = -1"):
        pyadamw.StepInBackward(net.parameters(), pyadamw.AdamW, lr=-1)
    with pytest.raises(ValueError, match="appears more than once"), pytest.warns(UserWarning, match="duplicate"):
        pyadamw.StepInBackward([net[0].weight, net[0].bias, net[0].weight])
    with pytest.raises(ValueError, match="empty parameter list"):
        pyadamw.StepInBackward([])
