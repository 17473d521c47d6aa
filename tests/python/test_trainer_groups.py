"""Owns the laws of Trainer's groups: its own two in its order, whoever makes them, so that runs go on with those
of other optimizers; embeddings keep 32 bits as single parameters. (test_transformers.py: the rest of Trainer.)
"""

import pytest
import torch
from test_transformers import NAMES, arguments, data, hf, model, optimizer_of, train, transformers

import pyadamw

EIGHT = [name for name in NAMES if "8bit" in name]
pytestmark = pytest.mark.usefixtures("manager")


@pytest.fixture(autouse=True)
def _switched_off():
    yield
    hf.disable()


def positions(optimizer, net):
    """Of the groups' parameters, which parameters of the model they are."""
    places = {id(p): i for i, p in enumerate(net.parameters())}
    return [[places[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def widths(optimizer, net):
    """{whether it is an embedding: widths of state}, after a step."""
    embeddings = {id(m.weight) for m in net.modules() if isinstance(m, torch.nn.Embedding)}
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    found = {True: set(), False: set()}
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for entry, p in zip(optimizer.memory_report().entries, params, strict=True):
        if p.numel() >= 4096:
            found[id(p) in embeddings].add(entry.bits)
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["enable", "given", "given without model", "factory", "subclass"])
def test_groups_are_trainers(way, name, tmp_path):
    """As for optim="adamw_torch", in each way in which Trainer makes an optimizer; embeddings of 8-bit ones keep 32."""
    args, net, keywords, cls = arguments(tmp_path, optim=name), model(), {}, transformers.Trainer
    plain = transformers.Trainer(net, arguments(tmp_path, optim="adamw_torch")).create_optimizer()
    with hf.enable():
        if way == "factory":
            choose = hf.with_32bit_embeddings if "8bit" in name else hf.optimizer_cls_and_kwargs
            keywords["optimizer_cls_and_kwargs"] = choose(args, NAMES[name])
        elif way != "enable" and way != "subclass":
            given = (args, net) if way == "given" else (args,)
            keywords["optimizer_cls_and_kwargs"] = transformers.Trainer.get_optimizer_cls_and_kwargs(*given)
        elif way == "subclass":

            class cls(transformers.Trainer):
                @staticmethod
                def get_optimizer_cls_and_kwargs(args, model=None):
                    return transformers.Trainer.get_optimizer_cls_and_kwargs(args)

        optimizer = cls(net, args, **keywords).create_optimizer()
    assert type(optimizer) is NAMES[name]
    assert positions(optimizer, net) == positions(plain, net)
    for ours, theirs in zip(optimizer.param_groups, plain.param_groups, strict=True):
        assert [ours[key] for key in ("lr", "betas", "eps")] == [theirs[key] for key in ("lr", "betas", "eps")]
        assert ours["weight_decay"] == theirs["weight_decay"]
    assert widths(optimizer, net) == {True: {32}, False: {8 if "8bit" in name else 32}}


@pytest.mark.parametrize("name", NAMES)
def test_trainers_with_groups_of_their_own(name, tmp_path):
    """What get_optimizer_cls_and_kwargs() returns takes groups, also in a copied create_optimizer() that goes by names
    of classes; if it has seen the model, embeddings keep 32 bits."""

    class Own(transformers.Trainer):
        def create_optimizer(self, model=None):
            cls, keywords = transformers.Trainer.get_optimizer_cls_and_kwargs(self.args, self.model)
            embeddings = {
                id(p) for m in self.model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()
            }
            kinds = [[p for p in self.model.parameters() if (id(p) in embeddings) == kind] for kind in (False, True)]
            self.optimizer = cls([{"params": kinds[0]}, {"params": kinds[1], "lr": 5e-5}], **keywords)
            if cls.__name__ == "Adam8bit":
                raise AssertionError("it would import bitsandbytes")
            return self.optimizer

    with hf.enable():
        trainer = Own(model(), arguments(tmp_path, optim=name, max_steps=2), train_dataset=data())
        trainer.train()
        optimizer = optimizer_of(trainer)
    assert type(optimizer) is NAMES[name]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [3e-3, 5e-5]
    assert widths(optimizer, trainer.model) == {True: {32}, False: {8 if "8bit" in name else 32}}


@pytest.mark.parametrize("before", ["adamw_torch", "paged_adamw_8bit"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_another_optimizer_goes_on(before, name, tmp_path):
    """From Trainer's checkpoint, with the moments that it had."""

    class Loaded(transformers.TrainerCallback):
        """The state of an embedding before the run goes on."""

        def on_train_begin(self, args, state, control, model, optimizer, **_):
            inner = getattr(optimizer, "optimizer", optimizer)
            self.state = {key: value.clone() for key, value in inner.state[model.transformer.wte.weight].items()}

    with hf.enable():
        first = train(arguments(tmp_path, optim=before, max_steps=3))
        kept = optimizer_of(first).state[first.model.transformer.wte.weight]["exp_avg"]
        loaded = Loaded()
        train(arguments(tmp_path, optim=name, max_steps=4), str(tmp_path / "checkpoint-3"), callbacks=[loaded])
    assert torch.equal(loaded.state["exp_avg"], kept) and float(loaded.state["step"]) == 3


def test_a_factory_goes_on_with_a_run_of_torch(tmp_path):
    train(arguments(tmp_path, optim="adamw_torch"))
    args = arguments(tmp_path)
    again = train(args, str(tmp_path / "checkpoint-3"), optimizer_cls_and_kwargs=hf.with_32bit_embeddings(args))
    assert type(optimizer_of(again)) is pyadamw.AdamW8bit
    assert widths(optimizer_of(again), again.model) == {True: {32}, False: {8}}


@pytest.mark.parametrize("name", EIGHT)
def test_what_transformers_own_test_reads(name, tmp_path):
    """Each embedding is registered once, however many trainers there are for the model, and gone with it."""
    net = model()
    with hf.enable():
        for _ in range(3):
            optimizer = transformers.Trainer(net, arguments(tmp_path, optim=name)).create_optimizer()
        triples = optimizer.mng.module_weight_config_triple
    assert len(triples) == 2
    for module, param_name, config in triples:
        assert isinstance(module, torch.nn.Embedding)
        assert (param_name, config) == ("weight", {"optim_bits": 32})


@pytest.mark.parametrize("ready", [True, False])
def test_embeddings_of_others_are_left_alone(ready, tmp_path, manager):
    """Of an optimizer that the user has made, or whose class the user has chosen without them."""
    net, args = model(), arguments(tmp_path)
    with hf.enable():
        if ready:
            trainer = transformers.Trainer(net, args, optimizers=(pyadamw.AdamW8bit(net.parameters()), None))
        else:
            trainer = transformers.Trainer(net, args, optimizer_cls_and_kwargs=hf.optimizer_cls_and_kwargs(args))
        optimizer = trainer.create_optimizer()
    assert manager.module_weight_config_triple == []
    assert widths(optimizer, net) == {True: {8}, False: {8}}
