"""Adaptor to the flash-attn package, version 2 (arXiv 2307.08691)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from temporal_zoo.ops._autocast import working_dtype
from temporal_zoo.ops.attention import _operator

NEEDS = "flash_attn"
CONFIRMED = None
run = partial(_operator.run, "flash_attn")


def refuses(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, lengths: Tensor | None = None) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    reasons = []
    dtype = working_dtype(q)
    if q.device.type != "cuda":
        reasons.append(f"it runs on cuda, not on {q.device.type}")
    elif not _operator.is_ampere(q):
        reasons.append("it needs a GPU of compute capability 8.0")
    if dtype not in (torch.float16, torch.bfloat16):
        reasons.append(f"it takes float16 and bfloat16, not {dtype}")
    if q.shape[-1] % 8 or q.shape[-1] > 256:
        reasons.append(f"it takes multiples of 8 features up to 256, not {q.shape[-1]}")
    if bias is not None:
        reasons.append("it adds no bias")
    if lengths is not None:
        reasons.append("it has no padding mask")
    return reasons


def forward(q: Tensor, k: Tensor, v: Tensor, bias: None, lengths: None) -> tuple[Tensor, Tensor]:
    """See `_operator` for what a backend takes and returns."""
    from flash_attn.flash_attn_interface import _flash_attn_forward

    out, lse, *_ = _flash_attn_forward(q, k, v, **_options(q), return_softmax=False)
    return out, lse


def backward(grad, q, k, v, bias, lengths, out, lse, bias_gradient):
    """See `_operator` for what a backend takes and returns."""
    from flash_attn.flash_attn_interface import _flash_attn_backward

    grads = [x.new_empty(x.shape) for x in (q, k, v)]
    _flash_attn_backward(grad, q, k, v, out, lse, *grads, **_options(q), deterministic=False)
    return *grads, None


def _options(q: Tensor) -> dict:
    """The package's options for full attention without dropout."""
    return {
        "dropout_p": 0.0,
        "softmax_scale": q.shape[-1] ** -0.5,
        "causal": False,
        "window_size_left": -1,
        "window_size_right": -1,
        "softcap": 0.0,
        "alibi_slopes": None,
    }
