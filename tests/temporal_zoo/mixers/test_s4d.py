"""Tests of `s4d` only: its sizes, its initial values, its equations, and its symmetry in time."""

import math

import pytest
import torch
from torch.nn import functional as F

from bench.paper.facts import VARIANTS
from temporal_zoo import build
from temporal_zoo.config import ConfigError
from temporal_zoo.ops import tracing, use_backend

# Widths of the ten temporal layers of the paper's network with 64 base channels.
SLOTS = (64, 64, 128, 256, 512, 512, 256, 128, 64, 64)


def count(spec, dim):
    return sum(p.numel() for p in build(spec, dim).parameters())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("s4d", 20_992),
        ("s4d:flavour=glu", 20_992),
        ("s4d:bidirectional=no", 10_496),
        ("s4d:flavour=mlp", 103_232),
        ("s4d:flavour=mlp:bidirectional=no", 68_288),
    ],
)
def test_parameter_counts_are_the_published_ones(spec, expected):
    assert count(spec, 64) == expected


@pytest.mark.parametrize("spec", [spec for spec in VARIANTS if "flavour=v1" in spec])
def test_layers_of_the_first_versions_add_up_to_the_published_totals(spec):
    assert sum(count(spec, dim) for dim in SLOTS) == VARIANTS[spec] - VARIANTS["identity"]


def test_initial_values_are_those_of_the_paper():
    core = build("s4d:state=16", 4096).core
    n = torch.arange(8)
    torch.testing.assert_close(core.A_imag[7], math.pi * n)
    torch.testing.assert_close(-core.log_A_real.exp(), torch.full((4096, 8), -0.5))
    dt = core.log_dt.exp()
    assert 1e-3 <= dt.min() < 1.1e-3 < 0.9e-1 < dt.max() <= 1e-1
    assert abs(core.log_dt.mean() - math.log(1e-2)) < 0.1
    assert abs(core.C.square().sum(-1).mean() - 1) < 0.05
    assert abs(core.D.std() - 1) < 0.05
    inverse = build("s4d:state=16:init=inv", 4).core.A_imag[2]
    torch.testing.assert_close(inverse, 16 / math.pi * (16 / (2 * n + 1) - 1))


def by_recurrence(core, x, discretisation):
    """The differential equation x' = A x + u, y = 2 Re(C x) + D u, computed step by step."""
    C, A = torch.view_as_complex(core.C), torch.complex(-core.log_A_real.exp(), core.A_imag)
    dt = core.log_dt.exp()[:, None]
    state, ys = torch.zeros(x.shape[0], *A.shape, dtype=A.dtype), []
    for u in x.unbind(1):
        if discretisation == "zoh":
            # The solution at the end of a step with a constant input.
            rest = -u[..., None] / A
            state = rest + torch.exp(dt * A) * (state - rest)
        else:
            # The trapezoid rule, solved for the new state.
            state = (state + dt / 2 * A * state + dt * u[..., None]) / (1 - dt / 2 * A)
        ys.append(2 * (C * state).real.sum(-1) + core.D * u)
    return torch.stack(ys, dim=1)


@pytest.mark.parametrize("backend", ["toeplitz", "chunked", "reference"])
@pytest.mark.parametrize("discretisation", ["zoh", "bilinear"])
@pytest.mark.parametrize("init", ["lin", "inv"])
def test_convolution_equals_the_recurrence(init, discretisation, backend):
    mixer = build(f"s4d:state=8:init={init}:discretisation={discretisation}:glu=no", 5).double()
    x = torch.randn(3, 71, 5, dtype=torch.float64)
    with use_backend(diagonal_ssm=backend):
        y = mixer(x)
    back = by_recurrence(mixer.core_b, x.flip(1), discretisation).flip(1)
    torch.testing.assert_close(y, by_recurrence(mixer.core, x, discretisation) + back, rtol=0, atol=1e-10)


@pytest.mark.parametrize("glu", [False, True])
@pytest.mark.parametrize("merge", ["sum", "concat"])
@pytest.mark.parametrize("gelu", [False, True])
def test_the_mlp_after_the_merge_is_the_documented_one(glu, merge, gelu):
    text = {True: "yes", False: "no"}
    mixer = build(f"s4d:state=4:glu={text[glu]}:merge={merge}:mlp=12:mlp_gelu={text[gelu]}", 6).double()
    x = torch.randn(2, 9, 6, dtype=torch.float64)

    def direction(core, linear, x):
        s = by_recurrence(core, x, "zoh")
        if not glu:
            return s
        value, gate = (F.gelu(s) @ linear.weight.T + linear.bias).chunk(2, dim=-1)
        return value * gate.sigmoid()

    ahead = direction(mixer.core, mixer.glu, x)
    back = direction(mixer.core_b, mixer.glu_b, x.flip(1)).flip(1)
    z = ahead + back if merge == "sum" else torch.cat([ahead, back], dim=-1)
    first, second = [layer for layer in mixer.mlp if hasattr(layer, "weight")]
    expected = second(F.gelu(first(F.gelu(z) if gelu else z)))
    torch.testing.assert_close(mixer(x), expected)


@pytest.mark.parametrize(
    "spec", ["s4d:state=4", "s4d:state=4:glu=no", "s4d:state=4:mlp=9", "s4d:state=4:init=inv:discretisation=bilinear"]
)
def test_reversed_time_with_swapped_directions_reverses_the_output(spec):
    mixer, swapped = build(spec, 5).double(), build(spec, 5).double()
    ends = {"core": "core_b", "core_b": "core", "glu": "glu_b", "glu_b": "glu"}
    rename = lambda name: ".".join((ends.get(name.partition(".")[0], name.partition(".")[0]), name.partition(".")[2]))
    swapped.load_state_dict({rename(name): value for name, value in mixer.state_dict().items()})
    x, lengths = torch.randn(3, 11, 5, dtype=torch.float64), torch.tensor([11, 1, 6])
    torch.testing.assert_close(swapped(x.flip(1)).flip(1), mixer(x), rtol=0, atol=1e-10)
    for row, real in enumerate(lengths.tolist()):
        turned = x[row : row + 1, :real].flip(1)
        torch.testing.assert_close(swapped(turned).flip(1), mixer(x, lengths)[row : row + 1, :real], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("spec", "causal", "passes"),
    [
        ("s4d", False, (False, True)),
        ("s4d:glu=no", False, (False, True)),
        ("s4d:bidirectional=no", True, (False,)),
        ("s4d:flavour=mlp:bidirectional=no", True, (False,)),
        ("s4d:flavour=mlp", False, ()),
        ("s4d:mlp=8", False, ()),
    ],
)
def test_options_determine_causal_and_passes(spec, causal, passes):
    mixer = build(spec, 4)
    assert (mixer.causal, mixer.passes) == (causal, passes)


@pytest.mark.parametrize("spec", ["s4d:state=4", "s4d:state=4:glu=no", "s4d:state=4:mlp=8:bidirectional=no"])
def test_sweeps_of_single_steps_add_up_to_the_whole_output(spec):
    mixer, x = build(spec, 5).double(), torch.randn(3, 7, 5, dtype=torch.float64)
    total = torch.zeros_like(x)
    for reverse in mixer.passes:
        state = None
        for t in reversed(range(7)) if reverse else range(7):
            y, state = mixer.mix_chunk(x[:, t : t + 1], state, reverse=reverse)
            total[:, t : t + 1] += y
    torch.testing.assert_close(total, mixer(x), rtol=0, atol=1e-10)


def test_no_decay_lists_every_parameter_of_the_state_space_model():
    for spec in ("s4d", "s4d:bidirectional=no"):
        mixer = build(spec, 4)
        names = {name for name, _ in mixer.named_parameters()}
        assert {name for name in names if name.startswith("core")} == set(mixer.no_decay)


def test_runs_with_all_parameters_in_bfloat16():
    mixer = build("s4d", 8)
    x = torch.randn(2, 9, 8)
    wanted = mixer(x)
    got = mixer.to(torch.bfloat16)(x.bfloat16())
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), wanted, rtol=0.05, atol=0.05)


def test_auto_never_chooses_the_reference():
    mixer, x = build("s4d", 4), torch.randn(2, 200, 4)
    with tracing() as ran:
        mixer(x)
        mixer(x[:, :8], torch.tensor([3, 8]))
        mixer.mix_chunk(x[:, :8], None, reverse=True)
    assert "reference" not in ran["diagonal_ssm"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("s4d:state=5", "even"),
        ("s4d:merge=concat", "set mlp"),
        ("s4d:mlp_gelu=yes", "set mlp"),
        ("s4d:init=legs", "one of lin, inv"),
        ("s4d:mlp=-1", "at least 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        build(spec, 8)
