"""The Triton backend: in Triton's interpreter, and compiled for GPUs that this machine does not have.

Triton decides when a kernel is defined whether it will be interpreted, so that takes a process of its own: the tests
marked `gpu` run there on the CPU, started by test_triton_interpreted.py.
"""

import math
import os

import pytest
import torch

from temporal_zoo.ops import _triton
from temporal_zoo.ops.attention import attention, triton

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
# rows, frames, heads, features; options
CASES = {
    "one_frame": ((1, 1, 1, 16), {}),
    "rows_in_a_tile": ((5, 16, 2, 16), {}),
    "odd_frames": ((6, 7, 3, 16), {}),
    "two_rows_in_a_tile": ((3, 23, 2, 32), {}),
    "one_row_in_a_tile": ((2, 64, 1, 64), {}),
    "most_features": ((2, 5, 1, 128), {"dtype": torch.float16, "tolerance": 4e-3}),
    "large_logits": ((3, 9, 2, 16), {"size": 30}),
    "padding": ((5, 9, 2, 16), {"lengths": [9, 1, 4, 8, 2]}),
    "padding_two_rows": ((3, 33, 1, 16), {"lengths": [1, 33, 20]}),
    "bfloat16": ((5, 12, 2, 64), {"dtype": torch.bfloat16, "lengths": [12, 3, 5, 1, 9], "tolerance": 2e-2}),
    "float16": ((3, 16, 2, 32), {"dtype": torch.float16, "tolerance": 4e-3}),
    "heads_first": ((3, 16, 2, 16), {"view": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2)}),
    "no_rows": ((0, 16, 2, 16), {}),
}


def evaluate(case, backend, dtype=None):
    """Name -> output or gradient, in float64 and on the CPU; computed in `dtype`, or in that of the case."""
    shape, options = case
    kind, device = options.get("dtype", torch.float32), "cpu" if backend == "reference" else DEVICE
    generator = torch.Generator().manual_seed(sum(shape))
    draws = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4)]
    draws[0] *= options.get("size", 1)
    lengths = None
    if "lengths" in options:
        lengths = torch.tensor(options["lengths"])
        padding = (torch.arange(shape[1]) >= lengths[:, None])[:, :, None, None]
        draws = [x.masked_fill(padding, math.nan) for x in draws]
        lengths = lengths.to(device)
    q, k, v, slope = (options.get("view", lambda x: x)(x.to(kind).to(dtype or kind).to(device)) for x in draws)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = attention(*leaves, lengths=lengths, backend=backend)
    grads = torch.autograd.grad(out, leaves, slope)
    assert all(grad.dtype == x.dtype for grad, x in zip(grads, leaves, strict=True))
    results = {"out": out} | dict(zip(("dq", "dk", "dv"), grads, strict=True))
    return {name: x.detach().double().cpu() for name, x in results.items()}


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_reference(name):
    if INTERPRETED and CASES[name][1].get("dtype") == torch.bfloat16:
        pytest.skip("the interpreter cannot multiply matrices of bfloat16")
    ours, theirs = evaluate(CASES[name], "triton"), evaluate(CASES[name], "reference", torch.float64)
    for what, wanted in theirs.items():
        assert ours[what].shape == wanted.shape
        assert not ours[what].isnan().any()
        error = (ours[what] - wanted).abs().max() / wanted.abs().max() if wanted.any() else ours[what].abs().sum()
        exact = 1e-5 if what.startswith("d") else 2e-6 if INTERPRETED else 5e-6
        assert error <= max(exact, CASES[name][1].get("tolerance", 0)), f"{what} is off by {error:.1e}"


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs one program after the other")
def test_two_runs_give_equal_results():
    case = ((300, 20, 3, 64), {})
    first, second = evaluate(case, "triton"), evaluate(case, "triton")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.gpu
def test_auto_never_takes_it():
    q = torch.zeros(2, 16, 2, 64, device=DEVICE)
    assert attention.explain(q, q, q)["triton"] == []
    assert attention.choose(q, q, q) != "triton"
    # Also where no other kernel can run, because the backend before it takes all inputs.
    assert attention.backends.index("triton") == attention.backends.index("blocked") + 1


@pytest.fixture
def launches(monkeypatch):
    """(kernel, arguments by name) of the launches of forward and backward."""

    def launch(frames, features, dtype):
        noted = []

        def note(kernel, programs, device, *arguments, **constants):
            noted.append((kernel, dict(zip(kernel.arg_names, arguments, strict=False)) | constants))

        monkeypatch.setattr(_triton, "launch", note)
        q, lengths = torch.zeros(5, frames, 2, features, dtype=dtype), torch.full((5,), frames)
        out, lse = triton.forward(q, q, q, None, lengths)
        triton.backward(q, q, q, q, None, lengths, out, lse, False)
        return noted

    return launch


@pytest.mark.parametrize("chip", [80, 90])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("frames", [16, 64])
def test_resources(launches, compiled_for, frames, dtype, chip):
    for kernel, arguments in launches(frames, 64, dtype):
        resources = compiled_for(chip, kernel, arguments)
        assert resources.shared <= 48 * 1024
        # Backward in float32 holds parts of six products; at 64 frames a few do not fit in registers.
        tight = frames == 64 and dtype == torch.float32 and "grad" in arguments
        assert resources.spilled <= (1024 if tight else 0)


def test_refusals():
    q = torch.zeros(2, 65, 4, 24, dtype=torch.float64)
    reasons = "; ".join(triton.refuses(q, q, q, bias=torch.zeros(4, 65, 65)))
    for part in ("TRITON_INTERPRET=1", "torch.float64", "no bias", "64 frames, q has 65"):
        assert part in reasons
    q = q[..., :17].bfloat16()
    for part in ("interpreter cannot multiply", "16, 32, 64, 128 features of torch.bfloat16, q has 17"):
        assert part in str(triton.refuses(q, q, q))
