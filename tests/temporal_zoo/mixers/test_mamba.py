"""Tests of `mamba` only: its sizes, its step recurrence, and the layer of mamba_ssm with the same weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from temporal_zoo import MixerSpec, build
from temporal_zoo.config import ConfigError
from temporal_zoo.convert.mamba_ssm import from_mamba_ssm, to_mamba_ssm


class Published(nn.Module):
    """mamba_ssm's published layer, implemented again: (batch, length, dim), channels first inside, step by step."""

    def __init__(self, dim, state=16, conv=4, rank=None, bias=False):
        super().__init__()
        inner, self.rank, self.state = 2 * dim, rank or -(-dim // 16), state
        self.in_proj = nn.Linear(dim, 2 * inner, bias=bias)
        self.conv1d = nn.Conv1d(inner, inner, conv, groups=inner, padding=conv - 1)
        self.x_proj = nn.Linear(inner, self.rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.rand(inner, state))
        self.D = nn.Parameter(torch.rand(inner))
        self.out_proj = nn.Linear(inner, dim, bias=bias)

    def forward(self, x):
        length = x.shape[1]
        u, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        u = F.silu(self.conv1d(u)[..., :length])
        dt, B, C = torch.split(self.x_proj(u.transpose(1, 2)), [self.rank, self.state, self.state], dim=-1)
        dt = F.softplus(self.dt_proj(dt)).transpose(1, 2)
        h, ys = 0, []
        for t in range(length):
            decay = torch.exp(-torch.einsum("bd,dn->bdn", dt[..., t], self.A_log.exp()))
            h = decay * h + torch.einsum("bd,bn->bdn", dt[..., t] * u[..., t], B[:, t])
            ys.append(torch.einsum("bdn,bn->bd", h, C[:, t]) + self.D * u[..., t])
        return self.out_proj((torch.stack(ys, dim=-1) * F.silu(z)).transpose(1, 2))


@pytest.mark.parametrize(
    ("spec", "dim", "expected"),
    [
        ("mamba", 64, 33_984),
        ("mamba", 512, 1_762_816),
        ("mamba:core=s4d", 64, 29_888),
        ("mamba:core=s4d", 512, 1_615_360),
        ("mamba:flavour=paper", 64, 33_984),
        ("mamba:flavour=literal", 64, 32_640),
    ],
)
def test_parameter_counts_are_the_published_ones(spec, dim, expected):
    assert sum(p.numel() for p in build(spec, dim).parameters()) == expected


@pytest.mark.parametrize("spec", ["mamba", "mamba:flavour=literal", "mamba:state=3:conv=1:expand=1"])
def test_scan_equals_step_recurrence(spec):
    mixer, x = build(spec, 8).double(), torch.randn(3, 13, 8, dtype=torch.float64)
    state, steps = None, []
    for frame in x.split(1, dim=1):
        y, state = mixer.mix_chunk(frame, state)
        steps.append(y)
    torch.testing.assert_close(torch.cat(steps, dim=1), mixer(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("spec", "options"), [("mamba:flavour=literal", {}), ("mamba", {"rank": 3, "bias": True})])
def test_the_published_layer_loads_the_weights_and_gives_the_same_output(spec, options):
    theirs, ours = Published(24, **options).double(), build(spec, 24).double()
    x = torch.randn(2, 7, 24, dtype=torch.float64)

    ours.load_state_dict(from_mamba_ssm(theirs.state_dict()).state)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-10)

    another = build(spec, 24).double()
    theirs.load_state_dict(to_mamba_ssm(another.state_dict()))
    torch.testing.assert_close(another(x), theirs(x), rtol=0, atol=1e-10)


def test_initial_step_sizes_are_spread_over_two_decades():
    delta = F.softplus(build("mamba", 512).core.dt_proj.bias)
    assert 1e-3 * 0.999 <= delta.min() < 2e-3
    assert 5e-2 < delta.max() <= 1e-1 * 1.001
    # Log-uniform: half of them below the geometric mean.
    assert 0.4 < (delta < 1e-2).double().mean() < 0.6


def test_a_flavour_is_printed_as_its_options():
    assert str(MixerSpec.parse("mamba:flavour=literal").canonical()) == "mamba:dt_rank=dim:projection_bias=no"
    assert str(MixerSpec.parse("mamba:flavour=paper").canonical()) == "mamba"
    overridden = MixerSpec.parse("mamba:projection_bias=yes:flavour=literal")
    assert str(overridden.canonical()) == "mamba:dt_rank=dim"


def test_an_unknown_flavour_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no flavour 'litral' \(did you mean \"literal\"\?\); it has paper, literal"):
        build("mamba:flavour=litral", 8)


def test_there_is_no_backward_sweep():
    with pytest.raises(ValueError, match="no backward sweep"):
        build("mamba", 8).mix_chunk(torch.zeros(1, 2, 8), None, reverse=True)
