"""The diagonal state space model of one direction: the core that `s4d` is composed of.

Letters: c channels, n modes (half of the state: each mode stands for itself and its conjugate).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from temporal_zoo.ops.diagonal_ssm import Modes, diagonal_ssm

Init = Literal["lin", "inv"]
Discretisation = Literal["zoh", "bilinear"]

# Step sizes at the start: log-uniform between the two (arXiv 2206.11893, section 4.3).
DT_MIN, DT_MAX = 1e-3, 1e-1


class Core(nn.Module):
    """S4D (arXiv 2206.11893): per channel x' = A x + u, y = 2 Re(C x) + D u, with A diagonal, at steps of dt.

        zoh:       a = exp(dt A),                     b = (a - 1) / A
        bilinear:  a = (1 + dt A / 2) / (1 - dt A / 2),  b = dt / (1 - dt A / 2)
        h[t] = a h[t-1] + u[t],  y[t] = 2 Re(C b h[t]) + D u[t]

    A = -exp(log_A_real) + i A_imag starts at -1/2 + i pi n ("lin") or at -1/2 + i N/pi (N / (2n + 1) - 1) ("inv").

    Args:
        channels: width of u.
        state: N, numbers of memory per channel; even.
        init: where A starts.
        discretisation: from differential equation to recurrence.
    """

    PARAMETERS = ("C", "log_dt", "log_A_real", "A_imag", "D")

    def __init__(self, channels: int, state: int, init: Init, discretisation: Discretisation) -> None:
        super().__init__()
        self.discretisation = discretisation
        modes = state // 2
        n = torch.arange(modes)
        imaginary = math.pi * n if init == "lin" else state / math.pi * (state / (2 * n + 1) - 1)
        # Complex parameters as pairs of reals: optimizers, clipping and exports know no complex numbers.
        self.C = nn.Parameter(torch.view_as_real(torch.randn(channels, modes, dtype=torch.cfloat)))
        self.log_dt = nn.Parameter(torch.empty(channels).uniform_(math.log(DT_MIN), math.log(DT_MAX)))
        self.log_A_real = nn.Parameter(torch.full((channels, modes), math.log(0.5)))
        self.A_imag = nn.Parameter(imaginary.repeat(channels, 1))
        self.D = nn.Parameter(torch.randn(channels))

    def modes(self, *, reverse: bool = False) -> Modes:
        """The recurrence as `diagonal_ssm` takes it; complex64, or complex128 for parameters in float64."""
        C, log_dt, log_A_real, A_imag = (
            p if p.dtype == torch.float64 else p.float() for p in (self.C, self.log_dt, self.log_A_real, self.A_imag)
        )
        A = torch.complex(-log_A_real.exp(), A_imag)
        dt = log_dt.exp().unsqueeze(-1)
        if self.discretisation == "zoh":
            # expm1, as 1 - a loses most of its digits at small steps.
            a, b = torch.exp(dt * A), torch.expm1(dt * A) / A
        else:
            below = 1 - dt * A / 2
            a, b = (1 + dt * A / 2) / below, dt / below
        return Modes(a, torch.view_as_complex(C) * b, reverse)


def run(x: Tensor, cores: Sequence[Core], reverse: Sequence[bool], lengths: Tensor | None) -> Tensor:
    """The sum of the cores over whole rows, (rows, frames, channels), each in its direction."""
    modes = [core.modes(reverse=backward) for core, backward in zip(cores, reverse, strict=True)]
    return diagonal_ssm(x, modes, sum(core.D for core in cores), lengths=lengths)


def run_chunk(x: Tensor, core: Core, reverse: bool, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """One core over one chunk of frames, with the state that the previous chunk left, (rows, c, n)."""
    y, (state,) = diagonal_ssm(x, [core.modes(reverse=reverse)], core.D, initial=(state,), return_final=True)
    return y, state
