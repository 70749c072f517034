"""Tests of `bimamba` only: its sizes, its symmetry in time, and Vim's layer with the same weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from temporal_zoo import MixerSpec, build
from temporal_zoo.config import ConfigError
from temporal_zoo.convert.vim import from_vim, to_vim


class Vim(nn.Module):
    """Vim's bidirectional "v2" layer, implemented again: the second direction reads and writes flipped sequences."""

    def __init__(self, dim, state=16, conv=4):
        super().__init__()
        inner, self.rank, self.state = 2 * dim, -(-dim // 16), state
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        for end, log in (("", "A_log"), ("_b", "A_b_log")):
            setattr(self, f"conv1d{end}", nn.Conv1d(inner, inner, conv, groups=inner, padding=conv - 1))
            setattr(self, f"x_proj{end}", nn.Linear(inner, self.rank + 2 * state, bias=False))
            setattr(self, f"dt_proj{end}", nn.Linear(self.rank, inner))
            setattr(self, log, nn.Parameter(torch.rand(inner, state)))
            setattr(self, f"D{end}", nn.Parameter(torch.rand(inner)))

    def forward(self, x):
        xz = self.in_proj(x).transpose(1, 2)
        there = self.sweep(xz, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        back = self.sweep(xz.flip(-1), self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b)
        return self.out_proj((there + back.flip(-1)).transpose(1, 2) / 2)

    def sweep(self, xz, conv1d, x_proj, dt_proj, A_log, D):
        u, z = xz.chunk(2, dim=1)
        u = F.silu(conv1d(u)[..., : u.shape[-1]])
        dt, B, C = torch.split(x_proj(u.transpose(1, 2)), [self.rank, self.state, self.state], dim=-1)
        dt = F.softplus(dt_proj(dt)).transpose(1, 2)
        h, ys = 0, []
        for t in range(u.shape[-1]):
            h = torch.exp(-dt[..., t, None] * A_log.exp()) * h + (dt * u)[..., t, None] * B[:, t, None]
            ys.append((h * C[:, t, None]).sum(-1))
        return (torch.stack(ys, dim=-1) + D[:, None] * u) * F.silu(z)


@pytest.mark.parametrize(
    ("spec", "dim", "expected"),
    [
        ("bimamba", 64, 43_072),
        ("bimamba", 256, 516_352),
        ("bimamba", 512, 1_950_208),
        ("bimamba:core=s4d", 64, 34_880),
        ("bimamba:core=s4d", 512, 1_655_296),
        ("bimamba:flavour=paper", 64, 43_072),
        ("bimamba:flavour=vim", 64, 40_704),
    ],
)
def test_parameter_counts_are_the_published_ones(spec, dim, expected):
    assert sum(p.numel() for p in build(spec, dim).parameters()) == expected


@pytest.mark.parametrize(
    "spec", ["bimamba", "bimamba:flavour=vim", "bimamba:state=3:conv=1:expand=1", "bimamba:core=s4d:state=4"]
)
def test_two_sweeps_of_single_steps_equal_the_scan(spec):
    mixer, x = build(spec, 8).double(), torch.randn(3, 13, 8, dtype=torch.float64)
    total = torch.zeros_like(x)
    for reverse in mixer.passes:
        state = None
        for t in reversed(range(13)) if reverse else range(13):
            y, state = mixer.mix_chunk(x[:, t : t + 1], state, reverse=reverse)
            total[:, t : t + 1] += y
    torch.testing.assert_close(total, mixer(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("spec", ["bimamba", "bimamba:core=s4d"])
@pytest.mark.parametrize("lengths", [None, [11, 1, 6]])
def test_reversed_time_with_swapped_directions_reverses_the_output(lengths, spec):
    mixer, swapped = build(spec, 8).double(), build(spec, 8).double()
    for one, other in (("core", "core_b"), ("conv1d", "conv1d_b")):
        swapped.get_submodule(one).load_state_dict(mixer.get_submodule(other).state_dict())
        swapped.get_submodule(other).load_state_dict(mixer.get_submodule(one).state_dict())
    for both in ("in_proj", "out_proj"):
        swapped.get_submodule(both).load_state_dict(mixer.get_submodule(both).state_dict())
    x = torch.randn(3, 11, 8, dtype=torch.float64)
    real = lengths or [11] * 3

    def back(rows):
        return torch.stack([torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(rows, real, strict=True)])

    lengths = None if lengths is None else torch.tensor(lengths)
    torch.testing.assert_close(swapped(back(x), lengths), back(mixer(x, lengths)), rtol=0, atol=1e-10)
    assert not torch.allclose(mixer(back(x), lengths), back(mixer(x, lengths)))


def test_the_published_layer_loads_the_weights_and_gives_the_same_output():
    theirs, ours = Vim(24).double(), build("bimamba:flavour=vim", 24).double()
    x = torch.randn(2, 7, 24, dtype=torch.float64)

    ours.load_state_dict(from_vim(theirs.state_dict(), merge="mean").state)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-10)

    another = build("bimamba:flavour=vim", 24).double()
    theirs.load_state_dict(to_vim(another.state_dict()))
    torch.testing.assert_close(another(x), theirs(x), rtol=0, atol=1e-10)


def test_mean_is_half_the_sum():
    total, mean = build("bimamba:projection_bias=no", 8), build("bimamba:projection_bias=no:merge=mean", 8)
    mean.load_state_dict(total.state_dict())
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(2 * mean(x), total(x))


def test_an_option_sets_the_initial_step_sizes_of_the_backward_direction():
    def slowest(spec):
        return F.softplus(build(spec, 64).core_b.dt_proj.bias).min()

    assert slowest("bimamba") < 0.01
    assert slowest("bimamba:flavour=vim") > 0.3


def test_a_flavour_is_printed_as_its_options():
    explicit = "bimamba:dt_rank=dim:projection_bias=no:merge=mean:backward_dt=generic"
    assert str(MixerSpec.parse("bimamba:flavour=vim").canonical()) == explicit
    assert str(MixerSpec.parse("bimamba:flavour=paper").canonical()) == "bimamba"


@pytest.mark.parametrize(("option", "name"), [("dt_rank=dim", "dt_rank"), ("backward_dt=generic", "backward_dt")])
def test_s4d_refuses_options_of_s6(option, name):
    with pytest.raises(ConfigError, match=rf"Config\.{name} is .* with core=s4d.* choose core=s6"):
        build(f"bimamba:core=s4d:{option}", 8)
