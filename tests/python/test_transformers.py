"""Owns the laws of Hugging Face's Trainer with these optimizers, on a model that is small enough for tests."""

import sys
import warnings

import pytest
import torch
from harness import Late, bits, moment_of
from versions import older

import pyadamw

accelerate, transformers, hf = map(Late, ("accelerate", "transformers", "pyadamw.integrations.transformers"))
NAMES = {
    "adamw_bnb_8bit": pyadamw.AdamW8bit,
    "adamw_8bit": pyadamw.AdamW8bit,
    "paged_adamw_8bit": pyadamw.PagedAdamW8bit,
    "paged_adamw_32bit": pyadamw.PagedAdamW32bit,
}


@pytest.fixture(autouse=True)
def _switched_off():
    yield
    hf.disable()


def model():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=200, n_positions=32, n_embd=64, n_layer=1, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    config.loss_type = "ForCausalLM"
    return transformers.GPT2LMHeadModel(config)


def data():
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(200, (24, 16), generator=generator)
    return [{"input_ids": row, "labels": row} for row in rows]


def arguments(path, **options):
    defaults = {
        "output_dir": str(path),
        "use_cpu": True,
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-3,
        "adam_beta1": 0.8,
        "adam_beta2": 0.99,
        "adam_epsilon": 1e-7,
        "weight_decay": 0.1,
        "save_strategy": "steps",
        "save_steps": 3,
        "report_to": [],
        "disable_tqdm": True,
        "logging_strategy": "no",
        "seed": 5,
    }
    return transformers.TrainingArguments(**{**defaults, **options})


def run_trainer(trainer, resume=None):
    if resume and older("torch", "2.6"):
        pytest.skip("Trainer refuses to resume before torch 2.6, because of a fault in torch.load()")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(resume_from_checkpoint=resume)
    return trainer


def train(args, resume=None, **keywords):
    return run_trainer(transformers.Trainer(model(), args, train_dataset=data(), **keywords), resume)


def optimizer_of(trainer):
    return getattr(trainer.optimizer, "optimizer", trainer.optimizer)


def weights(trainer):
    return [bits(p) for p in trainer.model.parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_optim_by_name(name, tmp_path):
    """With the switch, Trainer's names for bitsandbytes give these classes, which train, save and resume as if
    uninterrupted; bitsandbytes is not asked. Embeddings keep 32 bits."""
    hidden = {key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] == "bitsandbytes"}
    sys.modules["bitsandbytes"] = None  # importing it fails
    try:
        with hf.enable():
            whole = train(arguments(tmp_path / "whole", optim=name))
            resumed = train(arguments(tmp_path / "whole", optim=name), str(tmp_path / "whole" / "checkpoint-3"))
    finally:
        del sys.modules["bitsandbytes"]
        sys.modules.update(hidden)
    optimizer = optimizer_of(whole)
    assert type(optimizer) is NAMES[name]
    assert weights(whole) == weights(resumed)
    assert weights(whole) != [bits(p) for p in model().parameters()]
    for group in optimizer.param_groups:
        assert (group["initial_lr"], group["betas"], group["eps"]) == (3e-3, (0.8, 0.99), 1e-7)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1, 0.0}
    embedding = whole.model.transformer.wte.weight
    matrix = whole.model.transformer.h[0].mlp.c_fc.weight
    assert moment_of(optimizer.state[embedding]).dtype == torch.float32
    assert (moment_of(optimizer.state[matrix]).dtype == torch.uint8) == ("8bit" in name)


@pytest.mark.parametrize("cls", [pyadamw.AdamW8bit, pyadamw.PagedAdamW16bit])
def test_master_weights(cls, tmp_path):
    """A bfloat16 model saves and resumes as if uninterrupted; Trainer's own objects give its float32 weights."""
    args, made = arguments(tmp_path), []
    for resume in (None, str(tmp_path / "checkpoint-3")):
        chosen = hf.optimizer_cls_and_kwargs(args, cls, master_weight_bits=32)
        trainer = transformers.Trainer(model().bfloat16(), args, train_dataset=data(), optimizer_cls_and_kwargs=chosen)
        run_trainer(trainer, resume)
        made.append(pyadamw.fp32_state_dict(trainer.model, trainer.optimizer))
    assert {key: bits(value) for key, value in made[0].items()} == {key: bits(value) for key, value in made[1].items()}
    assert {value.dtype for value in made[0].values()} == {torch.float32}
    assert made[0]["lm_head.weight"] is made[0]["transformer.wte.weight"]
    assert all((w != w.bfloat16()).any() for name, w in made[0].items() if "wte" in name)


@pytest.mark.parametrize("choose", ["optimizer_cls_and_kwargs", "with_32bit_embeddings"])
def test_optimizer_cls_and_kwargs(choose, tmp_path):
    """What TrainingArguments says arrives, and more may be said; resumed = uninterrupted."""
    args = arguments(tmp_path)
    chosen = lambda: {"optimizer_cls_and_kwargs": getattr(hf, choose)(args, pyadamw.AdamW8bit, eps=1e-6)}  # noqa: E731
    whole = train(args, **chosen())
    resumed = train(args, str(tmp_path / "checkpoint-3"), **chosen())
    assert weights(whole) == weights(resumed)
    optimizer = optimizer_of(whole)
    assert type(optimizer) is pyadamw.AdamW8bit
    assert {(group["initial_lr"], group["eps"]) for group in optimizer.param_groups} == {(3e-3, 1e-6)}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1, 0.0}
    embedding = whole.model.transformer.wte.weight
    kept = moment_of(optimizer.state[embedding]).dtype == torch.float32
    assert kept == (choose == "with_32bit_embeddings")


def test_the_switch_is_reversible():
    """Twice on, once off: Trainer is as it was; other names are never touched."""
    Trainer = transformers.Trainer
    before, create = Trainer.get_optimizer_cls_and_kwargs, Trainer.create_optimizer
    hf.enable()
    hf.enable()
    assert Trainer.get_optimizer_cls_and_kwargs is not before
    assert Trainer.get_optimizer_cls_and_kwargs(arguments("x", optim="adamw_torch"))[0] is torch.optim.AdamW
    assert Trainer.create_optimizer is not create
    for _ in range(2):
        hf.disable()
        assert Trainer.get_optimizer_cls_and_kwargs is before
        assert Trainer.create_optimizer is create


@pytest.mark.parametrize("cls", [pyadamw.AdamW8bit, pyadamw.PagedAdamW8bit])
def test_accelerate(cls, tmp_path):
    """prepare(), gradient accumulation, save_state() and load_state(): the same bits as without interruption."""
    accelerate.state.GradientState._reset_state()  # which a Trainer before it has left, and accelerate 1.3 goes on with
    made = []
    for interrupted in (False, True):
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)

        def prepared(accelerator=accelerator):
            torch.manual_seed(0)
            net = torch.nn.Sequential(torch.nn.Linear(50, 300), torch.nn.Tanh(), torch.nn.Linear(300, 4))
            return accelerator.prepare(net, cls(net.parameters(), lr=1e-2, min_8bit_size=100))

        net, optimizer = prepared()
        for step in range(8):
            if interrupted and step == 4:
                accelerator.save_state(tmp_path)
                accelerator.free_memory()
                net, optimizer = prepared()
                accelerator.load_state(tmp_path)
            generator = torch.Generator().manual_seed(step)
            with accelerator.accumulate(net):
                accelerator.backward(net(torch.randn(5, 50, generator=generator)).square().mean())
                accelerator.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        made.append([bits(p) for p in net.parameters()])
        assert {float(state["step"]) for state in optimizer.optimizer.state.values()} == {4.0}
    assert made[0] == made[1]


def test_factories_need_a_trainer_that_takes_them(tmp_path, monkeypatch):
    """transformers has them since 5.2."""
    monkeypatch.delattr(transformers.trainer, "is_optimizer_factory")
    with pytest.raises(RuntimeError, match=r"takes no factories of optimizers.*update it to 5\.2 or newer"):
        hf.with_32bit_embeddings(arguments(tmp_path))


def test_a_ready_optimizer(tmp_path):
    """Trainer(optimizers=(optimizer, None)), the way that needs nothing from here."""
    net = model()
    optimizer = pyadamw.PagedAdamW8bit(net.parameters(), lr=1e-3)
    trainer = transformers.Trainer(
        net, arguments(tmp_path, max_steps=2), train_dataset=data(), optimizers=(optimizer, None)
    )
    trainer.train()
    assert {float(state["step"]) for state in optimizer.state.values()} == {2.0}


@pytest.mark.parametrize("way", ["optimizer_cls_and_kwargs", "with_32bit_embeddings", "enable"])
@pytest.mark.parametrize("bf16", [False, True])
def test_nobody_clips_twice(way, bf16, tmp_path):
    """With clip_in_step=True the optimizer clips, once, with gradient accumulation and mixed precision: weights and
    logged norms are those of a Trainer that clips, and it goes on from that run's checkpoint."""

    class Seen(transformers.TrainerCallback):
        """Trainer's own norm at each step, and the optimizer's."""

        def __init__(self):
            self.logged, self.ours = [], []

        def on_optimizer_step(self, args, state, control, optimizer, **_):
            inner = getattr(optimizer, "optimizer", optimizer)
            self.ours.append(None if inner.grad_norm is None else float(inner.grad_norm))

        def on_log(self, args, state, control, logs, **_):
            self.logged += [logs["grad_norm"]] if "grad_norm" in logs else []

    runs = []
    for inside in (True, False):
        options = {"logging_strategy": "steps", "logging_steps": 1, "gradient_accumulation_steps": 2, "bf16": bf16}
        args = arguments(tmp_path / str(inside), optim="paged_adamw_32bit", max_grad_norm=0.1, **options)
        seen, keywords = Seen(), {}
        with hf.enable(clip_in_step=inside):
            if way != "enable":
                keywords["optimizer_cls_and_kwargs"] = getattr(hf, way)(args, pyadamw.AdamW32bit, clip_in_step=inside)
            trainer = train(args, callbacks=[seen], **keywords)
            if inside:
                train(args, str(tmp_path / "True" / "checkpoint-3"), **keywords)
        limits = {group["max_grad_norm"] for group in optimizer_of(trainer).param_groups}
        assert limits == ({0.1} if inside else {None})
        assert args.max_grad_norm == (0 if inside else 0.1)
        runs.append((trainer, seen))
    (one, ours), (other, theirs) = runs
    assert len(ours.logged) == 6 and min(theirs.logged) > 0.1
    for mine, logged, their in zip(ours.ours, ours.logged, theirs.logged, strict=True):
        assert abs(mine / logged - 1) <= 1e-5  # torch adds up in single precision
        assert abs(logged / their - 1) <= 1e-3
    for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
        # 6 steps of 3e-3, whose gradients differ by torch's rounding of the norm and of each clipped gradient.
        assert (p - q).abs().mean() <= 1e-3 * 6 * 3e-3


def test_clipping_twice_is_refused(tmp_path):
    args = arguments(tmp_path)
    with pytest.raises(ValueError, match=r"args\.max_grad_norm = 1\.0: pass clip_in_step=True"):
        hf.optimizer_cls_and_kwargs(args, max_grad_norm=0.5)
    args.max_grad_norm = 0
    assert hf.optimizer_cls_and_kwargs(args, max_grad_norm=0.5)[1]["max_grad_norm"] == 0.5
    assert hf.optimizer_cls_and_kwargs(args, clip_in_step=True)[1]["max_grad_norm"] is None
    args.max_grad_norm = 0.3
    assert [hf.optimizer_cls_and_kwargs(args, clip_in_step=True)[1]["max_grad_norm"] for _ in range(2)] == [0.3, 0.3]
