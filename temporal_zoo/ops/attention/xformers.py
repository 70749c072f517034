"""Adaptor to the memory-efficient attention of the xFormers package (arXiv 2112.05682)."""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor

from temporal_zoo.ops._autocast import working_dtype
from temporal_zoo.ops.attention import _operator

NEEDS = "xformers"
CONFIRMED = None
run = partial(_operator.run, "xformers")


def refuses(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, lengths: Tensor | None = None) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    reasons = [lack] if (lack := _lack()) else []
    dtype = working_dtype(q)
    if q.device.type != "cuda":
        reasons.append(f"it runs on cuda, not on {q.device.type}")
    if dtype == torch.float64:
        reasons.append("it takes no float64")
    if q.shape[-1] % 8:
        reasons.append(f"it takes multiples of 8 features, not {q.shape[-1]}")
    if bias is not None:
        reasons.append("it has no gradient for a bias")
    if lengths is not None:
        reasons.append("it has no padding mask")
    return reasons


def forward(q, k, v, bias, lengths):
    """See `_operator` for what a backend takes and returns."""
    from xformers.ops import memory_efficient_attention_forward_requires_grad

    q, k, v = (x.contiguous() for x in (q, k, v))
    out, lse = memory_efficient_attention_forward_requires_grad(q, k, v)
    return out, lse.narrow(2, 0, q.shape[1])  # it may be padded to whole tiles


def backward(grad, q, k, v, bias, lengths, out, lse, bias_gradient):
    """See `_operator` for what a backend takes and returns."""
    from xformers.ops import memory_efficient_attention_backward

    grad, q, k, v = (x.contiguous() for x in (grad, q, k, v))
    return *memory_efficient_attention_backward(grad, out, lse, q, k, v), None


@torch.compiler.assume_constant_result
@cache
def _lack() -> str | None:
    # Newer versions import their attention from another package, which may be missing.
    try:
        from xformers.ops import memory_efficient_attention_backward  # noqa: F401
    except ImportError as error:
        return f"xformers is installed without its attention: {error}"
    return None
