"""Bytes stored for backward are counted exactly."""

import contextlib

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bench.analysis.fit import quadratic
from bench.sweep.case import expand
from bench.sweep.workloads import build
from temporal_zoo._support.stored_bytes import stored_bytes
from temporal_zoo.ops import use_backend


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return (x * self.weight).exp()


@pytest.fixture
def x():
    return torch.randn(3, 5, 8).requires_grad_()


def stored(function, module=None):
    return stored_bytes(function, module or nn.Module())


def test_stored_bytes_of_a_small_module(x):
    module = Scaled()
    # The product stores x, and exp stores its result; the weight is a parameter.
    assert stored(lambda: module(x), module) == 2 * 3 * 5 * 8 * 4
    assert stored(lambda: module(x)) == (2 * 3 * 5 * 8 + 8) * 4


def test_a_storage_counts_once_with_its_full_size(x):
    assert stored(lambda: x.sin() + x.cos()) == 3 * 5 * 8 * 4
    assert stored(lambda: x[:, :2].sin()) == 3 * 5 * 8 * 4
    assert stored(lambda: x[:1] + x[1:2]) == 0


def test_tensors_that_are_freed_before_backward_do_not_count(x):
    def forward():
        x.exp().sum()  # this graph is freed at once
        return x.detach().requires_grad_() + 1

    assert stored(forward) == 0
    inner = nn.Sequential(*(nn.Tanh() for _ in range(4)))
    assert stored(lambda: inner(x)) == 4 * x.nbytes
    assert stored(lambda: checkpoint(inner, x, use_reentrant=False)) == x.nbytes


def test_bytes_stored_by_a_custom_operator_count():
    case = expand(layers="bimamba", lengths="16", level="mixer", mode="train", rows=2, dim=16)[0]
    work = build(case)
    # Every backend stores at least the input, 16 wide, and the sum of the scans, 32 wide.
    assert stored_bytes(work.forward, work.module) >= 2 * 16 * (16 + 32) * 4


def growth(mixer):
    cases = expand(layers=mixer, lengths="16,64,256", level="mixer", mode="train", rows=2)
    works = [build(case) for case in cases]
    return quadratic([16, 64, 256], [stored_bytes(work.forward, work.module) for work in works])


def test_only_attention_with_weights_stores_a_quadratic_number_of_bytes():
    rows, heads, size = 2, 8, 4
    assert growth("attn").quadratic == pytest.approx(rows * heads * size, rel=1e-6)
    assert growth("flash").quadratic == 0
    for scan in ("torch", "auto"):
        with use_backend(selective_scan="torch") if scan == "torch" else contextlib.nullcontext():
            assert growth("bimamba").quadratic == 0
