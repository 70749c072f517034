"""The fused kernels of torch's scaled_dot_product_attention, called by name.

On a CPU it calls the flash kernel; on CUDA the flash kernel or, for float32, padded rows and older GPUs, the
memory-efficient kernel (`kernel`).  The cuDNN kernel is the backend `cudnn`.  Padding is a mask of rows x frames
numbers, which the kernels read with stride zero along heads and queries.  The calls are by name because these return
the log-sums, and because torch's own choice may store the weights, as it always does on the meta device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from temporal_zoo.ops._autocast import working_dtype
from temporal_zoo.ops._lengths import padding
from temporal_zoo.ops._planning import device_type, plan_of
from temporal_zoo.ops.attention import _operator

NEEDS = None
# Of the kernels called by name, only the CPU kernel has run so far.
CONFIRMED = {"cpu": "tests"}
run = partial(_operator.run, "sdpa")

aten = torch.ops.aten


def refuses(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, lengths: Tensor | None = None) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    reasons = []
    if bias is not None:
        reasons.append("it has no gradient for a bias")
    if q.device.type not in ("cpu", "cuda", "meta"):
        reasons.append(f"it runs on cpu and cuda, not on {q.device.type}")
    if q.device.type == "cuda":
        dtype = working_dtype(q)
        if dtype == torch.float64:
            reasons.append("its CUDA kernels take no float64")
        if dtype == torch.bfloat16 and not _operator.is_ampere(q):
            reasons.append("bfloat16 needs a GPU of compute capability 8.0")
        if q.shape[-1] % 8:
            reasons.append(f"its CUDA kernels take multiples of 8 features, not {q.shape[-1]}")
    return reasons


def forward(q, k, v, bias, lengths):
    """See `_operator` for what a backend takes and returns."""
    run_forward, _ = _KERNELS[kernel(q, lengths)]
    out, lse = run_forward(*by_head(q, k, v), lengths)
    return out.transpose(1, 2), lse


def backward(grad, q, k, v, bias, lengths, out, lse, bias_gradient):
    """See `_operator` for what a backend takes and returns."""
    _, run_backward = _KERNELS[kernel(q, lengths)]
    grads = run_backward(*by_head(grad, q, k, v, out), lse, lengths)
    return *(x.transpose(1, 2) for x in grads), None


def kernel(q: Tensor, lengths: Tensor | None) -> Literal["cpu", "flash", "efficient"]:
    """The kernel for these inputs, the same in forward and backward; within `planning`, on the planned device."""
    if device_type(q) == "cpu":
        return "cpu"
    # A plan does not depend on the local build of torch.
    built = plan_of(q) is not None or torch.backends.cuda.is_flash_attention_available()
    halves = q.dtype in (torch.bfloat16, torch.float16)
    if built and halves and lengths is None and q.shape[-1] <= 256 and _operator.is_ampere(q):
        return "flash"
    return "efficient"


def _cpu_forward(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    mask = _mask(q, lengths)
    return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask, scale=scale(q))


def _cpu_backward(grad, q, k, v, out, lse, lengths):
    mask = _mask(q, lengths)
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, lse, 0.0, False, attn_mask=mask, scale=scale(q)
    )


def _flash_forward(q: Tensor, k: Tensor, v: Tensor, lengths: None) -> tuple[Tensor, Tensor]:
    out, lse, *_ = aten._scaled_dot_product_flash_attention(q, k, v, scale=scale(q))
    return out, lse


def _flash_backward(grad, q, k, v, out, lse, lengths):
    frames = q.shape[2]
    seed, offset = q.new_empty(2, dtype=torch.uint64), q.new_empty((), dtype=torch.uint64)
    return aten._scaled_dot_product_flash_attention_backward(
        grad, q, k, v, out, lse, None, None, frames, frames, 0.0, False, seed, offset, scale=scale(q)
    )


def _efficient_forward(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    out, lse, *_ = aten._scaled_dot_product_efficient_attention(q, k, v, _wide_mask(q, lengths), True, scale=scale(q))
    return out, lse.narrow(2, 0, q.shape[2])


def _efficient_backward(grad, q, k, v, out, lse, lengths):
    # The kernel needs log-sums for whole tiles of 32 queries; infinity gives the extra queries weight zero.
    lse = pad(lse, (0, -lse.shape[2] % 32), value=float("inf"))
    seed, offset = (q.new_empty((), dtype=torch.int64) for _ in range(2))
    dq, dk, dv, _ = aten._scaled_dot_product_efficient_attention_backward(
        grad, q, k, v, _wide_mask(q, lengths), out, lse, seed, offset, 0.0, (True, True, True, False), scale=scale(q)
    )
    return dq, dk, dv


_KERNELS: dict[str, tuple[Callable, Callable]] = {
    "cpu": (_cpu_forward, _cpu_backward),
    "flash": (_flash_forward, _flash_backward),
    "efficient": (_efficient_forward, _efficient_backward),
}


def by_head(*tensors: Tensor) -> list[Tensor]:
    """(rows, heads, frames, features) views of contiguous tensors; the CUDA kernels need aligned strides."""
    return [x.contiguous().transpose(1, 2) for x in tensors]


def scale(q: Tensor) -> float:
    """The factor of the logits, 1 / sqrt(features)."""
    return q.shape[-1] ** -0.5


def _mask(q: Tensor, lengths: Tensor | None) -> Tensor | None:
    """(rows, 1, 1, frames): minus infinity at padded keys, else zero."""
    if lengths is None:
        return None
    padded = padding(q.shape[2], lengths)
    return torch.zeros_like(padded, dtype=q.dtype).masked_fill_(padded, float("-inf"))[:, None, None, :]


def _wide_mask(q: Tensor, lengths: Tensor | None) -> Tensor | None:
    """`_mask` as a view of the shape of all weights, stored with strides that are multiples of 16."""
    mask, frames = _mask(q, lengths), q.shape[2]
    if mask is None:
        return None
    return pad(mask, (0, -frames % 16)).narrow(3, 0, frames).expand(-1, q.shape[1], frames, -1)
