"""Owns the law that a float32 checkpoint enters a run with master weights without losing a bit, and leaves it so."""

import copy
import pickle

import pytest
import torch
from harness import bits

import pyadamw


class Net(torch.nn.Module):
    """Two names for one weight, buffers, a frozen parameter, and one that stays float32."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(60, 70)
        self.body = torch.nn.Sequential(torch.nn.Linear(70, 90), torch.nn.Tanh(), torch.nn.Linear(90, 70))
        self.norm = torch.nn.BatchNorm1d(70)
        self.head = torch.nn.Linear(70, 60, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen = torch.nn.Parameter(torch.randn(7), requires_grad=False)

    def forward(self, ids):
        x = self.body(self.embedding(ids)).float()
        return self.head(self.norm(x).to(self.head.weight.dtype))


def net(dtype=torch.bfloat16):
    torch.manual_seed(0)
    made = Net().to(dtype)
    made.norm.float()
    return made


def float32_checkpoint():
    torch.manual_seed(1)
    return {k: torch.randn(v.shape) if v.is_floating_point() else v + 3 for k, v in tied(net()).items()}


def tied(model):
    found = model.state_dict()
    return {key: value.clone() for key, value in found.items()}


def checkpoint():
    found = float32_checkpoint()
    found["head.weight"] = found["embedding.weight"]
    found["frozen"] = found["frozen"].bfloat16().float()  # what has no master keeps what bfloat16 can hold
    return found


def run(model, optimizer, steps, first=0):
    for step in range(first, first + steps):
        torch.manual_seed(step)
        model(torch.randint(0, 60, (5,))).float().square().mean().backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()


def snapshot(model, optimizers):
    """Everything that an error must not change."""
    state = [{key: bits(value) for key, value in entry.items()} for o in optimizers for entry in o.state.values()]
    return {key: bits(value) for key, value in model.state_dict().items()}, state


def optimizers_of(kind, model):
    """(what is given to fp32_state_dict(), all optimizers, whether backward() steps)."""
    options = {"lr": 1e-3, "min_8bit_size": 1000, "master_weight_bits": 32}
    if kind == "in backward":
        stepper = pyadamw.StepInBackward(model.named_parameters(), pyadamw.AdamW8bit, **options)
        return stepper, [stepper], True
    if kind == "two":
        params = [p for p in model.parameters() if p.requires_grad]
        both = [pyadamw.AdamW8bit(params[:2], **options), pyadamw.AdamW16bit(params[2:], **options)]
        return both, both, False
    if kind == "paged":
        options["page_manager"] = pyadamw.PageManager("file", min_numel=1000)
    cls = {"paged": pyadamw.PagedAdamW8bit, "16": pyadamw.AdamW16bit, "32": pyadamw.AdamW32bit}.get(
        kind, pyadamw.AdamW8bit
    )
    optimizer = cls(model.named_parameters() if kind == "named" else model.parameters(), **options)
    return optimizer, [optimizer], False


KINDS = ("8", "16", "32", "named", "paged", "two", "in backward")


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind, stepped):
    """Before the first step and after some; parameters, buffers and both names of a tied weight."""
    model = net()
    given, optimizers, in_backward = optimizers_of(kind, model)
    if stepped:
        for step in range(2):
            run(model, None, 1, first=step)
            if not in_backward:
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
    counts = {p: float(s["step"]) for o in optimizers for p, s in o.state.items()}
    loaded = checkpoint()
    result = pyadamw.load_fp32_state_dict(model, given, loaded)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    found = pyadamw.fp32_state_dict(model, given)
    assert list(found) == list(model.state_dict())
    for key, value in loaded.items():
        assert bits(found[key]) == bits(value), key
        if value.is_floating_point():
            assert found[key].dtype == torch.float32
    assert found["head.weight"] is found["embedding.weight"]
    assert {float(s["step"]) for o in optimizers for p, s in o.state.items() if p not in counts} <= {0.0}
    assert all(float(o.state[p]["step"]) == counts[p] for o in optimizers for p in o.state if p in counts)
    assert ("file" in optimizers[0].memory_report().places) == (kind == "paged")
    held = {value.data_ptr() for value in model.state_dict().values()}
    assert not held & {found[name].data_ptr() for name, _ in model.named_parameters()}


def test_a_run_from_a_checkpoint_is_the_float32_run():
    """Loaded before the first step; the same gradients: what comes out is what a float32 model has."""
    ours, theirs = net(), net(torch.float32)
    optimizer = pyadamw.AdamW8bit(ours.parameters(), lr=1e-3, min_8bit_size=1000, master_weight_bits=32)
    reference = pyadamw.AdamW8bit(theirs.parameters(), lr=1e-3, min_8bit_size=1000)
    pyadamw.load_fp32_state_dict(ours, optimizer, checkpoint())
    theirs.load_state_dict(checkpoint())
    for step in range(4):
        run(ours, None, 1, first=step)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            q.grad = None if p.grad is None else p.grad.float()
        optimizer.step()
        reference.step()
        optimizer.zero_grad()
    found = pyadamw.fp32_state_dict(ours, optimizer)
    for name, q in theirs.named_parameters():
        assert bits(found[name]) == bits(q), name


def test_moments_of_a_float32_run_go_on():
    """The state of a run on float32 parameters loads, then its weights: the run goes on as if nothing had happened."""
    theirs = net(torch.float32)
    reference = pyadamw.AdamW8bit(theirs.parameters(), lr=1e-3, min_8bit_size=1000)
    run(theirs, reference, 3)
    ours = net()
    optimizer = pyadamw.AdamW8bit(ours.parameters(), lr=1e-3, min_8bit_size=1000, master_weight_bits=32)
    optimizer.load_state_dict(reference.state_dict())
    pyadamw.load_fp32_state_dict(ours, optimizer, theirs.state_dict())
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        p.grad = torch.ones_like(p) if p.requires_grad else None
        q.grad = torch.ones_like(q) if p.requires_grad else None
    optimizer.step()
    reference.step()
    for name, q in theirs.named_parameters():
        if q.requires_grad:
            assert bits(pyadamw.fp32_state_dict(ours, optimizer)[name]) == bits(q), name


def test_24_bits_take_the_nearest():
    model, given = net(), checkpoint()
    optimizer = pyadamw.AdamW32bit(model.parameters(), master_weight_bits=24)
    pyadamw.load_fp32_state_dict(model, optimizer, given)
    found = pyadamw.fp32_state_dict(model, optimizer)
    for name in ("embedding.weight", "body.0.weight", "body.2.bias"):
        expected = pyadamw.functional.join_weights(*pyadamw.functional.split_weights(given[name], 24))
        assert bits(found[name]) == bits(expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_copies_have_their_own(copied):
    model = net()
    optimizer = pyadamw.AdamW8bit(model.parameters(), lr=1e-3, master_weight_bits=32)
    pyadamw.load_fp32_state_dict(model, optimizer, checkpoint())
    other, theirs = copied((model, optimizer))
    before = {key: bits(value) for key, value in pyadamw.fp32_state_dict(other, theirs).items()}
    run(model, optimizer, 2)
    assert {key: bits(value) for key, value in pyadamw.fp32_state_dict(other, theirs).items()} == before
    run(other, theirs, 2)
    for key, value in pyadamw.fp32_state_dict(model, optimizer).items():
        assert bits(pyadamw.fp32_state_dict(other, theirs)[key]) == bits(value)


def test_compiled_models():
    """They have other names, in both directions."""
    model = torch.compile(net(), backend="eager")
    optimizer = pyadamw.AdamW8bit(model.parameters(), lr=1e-3, master_weight_bits=32)
    run(model, optimizer, 2)
    found = copy.deepcopy(pyadamw.fp32_state_dict(model, optimizer))  # buffers are those of the model
    assert all(key.startswith("_orig_mod.") for key in found)
    before = {key: bits(value) for key, value in found.items()}
    run(model, optimizer, 1, first=2)
    pyadamw.load_fp32_state_dict(model, optimizer, found)
    assert {key: bits(value) for key, value in pyadamw.fp32_state_dict(model, optimizer).items()} == before


def test_shared_memory_and_graphs_keep_their_addresses():
    """Remainders that are there are written where they are."""
    model = net()
    optimizer = pyadamw.AdamW8bit(model.parameters(), master_weight_bits=32)
    run(model, optimizer, 1)
    remainder = optimizer.state[model.embedding.weight]["param_remainder"].share_memory_()
    run(model, optimizer, 1)
    pyadamw.load_fp32_state_dict(model, optimizer, checkpoint())
    assert optimizer.state[model.embedding.weight]["param_remainder"] is remainder
    assert bits(pyadamw.fp32_state_dict(model, optimizer)["head.weight"]) == bits(checkpoint()["head.weight"])


# ---- errors ----------------------------------------------------------------------------------------------------------


def without(key):
    return lambda given: given.pop(key)


def put(key, value):
    return lambda given: given.update({key: value})


WRONG = {
    "a missing name": (without("body.0.bias"), r"lacks 'body\.0\.bias': pass strict=False"),
    "an unexpected name": (put("other", torch.zeros(1)), "has 'other', which the model does not have"),
    "a wrong shape": (put("body.2.bias", torch.zeros(71)), r"body\.2\.bias has shape \(71,\): must be \(70,\)"),
    "a wrong shape of a buffer": (put("norm.running_mean", torch.zeros(7)), r"norm\.running_mean has shape \(7,\)"),
    "integers": (
        put("body.2.bias", torch.zeros(70, dtype=torch.int64)),
        r"body\.2\.bias has dtype int64: must be float",
    ),
    "complex numbers": (put("frozen", torch.zeros(7, dtype=torch.complex64)), "frozen has dtype complex64"),
    "a float count": (put("norm.num_batches_tracked", torch.tensor(1.0)), "must be integer"),
    "no tensor": (put("body.2.bias", [1.0]), r"body\.2\.bias is list"),
    "a sparse tensor": (put("body.2.bias", torch.zeros(70).to_sparse()), "must be a dense tensor"),
}


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_nothing_changes_on_an_error(name, stepped):
    model = net()
    optimizer = pyadamw.AdamW8bit(model.parameters(), master_weight_bits=32)
    if stepped:
        run(model, optimizer, 1)
    change, message = WRONG[name]
    given, before = checkpoint(), snapshot(model, [optimizer])
    change(given)
    with pytest.raises(ValueError, match=message):
        pyadamw.load_fp32_state_dict(model, optimizer, given)
    assert snapshot(model, [optimizer]) == before
    run(model, optimizer, 1)


def test_what_is_not_strict():
    model = net()
    optimizer = pyadamw.AdamW8bit(model.parameters(), master_weight_bits=32)
    run(model, optimizer, 1)
    before = pyadamw.fp32_state_dict(model, optimizer)
    given = {"body.0.weight": checkpoint()["body.0.weight"], "other": torch.zeros(1)}
    result = pyadamw.load_fp32_state_dict(model, optimizer, given, strict=False)
    assert result.unexpected_keys == ["other"]
    assert set(result.missing_keys) == set(before) - {"body.0.weight"}
    after = pyadamw.fp32_state_dict(model, optimizer)
    assert [key for key in before if bits(before[key]) != bits(after[key])] == ["body.0.weight"]


def test_wrong_arguments():
    model = net()
    optimizer = pyadamw.AdamW8bit(model.parameters(), master_weight_bits=32)
    for call, message in (
        (lambda: pyadamw.fp32_state_dict([], optimizer), "model is list: must be a torch.nn.Module"),
        (lambda: pyadamw.fp32_state_dict(model, torch.optim.AdamW(model.parameters())), "optimizer is AdamW: must be"),
        (lambda: pyadamw.fp32_state_dict(net(), optimizer), "none of the parameters of the model"),
        (lambda: pyadamw.load_fp32_state_dict(model, optimizer, [1]), "state_dict is list"),
        (lambda: pyadamw.load_fp32_state_dict(model, [optimizer, 3], {}), "optimizer is int"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_state_dict_without_the_parameters_is_refused():
    """As of FSDP1: the weights would come without what the optimizer keeps of them."""
    model = torch.nn.Linear(30, 20).bfloat16()
    optimizer = pyadamw.AdamW8bit(model.parameters(), master_weight_bits=32)
    # Public since torch 2.5, and the same.
    register = getattr(model, "register_state_dict_post_hook", model._register_state_dict_hook)
    register(lambda m, found, prefix, _: found.update(weight=found["weight"].clone()))
    for call in (
        lambda: pyadamw.fp32_state_dict(model, optimizer),
        lambda: pyadamw.load_fp32_state_dict(model, optimizer, {"weight": torch.ones(20, 30), "bias": torch.ones(20)}),
    ):
        with pytest.raises(ValueError, match=r"parameter 'weight'.*optimizer\.fp32_weights"):
            call()


def test_lazy_and_meta_models():
    """What has no numbers yet is left out, and cannot be loaded."""
    made = {"dtype": torch.bfloat16}
    model = torch.nn.Sequential(torch.nn.Linear(3, 4, **made), torch.nn.LazyLinear(5, **made))
    optimizer = pyadamw.AdamW8bit(model.parameters(), master_weight_bits=32)
    assert list(optimizer.fp32_weights()) == [0, 1]
    found = pyadamw.fp32_state_dict(model, optimizer)
    assert found["0.weight"].dtype == torch.float32
    given = {
        "0.weight": torch.ones(4, 3),
        "0.bias": torch.ones(4),
        "1.weight": torch.ones(5, 4),
        "1.bias": torch.ones(5),
    }
    with pytest.raises(ValueError, match=r"1\.weight is not initialized yet"):
        pyadamw.load_fp32_state_dict(model, optimizer, given)
    with torch.device("meta"):
        model = torch.nn.Linear(3, 4).bfloat16()
    optimizer = pyadamw.AdamW8bit(model.parameters(), master_weight_bits=32)
    with pytest.raises(ValueError, match="weight of the model is a meta tensor"):
        pyadamw.load_fp32_state_dict(model, optimizer, {"weight": torch.ones(4, 3), "bias": torch.ones(4)})


# ---- fp32_weights() --------------------------------------------------------------------------------------------------


def test_names_of_weights():
    """Those of named parameters, or the numbers of state_dict(); master weights, and copies of what has none."""
    params = [torch.nn.Parameter(torch.randn(30).to(dtype)) for dtype in (torch.bfloat16, torch.float32, torch.float16)]
    groups = [{"params": params[:1], "master_weight_bits": 32}, {"params": params[1:]}]
    optimizer = pyadamw.AdamW32bit(groups)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    found = optimizer.fp32_weights()
    assert list(found) == [0, 1, 2] == list(optimizer.state_dict()["state"])
    remainder = optimizer.state[params[0]]["param_remainder"]
    assert bits(found[0]) == bits(pyadamw.functional.join_weights(params[0].detach(), remainder))
    assert not torch.equal(found[0], params[0].float())
    assert torch.equal(found[1], params[1])
    assert torch.equal(found[2], params[2].float())
    assert {w.dtype for w in found.values()} == {torch.float32}
    assert not {w.data_ptr() for w in found.values()} & {p.data_ptr() for p in params}
    named = pyadamw.AdamW32bit([("a", params[0]), ("b", params[1])], master_weight_bits=32)
    assert list(named.fp32_weights()) == ["a", "b"]
