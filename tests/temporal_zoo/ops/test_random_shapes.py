"""The C++ backends on random shapes, strides, options and lengths, against the reference; for `nox -s sanitize`.

There the backends are built with sanitizers, which end the process at the first access out of bounds and the first
undefined operation.  `SHAPES` examples are drawn from fixed seeds, the same on every machine.
"""

import random
import subprocess
import sys

import pytest
import torch

from temporal_zoo.ops import _native
from temporal_zoo.ops.causal_conv import Filter, causal_conv
from temporal_zoo.ops.causal_conv import cpu as conv_cpu
from temporal_zoo.ops.diagonal_ssm import Modes, diagonal_ssm
from temporal_zoo.ops.diagonal_ssm import cpu as ssm_cpu
from temporal_zoo.ops.selective_scan import Direction, selective_scan
from temporal_zoo.ops.selective_scan import cpu as scan_cpu

pytestmark = pytest.mark.sanitize

SHAPES = 10_000
BACKENDS = (scan_cpu, conv_cpu, ssm_cpu)
# From the least to the most capable; a CPU runs its own set and all before it.
INSTRUCTION_SETS = ("DEFAULT", "AVX2", "AVX512")
CAPABILITY = torch.backends.cpu.get_cpu_capability()
RUNNABLE = (
    INSTRUCTION_SETS[: INSTRUCTION_SETS.index(CAPABILITY) + 1] if CAPABILITY in INSTRUCTION_SETS else ("DEFAULT",)
)
# Rounding of float32 through a few hundred frames, relative to the largest entry.
TOLERANCE = 1e-3


class Example:
    """A random call of an op; the same numbers in float32 and, for the reference, in float64."""

    def __init__(self, seed):
        self.choice = random.Random(seed)
        self.source = torch.Generator().manual_seed(seed)
        self.leaves = []
        self.rows = self.choice.choice((0, 1, 2, 3, 5))
        # Sometimes beyond the frames of a chunk, and beyond those up to which `diagonal_ssm` convolves.
        self.frames = self.choice.randint(1, 20) if self.choice.random() < 0.97 else self.choice.randint(240, 300)
        self.channels = self.choice.choice((*range(1, 20), 31, 32, 33, 48, 65))
        self.padded = self.choice.random() < 0.6

    def draw(self, *shape, low=-1.0, high=1.0):
        """A leaf, sometimes with strides that are not those of a new tensor."""
        values = torch.empty(shape, dtype=torch.float64).uniform_(low, high, generator=self.source).float().double()
        if len(shape) == 3 and self.choice.random() < 0.3:
            values = values.transpose(0, 1).contiguous().transpose(0, 1)
        self.leaves.append(values)
        return len(self.leaves) - 1

    def maybe(self, *shape, **bounds):
        return self.draw(*shape, **bounds) if self.choice.random() < 0.6 else None

    def lengths(self):
        """Mostly within the frames; some values are out of range and are clamped."""
        if not self.padded:
            return None
        draw = lambda: self.choice.choice((self.choice.randint(0, self.frames),) * 4 + (self.frames + 3, -2, 2**62))
        return torch.tensor([draw() for _ in range(self.rows)], dtype=torch.int64)


def scan(example):
    rows, frames, channels = example.rows, example.frames, example.channels
    carried, gate = example.choice.random() < 0.5, example.maybe(rows, frames, channels)
    directions = []
    for reverse in example.choice.choice(((False,), (True,), (False, True), (True, False))):
        state = example.choice.choice((*range(1, 18), 33, 64))
        wide, narrow = (rows, frames, channels), (rows, frames, state)
        tensors = [example.draw(*wide), example.draw(*wide), example.draw(channels, state, low=-4, high=-0.1)]
        tensors += [example.draw(*narrow), example.draw(*narrow), example.maybe(channels), example.maybe(channels)]
        directions.append((tensors, reverse, example.draw(rows, channels, state) if carried else None))

    def call(leaves, lengths, backend):
        at = lambda place: None if place is None else leaves[place]
        sweeps = [Direction(*map(at, tensors), reverse=reverse) for tensors, reverse, _ in directions]
        initial = [at(start) for _, _, start in directions] if carried else None
        result = selective_scan(
            sweeps, at(gate), lengths=lengths, initial=initial, return_final=carried, backend=backend
        )
        return [result[0], *result[1]] if carried else [result]

    return call


def conv(example):
    rows, channels, silu = example.rows, example.channels, example.choice.random() < 0.5
    carried, x = example.choice.random() < 0.5, example.draw(rows, example.frames, channels)
    filters = []
    for _ in range(example.choice.randint(1, 3)):
        width, reverse = example.choice.randint(1, 6), example.choice.random() < 0.5
        start = example.draw(rows, width - 1, channels) if carried else None
        filters.append((example.draw(channels, width), example.maybe(channels), reverse, start))

    def call(leaves, lengths, backend):
        at = lambda place: None if place is None else leaves[place]
        initial = [at(start) for *_, start in filters] if carried else None
        taps = [Filter(at(weight), at(bias), reverse) for weight, bias, reverse, _ in filters]
        ys = causal_conv(at(x), taps, silu=silu, lengths=lengths, initial=initial, backend=backend)
        return list(ys)

    return call


def ssm(example):
    rows, channels = example.rows, example.channels
    carried = example.choice.random() < 0.4
    u, skip = example.draw(rows, example.frames, channels), example.maybe(channels)
    directions = []
    for reverse in example.choice.choice(((False,), (True,), (False, True), (True, False))):
        modes = example.choice.choice((*range(1, 10), 16, 33))
        a = example.draw(channels, modes, 2, low=-0.65, high=0.65)
        start = example.draw(rows, channels, modes, 2) if carried else None
        directions.append((a, example.draw(channels, modes, 2), reverse, start))

    def call(leaves, lengths, backend):
        at = lambda place: None if place is None else torch.view_as_complex(leaves[place].contiguous())
        sweeps = [Modes(at(a), at(c), reverse) for a, c, reverse, _ in directions]
        initial = [at(start) for *_, start in directions] if carried else None
        result = diagonal_ssm(
            leaves[u], sweeps, None if skip is None else leaves[skip],
            lengths=lengths, initial=initial, return_final=carried, backend=backend,
        )  # fmt: skip
        return [result[0], *map(torch.view_as_real, result[1])] if carried else [result]

    return call


def outcome(call, example, lengths, backend, dtype):
    """Outputs and gradients."""
    leaves = [leaf.to(dtype).requires_grad_() for leaf in example.leaves]
    outputs = call(leaves, lengths, backend)
    weights = [torch.linspace(-1, 2, y.numel(), dtype=dtype).view(y.shape) for y in outputs]
    total = torch.stack([(y * weight).sum() for y, weight in zip(outputs, weights, strict=True)]).sum()
    gradients = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    return [t.detach().double() for t in (*outputs, *gradients)]


@pytest.mark.parametrize("instructions", RUNNABLE)
@pytest.mark.parametrize("op", [scan, conv, ssm], ids=lambda op: op.__name__)
def test_random_shapes(op, instructions, monkeypatch, unread_lengths):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    _native._load.cache_clear()
    for backend in BACKENDS:
        assert _native.reason(backend._SOURCE) is None
    for seed in range(-(-SHAPES // (3 * len(RUNNABLE)))):
        example = Example(seed)
        call, lengths = op(example), example.lengths()
        found = outcome(call, example, lengths, "cpu", torch.float32)
        truth = outcome(call, example, lengths, "reference", torch.float64)
        for place, (got, want) in enumerate(zip(found, truth, strict=True)):
            assert got.shape == want.shape, (seed, place)
            if want.numel():
                error = float((got - want).abs().max() / want.abs().max().clamp_min(1e-3))
                assert error < TOLERANCE, (seed, place, error)
    _native._load.cache_clear()


OVERFLOW = """
#include <cstdint>
extern "C" float beyond(const float* values, int64_t at) { return values[at]; }
extern "C" int64_t add(int64_t a, int64_t b) { return a + b; }
"""
CALL = """
import ctypes, pathlib, sys, torch
from temporal_zoo.ops import _native
library, values = _native.library(pathlib.Path(sys.argv[1])), torch.zeros(8)
if sys.argv[2] == "beyond":
    library.beyond(ctypes.c_void_p(values.data_ptr()), ctypes.c_int64(8 + 1))
if sys.argv[2] == "add":
    library.add(ctypes.c_int64(2**63 - 1), ctypes.c_int64(1))
print("went on")
"""


@pytest.mark.parametrize(
    ("mistake", "report"), [("beyond", "AddressSanitizer"), ("add", "signed integer overflow"), ("none", None)]
)
def test_the_sanitizers_report(tmp_path, mistake, report):
    """Without this test, a build without sanitizers would pass."""
    source = tmp_path / "an_op" / "_cpu.cpp"
    source.parent.mkdir()
    source.write_text(OVERFLOW)
    ran = subprocess.run([sys.executable, "-c", CALL, source, mistake], capture_output=True, text=True)
    assert (ran.returncode == 0) == (report is None) == ("went on" in ran.stdout), ran.stderr
    assert report is None or report in ran.stderr
