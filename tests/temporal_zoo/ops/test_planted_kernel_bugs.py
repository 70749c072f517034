"""Classic mistakes, planted into the fast backends one at a time: comparing with the reference must catch each of them.

The comparison is what anybody would do who writes a backend: values, then gradients, of rows that are all real; then of
rows that are padded, with NaN at padded frames.  A bug says in which of the four it shows, exactly.
"""

import functools
import inspect
import shutil
import textwrap
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import torch

from temporal_zoo.ops import _native, ops
from temporal_zoo.ops.causal_conv import Filter
from temporal_zoo.ops.causal_conv import cpu as conv_cpu
from temporal_zoo.ops.diagonal_ssm import Modes
from temporal_zoo.ops.diagonal_ssm import cpu as ssm_cpu
from temporal_zoo.ops.selective_scan import Direction
from temporal_zoo.ops.selective_scan import cpu as scan_cpu

ROWS, FRAMES, CHANNELS, STATE = 3, 300, 18, 6  # chunks, lanes and units of states that do not come out even
VALUES, GRADIENTS, PADDED_VALUES, PADDED_GRADIENTS = CHECKS = (
    "values",
    "gradients",
    "values with padding",
    "gradients with padding",
)
BACKENDS = {"selective_scan": scan_cpu, "causal_conv": conv_cpu, "diagonal_ssm": ssm_cpu}


@dataclass(frozen=True)
class Bug:
    """`old` becomes `new` in a C++ file of an op or in a function of its `torch` backend."""

    what: str
    where: str  # op/file, or op/module:function
    old: str
    new: str
    caught_by: frozenset[str]

    @property
    def op(self):
        return self.where.partition("/")[0]

    @property
    def native(self):
        return ":" not in self.where


def bug(what, where, old, new, *caught_by):
    return pytest.param(Bug(what, where, old, new, frozenset(caught_by)), id=what)


SCAN = "selective_scan/_cpu.cpp"
RECURRENCE = "selective_scan/_recurrence.h"
CONV = "causal_conv/_cpu.cpp"
SWEEP = "selective_scan/_sweep"
everywhere = CHECKS
in_gradients = (GRADIENTS, PADDED_GRADIENTS)
in_padding = (PADDED_VALUES, PADDED_GRADIENTS)

BUGS = [
    bug("decay off by one", RECURRENCE, "h[n] = a * h[n] + in * B[n];", "h[n] = a * (h[n] + in * B[n]);", *everywhere),
    bug("the other direction's A", SCAN, "Sweep sweep(*problem, problem->directions[i]);\n        for",
        "Direction wrong = problem->directions[i]; wrong.A = problem->directions[0].A;"
        " Sweep sweep(*problem, wrong);\n        for", *everywhere),
    bug("gate applied by both directions", SCAN, "if (last && problem.gate)", "if (problem.gate)", *everywhere),
    bug("last chunk skipped", SCAN, "start < real; start += chunk",
        "start + chunk < real; start += chunk", *everywhere),
    bug("initial state dropped", SCAN, "sweep.spread(sweep.initial(row), sweep.states.get());\n    for",
        "sweep.spread(nullptr, sweep.states.get());\n    for", *everywhere),
    bug("backward starts at the last frame, real or not", RECURRENCE, "at.reverse ? real - 1 - step : step;",
        "at.reverse ? frames - 1 - step : step;", *in_padding),
    bug("padded outputs left as they were", SCAN,
        "clear_padding(*problem, row, problem->y, problem->channels);", ";", PADDED_VALUES),
    bug("stale scratch: dB of the chunk before", SCAN,
        "std::fill(&tape.grad_B[0], &tape.grad_B[steps * sweep.padded], 0.0f);", "", *in_gradients),
    bug("stale scratch: gradient of A", SCAN,
        "std::fill(&tape.grad_rates[0], &tape.grad_rates[count * tape.block_size], 0.0f);", "", *in_gradients),
    bug("dB and dC trade places", SCAN, "totals(by_B, sums_B);\n            totals(by_C, sums_C);",
        "totals(by_C, sums_B);\n            totals(by_B, sums_C);", *in_gradients),
    bug("the adjoint forgets its decay", SCAN, "g[n] *= load(decay + n * kLanes);", "", *in_gradients),
    bug("dt: slope of softplus left out", SCAN,
        "grad_delta * sigmoid(load(sweep.at.dt + spot, lanes) + bias)", "grad_delta", *in_gradients),
    bug("gradient of the gate: of the last direction alone", SCAN,
        "if (!first) grad_z +=", "if (false) grad_z +=", *in_gradients),
    bug("backward begins its chunks at zero", SCAN,
        "if (start) std::copy_n(sweep.checkpoint(row, start / chunk), states, sweep.states.get());\n        else ",
        "", *in_gradients),
    bug("gradient of the padding left as it was", SCAN,
        "for (float* values : {to.grad_u, to.grad_dt}) clear_padding(*problem, row, values, sweep.channels);",
        "", PADDED_GRADIENTS),
    bug("taps in the wrong order", CONV, "filter.weight[c * filter.width + j];",
        "filter.weight[c * filter.width + filter.width - 1 - j];", *everywhere),
    bug("a filter's gradient counts the first input twice", CONV, "load(inputs + (k + j) * kLanes);",
        "load(inputs + (k + std::max<int64_t>(j, 1)) * kLanes);", *in_gradients),
    bug("second filter overwrites the input's gradient", CONV,
        "first ? g : g + load(to, view.lanes)", "g", *in_gradients),
    bug("reads behind the last real frame", CONV, "std::clamp<int64_t>(problem.lengths[row], 0, problem.frames)",
        "problem.frames", *in_padding),
    bug("dB summed over the wrong axis", f"{SWEEP}:Gradients.add",
        "torch.mul(grads, chunk.step.unsqueeze(2), out=scratch.after).sum(3))",
        "torch.mul(grads, chunk.step.unsqueeze(2), out=scratch.after).flatten(2).cumsum(2)[..., : grads.shape[2]])",
        *in_gradients),
    bug("skip forgotten in the gradient of u", f"{SWEEP}:Gradients.add",
        ".addcmul_(grad_y, self.sweep.skip)", "", *in_gradients),
    bug("state between chunks forgotten", f"{SWEEP}:Sweep.states", "scratch.entering.copy_(start)",
        "scratch.entering.zero_()", *everywhere),
    bug("padding multiplied by zero instead of filled", f"{SWEEP}:read",
        "x.masked_fill(padding[frames], 0)", "x * ~padding[frames]", *in_padding),
    bug("padded steps decay the state", f"{SWEEP}:Sweep.read",
        "delta.masked_fill_(padding[frames], 0)", "pass", *in_padding),
]  # fmt: skip


@pytest.mark.skipif(
    any(_native.reason(backend._SOURCE) is not None for backend in BACKENDS.values()),
    reason="no C++ compiler on this machine",
)
@pytest.mark.parametrize(
    ("op", "backend"),
    [(op, backend) for op in BACKENDS for backend in ("cpu", "torch") if backend in ops()[op].backends],
)
def test_shipped_backends_pass(op, backend):
    assert failing(op, backend) == set()


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug, tmp_path, monkeypatch, memory_of_nan):
    (plant_native if bug.native else plant)(bug, tmp_path, monkeypatch)
    assert failing(bug.op, "cpu" if bug.native else "torch") == bug.caught_by


@pytest.fixture
def memory_of_nan():
    """New memory holds NaN, so that entries which are not written are found."""
    torch.use_deterministic_algorithms(True)  # which fills it
    yield
    torch.use_deterministic_algorithms(False)


def test_some_bugs_are_found_by_some_checks_only():
    caught_by = [parameter.values[0].caught_by for parameter in BUGS]
    assert len(caught_by) >= 20
    assert sum(checks <= set(in_gradients) for checks in caught_by) >= 5
    assert sum(checks <= set(in_padding) for checks in caught_by) >= 2


def plant_native(bug, tmp_path, monkeypatch):
    backend = BACKENDS[bug.op]
    if reason := _native.reason(backend._SOURCE):
        pytest.skip(reason)
    folder = Path(shutil.copytree(backend._SOURCE.parent, tmp_path / bug.op))
    for header in backend._SOURCE.parents[1].glob("*.h"):
        shutil.copy(header, tmp_path)
    patched = tmp_path / bug.where
    source = patched.read_text()
    assert source.count(bug.old) == 1, f"{bug.where} has changed: plant this bug anew"
    patched.write_text(source.replace(bug.old, bug.new))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    # This compiles in a third of the time.
    monkeypatch.setattr(_native, "_OPTIONS", tuple("-O0" if o == "-O3" else o for o in _native._OPTIONS))
    monkeypatch.setattr(backend, "_SOURCE", folder / backend._SOURCE.name)


def plant(bug, tmp_path, monkeypatch):
    name, _, path = bug.where.replace("/", ".").partition(":")
    function = import_module(f"temporal_zoo.ops.{name}")
    for part in path.split("."):
        function = getattr(function, part)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(bug.old) == 1, f"{bug.where} has changed: plant this bug anew"
    scope = {}
    exec(source.replace(bug.old, bug.new), function.__globals__, scope)
    monkeypatch.setattr(function, "__code__", scope[function.__name__].__code__)


def failing(op, backend):
    """The checks that the backend fails."""
    failed = set()
    for padded in (False, True):
        values, gradients = compare(op, backend, padded)
        failed |= set() if values < 1e-4 else {CHECKS[2 * padded]}
        failed |= set() if gradients < 1e-4 else {CHECKS[2 * padded + 1]}
    return failed


def compare(op, backend, padded):
    """The largest relative errors of values and of gradients."""
    num_outputs, found = outcome(op, backend, padded, torch.float32)
    errors = [error(a, b) for a, b in zip(found, expected(op, padded), strict=True)]
    return max(errors[:num_outputs]), max(errors[num_outputs:])


@functools.cache
def expected(op, padded):
    """Outputs and gradients of the reference, which are the same for every bug."""
    return outcome(op, "reference", padded, torch.float64)[1]


def error(found, wanted):
    difference = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6))
    return difference if difference == difference else float("inf")


def outcome(op, backend, padded, dtype):
    """The number of outputs, and all outputs and gradients."""
    torch.manual_seed(0)
    lengths = torch.tensor([FRAMES, 1, 271]) if padded else None
    call, leaves = CALLS[op](lengths, dtype)
    outputs = call(backend=backend, lengths=lengths)
    weights = [torch.linspace(-1, 2, y.numel(), dtype=torch.float64).view(y.shape) for y in outputs]
    total = sum((y.abs() ** 2 * w).sum() + (y.real * w).sum() for y, w in zip(outputs, weights, strict=True))
    gradients = torch.autograd.grad(total, leaves)
    exact = [t.detach().to(torch.complex128 if t.is_complex() else torch.float64) for t in (*outputs, *gradients)]
    return len(outputs), exact


def leaf(values, lengths, dtype, dangerous=False):
    """In the dtype, NaN at padded frames."""
    values = values.to({torch.float32: torch.complex64}.get(dtype, torch.complex128) if values.is_complex() else dtype)
    if dangerous and lengths is not None:
        values[torch.arange(FRAMES) >= lengths[:, None]] = float("nan")
    return values.requires_grad_()


def scan(lengths, dtype):
    frames = functools.partial(leaf, lengths=lengths, dtype=dtype, dangerous=True)
    whole = functools.partial(leaf, lengths=lengths, dtype=dtype)
    directions, initial = [], []
    for reverse in (False, True):
        # Slow enough that the first state of a chunk has an effect.
        u, dt = (frames(torch.randn(ROWS, FRAMES, CHANNELS) - shift) for shift in (0, 3))
        A = whole(-torch.rand(CHANNELS, STATE) - 0.05)
        B, C = (frames(torch.randn(ROWS, FRAMES, STATE)) for _ in "BC")
        skip, bias = (whole(torch.randn(CHANNELS)) for _ in "Db")
        directions.append(Direction(u, dt, A, B, C, skip, bias, reverse))
        initial.append(whole(torch.randn(ROWS, CHANNELS, STATE)))
    gate = frames(torch.randn(ROWS, FRAMES, CHANNELS))
    leaves = [
        gate,
        *initial,
        *(getattr(d, n) for d in directions for n in ("u", "dt", "A", "B", "C", "skip", "dt_bias")),
    ]

    def call(**keywords):
        y, finals = ops()["selective_scan"](directions, gate, initial=initial, return_final=True, **keywords)
        return [y, *finals]

    return call, leaves


def conv(lengths, dtype):
    x = leaf(torch.randn(ROWS, FRAMES, CHANNELS), lengths, dtype, dangerous=True)
    weights = [leaf(torch.randn(CHANNELS, width), None, dtype) for width in (4, 3)]
    biases = [leaf(torch.randn(CHANNELS), None, dtype) for _ in weights]
    filters = [Filter(weights[0], biases[0]), Filter(weights[1], biases[1], reverse=True)]
    return lambda **keywords: ops()["causal_conv"](x, filters, silu=True, **keywords), [x, *weights, *biases]


def ssm(lengths, dtype):
    u = leaf(torch.randn(ROWS, FRAMES, CHANNELS), lengths, dtype, dangerous=True)
    skip = leaf(torch.randn(CHANNELS), None, dtype)
    modes = [
        leaf(value, None, dtype)
        for _ in range(2)
        for value in (
            torch.polar(torch.rand(CHANNELS, STATE), 6 * torch.rand(CHANNELS, STATE)),
            torch.randn(CHANNELS, STATE, dtype=torch.complex64),
        )
    ]
    directions = [Modes(*modes[:2]), Modes(*modes[2:], reverse=True)]
    return lambda **keywords: [ops()["diagonal_ssm"](u, directions, skip, **keywords)], [u, skip, *modes]


CALLS = {"selective_scan": scan, "causal_conv": conv, "diagonal_ssm": ssm}
