"""The cuDNN kernel of torch's scaled_dot_product_attention: half precision on CUDA, rows without padding.

It is called by name, as the kernels of `sdpa`, because the call then returns the log-sums.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from temporal_zoo.ops._autocast import working_dtype
from temporal_zoo.ops._planning import plan_of
from temporal_zoo.ops.attention import _operator
from temporal_zoo.ops.attention.sdpa import by_head, scale

NEEDS = None
CONFIRMED = None
run = partial(_operator.run, "cudnn")

aten = torch.ops.aten

# The limit of cuDNN on every GPU where torch allows it.
_MOST_FEATURES = 128


def refuses(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, lengths: Tensor | None = None) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    if q.device.type != "cuda":
        return [f"it runs on CUDA only; q is on {q.device}"]
    reasons = []
    if bias is not None:
        reasons.append("it has no gradient for a bias")
    if lengths is not None:
        reasons.append("it takes no padded rows")
    if (dtype := working_dtype(q)) not in (torch.bfloat16, torch.float16):
        reasons.append(f"it takes bfloat16 and float16, not {dtype}")
    if q.shape[-1] % 8 or q.shape[-1] > _MOST_FEATURES:
        reasons.append(f"it takes multiples of 8 features up to {_MOST_FEATURES}, not {q.shape[-1]}")
    if q.shape[1] == 1:
        reasons.append("it takes at least two frames")
    if not _operator.is_ampere(q):
        reasons.append("it needs a GPU of compute capability 8.0")
    if plan_of(q) is None and not torch.backends.cudnn.is_available():
        reasons.append("torch was built without cuDNN")
    return reasons


def forward(q, k, v, bias, lengths):
    """See `_operator` for what a backend takes and returns."""
    out, lse, *_ = aten._scaled_dot_product_cudnn_attention(*by_head(q, k, v), None, True, scale=scale(q))
    # In newer versions of torch the log-sums have an extra axis of size one.
    return out.transpose(1, 2), lse.view(q.shape[0], q.shape[2], q.shape[1])


def backward(grad, q, k, v, bias, lengths, out, lse, bias_gradient):
    """See `_operator` for what a backend takes and returns."""
    frames = q.shape[1]
    # Without dropout the kernel reads no seed.
    seed, offset = (q.new_zeros((), dtype=torch.int64) for _ in range(2))
    grads = aten._scaled_dot_product_cudnn_attention_backward(
        *by_head(grad, q, k, v, out), lse.unsqueeze(-1), seed, offset, None, None, None, frames, frames, 0.0, False,
        scale=scale(q),
    )  # fmt: skip
    return *(x.transpose(1, 2) for x in grads), None
