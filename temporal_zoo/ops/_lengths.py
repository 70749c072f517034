"""Rows with padding: the first `lengths[i]` frames of row i are real, the others are padding.

All ops follow one policy.  An op checks `lengths` when it is called (`check_lengths`), before it chooses a backend.
Padded frames may hold NaN: a backend never reads them, or fills them first (`fill_padding`); it does not multiply them
by zero.  Outputs and gradients are zero there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from temporal_zoo.errors import InvalidInput


def check_lengths(x: Tensor, lengths: Tensor | None) -> None:
    """Refuses rows without frames, and lengths that do not fit the rows.

    The range is checked where reading the values costs no synchronisation: on the CPU, outside of compilation, tracing
    and functorch's transforms.  Elsewhere a value outside of 0..frames counts as the nearest of them in every backend.

    Args:
        x: (rows, frames, ...).
        lengths: (rows,) int64 on x's device, each in 1..frames, or None when every frame is real.
    Raises:
        InvalidInput: says what `lengths` must be.
    """
    rows, frames = x.shape[:2]
    if frames == 0:
        raise InvalidInput(f"the input is {tuple(x.shape)}, rows of zero frames; every row needs at least one frame")
    if lengths is None:
        return
    if not isinstance(lengths, Tensor):
        raise InvalidInput(
            f"lengths is of type {type(lengths).__name__}; it must be a tensor: torch.tensor(lengths, device=x.device)"
        )
    if lengths.shape != (rows,) or lengths.dtype != torch.int64 or lengths.device != x.device:
        raise InvalidInput(
            f"lengths is {tuple(lengths.shape)} {lengths.dtype} on {lengths.device}; "
            f"expected ({rows},) int64 on {x.device}: the number of real frames of each row"
        )
    if rows > 0 and _readable(lengths):
        least, most = map(int, torch.aminmax(lengths))
        if not 1 <= least <= most <= frames:
            raise InvalidInput(
                f"lengths holds values from {least} to {most}; each must be in 1..{frames}, the number of frames"
            )


def padding(frames: int, lengths: Tensor) -> Tensor:
    """(rows, frames), true at padded frames."""
    return torch.arange(frames, device=lengths.device) >= lengths[:, None]


def fill_padding(x: Tensor, lengths: Tensor | None, value: float = 0) -> Tensor:
    """(rows, frames, ...) with `value` at padded frames."""
    if lengths is None:
        return x
    mask = padding(x.shape[1], lengths)
    return x.masked_fill(mask.view(*mask.shape, *[1] * (x.ndim - 2)), value)


def _readable(lengths: Tensor) -> bool:
    """Whether the values can be read now, without waiting for a device and without breaking a trace."""
    return (
        lengths.device.type == "cpu"
        and type(lengths) is Tensor
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and _get_current_dispatch_mode() is None
    )
