"""The kernels of the Triton backend; importing this module imports Triton.

A program runs one row (backward: a few rows, one after the other) for one block of channels, frame by frame.  State and
A are (n, d), with d innermost in memory too, so that Triton puts channels on the lanes of a warp and states in their
registers, and a sum over states crosses lanes at most once.

Letters: n state, d channels, both padded to powers of two; t frames.

Backward stores no states.  Let g[t] be the gradient of h[t], and v[t] = g[t] exp(delta[t] A) h[t-1].  The gradients of
delta and A need only v, and the recurrences of h and g give

    v[t] = v[t+1] + dy[t] C[t] h[t] - g[t] delta[t] B[t] u[t]

A sweep along the scan computes the first difference, and a sweep against it the second.  Sums of sums in float32 would
lose digits over many frames, so v is computed from its definition every `CHUNK` frames.

The contribution of frame t itself to h and g, dy[t] C[t] delta[t] B[t] u[t], is in both differences and cancels.  Where
steps are long it is far greater than v, and a sum of v over frames (the gradient of dt_bias) accumulates its rounding.
For delta it is therefore left out of both:

    v[t] = v[t+1] + dy[t] C[t] exp(delta[t] A) h[t-1] - exp(delta[t+1] A) g[t+1] delta[t] B[t] u[t]

In one row of 256 frames with dt shifted by 4 this takes the error of dt_bias from 4e-5 to 1e-6 of its largest entry.
The gradient of A uses the first form, with an error of 1e-5 there: the second form would need too many registers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from temporal_zoo.ops._triton_kernels import LOG2_E, load, real_frames, sigmoid

CHUNK = 64
_LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


class SweepArguments(NamedTuple):
    """Inputs of one direction, and its final state; contiguous, A and states (..., n, d) in float32."""

    u: Any
    dt: Any
    A: Any
    B: Any
    C: Any
    skip: Any
    dt_bias: Any
    initial: Any
    final: Any
    state: Any  # n, and n padded
    padded_state: Any
    reverse: Any


class GradientArguments(NamedTuple):
    """GradientArguments of one direction.

    The first axis of A, skip and dt_bias is a partial sum per group of rows; that of B and C one per block of channels.
    `rest` is scratch, float32 (rows, frames, d), and may be dt; `ends` float32 (rows, chunks - 1, n + 1, d): the state
    at the end of each chunk but the last and the sum of the chunk's deltas.
    """

    u: Any
    dt: Any
    A: Any
    B: Any
    C: Any
    skip: Any
    dt_bias: Any
    initial: Any
    final: Any
    rest: Any
    ends: Any


@triton.jit(do_not_specialize=["frames"])
def forward(
    sweeps, gate, y, lengths, frames, count: tl.constexpr, channels: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per row and block of channels: all directions, one after the other, and then the gate."""
    blocks: tl.constexpr = tl.cdiv(channels, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    d = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    real = real_frames(lengths, row, frames)
    for index in tl.static_range(count):
        if index:
            # Another thread of the warp may have written the sum to which this one adds.
            tl.debug_barrier()
        # The last direction gates the sum.
        open_gate = gate if index + 1 == count else None
        _scan(sweeps[index], open_gate, y, row, real, frames, d, channels, index > 0)


@triton.jit
def _scan(sweep, gate, y, row, real, frames, d, channels: tl.constexpr, add: tl.constexpr):
    n = tl.arange(0, sweep.padded_state)
    live, live_n = d < channels, n < sweep.state
    tile = n[:, None] * channels + d[None, :]
    live_tile = live_n[:, None] & live[None, :]
    at_state = row * (sweep.state * channels) + tile
    A = load(sweep.A + tile, live_tile) * LOG2_E
    skip, dt_bias = load(sweep.skip + d, live), load(sweep.dt_bias + d, live)
    h = tl.zeros_like(A)
    if sweep.initial is not None:
        h = load(sweep.initial + at_state, live_tile)
    for step in range(0, real):
        frame = row * frames + (real - 1 - step if sweep.reverse else step)
        here = frame * channels + d
        there = frame * sweep.state + n
        u = load(sweep.u + here, live)
        delta = _softplus(load(sweep.dt + here, live) + dt_bias)
        B, C = load(sweep.B + there, live_n), load(sweep.C + there, live_n)
        h = tl.exp2(delta[None, :] * A) * h + (delta * u)[None, :] * B[:, None]
        total = tl.sum(h * C[:, None], axis=0) + skip * u
        if add:
            total += load(y + here, live)
        if gate is not None:
            z = load(gate + here, live)
            total *= z * sigmoid(z)
        tl.store(y + here, total, mask=live)
    if sweep.final is not None:
        tl.store(sweep.final + at_state, h, mask=live_tile)


@triton.jit(do_not_specialize=["rows", "rows_per_program", "frames"])
def backward(
    sweeps,
    gradients,
    gate,
    grad_y,
    grad_gate,
    lengths,
    rows,
    rows_per_program,
    frames,
    count: tl.constexpr,
    channels: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One program per group of rows and block of channels; gradients of parameters are summed over its rows."""
    blocks: tl.constexpr = tl.cdiv(channels, BLOCK)
    group, block = (tl.program_id(0) // blocks).to(tl.int64), (tl.program_id(0) % blocks).to(tl.int64)
    first = group * rows_per_program
    last = tl.minimum(first + rows_per_program, rows)
    d = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    for index in tl.static_range(count):
        _differentiate(
            sweeps[index], gradients[index], gate, grad_y, grad_gate, lengths,
            group, first, last, block * rows, frames, d, channels, CHUNK, index > 0,
        )  # fmt: skip


@triton.jit
def _differentiate(
    sweep, grads, gate, grad_y, grad_gate, lengths,
    group, first, last, rows_before, frames, d, channels: tl.constexpr, CHUNK: tl.constexpr, add: tl.constexpr,
):  # fmt: skip
    n = tl.arange(0, sweep.padded_state)
    live = d < channels
    tile = n[:, None] * channels + d[None, :]
    live_tile = (n < sweep.state)[:, None] & live[None, :]
    A = load(sweep.A + tile, live_tile) * LOG2_E
    skip, dt_bias = load(sweep.skip + d, live), load(sweep.dt_bias + d, live)
    grad_A, grad_skip, grad_dt_bias = tl.zeros_like(A), tl.zeros_like(skip), tl.zeros_like(skip)
    for row in range(first, last):
        real = real_frames(lengths, row, frames)
        partial = (rows_before + row) * frames
        # Barriers: this thread may read what another thread of the warp has written.
        tl.debug_barrier()
        h, elapsed, grad_A = _along(
            sweep, grads, gate, grad_y, grad_gate, A, skip, dt_bias, grad_A,
            row, partial, real, frames, d, channels, CHUNK, add,
        )  # fmt: skip
        tl.debug_barrier()
        grad_A, grad_skip, grad_dt_bias = _against(
            sweep, grads, gate, grad_y, A, skip, dt_bias, grad_A, grad_skip, grad_dt_bias, h, elapsed,
            row, partial, real, frames, d, channels, CHUNK,
        )  # fmt: skip
    tl.store(grads.A + group * (sweep.state * channels) + tile, grad_A, mask=live_tile)
    tl.store(grads.skip + group * channels + d, grad_skip, mask=live)
    tl.store(grads.dt_bias + group * channels + d, grad_dt_bias, mask=live)


@triton.jit
def _along(
    sweep, grads, gate, grad_y, grad_gate, A, skip, dt_bias, grad_A,
    row, partial, real, frames, d, channels: tl.constexpr, CHUNK: tl.constexpr, add: tl.constexpr,
):  # fmt: skip
    """The sweep along the scan: recomputes the states; computes the gradients of C and the gate, and adds to v."""
    n = tl.arange(0, sweep.padded_state)
    live, live_n = d < channels, n < sweep.state
    tile = n[:, None] * channels + d[None, :]
    live_tile = live_n[:, None] & live[None, :]
    h = tl.zeros_like(A)
    if sweep.initial is not None:
        h = load(sweep.initial + row * (sweep.state * channels) + tile, live_tile)
    elapsed = tl.zeros_like(skip)
    chunks, ends = tl.cdiv(real, CHUNK), tl.cdiv(frames, CHUNK) - 1
    for chunk in range(0, chunks):
        elapsed = tl.zeros_like(skip)
        for step in range(chunk * CHUNK, tl.minimum(chunk * CHUNK + CHUNK, real)):
            t = real - 1 - step if sweep.reverse else step
            here = (row * frames + t) * channels + d
            there = (row * frames + t) * sweep.state + n
            u = load(sweep.u + here, live)
            delta = _softplus(load(sweep.dt + here, live) + dt_bias)
            B, C = load(sweep.B + there, live_n), load(sweep.C + there, live_n)
            h = tl.exp2(delta[None, :] * A) * h
            gained = tl.sum(h * C[:, None] * A, axis=0)
            h += (delta * u)[None, :] * B[:, None]
            weighted = h * C[:, None]
            slope = load(grad_y + here, live)
            if gate is not None:
                z = load(gate + here, live)
                share = sigmoid(z)
                grad_z = slope * (tl.sum(weighted, axis=0) + skip * u) * share * (1 + z * (1 - share))
                if add:
                    grad_z += load(grad_gate + here, live)
                tl.store(grad_gate + here, grad_z, mask=live)
                slope *= z * share
            _store_sums(grads.C + (partial + t) * sweep.state, h * slope[None, :], sweep.state)
            tl.store(grads.rest + here, slope * gained, mask=live)
            elapsed += delta
            grad_A += weighted * (slope * elapsed)[None, :]
        if chunk + 1 < chunks:
            end = grads.ends + (row * ends + chunk) * ((sweep.state + 1) * channels)
            tl.store(end + tile, h, mask=live_tile)
            tl.store(end + sweep.state * channels + d, elapsed, mask=live)
    return h, elapsed, grad_A


@triton.jit
def _against(
    sweep, grads, gate, grad_y, A, skip, dt_bias, grad_A, grad_skip, grad_dt_bias, h, elapsed,
    row, partial, real, frames, d, channels: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The sweep against the scan: the gradients of the state and of the other inputs.

    `h` and `elapsed` are those at the end of the last chunk.
    """
    n = tl.arange(0, sweep.padded_state)
    live, live_n = d < channels, n < sweep.state
    tile = n[:, None] * channels + d[None, :]
    live_tile = live_n[:, None] & live[None, :]
    at_state = row * (sweep.state * channels) + tile
    # The gradient of the state after the frame before: exp(delta A) g.
    carried = tl.zeros_like(A)
    if grads.final is not None:
        carried = load(grads.final + at_state, live_tile)
    chunks, ends = tl.cdiv(real, CHUNK), tl.cdiv(frames, CHUNK) - 1
    for passed in range(0, chunks):
        chunk = chunks - 1 - passed
        if passed:
            end = grads.ends + (row * ends + chunk) * ((sweep.state + 1) * channels)
            h = load(end + tile, live_tile)
            elapsed = load(end + sweep.state * channels + d, live)
        v = carried * h
        grad_A += v * elapsed[None, :]
        # The sum over n of A v, times log2(e) as A is.
        rest = tl.sum(v * A, axis=0)
        first = chunk * CHUNK
        last = tl.minimum(first + CHUNK, real) - 1
        for back in range(0, last - first + 1):
            step = last - back
            t = real - 1 - step if sweep.reverse else step
            here = (row * frames + t) * channels + d
            there = (row * frames + t) * sweep.state + n
            u = load(sweep.u + here, live)
            dt = load(sweep.dt + here, live) + dt_bias
            delta = _softplus(dt)
            B, C = load(sweep.B + there, live_n), load(sweep.C + there, live_n)
            slope = load(grad_y + here, live)
            if gate is not None:
                z = load(gate + here, live)
                slope *= z * sigmoid(z)
            fed = delta * u
            rest += load(grads.rest + here, live) - fed * tl.sum(carried * A * B[:, None], axis=0)
            g = carried + slope[None, :] * C[:, None]
            _store_sums(grads.B + (partial + t) * sweep.state, g * fed[None, :], sweep.state)
            weighted = g * B[:, None]
            grad_fed = tl.sum(weighted, axis=0)
            grad_A -= weighted * (fed * elapsed)[None, :]
            elapsed -= delta
            grad_dt = (_LN_2 * rest + grad_fed * u) * sigmoid(dt)
            tl.store(grads.dt + here, grad_dt, mask=live)
            tl.store(grads.u + here, grad_fed * delta + slope * skip, mask=live)
            grad_dt_bias += grad_dt
            grad_skip += slope * u
            carried = tl.exp2(delta[None, :] * A) * g
    if grads.initial is not None:
        tl.store(grads.initial + at_state, carried, mask=live_tile)
    return grad_A, grad_skip, grad_dt_bias


@triton.jit
def _store_sums(pointer, x, state: tl.constexpr):
    """Stores the sums over channels, one per state."""
    # Every lane has the sums of several states; as many lanes as there are states store one each.  Lanes exchange
    # them through registers, because Triton's own way goes through shared memory.
    lanes: tl.constexpr = x.shape[0] if x.shape[0] > x.shape[1] else x.shape[1]
    lane = tl.arange(0, lanes)
    sums = tl.gather(tl.sum(x, axis=1), lane % x.shape[0], axis=0)
    tl.store(pointer + lane, sums, mask=lane < state)


@triton.jit
def _softplus(x):
    # log(1 + e) = 2 artanh(e / (2 + e)), whose series keeps its relative accuracy where e is small.
    e = tl.exp2(-tl.abs(x) * LOG2_E)
    s = e / (2.0 + e)
    q = s * s
    series = 1 / 11 + q * (1 / 13)
    series = 1 / 9 + q * series
    series = 1 / 7 + q * series
    series = 1 / 5 + q * series
    series = 1 / 3 + q * series
    return tl.maximum(x, 0.0) + 2.0 * s * (1.0 + q * series)
