"""Layers and the network of other projects in our own words, for tests of conversion; parameter names are theirs."""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F

DIM = 8


class S4DCore(nn.Module):
    """y[t] = sum_s K[s] u[t-s] + D u[t], K[l] = 2 Re sum_n C_n (exp(dt A_n) - 1) / A_n exp(dt A_n l)."""

    def __init__(self, dim, modes, glu):
        super().__init__()
        self.D = nn.Parameter(torch.randn(dim))
        self.kernel = nn.Module()
        for name, shape in {
            "C": (dim, modes, 2),
            "log_dt": (dim,),
            "log_A_real": (dim, modes),
            "A_imag": (dim, modes),
        }.items():
            self.kernel.register_parameter(name, nn.Parameter(0.5 * torch.randn(shape)))
        self.output_linear = nn.Sequential(nn.Conv1d(dim, 2 * dim, 1), nn.GLU(dim=-2)) if glu else None

    def forward(self, u):
        k = self.kernel
        a = torch.complex(-k.log_A_real.exp(), k.A_imag)
        step = a * k.log_dt.exp()[:, None]
        c = torch.view_as_complex(k.C) * (step.exp() - 1) / a
        lags = torch.arange(u.shape[1])
        taps = 2 * torch.einsum("hn,hnl->hl", c, (step[..., None] * lags).exp()).real
        y = torch.stack([(taps[:, : t + 1].flip(1) * u[:, : t + 1].mT).sum(-1) for t in range(u.shape[1])], 1)
        y = y + self.D * u
        return y if self.output_linear is None else self.output_linear(F.gelu(y).mT).mT


class S6Core(nn.Module):
    """h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t];  y[t] = C[t] h[t] + D u[t]."""

    def __init__(self, dim, state, rank):
        super().__init__()
        self.sizes = (rank, state, state)
        self.x_proj = nn.Linear(dim, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, dim)
        self.A_log = nn.Parameter(torch.randn(dim, state))
        self.D = nn.Parameter(torch.randn(dim))

    def forward(self, u):
        dt, b, c = self.x_proj(u).split(self.sizes, -1)
        delta = F.softplus(self.dt_proj(dt))
        h, ys = torch.zeros(u.shape[0], *self.A_log.shape), []
        for t in range(u.shape[1]):
            gain = torch.exp(delta[:, t, :, None] * -self.A_log.exp())
            h = gain * h + delta[:, t, :, None] * b[:, t, None] * u[:, t, :, None]
            ys.append((h * c[:, t, None]).sum(-1) + self.D * u[:, t])
        return torch.stack(ys, 1)


def causal(conv, x):
    return conv(x.mT)[..., : x.shape[1]].mT


def official_core(core, dim, state):
    """A core of the paper's code without a GLU, where S4D has `state` modes."""
    return S4DCore(dim, state, glu=False) if core == "s4d" else S6Core(dim, state, math.ceil(dim / 16))


class OfficialMamba(nn.Module):
    """Version 20 of the paper's code, on S6 or S4D."""

    def __init__(self, both, dim=DIM, state=3, core="s6"):
        super().__init__()
        self.dim, self.both, inner = dim, both, 2 * dim
        conv = lambda: nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
        self.cores = [core, f"{core}_rev"][: 1 + both]
        for name in self.cores:
            self.add_module(name, official_core(core, inner, state))
        self.conv = conv()
        if both:
            self.conv_rev = conv()
        self.fc_init, self.fc_out = nn.Linear(dim, 2 * inner), nn.Linear(inner, dim)

    def forward(self, x):
        a, z = self.fc_init(x).chunk(2, -1)
        cores = [getattr(self, name) for name in self.cores]
        y = cores[0](F.silu(causal(self.conv, a)))
        if self.both:
            y = y + cores[1](F.silu(causal(self.conv_rev, a.flip(1)))).flip(1)
        return self.fc_out(y * F.silu(z))


class OfficialGSS(nn.Module):
    """Version 10 of the paper's code: GSS, or BiGS in both directions, on S6 or S4D."""

    def __init__(self, both, core, width, dim=DIM, state=3):
        super().__init__()
        self.dim, self.both = dim, both
        self.cores = [core, f"{core}_rev"][: 1 + both]
        for name in self.cores:
            self.add_module(name, official_core(core, dim, state))
        square = lambda: nn.Linear(dim, dim)
        self.fc_shortcut, self.fc1, self.fc2 = nn.Linear(dim, width), square(), square()
        if both:
            self.fc_rev1, self.fc_rev2 = square(), square()
        self.fc3, self.fc_out = nn.Linear(dim, width), nn.Linear(width, dim)

    def forward(self, x):
        cores = [getattr(self, name) for name in self.cores]
        y = self.fc2(cores[0](F.gelu(self.fc1(x))))
        if self.both:
            y = y * self.fc_rev2(cores[1](F.gelu(self.fc_rev1(x.flip(1))))).flip(1)
        return self.fc_out(F.gelu(self.fc_shortcut(x)) * F.gelu(self.fc3(y)))


class OfficialS4D(nn.Module):
    """Versions 1 ("mixing MLP") and 2 ("mixing GLU") of the paper's code, on S4D."""

    def __init__(self, both, mlp, dim=DIM, modes=3):
        super().__init__()
        self.dim, self.both, self.mlp = dim, both, mlp
        self.s4d = S4DCore(dim, modes, glu=not mlp)
        if both:
            self.s4d_rev = S4DCore(dim, modes, glu=not mlp)
        if mlp:
            self.fc1, self.fc2 = nn.Linear(dim * (1 + both), mlp), nn.Linear(mlp, dim)

    def forward(self, x):
        ys = [self.s4d(x)] + ([self.s4d_rev(x.flip(1)).flip(1)] if self.both else [])
        if not self.mlp:
            return sum(ys)
        return self.fc2(F.gelu(self.fc1(F.gelu(torch.cat(ys, -1)))))


class TheirAttention(nn.Module):
    """Softmax attention with rotary time on the first 32 features of a head, and a bias by distance."""

    def __init__(self, heads, features, table=None, dim=DIM):
        super().__init__()
        self.dim, self.heads, self.table = dim, heads, table
        self.to_qkv = nn.Linear(dim, 3 * heads * features, bias=False)
        self.to_out = nn.Linear(heads * features, dim, bias=False)
        self.rotary_emb = nn.Module()
        width = min(32, features)
        self.rotary_emb.freqs = nn.Parameter(10_000.0 ** -(torch.arange(0, width, 2) / width), requires_grad=False)

    def rotate(self, x):
        width = 2 * len(self.rotary_emb.freqs)
        angles = torch.outer(torch.arange(x.shape[-2]).double(), self.rotary_emb.freqs).repeat_interleave(2, -1)
        head, rest = x.split((width, x.shape[-1] - width), -1)
        other = torch.stack((-head[..., 1::2], head[..., ::2]), -1).flatten(-2)
        return torch.cat((head * angles.cos() + other * angles.sin(), rest), -1)

    def forward(self, x):
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for each in self.to_qkv(x).chunk(3, -1))
        logits = self.rotate(q) @ self.rotate(k).mT * q.shape[-1] ** -0.5
        if self.table is not None:
            logits = logits + bias(self.table, x.shape[1])
        return self.to_out((logits.softmax(-1) @ v).transpose(-2, -3).flatten(-2))


class TheirLinearAttention(TheirAttention):
    """Linear attention: rotary time, then a softmax of queries over features and one of keys over frames."""

    def forward(self, x):
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for each in self.to_qkv(x).chunk(3, -1))
        q, k = self.rotate(q).softmax(-1) * q.shape[-1] ** -0.5, self.rotate(k).softmax(-2)
        return self.to_out((q @ (k.mT @ v)).transpose(-2, -3).flatten(-2))


def bias(table, frames):
    """T5's buckets: 16 for each direction, 8 of them exact, the rest logarithmic up to a distance of 32."""
    out = torch.empty(table.shape[1], frames, frames)
    for query in range(frames):
        for key in range(frames):
            lag = query - key
            n = abs(lag)
            bucket = n if n < 8 else min(15, 8 + int(math.log(n / 8) / math.log(4) * 8))
            out[:, query, key] = table[bucket + (16 if lag < 0 else 0)]
    return out


class Norm(nn.Module):
    """Layer norm over channels, with a gain of shape (1, c, 1, 1, 1)."""

    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(1, dim, 1, 1, 1) + 0.5)

    def forward(self, x):
        mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt() * self.gamma


class Wrapped(nn.Module):
    """A module under the name `fn`, with or without a norm beside it."""

    def __init__(self, fn, norm=None):
        super().__init__()
        self.fn = fn
        if norm is not None:
            self.norm = norm


def branch(layer, dim, folded):
    """x + layer(norm(x)) under the names of the paper's code; folded layers lie one level deeper."""
    return Wrapped(Wrapped(Wrapped(layer) if folded else layer, Norm(dim)))


class ConvBlock(nn.Module):
    def __init__(self, inputs, outputs, groups=8):
        super().__init__()
        self.proj = nn.Conv3d(inputs, outputs, (1, 3, 3), padding=(0, 1, 1))
        self.norm = nn.GroupNorm(groups, outputs)

    def forward(self, x, modulation=None):
        y = self.norm(self.proj(x))
        if modulation is not None:
            scale, shift = modulation
            y = y * (scale + 1) + shift
        return F.silu(y)


class ResBlock(nn.Module):
    def __init__(self, inputs, outputs, time=None):
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * outputs)) if time else None
        self.block1, self.block2 = ConvBlock(inputs, outputs), ConvBlock(outputs, outputs)
        self.res_conv = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, t=None):
        modulation = self.mlp(t)[:, :, None, None, None].chunk(2, 1) if self.mlp else None
        return self.block2(self.block1(x, modulation)) + self.res_conv(x)


class SpatialLinear(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.to_qkv, self.to_out = nn.Conv2d(dim, 96 * heads, 1, bias=False), nn.Conv2d(32 * heads, dim, 1)

    def forward(self, x):
        b, _, f, h, w = x.shape
        frames = x.transpose(1, 2).flatten(0, 1)
        q, k, v = (part.unflatten(1, (self.heads, 32)).flatten(3) for part in self.to_qkv(frames).chunk(3, 1))
        context = torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v)
        y = torch.einsum("bhde,bhdn->bhen", context, q.softmax(-2) * 32**-0.5)
        return self.to_out(y.flatten(1, 2).unflatten(-1, (h, w))).unflatten(0, (b, f)).transpose(1, 2)


class SpatialFull(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 96 * heads, bias=False)
        self.to_out = nn.Linear(32 * heads, dim, bias=False)

    def forward(self, x):
        tokens = x.permute(0, 2, 3, 4, 1).flatten(2, 3)
        q, k, v = (p.unflatten(-1, (self.heads, 32)).transpose(2, 3) for p in self.to_qkv(tokens).chunk(3, -1))
        y = (q @ k.mT * 32**-0.5).softmax(-1) @ v
        y = self.to_out(y.transpose(2, 3).flatten(3))
        return y.unflatten(2, x.shape[3:]).permute(0, 4, 1, 2, 3)


class OfficialNetwork(nn.Module):
    """The U-Net of arXiv 2403.07711's code: names and order of its parameters, written from their description.

    temporal: a function of the width that returns a temporal layer over (rows, frames, width).
    """

    def __init__(self, temporal, dim, multipliers, heads):
        super().__init__()
        self.dim, self.table_used = dim, type(temporal(dim)) is TheirAttention
        self.time_rel_pos_bias = nn.Module()
        self.time_rel_pos_bias.relative_attention_bias = nn.Embedding(32, heads)
        widths, time = [dim, *(dim * m for m in multipliers)], 32 * dim
        self.init_conv = nn.Conv3d(3, dim, (1, 7, 7), padding=(0, 3, 3))
        self.init_temporal_layer = branch(temporal(dim), dim, True)
        self.time_mlp = nn.Sequential(nn.Identity(), nn.Linear(dim, time), nn.GELU(), nn.Linear(time, time))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        pairs = list(itertools.pairwise(widths))
        for i, (a, b) in enumerate(pairs):
            down = nn.Conv3d(b, b, (1, 4, 4), (1, 2, 2), (0, 1, 1)) if i < len(pairs) - 1 else nn.Identity()
            self.downs.append(nn.ModuleList([ResBlock(a, b, time), ResBlock(b, b, time),
                branch(SpatialLinear(b, heads), b, False), branch(temporal(b), b, True), down]))  # fmt: skip
        bottom = widths[-1]
        self.mid_block1, self.mid_block2 = ResBlock(bottom, bottom, time), ResBlock(bottom, bottom, time)
        self.mid_spatial_attn = branch(SpatialFull(bottom, heads), bottom, True)
        self.mid_temporal_layer = branch(temporal(bottom), bottom, True)
        for i, (a, b) in enumerate(reversed(pairs)):
            up = nn.ConvTranspose3d(a, a, (1, 4, 4), (1, 2, 2), (0, 1, 1)) if i < len(pairs) - 1 else nn.Identity()
            self.ups.append(nn.ModuleList([ResBlock(2 * b, a, time), ResBlock(a, a, time),
                branch(SpatialLinear(a, heads), a, False), branch(temporal(a), a, True), up]))  # fmt: skip
        self.final_conv = nn.Sequential(ResBlock(2 * dim, dim), nn.Conv3d(dim, 3, 1))
        for module in self.modules():
            if isinstance(module, TheirAttention):
                module.table = None  # the network hands it in

    def forward(self, x, level):
        half = self.dim // 2
        angles = level[:, None] * torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
        t = self.time_mlp(torch.cat([angles.sin(), angles.cos()], -1))
        x = start = self._mix(self.init_temporal_layer, self.init_conv(x))
        skips = []
        for first, second, spatial, temporal, down in self.downs:
            x = self._mix(temporal, self._see(spatial, second(first(x, t), t)))
            skips.append(x)
            x = down(x)
        x = self._see(self.mid_spatial_attn, self.mid_block1(x, t))
        x = self.mid_block2(self._mix(self.mid_temporal_layer, x), t)
        for first, second, spatial, temporal, up in self.ups:
            x = first(torch.cat([x, skips.pop()], 1), t)
            x = up(self._mix(temporal, self._see(spatial, second(x, t))))
        return self.final_conv(torch.cat([x, start], 1))

    def _see(self, branch, x):
        layer = branch.fn.fn
        layer = layer.fn if isinstance(layer, Wrapped) else layer
        return x + layer(branch.fn.norm(x))

    def _mix(self, branch, x):
        layer = branch.fn.fn.fn
        if self.table_used:
            layer.table = self.time_rel_pos_bias.relative_attention_bias.weight
        rows = branch.fn.norm(x).permute(0, 3, 4, 2, 1)
        y = layer(rows.flatten(0, 2)).unflatten(0, rows.shape[:3])
        return x + y.permute(0, 4, 3, 1, 2)
