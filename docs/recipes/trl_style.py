"""Trains with a Trainer whose loss needs a second, frozen model, as the trainers of TRL do. The loss here is that of
DPO. The 8-bit state is paged, so that it may leave the GPU.

Install: pyadamw, transformers, accelerate. Run: python trl_style.py
"""

import copy
from pydoc_data.topics import topics
from typing import Any

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Trainer, TrainingArguments, set_seed

from pyadamw.integrations import transformers as hf

LENGTH = 48


def pairs() -> list[dict[str, torch.Tensor]]:
    """Text is chosen, the same bytes in another order are rejected."""
    text = torch.frombuffer(bytearray("\n".join(sorted(topics.values())).encode()), dtype=torch.uint8).long()
    rows = text[: 256 * LENGTH].view(-1, LENGTH)
    return [{"chosen": row, "rejected": row[torch.randperm(LENGTH)]} for row in rows]


def log_probability(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Of each row of `tokens`, as float32."""
    logits = model(input_ids=tokens).logits[:, :-1].float()
    return -F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").sum(-1)


class PreferenceTrainer(Trainer):
    def __init__(self, model: PreTrainedModel, *args: Any, beta: float = 0.1, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self.beta = beta
        self.reference = copy.deepcopy(self.model).eval().requires_grad_(False)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        both = torch.cat([inputs["chosen"], inputs["rejected"]])
        with torch.no_grad():
            reference = log_probability(self.reference, both)
        chosen, rejected = (log_probability(model, both) - reference).chunk(2)
        loss = -F.logsigmoid(self.beta * (chosen - rejected)).mean()
        return (loss, {"chosen": chosen, "rejected": rejected}) if return_outputs else loss


set_seed(0)
# Some trainers of TRL have no argument optimizer_cls_and_kwargs. The names of bitsandbytes' optimizers work with all of
# them. With clip_in_step=True, the optimizer clips by args.max_grad_norm instead of Trainer.
hf.enable(clip_in_step=True)
args = TrainingArguments(
    output_dir="trl_style",
    optim="paged_adamw_8bit",
    max_steps=20,
    per_device_train_batch_size=8,
    gradient_accumulation_steps=2,
    learning_rate=1e-3,
    max_grad_norm=1.0,
    logging_steps=5,
    save_strategy="no",
    remove_unused_columns=False,  # "chosen" and "rejected" are no arguments of the model
    report_to="none",
    disable_tqdm=True,
)
config = LlamaConfig(vocab_size=256, hidden_size=192, intermediate_size=768, num_hidden_layers=1, num_attention_heads=4)
trainer = PreferenceTrainer(LlamaForCausalLM(config), args, train_dataset=pairs())
trainer.train()

losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; it starts at log(2) = 0.693")
optimizer = trainer.optimizer.optimizer  # Trainer's own is accelerate's wrapper
print(f"{type(optimizer).__name__}: bytes of state by place: {optimizer.memory_report().places}")
