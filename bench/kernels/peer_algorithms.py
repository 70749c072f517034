"""Published algorithms that we restated, for peers whose source is not at hand, and a plain loop.

They keep the layout and the passes over memory of the original, because they are here for comparisons; no mixer should
use them.  They are not in `peers.py`, which loads and adapts code of others.  Letters: r rows, t frames, c channels,
n state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from .subjects import Inputs

# u, dt: (r, c, t); A: (c, n); B, C: (r, n, t); skip, dt_bias: (c,) -> (r, c, t)
Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def both_ways(scan: Callable[..., Tensor], inputs: Inputs, frames: int) -> Tensor:
    """Runs a scan of one direction in both directions: flips the inputs and the output, adds, applies the gate.

    Args:
        scan: takes u, dt, A, B, C, skip, dt_bias.
        frames: the axis of the frames in its layout.
    """
    names = ("u", "dt", "A", "B", "C", "skip", "dt_bias")
    forward = scan(*(inputs[name] for name in names))
    flipped = (inputs[f"{name}_back"] for name in names)
    back = scan(*(x.flip(frames) if x.ndim == 3 else x for x in flipped)).flip(frames)
    return (forward + back) * F.silu(inputs["gate"])


def reference_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, dt_bias: Tensor) -> Tensor:
    """The reference scan of mamba_ssm: computes all decays and inputs, (r, c, t, n), then loops over the frames.

    arXiv 2312.00752, equation 2.  The gradient of each selected frame is a whole tensor, so the backward pass is
    quadratic in frames.
    """
    delta = F.softplus(dt + dt_bias[:, None])
    decay = torch.einsum("rct,cn->rctn", delta, A).exp()
    push = torch.einsum("rct,rnt,rct->rctn", delta, B, u)
    h = torch.zeros_like(decay[:, :, 0])
    ys = []
    for t in range(u.shape[2]):
        h = decay[:, :, t] * h + push[:, :, t]
        ys.append(torch.einsum("rcn,rn->rc", h, C[:, :, t]))
    return torch.stack(ys, dim=2) + skip[:, None] * u


def scan_loop(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, dt_bias: Tensor) -> Tensor:
    """The recurrence as a plain loop of ten lines, channels last."""
    delta = F.softplus(dt + dt_bias)
    h = u.new_zeros(u.shape[0], *A.shape)
    ys = []
    for t in range(u.shape[1]):
        step = delta[:, t, :, None]
        h = torch.exp(step * A) * h + step * u[:, t, :, None] * B[:, t, None, :]
        ys.append((h @ C[:, t, :, None]).squeeze(-1))
    return torch.stack(ys, dim=1) + skip * u


def vim_branch(
    xz: Tensor, conv_weight: Tensor, conv_bias: Tensor, x_proj: Tensor, dt_proj: Tensor, A: Tensor, skip: Tensor,
    dt_bias: Tensor, *, scan: Scan,
) -> Tensor:  # fmt: skip
    """One direction of Vision Mamba's layer (arXiv 2401.09417, algorithm 1) on (r, 2c, t): convolve, scan, gate."""
    x, z = xz.chunk(2, dim=1)
    rows, _, frames = x.shape
    x = F.silu(F.conv1d(x, conv_weight, conv_bias, padding=conv_weight.shape[-1] - 1, groups=x.shape[1])[..., :frames])
    mixed = F.linear(x.transpose(1, 2).reshape(rows * frames, -1), x_proj)
    dt, B, C = mixed.split([dt_proj.shape[1], A.shape[1], A.shape[1]], dim=-1)
    dt = (dt_proj @ dt.t()).view(-1, rows, frames).transpose(0, 1)
    B, C = (part.view(rows, frames, -1).transpose(1, 2).contiguous() for part in (B, C))
    return scan(x, dt, A, B, C, skip, dt_bias) * F.silu(z)


def vim_layer(x: Tensor, weights: Mapping[str, Tensor], scan: Scan) -> Tensor:
    """Vision Mamba's bidirectional layer "v2" (arXiv 2401.09417) on (r, t, d), `weights` under Vim's names."""
    rows, frames, _ = x.shape
    xz = (weights["in_proj.weight"] @ x.flatten(0, 1).t()).view(-1, rows, frames).transpose(0, 1)
    ys = []
    for side, A_log in (("", "A_log"), ("_b", "A_b_log")):
        y = vim_branch(
            xz.flip(-1) if side else xz,
            weights[f"conv1d{side}.weight"],
            weights[f"conv1d{side}.bias"],
            weights[f"x_proj{side}.weight"],
            weights[f"dt_proj{side}.weight"],
            -torch.exp(weights[A_log]),
            weights[f"D{side}"],
            weights[f"dt_proj{side}.bias"],
            scan=scan,
        )
        ys.append(y.flip(-1) if side else y)
    return F.linear((ys[0] + ys[1]).transpose(1, 2) / 2, weights["out_proj.weight"])


def s4d_by_fourier(u: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """S4D as published (arXiv 2206.11893, listing 1): kernel, then a convolution by FFT, on (r, c, t)."""
    frames = u.shape[-1]
    A = torch.complex(-weights["log_A_real"].exp(), weights["A_imag"])
    dtA = A * weights["log_dt"].exp()[:, None]
    C = torch.view_as_complex(weights["C"]) * (dtA.exp() - 1) / A
    powers = torch.exp(dtA[..., None] * torch.arange(frames))
    kernel = 2 * torch.einsum("cn,cnt->ct", C, powers).real
    product = torch.fft.rfft(u, n=2 * frames) * torch.fft.rfft(kernel, n=2 * frames)
    return torch.fft.irfft(product, n=2 * frames)[..., :frames] + u * weights["D"][:, None]
