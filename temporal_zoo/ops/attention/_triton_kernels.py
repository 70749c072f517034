"""The kernels of the Triton backend; importing this module imports Triton.

A program computes one head of a few rows, whose frames are one after the other in a tile.  A tile has all queries, keys
and values of its rows, so softmax needs one pass, and one program computes all gradients.  Products are of whole tiles,
where pairs of different rows are masked, and of a `PART` of the features at a time, because a thread has no registers
for more; for a batch of small matrices Triton before 3.9 has even fewer.

Axes of a tile: i frames of queries, j frames of keys, c features.
"""

from __future__ import annotations

import triton
import triton.language as tl

from temporal_zoo.ops._triton_kernels import LOG2_E

_LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit(do_not_specialize=["rows", "frames", "rows_per_tile"])
def forward(
    q, k, v, out, lse, lengths, rows, frames, rows_per_tile,
    heads: tl.constexpr, features: tl.constexpr, TILE: tl.constexpr, PART: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program per head and tile; lse is (rows, heads, frames), the rest (rows, frames, heads, features)."""
    tile, of_lse, live = _offsets(rows, frames, rows_per_tile, heads, features, TILE, PART)
    pairs = _pairs(lengths, rows, frames, rows_per_tile, heads, TILE)
    logits = _logits(q, k, tile, live, pairs, features, TILE, PART, PRECISION)
    most = tl.max(logits, axis=1)
    weights = tl.exp2(logits - most[:, None])
    total = tl.sum(weights, axis=1)
    tl.store(lse + of_lse, (most + tl.log2(total)) * _LN_2, mask=live)
    for part in tl.range(0, features, PART, num_stages=1):
        values = _read(v + tile + part, live)
        mean = tl.dot(weights.to(values.dtype), values, input_precision=PRECISION) / total[:, None]
        tl.store(out + tile + part, mean, mask=live[:, None])


@triton.jit(do_not_specialize=["rows", "frames", "rows_per_tile"])
def backward(
    grad, q, k, v, out, lse, lengths, grad_q, grad_k, grad_v, rows, frames, rows_per_tile,
    heads: tl.constexpr, features: tl.constexpr, TILE: tl.constexpr, PART: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """As forward; the incoming gradient of padded frames is zero."""
    tile, of_lse, live = _offsets(rows, frames, rows_per_tile, heads, features, TILE, PART)
    pairs = _pairs(lengths, rows, frames, rows_per_tile, heads, TILE)
    log_sums = tl.load(lse + of_lse, mask=live, other=0.0) * LOG2_E
    weights = tl.exp2(_logits(q, k, tile, live, pairs, features, TILE, PART, PRECISION) - log_sums[:, None])
    # Softmax: dlogit[j] = weight[j] (dweight[j] - sum_j weight[j] dweight[j]), and the sum is slope . out.
    grad_weights = tl.zeros((TILE, TILE), tl.float32)
    sums = tl.zeros((TILE,), tl.float32)
    for part in tl.range(0, features, PART, num_stages=1):
        slopes = _read(grad + tile + part, live)
        sums += tl.sum(slopes.to(tl.float32) * _read(out + tile + part, live).to(tl.float32), axis=1)
        values = _read(v + tile + part, live)
        grad_weights = tl.dot(slopes, tl.trans(values), grad_weights, input_precision=PRECISION)
        grad_values = tl.dot(tl.trans(weights.to(slopes.dtype)), slopes, input_precision=PRECISION)
        tl.store(grad_v + tile + part, grad_values, mask=live[:, None])
    grad_logits = weights * (grad_weights - sums[:, None]) * features**-0.5
    for part in tl.range(0, features, PART, num_stages=1):
        queries, keys = _read(q + tile + part, live), _read(k + tile + part, live)
        grad_queries = tl.dot(grad_logits.to(keys.dtype), keys, input_precision=PRECISION)
        tl.store(grad_q + tile + part, grad_queries, mask=live[:, None])
        grad_keys = tl.dot(tl.trans(grad_logits.to(queries.dtype)), queries, input_precision=PRECISION)
        tl.store(grad_k + tile + part, grad_keys, mask=live[:, None])


@triton.jit
def _offsets(
    rows, frames, rows_per_tile,
    heads: tl.constexpr, features: tl.constexpr, TILE: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Offsets of (i, first c) and of (i,) of a program, and a mask of its frames."""
    first, head = (tl.program_id(0) // heads).to(tl.int64) * rows_per_tile, tl.program_id(0) % heads
    i, c = tl.arange(0, TILE), tl.arange(0, PART)
    row = first + i // frames
    tile = (((first * frames + i) * heads + head) * features)[:, None] + c[None, :]
    of_lse = (row * heads + head) * frames + i % frames
    return tile, of_lse, (i < rows_per_tile * frames) & (row < rows)


@triton.jit
def _pairs(lengths, rows, frames, rows_per_tile, heads: tl.constexpr, TILE: tl.constexpr):
    """(i, j): whether j is a real frame of the row of i."""
    i = tl.arange(0, TILE)
    real = tl.zeros_like(i) + frames
    if lengths is not None:
        row = tl.program_id(0) // heads * rows_per_tile + i // frames
        real = tl.load(lengths + row, mask=row < rows, other=frames)
        # Clamped, because the caller does not read the values on a GPU; a query without keys would give NaN.
        real = tl.minimum(tl.maximum(real, 1), frames).to(tl.int32)
    return ((i // frames)[:, None] == (i // frames)[None, :]) & (i % frames < real)[None, :]


@triton.jit
def _read(pointers, live):
    return tl.load(pointers, mask=live[:, None], other=0.0)


@triton.jit
def _logits(
    q, k, tile, live, pairs,
    features: tl.constexpr, TILE: tl.constexpr, PART: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Logits times log2(e), minus infinity where i does not attend to j."""
    logits = tl.zeros((TILE, TILE), tl.float32)
    for part in tl.range(0, features, PART, num_stages=1):
        queries, keys = _read(q + tile + part, live), _read(k + tile + part, live)
        logits = tl.dot(queries, tl.trans(keys), logits, input_precision=PRECISION)
    return tl.where(pairs, logits * (features**-0.5 * LOG2_E), float("-inf"))
