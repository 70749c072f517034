"""The kernels of the Triton body; import only where Triton is.

A program takes one head of a few rows, whose frames together fill a tile: all queries, keys and values of a row are
there at once, so that softmax needs no second look and one program knows all gradients.

Axes of a tile: r rows, i frames that ask, j frames that answer, c features; frames padded to a power of two.
"""

from __future__ import annotations

import triton
import triton.language as tl

from temporal_zoo.ops._triton_kernels import LOG2_E

_LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit(do_not_specialize=["rows", "frames"])
def forward(
    q, k, v, out, lse, lengths, rows, frames, heads: tl.constexpr, features: tl.constexpr,
    ROWS: tl.constexpr, FRAMES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program per head and `ROWS` rows; lse is (rows, heads, frames), the rest (rows, frames, heads, features)."""
    tile, live, of_lse, live_lse = _places(rows, frames, heads, features, ROWS, FRAMES)
    real = _real(lengths, rows, frames, heads, ROWS)
    queries, keys, values = _read(q + tile, live), _read(k + tile, live), _read(v + tile, live)
    logits = _logits(queries, keys, real, features, FRAMES, PRECISION)
    most = tl.max(logits, axis=2)
    weights = tl.exp2(logits - most[:, :, None])
    total = tl.sum(weights, axis=2)
    mean = tl.dot(weights.to(values.dtype), values, input_precision=PRECISION) / total[:, :, None]
    tl.store(out + tile, mean, mask=live)
    tl.store(lse + of_lse, (most + tl.log2(total)) * _LN_2, mask=live_lse)


@triton.jit(do_not_specialize=["rows", "frames"])
def backward(
    grad, q, k, v, out, lse, lengths, grad_q, grad_k, grad_v, rows, frames,
    heads: tl.constexpr, features: tl.constexpr, ROWS: tl.constexpr, FRAMES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """As forward; frames that are not real have gradient zero coming in."""
    tile, live, of_lse, live_lse = _places(rows, frames, heads, features, ROWS, FRAMES)
    real = _real(lengths, rows, frames, heads, ROWS)
    slopes = _read(grad + tile, live)
    # Softmax: dlogit[j] = weight[j] (dweight[j] - sum_j weight[j] dweight[j]), and the sum is slope . out.
    pulls = tl.sum(slopes.to(tl.float32) * _read(out + tile, live).to(tl.float32), axis=2)
    queries, keys, values = _read(q + tile, live), _read(k + tile, live), _read(v + tile, live)
    log_sums = tl.load(lse + of_lse, mask=live_lse, other=0.0) * LOG2_E
    weights = tl.exp2(_logits(queries, keys, real, features, FRAMES, PRECISION) - log_sums[:, :, None])
    grad_values = tl.dot(_turned(weights.to(slopes.dtype)), slopes, input_precision=PRECISION)
    tl.store(grad_v + tile, grad_values, mask=live)
    grad_weights = tl.dot(slopes, _turned(values), input_precision=PRECISION)
    grad_logits = (weights * (grad_weights - pulls[:, :, None])).to(queries.dtype)
    tl.store(grad_q + tile, tl.dot(grad_logits, keys, input_precision=PRECISION) * features**-0.5, mask=live)
    grad_keys = tl.dot(_turned(grad_logits), queries, input_precision=PRECISION)
    tl.store(grad_k + tile, grad_keys * features**-0.5, mask=live)


@triton.jit
def _places(rows, frames, heads: tl.constexpr, features: tl.constexpr, ROWS: tl.constexpr, FRAMES: tl.constexpr):
    """Where a program's (r, i, c) and (r, i) lie, and which of them are there."""
    row = (tl.program_id(0) // heads).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    head = tl.program_id(0) % heads
    i, c = tl.arange(0, FRAMES), tl.arange(0, features)
    frame = row[:, None] * frames + i[None, :]
    live = (row < rows)[:, None] & (i < frames)[None, :]
    tile = ((frame * heads + head) * features)[:, :, None] + c[None, None, :]
    of_lse = ((row * heads + head) * frames)[:, None] + i[None, :]
    return tile, live[:, :, None], of_lse, live


@triton.jit
def _real(lengths, rows, frames, heads: tl.constexpr, ROWS: tl.constexpr):
    """(r,): how many frames are real."""
    row = tl.program_id(0) // heads * ROWS + tl.arange(0, ROWS)
    real = tl.zeros_like(row) + frames
    if lengths is not None:
        # All of a row that is not there: minus infinity everywhere would make NaN.
        real = tl.load(lengths + row, mask=row < rows, other=frames)
        # Clamped, since the caller does not read the values: none may point outside of the row.
        real = tl.minimum(tl.maximum(real, 0), frames).to(tl.int32)
    return real


@triton.jit
def _read(pointers, live):
    return tl.load(pointers, mask=live, other=0.0)


@triton.jit
def _logits(queries, keys, real, features: tl.constexpr, FRAMES: tl.constexpr, PRECISION: tl.constexpr):
    """Times log2(e), minus infinity where a key is not real."""
    logits = tl.dot(queries, _turned(keys), input_precision=PRECISION) * (features**-0.5 * LOG2_E)
    answers = tl.arange(0, FRAMES)[None, :] < real[:, None]
    return tl.where(answers[:, None, :], logits, float("-inf"))


@triton.jit
def _turned(x):
    """The last two axes in the other order."""
    return tl.permute(x, (0, 2, 1))
