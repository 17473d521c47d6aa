"""Owns the law that errors of the library reach a user of Python in the words of Python's arguments."""

import pytest
import torch

import pyadamw
from pyadamw._native.messages import in_python

MESSAGES = {
    "adamw_pager_create: options.directory = '/no': no file": "directory = '/no': no file",
    "adamw_pager_create: options.backing = ADAMW_PLACE_MANAGED: use PINNED": "backing = 'managed': use PINNED",
    "adamw_step: tensor 2: step = 0: must be at least 1": "<2>: step = 0: must be at least 1",
    "adamw_step: tensor 1: param (8 bytes at 0x1) overlaps tensor 1: grad (8 bytes at 0x1)": (
        "<1>: the parameter (8 bytes at 0x1) overlaps the gradient (8 bytes at 0x1)"
    ),
    "adamw_step: tensor 1: exp_avg (8 bytes at 0x1) overlaps tensor 12: grad (8 bytes at 0x1)": (
        "<1>: exp_avg (8 bytes at 0x1) overlaps the gradient of <12> (8 bytes at 0x1)"
    ),
    "adamw_step: tensor 3: chunk_bytes = 9 of the pager is too small for max_unorm or ADAMW_STATE_TENSOR8": (
        "<3>: chunk_bytes = 9 of the PageManager is too small for max_unorm or block_wise=False"
    ),
    "adamw_step: the disk fails; the tensors before tensor 7 have been stepped, the others have not": (
        "<7>: the disk fails; the parameters that have been stepped are in `stepped` of this error"
    ),
    "adamw_step: no; the tensors before tensor 7 have been stepped, that tensor up to element 64, "
    "the others have not": (
        "<7>: no; this one up to element 64; the parameters that have been stepped are in `stepped` of this error"
    ),
}


@pytest.mark.parametrize("message", MESSAGES)
def test_names_of_c_are_translated(message):
    """Functions, fields and tensors of the library are parameters and arguments of Python."""
    assert in_python(message, lambda i: f"<{i}>") == MESSAGES[message]


def test_page_manager(tmp_path):
    """What PageManager refuses begins with its argument."""
    with pytest.raises(ValueError, match=r"^resident_bytes = 1000: .*chunk_bytes = 65536.* at least 262144"):
        pyadamw.PageManager("file", resident_bytes=1000)
    with pytest.raises(pyadamw.StorageError, match=f"^directory = '{tmp_path}/no': "):
        pyadamw.PageManager("file", directory=tmp_path / "no")


def test_state_that_shares_memory_is_named():
    """If state has the memory of its parameter, or of other state, the message has the key of each."""
    for key, other in (("exp_avg", None), ("exp_avg_sq", "exp_avg")):
        param = torch.nn.Parameter(torch.ones(300))
        optimizer = pyadamw.AdamW32bit([("weight", param)])
        for step in range(2):
            param.grad = torch.ones(300)
            if step:
                optimizer.state[param][key] = param.detach() if other is None else optimizer.state[param][other]
                with pytest.raises(ValueError) as caught:
                    optimizer.step()
                message = str(caught.value)
                assert f"state {key!r} of parameter 'weight'" in message
                assert (f"state {other!r}" in message) == (other is not None)
            else:
                optimizer.step()
