"""Trains a bfloat16 Llama with Hugging Face's Trainer and 8-bit state. The optimizer takes its options from
TrainingArguments and clips instead of Trainer. A second Trainer resumes from a checkpoint and ends with the same bits.

Install: pyadamw, transformers, accelerate. Run: python transformers_trainer.py
"""

from pydoc_data.topics import topics

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

import pyadamw
from pyadamw.integrations import transformers as hf

STEPS = 30
TEXT = torch.frombuffer(bytearray("\n".join(sorted(topics.values())).encode()), dtype=torch.uint8).long()
ROWS = [{"input_ids": row, "labels": row} for row in TEXT[: 64 * 512].view(-1, 64)]  # tokens are bytes


def new_trainer() -> Trainer:
    set_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=96, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4
    )
    args = TrainingArguments(
        output_dir="transformers_trainer",
        max_steps=STEPS,
        per_device_train_batch_size=8,
        learning_rate=3e-3,
        weight_decay=0.01,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        logging_steps=5,
        save_steps=STEPS // 2,
        report_to="none",
        disable_tqdm=True,
    )
    chosen = hf.optimizer_cls_and_kwargs(args, pyadamw.AdamW8bit, clip_in_step=True, master_weight_bits=24)
    model = LlamaForCausalLM(config).bfloat16()
    return Trainer(model, args, train_dataset=ROWS, optimizer_cls_and_kwargs=chosen)


whole = new_trainer()
whole.train()

resumed = new_trainer()
resumed.train(resume_from_checkpoint=f"transformers_trainer/checkpoint-{STEPS // 2}")

expected = pyadamw.fp32_state_dict(whole.model, whole.optimizer)  # the master weights, as float32
found = pyadamw.fp32_state_dict(resumed.model, resumed.optimizer)
same = all(torch.equal(weight, expected[name]) for name, weight in found.items())
losses = [entry["loss"] for entry in whole.state.log_history if "loss" in entry]
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
print(f"the resumed run ends with the same bits: {same}")
