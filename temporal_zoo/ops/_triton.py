"""Functions that the Triton backends of all ops share outside kernels; Triton is imported inside functions only."""

from __future__ import annotations

import torch
from torch import Tensor

# Programs of a launch that writes one partial sum per program: several waves on any device, few enough for the sums to
# be small.
MOST_PROGRAMS = 4096


def refuses(name: str, x: Tensor) -> list[str]:
    """Why no Triton backend can run the input `x`, called `name`."""
    reasons = []
    if x.device.type == "cpu" and not _interpreting():
        reasons.append(f"runs on the CPU only in Triton's interpreter (TRITON_INTERPRET=1), and {name} is on cpu")
    elif x.device.type not in ("cpu", "cuda"):
        reasons.append(f"runs on CUDA only; {name} is on {x.device}")
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        reasons.append(f"computes in float32; {name} is {x.dtype}")
    return reasons


@torch.compiler.assume_constant_result
def _interpreting() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


def launch(kernel, programs: int, device: torch.device, *arguments, **constants) -> None:
    """Launches a kernel on a 1-D grid; multiplications and additions may be fused."""
    if programs:
        # Triton launches on the current device, which may not be the device of the tensors.
        with torch.cuda.device(device if device.type == "cuda" else -1):
            kernel[programs,](*arguments, **constants, enable_fp_fusion=True)


def empty(x: Tensor, lengths: Tensor | None) -> Tensor:
    """A contiguous tensor like x; zero if there are padded frames, because the kernels do not write these."""
    return x.new_empty(x.shape) if lengths is None else x.new_zeros(x.shape)


def contiguous(x: Tensor | None) -> Tensor | None:
    """x as a contiguous tensor, or None."""
    return None if x is None else x.contiguous()
