"""Owns commands of `python -m pyadamw`, run in this process, and checkpoints for `inspect`. Must not know any law."""

import contextlib
import io
import json
import re

import torch
from harness import give_gradients

import pyadamw
from pyadamw import cli

ZEROS = {"exp_avg": torch.zeros(5), "exp_avg_sq": torch.zeros(5), "step": torch.tensor(1.0)}
GROUP = {"params": [0], "lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def command(*arguments, terminal=False):
    """(status, stdout, stderr). `terminal`: whether stdout is one; its colours are left out."""
    out, error = Terminal() if terminal else io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = cli.main([*map(str, arguments)])
    return status, re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()), error.getvalue()


def inspect(*arguments, **options):
    return command("inspect", *arguments, **options)


def figures(*arguments):
    """The JSON of a checkpoint that has nothing wrong."""
    status, out, error = inspect(*arguments, "--json")
    assert (status, error) == (0, "")
    return json.loads(out)


def saved(path, state, groups=None):
    torch.save({"state": state, "param_groups": groups or [{**GROUP, "params": list(state)}]}, path)
    return path


def trained():
    """(a model, its optimizer after two steps); parameter 0 has 8-bit state."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(300, 70), torch.nn.Linear(70, 5))
    optimizer = pyadamw.AdamW8bit(model.named_parameters(), lr=1e-3, min_8bit_size=1000)
    for step in range(2):
        give_gradients(list(model.parameters()), step)
        optimizer.step()
    return model, optimizer


def saved_8bit(path):
    state_dict = trained()[1].state_dict()
    return saved(path, state_dict["state"], state_dict["param_groups"])


def subjects(found, level=None):
    return [finding["subject"] for finding in found["findings"] if level in (None, finding["level"])]


def texts(found):
    return " ".join(finding["text"] for finding in found["findings"])
