"""Makes Hugging Face's names for bitsandbytes' optimizers mean pyadamw's classes. A training script needs one line for
it and keeps its optim="adamw_bnb_8bit". bitsandbytes need not be installed.

Install: pyadamw, transformers, accelerate. Run: python transformers_names.py
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from pyadamw.integrations import transformers as hf

hf.enable()  # this is the line; hf.disable() undoes it

ROWS = [{"input_ids": row, "labels": row} for row in torch.randint(32, (64, 1)).expand(-1, 32).contiguous()]
config = LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2)
args = TrainingArguments(
    output_dir="transformers_names",
    optim="adamw_bnb_8bit",  # or adamw_8bit, paged_adamw_8bit, paged_adamw_32bit
    max_steps=20,
    per_device_train_batch_size=8,
    learning_rate=3e-3,
    logging_steps=5,
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
)
trainer = Trainer(LlamaForCausalLM(config), args, train_dataset=ROWS)
trainer.train()

losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
optimizer = trainer.optimizer.optimizer  # Trainer's own is accelerate's wrapper
print(f"optim={args.optim!r} is {type(optimizer).__module__.split('.')[0]}.{type(optimizer).__name__}")
embeddings = optimizer.state[trainer.model.get_input_embeddings().weight]
print("state of the embeddings:", embeddings["exp_avg"].dtype)  # the other matrices have 8 bits
print(optimizer.memory_report())
