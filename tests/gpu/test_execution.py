"""Owns the laws of execution: the caller's stream, no synchronisation, graphs, GradScaler, launches, memory."""

import contextlib
import weakref

import models
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import pyadamw


def launches(step):
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        step()
        torch.cuda.synchronize()
    kernels = [event.name for event in seen.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return [name for name in kernels if "adamw_" in name]


@contextlib.contextmanager
def no_waiting():
    """Waiting for the device is an error, as far as torch does it."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("options", "most"), [({}, 1), ({"percentile_clipping": 50}, 2)])
def test_304_tensors_take_one_launch(cuda, options, most):
    params = models.parameters(cuda, shapes=[(64, 64), (128,)] * 152)
    optimizer = pyadamw.AdamW8bit(params, min_8bit_size=1, **options)
    for step in range(2):
        models.gradients(params, step)
        optimizer.step()
    models.gradients(params, 2)
    assert len(launches(optimizer.step)) == most


def test_step_does_not_wait(cuda):
    """Nothing is synchronised, even where the stream has much to do still."""
    params = models.parameters(cuda)
    optimizer = pyadamw.AdamW8bit(params, min_8bit_size=100)
    models.gradients(params, 0)
    optimizer.step()
    torch.cuda.synchronize()
    models.gradients(params, 1)
    done = torch.cuda.Event()
    torch.cuda._sleep(2_000_000_000)
    with no_waiting():
        optimizer.step()
    done.record()
    assert not done.query(), "step() returned only when the device had done everything before"
    torch.cuda.synchronize()


def test_the_callers_stream_is_taken(cuda):
    """What precedes the step on a side stream is seen, and two optimizers on two streams do not disturb each other."""
    results = []
    for side in (False, True):
        torch.cuda.synchronize()
        pairs = []
        for k in range(2):
            params = models.parameters(cuda, seed=k)
            pairs.append((params, pyadamw.AdamW8bit(params, min_8bit_size=100, percentile_clipping=60)))
        streams = [torch.cuda.Stream() if side else torch.cuda.current_stream() for _ in pairs]
        torch.cuda.synchronize()
        for step in range(5):
            for (params, optimizer), stream in zip(pairs, streams, strict=True):
                with torch.cuda.stream(stream):
                    torch.cuda._sleep(1_000_000)
                    models.gradients(params, step)
                    optimizer.step()
        torch.cuda.synchronize()
        results.append([param for params, _ in pairs for param in params])
    models.assert_same(*results)


@pytest.mark.parametrize("options", [{}, {"percentile_clipping": 50}, {"amsgrad": True}])
@pytest.mark.parametrize("cls", [pyadamw.AdamW8bit, pyadamw.AdamW32bit])
def test_replayed_graph_is_eager_steps(cuda, cls, options):
    def setup():
        params = models.parameters(cuda)
        return params, cls(params, lr=torch.tensor(1e-2, device=cuda), min_8bit_size=100, capturable=True, **options)

    eager, stepped = setup()
    captured, optimizer = setup()
    for params, made in ((eager, stepped), (captured, optimizer)):
        models.gradients(params, 0)
        made.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    for step in range(1, 5):
        models.gradients(eager, step)
        stepped.param_groups[0]["lr"].mul_(0.9)
        optimizer.param_groups[0]["lr"].mul_(0.9)
        for param, other in zip(eager, captured, strict=True):
            other.grad.copy_(param.grad)
        stepped.step()
        graph.replay()
    models.assert_same(eager, captured)
    models.assert_same(models.states(stepped, eager), models.states(optimizer, captured))


def test_capture_without_capturable_is_refused(cuda):
    params = models.parameters(cuda)
    optimizer = pyadamw.AdamW8bit(params)
    models.gradients(params, 0)
    optimizer.step()
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="capturable=True"), torch.cuda.graph(graph):
        optimizer.step()


def test_gradscaler_does_not_wait(cuda):
    """With capturable=True found_inf and the scale are read on the device: a step with infinities changes nothing and
    counts nothing."""
    params = models.parameters(cuda)
    optimizer = pyadamw.AdamW8bit(params, lr=1e-2, min_8bit_size=100, capturable=True)
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0)
    for step in range(4):
        models.gradients(params, step)
        for param in params:
            param.grad.mul_(1024.0)
        if step == 2:
            params[0].grad.view(-1)[3] = float("inf")
        before = [param.detach().clone() for param in params]
        scaler.scale(torch.zeros((), device=cuda))
        with no_waiting() if step else contextlib.nullcontext():
            scaler.step(optimizer)
        scaler.update()
        moved = any(not torch.equal(a, b.detach()) for a, b in zip(before, params, strict=True))
        assert moved == (step != 2)
    assert {float(optimizer.state[param]["step"]) for param in params} == {3.0}


def test_infinities_stop_a_step_on_several_devices(cuda):
    """What is on the CPU has to wait for found_inf: nothing is stepped or counted then, and no gradient is held."""
    params = [*models.parameters(cuda), *models.parameters("cpu", seed=1)]
    optimizer = pyadamw.AdamW8bit(params, min_8bit_size=100)
    for step, infinite in enumerate((False, True, False)):
        models.gradients(params, step)
        before = [param.detach().clone() for param in params]
        optimizer.found_inf = torch.tensor(float(infinite), device=cuda)
        optimizer.step()
        changed = [not torch.equal(param.detach(), old) for param, old in zip(params, before, strict=True)]
        assert changed == [not infinite] * len(params)
        held = [weakref.ref(param.grad) for param in params]
        optimizer.zero_grad()
        assert not any(ref() is not None for ref in held)
    assert {float(optimizer.state[param]["step"]) for param in params} == {2.0}


def test_no_memory_in_the_steady_state(cuda):
    params = models.parameters(cuda)
    optimizer = pyadamw.AdamW8bit(params, min_8bit_size=100, percentile_clipping=50)
    models.gradients(params, 0)
    for _ in range(3):
        optimizer.step()
    torch.cuda.synchronize()
    free, torchs = torch.cuda.mem_get_info(cuda)[0], torch.cuda.memory_allocated(cuda)
    for _ in range(50):
        optimizer.step()
    torch.cuda.synchronize()
    assert torch.cuda.mem_get_info(cuda)[0] == free
    assert torch.cuda.memory_allocated(cuda) == torchs


def test_other_devices_are_named(cuda):
    """A row on a device that this machine has not is refused before anything is written."""
    from pyadamw._native.library import ffi, library, new_options

    lib = library()
    options = new_options("adamw_step_options")
    options.device = 999
    with pytest.raises(pyadamw.UnsupportedError, match="999"):
        lib.check(lib.lib.adamw_step(options, ffi.NULL, ffi.sizeof("adamw_tensor"), 0))
