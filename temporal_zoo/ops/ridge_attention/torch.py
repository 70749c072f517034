"""Products of matrices and one Cholesky inverse per row and head, some rows at a time; any device.

With A = sum_j beta[j] k[j] k[j]^T + diag(ridge), W = A^-1 sum_j beta[j] k[j] v[j]^T and out = q W, the gradients are

    M = A^-1 q^T dout            e[j] = v[j] - W^T k[j]       u[j] = M^T k[j]
    dq = dout W^T                dk[j] = beta[j] (M e[j] - W u[j])
    dv[j] = beta[j] u[j]         dbeta[j] = u[j] . e[j]       dridge = -sum over features of v (M * W)

Backward computes A and W again.  The inverted matrix has the size of the features or, if these are more, of the
frames.

Axes: (rows, heads, frames, features) inside of this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops.ridge_attention import _operator
from temporal_zoo.ops.ridge_attention.reference import inverse_length

NEEDS = None
CONFIRMED = "torch"
run = partial(_operator.run, "torch")

# Elements of the matrices of a block: on a CPU they fit in its caches, elsewhere they are enough to keep a GPU busy.
_BLOCK_ON_CPU = 1 << 17
_BLOCK = 1 << 25


def refuses(*args, **kwargs) -> list[str]:
    """Why this backend cannot run these inputs; empty when it can."""
    return []


def forward(q, k, v, beta, ridge, lengths) -> Tensor:
    """See `_operator` for what a backend takes and returns."""
    out = q.new_empty(q.shape)
    for rows in _blocks(q):
        q_, k_, v_, beta_ = _heads_first(rows, lengths, q, k, v, beta)
        solver = _solver(k_ * inverse_length(k_), beta_, ridge)
        out[rows] = (q_ * inverse_length(q_) @ solver.fit(v_)).transpose(1, 2)
    return out


def backward(grad, q, k, v, beta, ridge, lengths) -> list[Tensor]:
    """See `_operator` for what a backend takes and returns."""
    dq, dk, dv, dbeta = (x.new_empty(x.shape) for x in (q, k, v, beta))
    dridge = torch.zeros_like(ridge, dtype=_wide(q))
    for rows in _blocks(q):
        dout, q_, k_, v_, beta_ = _heads_first(rows, lengths, grad, q, k, v, beta)
        per_q, per_k = inverse_length(q_), inverse_length(k_)
        q_, k_ = q_ * per_q, k_ * per_k
        solver = _solver(k_, beta_, ridge)
        w = solver.fit(v_)
        m = solver.solve(q_.mT @ dout)
        e, u = v_ - k_ @ w, k_ @ m
        dk_ = beta_ * (e @ m.mT - u @ w.mT)
        dq[rows] = _through_length(dout @ w.mT, q_, per_q).transpose(1, 2)
        dk[rows] = _through_length(dk_, k_, per_k).transpose(1, 2)
        dv[rows] = (beta_ * u).transpose(1, 2)
        dbeta[rows] = (u * e).sum(-1).transpose(1, 2)
        dridge -= (m * w).sum((0, -1))
    return [dq, dk, dv, dbeta, dridge.to(ridge.dtype)]


class _InFeatures:
    """Solves systems with A = k^T diag(beta) k + diag(ridge), per row and head, by the inverse of A."""

    def __init__(self, k: Tensor, beta: Tensor, ridge: Tensor) -> None:
        self._weighted = beta * k
        self._inverse = _inverse(self._weighted.mT @ k, ridge)

    def fit(self, v: Tensor) -> Tensor:
        """A^-1 k^T diag(beta) v."""
        return self._inverse @ (self._weighted.mT @ v)

    def solve(self, right: Tensor) -> Tensor:
        """A^-1 right."""
        return self._inverse @ right


class _InFrames:
    """The same by the inverse of I + b diag(ridge)^-1 b^T with b = sqrt(beta) k: frames x frames (Woodbury)."""

    def __init__(self, k: Tensor, beta: Tensor, ridge: Tensor) -> None:
        self._root, self._ridge = beta.sqrt(), ridge[..., None]
        weighted = self._root * k
        self._scaled = weighted / self._ridge.mT
        self._inverse = _inverse(self._scaled @ weighted.mT, torch.ones_like(beta[0, 0, :, 0]))

    def fit(self, v: Tensor) -> Tensor:
        """A^-1 k^T diag(beta) v."""
        return self._scaled.mT @ (self._inverse @ (self._root * v))

    def solve(self, right: Tensor) -> Tensor:
        """A^-1 right."""
        return right / self._ridge - self._scaled.mT @ (self._inverse @ (self._scaled @ right))


def _solver(k: Tensor, beta: Tensor, ridge: Tensor) -> _InFeatures | _InFrames:
    """The one with the smaller matrix."""
    frames, features = k.shape[-2:]
    return (_InFrames if frames < features else _InFeatures)(k, beta, ridge.to(k.dtype))


def _inverse(matrix: Tensor, diagonal: Tensor) -> Tensor:
    """The inverse of matrix + diag(diagonal), which must be positive definite; overwrites `matrix`."""
    matrix.diagonal(dim1=-2, dim2=-1).add_(diagonal)
    # An explicit inverse, because torch solves batches on a CPU four times slower.  The condition
    # number is at most (max(ridge) + sum(beta)) / min(ridge), because no key is longer than 1.
    return torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix).L)


def _heads_first(rows: slice, lengths: Tensor | None, *tensors: Tensor) -> list[Tensor]:
    """A block of rows of each tensor: zero at padded frames, heads before frames, beta with one feature."""
    real = None if lengths is None else lengths[rows]
    filled = (fill_padding(x[rows], real).transpose(1, 2).to(_wide(x)).contiguous() for x in tensors)
    return [x if x.ndim == 4 else x[..., None] for x in filled]


def _through_length(dunit: Tensor, unit: Tensor, per_length: Tensor) -> Tensor:
    """The gradient of x for unit = x * per_length and per_length = `inverse_length(x)`."""
    return per_length * (dunit - unit * (unit * dunit).sum(-1, keepdim=True))


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _blocks(q: Tensor) -> Iterator[slice]:
    rows, frames, heads, features = q.shape
    budget = _BLOCK_ON_CPU if q.device.type == "cpu" else _BLOCK
    size = max(1, budget // max(1, heads * features * (frames + features)))
    return (slice(first, first + size) for first in range(0, rows, size))
