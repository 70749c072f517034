"""Tests of `gss` and `bigs` only: sizes, the function in float64, and the symmetry in time."""

import pytest
import torch
from torch.nn import functional as F

from temporal_zoo import build, use_backend
from temporal_zoo.config import ConfigError
from temporal_zoo.streaming import over_chunks

SPECS = ["gss:state=4", "gss:core=s6:state=3:width=7", "bigs:state=4:width=5", "bigs:core=s6:state=3:width=7"]


@pytest.mark.parametrize(
    ("spec", "dim", "expected"),
    [
        ("gss", 64, 47_808),
        ("bigs", 64, 58_304),
        ("gss:flavour=s4d", 64, 47_808),
        ("gss:flavour=s6", 64, 111_424),
        ("bigs:flavour=s6", 64, 123_456),
    ],
)
def test_parameter_counts_are_those_of_the_papers_code(spec, dim, expected):
    assert sum(p.numel() for p in build(spec, dim).parameters()) == expected


def by_frames(core, u):
    """A core as a loop over frames in time order; S4D with its matrices in the form of the paper, S6 with Euler's B."""
    ys, h = [], 0
    for t in range(u.shape[1]):
        x = u[:, t, :, None]
        if hasattr(core, "A_log"):
            dt, B, C = core.x_proj(u[:, t]).split(core.parts, -1)
            delta = F.softplus(core.dt_proj(dt))[..., None]
            h = (-delta * core.A_log.exp()).exp() * h + delta * B[:, None] * x
            y = (h * C[:, None]).sum(-1)
        else:
            A = torch.complex(-core.log_A_real.exp(), core.A_imag)
            step = (A * core.log_dt.exp()[:, None]).exp()
            h = step * h + (step - 1) / A * x
            y = 2 * (torch.view_as_complex(core.C) * h).real.sum(-1)
        ys.append(y + core.D * u[:, t])
    return torch.stack(ys, 1)


def oracle(mixer, x):
    """The layer in words of torch, for rows without padding."""

    def branch(each, x):
        return each.after(by_frames(each.core, F.gelu(each.before(x))))

    f = branch(mixer.branch, x)
    if hasattr(mixer, "branch_b"):
        f = f * branch(mixer.branch_b, x.flip(1)).flip(1)
    return mixer.out(F.gelu(mixer.shortcut(x)) * F.gelu(mixer.up(f)))


def with_gradients(mixer, function, x, weights):
    """The output, and the gradients of a weighted sum with respect to x and every parameter."""
    x = x.clone().requires_grad_()
    y = function(x)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *mixer.parameters()])]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("rows", "frames", "dim"), [(1, 1, 1), (3, 7, 5), (2, 70, 18)])
def test_values_and_gradients_are_those_of_a_loop_over_frames(spec, rows, frames, dim):
    torch.manual_seed(0)
    mixer = build(spec, dim).double()
    x, weights = torch.randn(2, rows, frames, dim, dtype=torch.float64)
    found = with_gradients(mixer, mixer, x, weights)
    expected = with_gradients(mixer, lambda x: oracle(mixer, x), x, weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("spec", SPECS)
def test_float32_is_near_the_loop_in_float64(spec):
    torch.manual_seed(0)
    mixer = build(spec, 16)
    x = torch.randn(3, 33, 16)
    found = mixer(x)
    torch.testing.assert_close(found.double(), oracle(mixer.double(), x.double()), rtol=0, atol=5e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_the_references_agree_with_the_fast_backends_on_ragged_rows(spec):
    torch.manual_seed(0)
    mixer = build(spec, 6).double()
    x, lengths = torch.randn(3, 11, 6, dtype=torch.float64), torch.tensor([11, 1, 6])
    x[1, 1:] = torch.nan
    with use_backend(diagonal_ssm="reference", selective_scan="reference"):
        expected = mixer(x, lengths)
    torch.testing.assert_close(mixer(x, lengths), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(expected[2:, :6], oracle(mixer, x[2:, :6]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.startswith("gss")])
@pytest.mark.parametrize("size", [1, 5, 16])
def test_chunks_are_the_whole_clip(spec, size):
    mixer, x = build(spec, 6).double(), torch.randn(2, 33, 6, dtype=torch.float64)
    torch.testing.assert_close(torch.cat(over_chunks(mixer, x.split(size, 1)), 1), mixer(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.startswith("bigs")])
def test_reversed_time_with_swapped_branches_reverses_the_output(spec):
    mixer, swapped = build(spec, 6).double(), build(spec, 6).double()
    swapped.load_state_dict(mixer.state_dict())
    swapped.branch, swapped.branch_b = swapped.branch_b, swapped.branch
    x, lengths = torch.randn(3, 11, 6, dtype=torch.float64), torch.tensor([11, 1, 6])
    for row, real in enumerate(lengths.tolist()):
        backwards = x[row : row + 1, :real].flip(1)
        expected = mixer(x, lengths)[row : row + 1, :real]
        torch.testing.assert_close(swapped(backwards).flip(1), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("spec", ["gss:state=3", "bigs:state=5", "mamba:core=s4d:state=3"])
def test_s4d_refuses_an_odd_state(spec):
    with pytest.raises(ConfigError, match="it must be even"):
        build(spec, 8)
