"""Functions that the Triton kernels of all ops share; importing this module imports Triton."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def real_frames(lengths, row, frames):
    """The number of real frames of a row, clamped to 0..frames."""
    real = frames
    if lengths is not None:
        # The caller does not read the values on a GPU; none may point outside of the row.
        real = tl.minimum(tl.maximum(tl.load(lengths + row), 0), frames).to(tl.int32)
    return real


@triton.jit
def load(pointers, mask):
    """The values in float32, zero where masked."""
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp2(-x * LOG2_E))


def _mend_interpreter() -> None:
    """Allows a loaded value as the bound of a loop in interpreted kernels, with any NumPy.

    The interpreters of Triton 3.4 and 3.6 take int() of an array that holds one number, which NumPy 2.5 refuses; that
    of Triton 3.8 does not.
    """
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_with_index(tensor, *scope) -> None:
        patch(tensor, *scope)
        tensor.__index__ = lambda self: self.handle.data.item()

    interpreter._patch_lang_tensor = patch_with_index


if triton.knobs.runtime.interpret and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 8):
    _mend_interpreter()
