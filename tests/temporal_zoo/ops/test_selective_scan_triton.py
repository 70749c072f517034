"""The Triton backend: in Triton's interpreter, compiled for GPUs that this machine does not have, and on one that is.

Triton decides when a kernel is defined whether it will be interpreted, so that takes a process of its own: the tests
marked `gpu` run there on the CPU, started by test_triton_interpreted.py.
"""

import math
import os
from importlib.metadata import version

import pytest
import torch

from temporal_zoo.ops import _triton
from temporal_zoo.ops.selective_scan import Direction, selective_scan, triton

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
BOTH = (False, True)
# rows, frames, channels, state; sweeps; options
CASES = {
    "one_frame": ((3, 1, 5, 4), (True, False), {}),
    "one_channel_one_state": ((2, 7, 1, 1), (False,), {}),
    "blocks_of_channels": ((1, 2, 70, 3), BOTH, {}),
    "most_states": ((1, 3, 3, 64), BOTH, {}),
    "different_states": ((1, 3, 3, 4), BOTH, {"other_state": 9}),
    "plain": ((2, 5, 3, 2), (True,), {"plain": True}),
    "padding": ((4, 6, 3, 2), (True, False), {"lengths": [6, 0, 1, 4]}),
    "chunks": ((1, 11, 5, 3), BOTH, {"chunk": 4}),
    "chunks_and_padding": ((3, 5, 3, 2), BOTH, {"chunk": 2, "lengths": [5, 4, 3]}),
    "long_steps": ((1, 67, 3, 16), (False,), {"shift": 4.0, "tolerance_of_A": 1e-4}),
    "long_steps_of_one_long_row": ((1, 256, 5, 16), (False,), {"shift": 4.0, "tolerance_of_A": 2e-4}),
    "rows_per_program": ((5, 2, 3, 2), BOTH, {"programs": 2}),
    "bfloat16": ((2, 5, 5, 8), BOTH, {"dtype": torch.bfloat16, "lengths": [5, 3], "tolerance": 2e-2}),
    "bfloat16_blocks": ((1, 2, 65, 2), BOTH, {"dtype": torch.bfloat16, "tolerance": 2e-2}),
    "float16": ((2, 3, 3, 8), BOTH, {"dtype": torch.float16, "tolerance": 2e-2}),
    "no_rows": ((0, 5, 3, 2), BOTH, {}),
}


def evaluate(case, backend, dtype=None):
    """Name -> output or gradient, in float64 and on the CPU; computed in `dtype`, or in those of the case."""
    (rows, frames, channels, most), sweeps, options = case
    lengths = torch.tensor(options["lengths"]) if "lengths" in options else None
    padding = None if lengths is None else (torch.arange(frames) >= lengths[:, None]).unsqueeze(-1)
    generator = torch.Generator().manual_seed(rows + 10 * frames + 100 * channels)
    device, wide = "cpu" if backend == "reference" else DEVICE, options.get("dtype", torch.float32)
    leaves, slopes = {}, {}

    def draw(*size):
        # The mean is not zero, so that gradients of few terms do not cancel.
        return torch.randn(size, generator=generator, dtype=torch.float64) + 0.5

    def leaf(name, value):
        framed = name.rstrip("01") in ("u", "dt", "B", "C", "gate")
        kind = wide if framed else torch.float32
        if framed and padding is not None:
            value = value.masked_fill(padding, math.nan)
        leaves[name] = value.to(kind).to(dtype or kind).to(device).requires_grad_()
        return leaves[name]

    def optional(name, *size):
        return None if options.get("plain") else leaf(name, draw(*size))

    directions, initial = [], []
    for place, reverse in enumerate(sweeps):
        state = options.get("other_state", most) if place else most
        u = leaf(f"u{place}", draw(rows, frames, channels))
        dt = leaf(f"dt{place}", draw(rows, frames, channels) - 1 + options.get("shift", 0))
        A = leaf(f"A{place}", -draw(channels, state).abs() - 0.05)
        B, C = (leaf(f"{name}{place}", draw(rows, frames, state)) for name in "BC")
        skip, dt_bias = (optional(f"{name}{place}", channels) for name in ("skip", "dt_bias"))
        directions.append(Direction(u, dt, A, B, C, skip, dt_bias, reverse))
        initial.append(optional(f"initial{place}", rows, channels, state))
        slopes[f"final{place}"] = draw(rows, channels, state)
    gate = optional("gate", rows, frames, channels)
    slopes["y"] = draw(rows, frames, channels)
    device_lengths = None if lengths is None else lengths.to(device)
    y, finals = selective_scan(
        directions, gate, lengths=device_lengths, initial=initial, return_final=True, backend=backend
    )
    outputs = {f"final{place}": final for place, final in enumerate(finals)} | {"y": y}
    used = ["y"] if options.get("plain") else list(outputs)
    slopes = [slopes[name].to(outputs[name]) for name in used]
    grads = torch.autograd.grad([outputs[name] for name in used], list(leaves.values()), slopes)
    for leaf, grad in zip(leaves.values(), grads, strict=True):
        assert grad.dtype == leaf.dtype
        assert backend == "reference" or grad.is_contiguous()
    results = outputs | {f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return {name: x.detach().double().cpu() for name, x in results.items()}


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_reference(name, monkeypatch, unread_lengths):
    from temporal_zoo.ops.selective_scan import _triton_kernels

    options = CASES[name][2]
    monkeypatch.setattr(_triton_kernels, "CHUNK", options.get("chunk", _triton_kernels.CHUNK))
    monkeypatch.setattr(_triton, "MOST_PROGRAMS", options.get("programs", _triton.MOST_PROGRAMS))
    ours, theirs = evaluate(CASES[name], "triton"), evaluate(CASES[name], "reference", torch.float64)
    for name, wanted in theirs.items():
        assert not ours[name].isnan().any()
        error = (ours[name] - wanted).abs().max() / wanted.abs().max() if wanted.any() else ours[name].abs().sum()
        # exp2 of a GPU has an error of up to two units in the last place.
        exact = 1e-5 if name.startswith("d") else 1e-6 if INTERPRETED else 5e-6
        allowed = max(exact, options.get("tolerance", 0), options.get("tolerance_of_A", 0) if name == "dA0" else 0)
        assert error <= allowed, f"{name} is off by {error:.1e}"


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs one program after the other")
def test_two_runs_give_equal_results():
    case = ((300, 20, 70, 5), BOTH, {})
    first, second = evaluate(case, "triton"), evaluate(case, "triton")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.gpu
def test_comes_first_once_it_is_confirmed():
    u = torch.zeros(2, 3, 4, device=DEVICE)
    direction = Direction(u, u, -torch.ones(4, 3, device=DEVICE), u[..., :3], u[..., :3])
    assert (selective_scan.choose([direction]) == "triton") is (triton.CONFIRMED is not None)


@pytest.fixture
def launches(monkeypatch):
    """State -> (kernel, arguments by name) of the launches of forward and backward for bfloat16."""
    noted = []

    def note(kernel, programs, device, *arguments, **constants):
        noted.append((kernel, dict(zip(kernel.arg_names, arguments, strict=False)) | constants))

    def launch(state):
        wide, narrow = (torch.zeros(1, 65, size, dtype=torch.bfloat16) for size in (128, state))
        one, A = torch.ones(128), -torch.ones(128, state)
        directions = [Direction(wide, wide, A, narrow, narrow, one, one, reverse) for reverse in BOTH]
        triton.forward(directions, wide, None, [], return_final=False, keep=True)
        triton.backward(wide, [], directions, wide, None, [], [])
        return noted

    monkeypatch.setattr(_triton, "launch", note)
    return launch


@pytest.mark.parametrize("chip", [80, 90])
@pytest.mark.parametrize("state", [16, 64])
def test_resources(launches, compiled_for, state, chip):
    triton_is = tuple(map(int, version("triton").split(".")[:2]))
    # Triton 3.7 uses more registers, and 3.4 computes one sum over states through shared memory.
    few = 160 if triton_is == (3, 7) else 128
    for (kernel, arguments), most_registers in zip(launches(state), (few if state == 16 else 255, 255), strict=True):
        resources = compiled_for(chip, kernel, arguments)
        assert resources.registers <= most_registers
        assert resources.spilled == 0
        if state == 16:
            assert resources.shared <= (256 if triton_is == (3, 4) else 0)


def test_refusals():
    wide, narrow = torch.zeros(2, 3, 4, dtype=torch.float64), torch.zeros(2, 3, 65, dtype=torch.float64)
    reasons = "; ".join(triton.refuses([Direction(wide, wide, -torch.ones(4, 65), narrow, narrow)]))
    for part in ("TRITON_INTERPRET=1", "torch.float64", "64 states; A has 65"):
        assert part in reasons
    meta = torch.zeros(2, 3, 4, device="meta")
    assert "meta" in str(triton.refuses([Direction(meta, meta, meta[0, 0, :, None], meta[..., :1], meta[..., :1])]))
