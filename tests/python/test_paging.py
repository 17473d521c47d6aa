"""Owns the laws of paged state that hold for every backing: the same bits as without pages, tensors like any other, and
pages kept by every way of loading and copying. What happens when something fails is in test_paging_failures.py.
"""

import copy
import gc
import io
import pickle

import pytest
import torch
from harness import assert_same_bits, bits, clones, give_gradients, moment_of, parameters, state_bits, train

import pyadamw
from pyadamw._native.pager import home

SHAPES = ((70, 256), (300,), (5000,), (40, 100), (2, 3, 100, 4), (90000,), ())
SMALL = {"chunk_bytes": 65536, "min_numel": 1000}
BACKINGS = {
    "default": {},
    "host": {"backing": "host"},
    "file": {"backing": "file", **SMALL},
    "file, half resident": {"backing": "file", "resident_bytes": 400_000, **SMALL},
    "file, all resident": {"backing": "file", "resident_bytes": 2**30, **SMALL},
}
UNPAGED = {f"Paged{name}": name for name in ("AdamW", "AdamW8bit", "AdamW16bit", "AdamW32bit")}
OPTIONS = {
    "plain": {},
    "amsgrad": {"amsgrad": True},
    "clipped": {"percentile_clipping": 50, "amsgrad": True},
    "tensor-wise": {"block_wise": False},
    "max_unorm": {"args": {"max_unorm": 0.01}},
    "bf16, stochastic": {"stochastic_rounding": True},
    "bf16, 24 bits": {"master_weight_bits": 24},
    "bf16, 32 bits, amsgrad": {"master_weight_bits": 32, "amsgrad": True},
}


def places(optimizer):
    return {home(value)[1] for state in optimizer.state.values() for key, value in state.items() if key != "step"}


def manager(backing):
    return pyadamw.PageManager(**{"min_numel": 1000, **BACKINGS[backing]})


def by_state_dict(optimizer, params):
    copies = clones(params)
    group = optimizer.param_groups[0]
    other = type(optimizer)(
        copies,
        lr=1e-2,
        amsgrad=group["amsgrad"],
        min_8bit_size=group["min_8bit_size"],
        block_wise=group["block_wise"],
        percentile_clipping=group["percentile_clipping"],
        page_manager=group["page_manager"],
    )
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other, copies


def by_deepcopy(optimizer, params):
    other = copy.deepcopy(optimizer)
    return other, other.param_groups[0]["params"]


def by_pickle(optimizer, params):
    other = pickle.loads(pickle.dumps(optimizer))
    return other, other.param_groups[0]["params"]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", UNPAGED)
@pytest.mark.parametrize("backing", BACKINGS)
def test_paged_equals_unpaged(backing, name, options):
    """4 steps, then a resume by load_state_dict and 2 more: parameters and state have the bits of the unpaged class."""
    dtype = torch.bfloat16 if "bf16" in options else torch.float32
    widths = {"optim_bits": 8} if name == "PagedAdamW" else {}
    keywords = {"lr": 1e-2, "min_8bit_size": 300, **widths, **OPTIONS[options]}
    params = parameters(SHAPES, dtype)
    copies = clones(params)
    plain = getattr(pyadamw, UNPAGED[name])(params, **keywords)
    paged = getattr(pyadamw, name)(copies, page_manager=manager(backing), **keywords)
    train(plain, params, 4)
    train(paged, copies, 4)
    assert_same_bits((plain, params), (paged, copies))
    again = getattr(pyadamw, name)(copies, page_manager=manager(backing), **keywords)
    again.load_state_dict(paged.state_dict())
    del paged
    train(plain, params, 2, first=4)
    train(again, copies, 2, first=4)
    assert_same_bits((plain, params), (again, copies))


@pytest.mark.parametrize("copied", [by_state_dict, by_deepcopy, by_pickle])
@pytest.mark.parametrize("backing", ["host", "file"])
def test_copies_go_on_in_pages_of_their_own(backing, copied):
    params = parameters(SHAPES)
    optimizer = pyadamw.PagedAdamW8bit(params, lr=1e-2, page_manager=manager(backing))
    train(optimizer, params, 2)
    other, copies = copied(optimizer, params)
    train(optimizer, params, 2, first=2)
    before = [state_bits(optimizer, p) for p in params]
    train(other, copies, 2, first=2)
    assert [state_bits(optimizer, p) for p in params] == before
    assert_same_bits((optimizer, params), (other, copies))
    assert places(other) == places(optimizer) == {backing, None}


@pytest.mark.parametrize("source", [pyadamw.AdamW8bit, pyadamw.AdamW32bit, pyadamw.PagedAdamW32bit, torch.optim.AdamW])
@pytest.mark.parametrize("target", [pyadamw.PagedAdamW8bit, pyadamw.PagedAdamW32bit])
def test_whatever_is_loaded_is_paged(source, target):
    """From paged, unpaged, 8 bits, 32 bits, torch: state of large parameters lies in pages, that of small ones not."""
    params = parameters(SHAPES)
    optimizer = source(params)
    train(optimizer, params, 2)
    paged = target(clones(params), page_manager=pyadamw.PageManager("file", min_numel=5000))
    plain = getattr(pyadamw, UNPAGED[target.__name__])(clones(params))
    for other in (paged, plain):
        other.load_state_dict(optimizer.state_dict())
    for p, q in zip(paged.param_groups[0]["params"], plain.param_groups[0]["params"], strict=True):
        assert state_bits(paged, p) == state_bits(plain, q)
        for key, value in paged.state[p].items():
            assert home(value)[1] == ("file" if p.numel() >= 5000 and key != "step" else None)
            assert home(plain.state[q][key])[1] is None


def test_loading_gives_the_old_pages_back():
    manager = pyadamw.PageManager("file")
    params = parameters(((1000, 300),))
    optimizer = pyadamw.PagedAdamW8bit(params, page_manager=manager)
    train(optimizer, params, 1)
    held = manager.stats()["file_bytes"]
    for _ in range(3):
        optimizer.load_state_dict(optimizer.state_dict())
        train(optimizer, params, 1)
    assert manager.stats()["file_bytes"] == held


def test_switching_paging_on_and_off_moves_the_state():
    params, copies = parameters(SHAPES), parameters(SHAPES)
    manager = pyadamw.PageManager("file", min_numel=1000)
    optimizer = pyadamw.PagedAdamW8bit(params, page_manager=manager)
    plain = pyadamw.AdamW8bit(copies)
    for step, wanted in enumerate([True, False, True]):
        optimizer.param_groups[0]["is_paged"] = wanted
        train(optimizer, params, 1, first=step)
        train(plain, copies, 1, first=step)
        assert places(optimizer) == ({"file", None} if wanted else {None})
    assert_same_bits((optimizer, params), (plain, copies))


def test_groups_and_optimizers_share_a_manager_or_have_their_own():
    shared, own = pyadamw.PageManager("file", min_numel=0), pyadamw.PageManager("host", min_numel=0)
    params = parameters(((50, 300), (60, 200), (40, 100)))
    one = pyadamw.AdamW8bit(
        [
            {"params": params[:1], "is_paged": True},
            {"params": params[1:2], "is_paged": True, "page_manager": own},
            {"params": params[2:]},
        ],
        page_manager=shared,
    )
    other_params = parameters(((70, 256),))
    other = pyadamw.PagedAdamW32bit(other_params, page_manager=shared)
    train(one, params, 2)
    train(other, other_params, 2)
    found = [home(moment_of(one.state[p]))[1] for p in params]
    assert found == ["file", "host", None]
    assert shared.stats()["file_bytes"] == sum(entry.places.get("file", 0) for entry in one.memory_report().entries) + (
        2 * 4 * 70 * 256
    )
    report = other.memory_report()
    assert [manager for manager, _ in report.managers] == [shared]


def test_tensors_stay_valid_while_somebody_holds_them():
    manager = pyadamw.PageManager("file", min_numel=0)
    params = parameters(((100, 300),))
    optimizer = pyadamw.PagedAdamW8bit(params, page_manager=manager)
    train(optimizer, params, 2)
    moment = moment_of(optimizer.state[params[0]])
    before = bits(moment)
    del optimizer
    gc.collect()
    assert manager.stats()["file_bytes"] == moment.numel()
    pages = manager.stats
    del manager
    assert bits(moment) == before
    del moment
    gc.collect()
    assert pages()["buffers"] == 0


def test_state_may_be_edited_between_steps():
    """What is written into a paged tensor is what the next step reads."""
    params, copies = parameters(SHAPES), parameters(SHAPES)
    paged = pyadamw.PagedAdamW32bit(params, page_manager=manager("file"))
    plain = pyadamw.AdamW32bit(copies)
    for optimizer, own in ((paged, params), (plain, copies)):
        train(optimizer, own, 2)
        for p in own:
            moment_of(optimizer.state[p]).mul_(0.5)
            optimizer.state[p]["exp_avg_sq"][...] = 1.0
        train(optimizer, own, 2, first=2)
    assert_same_bits((paged, params), (plain, copies))


def test_memory_report_says_what_is_where_and_why():
    manager = pyadamw.PageManager("file")
    params = parameters(((1000, 300), (5000,), (300,)))
    optimizer = pyadamw.PagedAdamW8bit([("large", params[0]), ("middle", params[1]), ("small", params[2])])
    assert optimizer.memory_report().bytes == 0
    optimizer.param_groups[0]["page_manager"] = manager
    give_gradients(params, 0)
    optimizer.step()
    report = optimizer.memory_report()
    assert [entry.bits for entry in report.entries] == [8, 8, 32]
    assert [set(entry.places) for entry in report.entries] == [{"file"}, {"cpu"}, {"cpu"}]
    assert report.entries[0].why == ""
    assert "min_numel = 100000" in report.entries[1].why
    assert "min_8bit_size = 4096" in report.entries[2].why
    assert report.entries[2].bytes == 2 * 4 * 300
    assert report.places["file"] == manager.stats()["file_bytes"]
    assert report.bytes == sum(entry.bytes for entry in report.entries)
    text = str(report)
    for word in ("'large'", "'middle'", "file", "cpu", "min_8bit_size = 4096", "bytes_in", "PageManager('file'"):
        assert word in text


WRONG = {
    "backing": ("disk", "backing = 'disk': must be None, 'host', 'file', 'pinned', 'managed'"),
    "resident_bytes": (-1, "resident_bytes = -1: must be a number of bytes >= 0"),
    "chunk_bytes": (1.5, "chunk_bytes = 1.5: must be a number of bytes >= 0"),
    "reserve_bytes": (4096, "reserve_bytes = 4096: only allowed with backing='file'"),
    "directory": ("/tmp", "directory = '/tmp': only allowed with backing='file'"),
    "min_numel": (None, "min_numel = None: must be an integer >= 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named(name):
    value, message = WRONG[name]
    with pytest.raises(ValueError) as caught:
        pyadamw.PageManager(**{name: value})
    assert message in str(caught.value)


def test_what_does_not_belong_together_is_refused():
    params = parameters(((10, 10),))
    with pytest.raises(ValueError, match=r"page_manager = 'file': must be None or a pyadamw\.PageManager"):
        pyadamw.PagedAdamW(params, page_manager="file")
    with pytest.raises(ValueError, match="is_paged=False"):
        pyadamw.AdamW(params, page_manager=pyadamw.PageManager("host"))
    with pytest.raises(ValueError, match=r"resident_bytes = 100000: must hold 4 windows of chunk_bytes = 65536"):
        pyadamw.PageManager("file", resident_bytes=100_000)
    optimizer = pyadamw.PagedAdamW(params, page_manager=pyadamw.PageManager("pinned", min_numel=0))
    before = bits(params[0])
    give_gradients(params, 0)
    with pytest.raises(ValueError, match="backing = 'pinned', but a parameter is on cpu: must be 'host' or 'file'"):
        optimizer.step()
    assert bits(params[0]) == before
    assert not optimizer.state
