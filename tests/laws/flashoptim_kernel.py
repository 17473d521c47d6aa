"""Owns running FlashOptim's own fused kernel without a GPU, under Triton's interpreter. Must not know any law.

FlashOptim's source is not changed. What it asks of a GPU is answered here, and `CHANGES` names each answer, so that
every record can say what was not FlashOptim's own:
"""

import os
import sys
import types

os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

import numpy as np
import torch

CHANGES = (
    "Triton's interpreter runs the kernels on the CPU, with numpy.",
    "FlashOptim is told that there is a CUDA device with one multiprocessor, and that CPU tensors are on it.",
    "libdevice's pow and copysign, which the interpreter lacks, are numpy's, in float32. They touch only the bias "
    "corrections and a sign.",
    "The interpreter's cast from float32 to bfloat16 truncates; here it rounds to the nearest, ties to even, as "
    "devices do.",
    "The interpreter makes numbers of arrays of one number in a way that numpy refuses since 2.4; here in one that it "
    "does not.",
    "Blocks of the step's kernel are as long as the tensor, up to 65536 elements, not 1024: fewer calls of the "
    "interpreter. A group of 32 is computed as before.",
    "Of the kernels that Triton tunes, the first configuration runs: there is nothing to measure.",
)
LONGEST_BLOCK = 65_536


class _TorchWithDevice(types.ModuleType):
    """torch, to FlashOptim's module alone: it says that there is a CUDA device."""

    def __getattr__(self, name):
        return getattr(torch, name)

    class cuda:
        @staticmethod
        def is_available():
            return True


class _OnDevice(torch.Tensor):
    """A CPU tensor that says that it is on a CUDA device: state begins with one."""

    is_cuda = True


def load(folder):
    """The module flashoptim, ready to run here. Raises ImportError if it or triton is not there, nor in `folder`."""
    if folder.is_dir() and str(folder) not in sys.path:
        sys.path.append(str(folder))
    import triton
    import triton.language.extra.libdevice as libdevice
    from triton.runtime import interpreter

    tuned = triton.autotune
    triton.autotune = _first_configuration
    try:
        import flashoptim
        from flashoptim import optimizers
    finally:
        triton.autotune = tuned
    libdevice.pow, libdevice.copysign = _in_float32(np.power, interpreter), _in_float32(np.copysign, interpreter)
    interpreter.InterpreterBuilder.cast_impl = _casting(interpreter)
    interpreter._patch_lang_tensor = _with_item(interpreter._patch_lang_tensor)
    optimizers.torch = _TorchWithDevice("torch")
    optimizers._get_sm_count = lambda device=None: 1
    zeros = optimizers.FlashOptimizer._initial_value_for_state_var
    optimizers.FlashOptimizer._initial_value_for_state_var = lambda *arguments: zeros(*arguments).as_subclass(_OnDevice)
    optimizers.quantize = _of_plain_tensors(optimizers.quantize)
    optimizers._triton_adam_kernel = _InLongBlocks(optimizers._triton_adam_kernel)
    return flashoptim


def _of_plain_tensors(quantize):
    return lambda numbers, *arguments, **keywords: quantize(numbers.as_subclass(torch.Tensor), *arguments, **keywords)


def _first_configuration(configs, **_):
    def decorate(kernel):
        return _Configured(kernel, configs[0].kwargs)

    return decorate


class _Configured:
    """A kernel that is launched with the options of one configuration."""

    def __init__(self, kernel, options):
        self.kernel, self.options = kernel, options

    def options_of(self, arguments):
        return self.options

    def __getitem__(self, grid):
        def launch(*arguments, **keywords):
            options = {**keywords, **self.options_of(arguments)}
            return self.kernel[lambda meta: grid({**options, **meta})](*arguments, **options)

        return launch


class _InLongBlocks(_Configured):
    """The step's kernel: one block for the tensor, if it is not too long."""

    def __init__(self, kernel):
        super().__init__(kernel, None)

    def options_of(self, arguments):
        elements = arguments[4].numel()  # of the parameter
        return {"BLOCK_SIZE_N": min(LONGEST_BLOCK, max(1024, 1 << (elements - 1).bit_length()))}


def _with_item(patch):
    """The interpreter turns arrays of one number into numbers in a way that numpy refuses since 2.4."""

    def patched(tensor):
        patch(tensor)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    return patched


def _in_float32(function, interpreter):
    import triton.language as tl

    def computed(*arguments):
        tensors = [
            a if isinstance(a, tl.core.tensor) else interpreter.interpreter_semantic.to_tensor(a) for a in arguments
        ]
        numbers = function(*(t.handle.data.astype(np.float32) for t in tensors)).astype(np.float32)
        shape = next((t.type for t in tensors if t.type.is_block()), None)
        kind = tl.block_type(tl.float32, shape.shape) if shape else tl.float32
        return tl.core.tensor(interpreter.TensorHandle(numbers, tl.float32), kind)

    return computed


def _casting(interpreter):
    import triton.language as tl

    original = interpreter.InterpreterBuilder.cast_impl

    def cast(self, source, target):
        pair = source.dtype.scalar, target.scalar
        if pair == (tl.float32, tl.bfloat16):
            rounded = torch.from_numpy(np.ascontiguousarray(source.data)).to(torch.bfloat16)
            return interpreter.TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)
        if pair == (tl.bfloat16, tl.float32):
            wide = (source.data.astype(np.uint32) << 16).view(np.float32)
            return interpreter.TensorHandle(wide, tl.float32)
        return original(self, source, target)

    return cast
