"""The C++ backends: instruction sets, sizes that are no multiples of lanes and chunks, threads."""

import threading
from functools import partial

import pytest
import torch

from temporal_zoo.ops import _native
from temporal_zoo.ops.causal_conv import Filter, causal_conv
from temporal_zoo.ops.causal_conv import cpu as conv_cpu
from temporal_zoo.ops.diagonal_ssm import Modes, diagonal_ssm
from temporal_zoo.ops.diagonal_ssm import cpu as ssm_cpu
from temporal_zoo.ops.selective_scan import Direction, selective_scan
from temporal_zoo.ops.selective_scan import cpu as scan_cpu

# From the least to the most capable; a CPU runs its own set and all before it.
INSTRUCTION_SETS = ("DEFAULT", "AVX2", "AVX512")
CAPABILITY = torch.backends.cpu.get_cpu_capability()
RUNNABLE = (
    INSTRUCTION_SETS[: INSTRUCTION_SETS.index(CAPABILITY) + 1] if CAPABILITY in INSTRUCTION_SETS else ("DEFAULT",)
)

pytestmark = pytest.mark.skipif(
    any(_native.reason(backend._SOURCE) is not None for backend in (scan_cpu, conv_cpu, ssm_cpu)),
    reason="no C++ compiler on this machine",
)


@pytest.fixture(params=RUNNABLE)
def instructions(request, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    _native._load.cache_clear()
    yield request.param
    _native._load.cache_clear()


def scan_case(rows, frames, channels, state, *, shift=0.0, seed=0):
    """Leaves in float64, in the order of `scan`."""
    torch.manual_seed(seed)
    leaves = [torch.randn(rows, frames, channels)]
    for _ in range(2):
        leaves += [torch.randn(rows, frames, channels), torch.randn(rows, frames, channels) + shift]
        leaves += [
            -torch.rand(channels, state) - 0.1,
            torch.randn(rows, frames, state),
            torch.randn(rows, frames, state),
        ]
        leaves += [torch.randn(channels), torch.randn(channels), torch.randn(rows, channels, state)]
    return [leaf.double() for leaf in leaves]


def scan(leaves, lengths, backend, dtype=torch.float32):
    """All results of a scan in two directions: output, final states, gradients."""
    leaves = [leaf.to(dtype).detach().requires_grad_() for leaf in leaves]
    gate, first, second = leaves[0], leaves[1:9], leaves[9:]
    directions = [Direction(*first[:7]), Direction(*second[:7], reverse=True)]
    y, final = selective_scan(
        directions, gate, lengths=lengths, initial=[first[7], second[7]], return_final=True, backend=backend
    )
    total = sum((out * torch.linspace(-1, 2, out.numel(), dtype=dtype).view_as(out)).sum() for out in (y, *final))
    return [y, *final, *torch.autograd.grad(total, leaves)]


def conv(leaves, lengths, backend, dtype=torch.float32):
    x, *parameters = (leaf.to(dtype).detach().requires_grad_() for leaf in leaves)
    filters = [Filter(*parameters[:2]), Filter(*parameters[2:], reverse=True)]
    ys = causal_conv(x, filters, silu=True, lengths=lengths, backend=backend)
    total = sum((out * torch.linspace(-1, 2, out.numel(), dtype=dtype).view_as(out)).sum() for out in ys)
    return [*ys, *torch.autograd.grad(total, [x, *parameters])]


def conv_case(rows, frames, channels):
    torch.manual_seed(0)
    leaves = [torch.randn(rows, frames, channels)]
    for width in (4, 3):
        leaves += [torch.randn(channels, width), torch.randn(channels)]
    return [leaf.double() for leaf in leaves]


def ssm(leaves, lengths, backend, dtype=torch.float32, states=True):
    """All results of two directions, with or without initial states."""
    kind = {torch.float32: torch.complex64, torch.float64: torch.complex128}[dtype]
    leaves = [leaf.to(kind if leaf.is_complex() else dtype).detach().requires_grad_() for leaf in leaves]
    u, skip, a, c, start, a_back, c_back, start_back = leaves
    directions = [Modes(a, c), Modes(a_back, c_back, reverse=True)]
    if states:
        initial = [start, start_back]
        y, final = diagonal_ssm(
            u, directions, skip, lengths=lengths, initial=initial, return_final=True, backend=backend
        )
    else:
        y, final = diagonal_ssm(u, directions, skip, lengths=lengths, backend=backend), ()
    # The gradient at padded frames is zero.
    total = sum((out.abs() ** 2 * torch.linspace(-1, 2, out.numel()).view_as(out)).sum() for out in (y, *final))
    return [y, *final, *torch.autograd.grad(total, leaves if states else [u, skip, a, c, a_back, c_back])]


def ssm_case(rows, frames, channels, modes):
    torch.manual_seed(0)
    leaves = [torch.randn(rows, frames, channels), torch.randn(channels)]
    for _ in range(2):
        a = torch.polar(torch.rand(channels, modes), 6 * torch.rand(channels, modes))
        leaves += [a, torch.randn(channels, modes) + 1j * torch.randn(channels, modes)]
        leaves += [torch.randn(rows, channels, modes, dtype=torch.complex64)]
    return [leaf.to(torch.complex128) if leaf.is_complex() else leaf.double() for leaf in leaves]


def assert_accurate(outcome, expected, num_outputs):
    for place, (got, want) in enumerate(zip(outcome, expected, strict=True)):
        worst = (got.to(want.dtype) - want).abs().max() / want.abs().max().clamp_min(1e-30)
        assert worst < (1e-6 if place < num_outputs else 1e-5), (place, float(worst))


# Channels around multiples of 4, 8 and 16 lanes; states around multiples of 4, 8 and 16.
@pytest.mark.parametrize(("channels", "state"), [(1, 1), (7, 3), (16, 16), (17, 20), (33, 28), (5, 63), (12, 64)])
def test_scan_of_every_instruction_set(instructions, unread_lengths, channels, state):
    leaves, lengths = scan_case(3, 11, channels, state), torch.tensor([11, 0, 7])
    expected = scan(leaves, lengths, "reference", torch.float64)
    assert_accurate(scan(leaves, lengths, "cpu"), expected, 3)


@pytest.mark.parametrize("channels", [1, 7, 16, 33])
def test_conv_of_every_instruction_set(instructions, unread_lengths, channels):
    leaves, lengths = conv_case(3, 11, channels), torch.tensor([11, 0, 7])
    expected = conv(leaves, lengths, "reference", torch.float64)
    assert_accurate(conv(leaves, lengths, "cpu"), expected, 2)


# Modes around those that stay in registers together; frames around whole tiles.
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize(
    ("frames", "channels", "modes"), [(1, 1, 1), (7, 7, 3), (8, 16, 8), (9, 17, 13), (33, 33, 7), (12, 130, 32)]
)
def test_ssm_of_every_instruction_set(instructions, unread_lengths, frames, channels, modes, states):
    leaves, lengths = ssm_case(3, frames, channels, modes), torch.tensor([frames, 0, frames // 2])
    expected = ssm(leaves, lengths, "reference", torch.float64, states)
    assert_accurate(ssm(leaves, lengths, "cpu", states=states), expected, 3 if states else 1)


@pytest.mark.parametrize("modes", [1, 2, 5])
@pytest.mark.parametrize("beyond", [0, 1])
def test_convolution_and_recurrence_meet(modes, beyond, monkeypatch):
    frames = ssm_cpu.FRAMES + ssm_cpu.FRAMES_PER_MODE * modes + beyond
    leaves, lengths = ssm_case(3, frames, 5, modes), torch.tensor([frames, frames - 1, 2])
    ran = []
    run = _native.run
    monkeypatch.setattr(
        _native, "run", lambda source, function, *args: ran.append(function) or run(source, function, *args)
    )
    outcome = ssm(leaves, lengths, "cpu", states=False)
    assert ("diagonal_ssm_recur_backward" if beyond else "diagonal_ssm_convolve_backward") in ran
    assert_accurate(outcome, ssm(leaves, lengths, "reference", torch.float64, states=False), 1)
    monkeypatch.setattr(ssm_cpu, "FRAMES_PER_MODE", 2 * frames if beyond else 0)
    assert_accurate(ssm(leaves, lengths, "cpu", states=False), [each.detach() for each in outcome], 1)


@pytest.mark.parametrize("frames", [63, 64, 65, 130])
def test_ssm_chunks(frames):
    leaves, lengths = ssm_case(3, frames, 17, 5), torch.tensor([frames, frames - 1, frames // 2])
    expected = ssm(leaves, lengths, "reference", torch.float64)
    assert_accurate(ssm(leaves, lengths, "cpu"), expected, 3)


@pytest.mark.parametrize("frames", [255, 256, 257, 512, 515])
@pytest.mark.parametrize("shift", [0.0, 4.0, -4.0])
def test_chunks(frames, shift):
    leaves, lengths = scan_case(3, frames, 17, 5, shift=shift), torch.tensor([frames, frames - 1, frames // 2])
    expected = scan(leaves, lengths, "reference", torch.float64)
    assert_accurate(scan(leaves, lengths, "cpu"), expected, 3)


def test_very_small_and_very_large_steps():
    leaves = scan_case(2, 6, 16, 4)
    leaves[2] = leaves[2] * 40  # softplus of +-100, decays down to exp(-100)
    leaves[3] = leaves[3] * 1000
    outcome = scan(leaves, None, "cpu")
    assert all(torch.isfinite(out).all() for out in outcome)
    assert_accurate(outcome, scan(leaves, None, "reference", torch.float64), 3)


@pytest.mark.parametrize(
    ("run", "case"),
    [
        (scan, lambda: scan_case(70, 9, 20, 6)),
        (conv, lambda: conv_case(70, 9, 20)),
        (ssm, lambda: ssm_case(70, 9, 20, 6)),
        (partial(ssm, states=False), lambda: ssm_case(70, 9, 20, 6)),
    ],
    ids=["scan", "conv", "ssm recurrence", "ssm convolution"],
)
def test_any_number_of_threads_gives_the_same(run, case, monkeypatch, unread_lengths):
    # 70 rows: groups of three, the last one incomplete.
    leaves = case()
    lengths = torch.arange(70) % 10
    outcomes = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        outcomes.append(run(leaves, lengths, "cpu"))
    assert_accurate(outcomes[0], run(leaves, lengths, "reference", torch.float64), 0)
    for other in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other, strict=True))


def test_eight_threads_calling_at_once_give_the_same():
    cases = [scan_case(5, 7, 16, 4, seed=seed) for seed in range(8)]
    expected = [scan(leaves, None, "cpu") for leaves in cases]
    outcomes = [None] * 8

    def work(place):
        for _ in range(5):
            outcomes[place] = scan(cases[place], None, "cpu")

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for want, got in zip(expected, outcomes, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


@pytest.mark.parametrize("op", [selective_scan, causal_conv], ids=lambda op: op.name)
def test_refuses_what_it_cannot_compute(op):
    leaves = scan_case(1, 2, 3, 65)
    if op is causal_conv:
        assert op.explain(leaves[0], [Filter(torch.randn(3, 2))])["cpu"] == ["computes in float32, x is float64"]
    else:
        assert op.explain([Direction(*leaves[1:8])])["cpu"] == ["computes in float32; u is float64"]
        leaves = [leaf.float() for leaf in leaves]
        assert op.explain([Direction(*leaves[1:8])])["cpu"] == ["takes at most 64 states; A has 65"]
    meta = torch.empty(1, 2, 3, device="meta")
    reasons = (op.explain(meta, []) if op is causal_conv else op.explain([Direction(meta, *leaves[2:8])]))["cpu"]
    assert len(reasons) == 1
    assert "runs on the CPU only" in reasons[0]


def test_memory_stored_for_backward():
    # Only the inputs up to 256 frames; beyond, also states between chunks.
    kept = {}
    for frames in (256, 800):
        leaves = scan_case(2, frames, 32, 16)
        kept[frames] = scan_cpu.keeps([Direction(*leaves[1:8]), Direction(*leaves[9:16], reverse=True)], leaves[0])
    assert kept[256] == []
    assert [tensor.shape for tensor in kept[800]] == [(2, 3, 32 * 16)] * 2
