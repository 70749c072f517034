"""The Triton backend: in Triton's interpreter, and compiled for GPUs that this machine does not have.

Triton decides when a kernel is defined whether it will be interpreted, so that takes a process of its own: the tests
marked `gpu` run there on the CPU, started by test_triton_interpreted.py.
"""

import math
import os

import pytest
import torch

from temporal_zoo.ops import _triton
from temporal_zoo.ops.causal_conv import Filter, causal_conv, triton

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
BOTH = ((4, False), (4, True))
# rows, frames, channels; (width, reverse) of the filters; options
CASES = {
    "one_frame": ((2, 1, 1), BOTH, {}),
    "fewer_frames_than_taps": ((1, 2, 3), BOTH, {"silu": False}),
    "one_tap": ((1, 3, 5), ((1, False), (1, True)), {}),
    "widths": ((2, 6, 3), ((2, True), (5, False), (3, True)), {}),
    "most_taps": ((1, 9, 2), ((8, False),), {}),
    "plain": ((2, 5, 3), BOTH, {"plain": True}),
    "padding": ((4, 5, 3), BOTH, {"lengths": [5, 0, 1, 4]}),
    "padding_without_silu": ((2, 5, 3), BOTH, {"lengths": [2, 4], "silu": False}),
    "blocks_of_channels": ((1, 3, 70), BOTH, {}),
    "rows_per_program": ((5, 2, 3), BOTH, {"programs": 2}),
    "bfloat16": ((2, 6, 5), BOTH, {"dtype": torch.bfloat16, "lengths": [6, 3], "tolerance": 2e-2}),
    "bfloat16_blocks": ((1, 2, 130), BOTH, {"dtype": torch.bfloat16, "tolerance": 2e-2}),
    "float16": ((2, 4, 3), BOTH, {"dtype": torch.float16, "tolerance": 2e-2}),
    "slice_of_channels": ((2, 4, 3), BOTH, {"view": lambda x: x[..., 1:]}),
    "every_other_channel": ((2, 4, 6), BOTH, {"view": lambda x: x[..., ::2]}),
    "rows_inside": ((3, 4, 2), BOTH, {"view": lambda x: x.transpose(0, 1)}),
    "one_row_many_times": ((1, 4, 2), BOTH, {"view": lambda x: x.expand(3, -1, -1)}),
    "no_rows": ((0, 4, 3), BOTH, {}),
}


def evaluate(case, backend, dtype=None):
    """Name -> output or gradient, in float64 and on the CPU; computed in `dtype`, or in those of the case."""
    shape, sizes, options = case
    device, wide = "cpu" if backend == "reference" else DEVICE, options.get("dtype", torch.float32)
    generator = torch.Generator().manual_seed(sum(shape))
    leaves = {}

    def draw(*size):
        # The mean is not zero, so that gradients of few terms do not cancel.
        return torch.randn(size, generator=generator, dtype=torch.float64) + 0.5

    def leaf(name, value, kind=torch.float32):
        leaves[name] = value.to(kind).to(dtype or kind).to(device).requires_grad_()
        return leaves[name]

    x = draw(*shape)
    padding = lengths = None
    if "lengths" in options:
        lengths = torch.tensor(options["lengths"])
        padding = (torch.arange(shape[1]) >= lengths[:, None]).unsqueeze(-1)
        x = x.masked_fill(padding, math.nan)
    x = options.get("view", lambda x: x)(leaf("x", x, wide))
    rows, frames, channels = x.shape
    filters, initial = [], []
    for place, (width, reverse) in enumerate(sizes):
        weight = leaf(f"weight{place}", draw(channels, width))
        bias, start = None, None
        if not options.get("plain"):
            bias, start = leaf(f"bias{place}", draw(channels)), leaf(f"initial{place}", draw(rows, width - 1, channels))
        filters.append(Filter(weight, bias, reverse))
        initial.append(start)
    ys = causal_conv(
        x,
        filters,
        silu=options.get("silu", True),
        lengths=None if lengths is None else lengths.to(device),
        initial=initial,
        backend=backend,
    )
    slopes = [draw(rows, frames, channels) for _ in ys]
    if padding is not None:
        slopes = [slope.masked_fill(padding, math.nan) for slope in slopes]
    grads = torch.autograd.grad(ys, list(leaves.values()), [s.to(y) for s, y in zip(slopes, ys, strict=True)])
    for leaf, grad in zip(leaves.values(), grads, strict=True):
        assert grad.dtype == leaf.dtype
    results = {f"y{place}": y for place, y in enumerate(ys)} | {
        f"d{name}": g for name, g in zip(leaves, grads, strict=True)
    }
    return {name: x.detach().double().cpu() for name, x in results.items()}


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_reference(name, monkeypatch, unread_lengths):
    options = CASES[name][2]
    monkeypatch.setattr(_triton, "MOST_PROGRAMS", options.get("programs", _triton.MOST_PROGRAMS))
    ours, theirs = evaluate(CASES[name], "triton"), evaluate(CASES[name], "reference", torch.float64)
    for name, wanted in theirs.items():
        assert ours[name].shape == wanted.shape
        assert not ours[name].isnan().any()
        error = (ours[name] - wanted).abs().max() / wanted.abs().max() if wanted.any() else ours[name].abs().sum()
        # exp2 of a GPU has an error of up to two units in the last place.
        exact = 1e-5 if name.startswith("d") else 1e-6 if INTERPRETED else 5e-6
        assert error <= max(exact, options.get("tolerance", 0)), f"{name} is off by {error:.1e}"


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs one program after the other")
def test_two_runs_give_equal_results():
    case = ((300, 20, 140), BOTH, {})
    first, second = evaluate(case, "triton"), evaluate(case, "triton")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.gpu
def test_comes_first_once_it_is_confirmed():
    x, taps = torch.zeros(2, 3, 4, device=DEVICE), torch.zeros(4, 4, device=DEVICE)
    assert (causal_conv.choose(x, [Filter(taps, reverse=True)]) == "triton") is (triton.CONFIRMED is not None)


@pytest.fixture
def launches(monkeypatch):
    """(kernel, arguments by name) of the launches of forward and backward, for two filters of four taps."""

    def launch(dtype):
        noted = []

        def note(kernel, programs, device, *arguments, **constants):
            noted.append((kernel, dict(zip(kernel.arg_names, arguments, strict=False)) | constants))

        monkeypatch.setattr(_triton, "launch", note)
        # As in mixers: x is one half of a projection.
        x = torch.zeros(1, 17, 256, dtype=dtype)[..., :128]
        weights, biases = [torch.zeros(128, 4)] * 2, [torch.zeros(128)] * 2
        rest = x, weights, biases, [], None, [False, True], True
        triton.forward(*rest)
        triton.backward([x, x], *rest)
        return noted

    return launch


@pytest.mark.parametrize("chip", [80, 90])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_resources(launches, compiled_for, dtype, chip):
    for (kernel, arguments), most_registers in zip(launches(dtype), (64, 128), strict=True):
        resources = compiled_for(chip, kernel, arguments)
        assert resources.registers <= most_registers
        assert (resources.spilled, resources.shared) == (0, 0)


def test_refusals():
    x = torch.zeros(2, 3, 4, dtype=torch.float64)
    reasons = "; ".join(triton.refuses(x, [Filter(torch.zeros(4, 9))]))
    for part in ("TRITON_INTERPRET=1", "torch.float64", "8 taps; a filter has 9"):
        assert part in reasons
    assert "meta" in str(triton.refuses(x.float().to("meta"), [Filter(torch.zeros(4, 4))]))


def test_only_unsupported_layouts_are_copied():
    x = torch.zeros(2, 3, 8)
    assert triton._adjacent(x[..., 2:6]).data_ptr() == x[..., 2:6].data_ptr()
    assert triton._adjacent(x[..., ::2]).is_contiguous()
    far = torch.empty_strided((4, 2, 1), (1, 2**30, 1), device="meta")
    assert triton._adjacent(far).is_contiguous()
