"""The diagonal state space model of one direction: the core of `s4d`, and of other mixers with `core=s4d`.

Letters: c channels, n modes (half of the state size: each mode also represents its conjugate).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from temporal_zoo.config import ConfigError
from temporal_zoo.ops import _transforms
from temporal_zoo.ops._dispatch import REFERENCE, note
from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops.diagonal_ssm import Modes, diagonal_ssm
from temporal_zoo.streaming import State, register_state

Init = Literal["lin", "inv"]
Discretisation = Literal["zoh", "bilinear"]

# Initial step sizes: log-uniform between the two (arXiv 2206.11893, section 4.3).
DT_MIN, DT_MAX = 1e-3, 1e-1

Pair = tuple[Tensor, Tensor]  # real and imaginary parts


def check_state(state: int) -> None:
    """Raises: ConfigError when a diagonal core cannot have a state of this size."""
    if state % 2:
        raise ConfigError(f"Config.state is {state}; it must be even, as modes come in conjugate pairs")


class DiagonalCore(nn.Module):
    """S4D (arXiv 2206.11893): per channel x' = A x + u, y = 2 Re(C x) + D u, with A diagonal, at steps of dt.

        zoh:       a = exp(dt A),                     b = (a - 1) / A
        bilinear:  a = (1 + dt A / 2) / (1 - dt A / 2),  b = dt / (1 - dt A / 2)
        h[t] = a h[t-1] + u[t],  y[t] = 2 Re(C b h[t]) + D u[t]

    The initial A = -exp(log_A_real) + i A_imag is -1/2 + i pi n ("lin") or -1/2 + i N/pi (N / (2n + 1) - 1) ("inv").

    Args:
        channels: width of u.
        state: N, the size of the state per channel; even.
        init: the initial A.
        discretisation: of the differential equation.
    """

    NO_DECAY = ("C", "log_dt", "log_A_real", "A_imag", "D")

    def __init__(self, channels: int, state: int, init: Init, discretisation: Discretisation) -> None:
        super().__init__()
        self.discretisation = discretisation
        modes = state // 2
        n = torch.arange(modes)
        imaginary = math.pi * n if init == "lin" else state / math.pi * (state / (2 * n + 1) - 1)
        # Complex parameters as pairs of reals: optimizers, gradient clipping and exports need real numbers.
        self.C = nn.Parameter(torch.view_as_real(torch.randn(channels, modes, dtype=torch.cfloat)))
        self.log_dt = nn.Parameter(torch.empty(channels).uniform_(math.log(DT_MIN), math.log(DT_MAX)))
        self.log_A_real = nn.Parameter(torch.full((channels, modes), math.log(0.5)))
        self.A_imag = nn.Parameter(imaginary.repeat(channels, 1))
        self.D = nn.Parameter(torch.randn(channels))

    def modes(self, *, reverse: bool = False) -> Modes:
        """The recurrence as an input of `diagonal_ssm`, in complex128."""
        C, log_dt, A_real, A_imag = self._in_double()
        A = torch.complex(A_real, A_imag)
        dt = log_dt.exp().unsqueeze(-1)
        if self.discretisation == "zoh":
            # expm1, because a - 1 loses most of its digits at small steps.
            a, b = torch.exp(dt * A), torch.expm1(dt * A) / A
        else:
            below = 1 - dt * A / 2
            a, b = (1 + dt * A / 2) / below, dt / below
        return Modes(a, torch.view_as_complex(C) * b, reverse)

    def pairs(self) -> tuple[Pair, Pair]:
        """`modes` as pairs of reals, because ONNX has no complex numbers: a and c, (channels, modes), in float64."""
        C, log_dt, A_real, A_imag = self._in_double()
        dt = log_dt.exp().unsqueeze(-1)
        step = dt * A_real, dt * A_imag
        if self.discretisation == "zoh":
            size = step[0].exp()
            a = size * step[1].cos(), size * step[1].sin()
            b = _quotient((a[0] - 1, a[1]), (A_real, A_imag))
        else:
            below = 1 - step[0] / 2, -step[1] / 2
            a = _quotient((1 + step[0] / 2, step[1] / 2), below)
            b = _quotient((dt, torch.zeros_like(dt)), below)
        return a, _product((C[..., 0], C[..., 1]), b)

    def _in_double(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """C, log_dt, and A in two parts, in float64: an error of float32 in a factor would grow with every frame."""
        C, log_dt, log_A_real, A_imag = (p.double() for p in (self.C, self.log_dt, self.log_A_real, self.A_imag))
        return C, log_dt, -log_A_real.exp(), A_imag


def run(x: Tensor, cores: Sequence[DiagonalCore], reverse: Sequence[bool], lengths: Tensor | None) -> Tensor:
    """The sum of the outputs of the cores over whole rows, (rows, frames, channels), each in its direction."""
    if _transforms.active() == _transforms.ONNX:
        return _run_in_reals(x, cores, reverse, lengths)
    modes = [core.modes(reverse=backward) for core, backward in zip(cores, reverse, strict=True)]
    return diagonal_ssm(x, modes, sum(core.D for core in cores), lengths=lengths)


@register_state
@dataclass(frozen=True)
class DiagonalState(State):
    """The state of one direction between two chunks."""

    modes: Tensor  # (rows, c, n), complex


def init_state(rows: int, core: DiagonalCore, device: Any, dtype: torch.dtype | None) -> DiagonalState:
    """Zeros, for frames of `dtype` on `device`; by default those of the weights."""
    wide = torch.promote_types(dtype or core.D.dtype, torch.float32).to_complex()
    return DiagonalState(torch.zeros(rows, *core.A_imag.shape, device=device or core.D.device, dtype=wide))


def run_chunk(
    x: Tensor, core: DiagonalCore, reverse: bool, state: DiagonalState | None
) -> tuple[Tensor, DiagonalState]:
    """Evaluates one core over one chunk of frames."""
    initial = None if state is None else state.modes
    y, (modes,) = diagonal_ssm(x, [core.modes(reverse=reverse)], core.D, initial=(initial,), return_final=True)
    return y, DiagonalState(modes)


def _run_in_reals(x: Tensor, cores: Sequence[DiagonalCore], reverse: Sequence[bool], lengths: Tensor | None) -> Tensor:
    """The reference of `diagonal_ssm` as pairs of real numbers, because ONNX has no complex ones."""
    note(diagonal_ssm.name, REFERENCE)
    u = fill_padding(x.to(torch.promote_types(x.dtype, torch.float32)), lengths)
    y = torch.zeros_like(u)
    for core, backward in zip(cores, reverse, strict=True):
        a, c = ((real.to(u.dtype), imaginary.to(u.dtype)) for real, imaginary in core.pairs())
        frames = u.unbind(1)
        h = (u.new_zeros(u.shape[0], *a[0].shape),) * 2
        outputs = []
        for u_t in reversed(frames) if backward else frames:
            h = _product(a, h)
            h = h[0] + u_t.unsqueeze(-1), h[1]
            outputs.append(2 * _product(c, h)[0].sum(-1))
        y = y + core.D.to(u.dtype) * u + torch.stack(outputs[::-1] if backward else outputs, dim=1)
    return fill_padding(y, lengths).to(x.dtype)


def _product(x: Pair, y: Pair) -> Pair:
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _quotient(x: Pair, y: Pair) -> Pair:
    square = y[0].square() + y[1].square()
    return (x[0] * y[0] + x[1] * y[1]) / square, (x[1] * y[0] - x[0] * y[1]) / square
