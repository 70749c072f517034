"""The check of `lengths` in every op, and the clamps of the backends where values cannot be read."""

import pytest
import torch

from temporal_zoo import build, names
from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops import BackendError, ops, tracing
from temporal_zoo.ops._lengths import check_lengths
from temporal_zoo.ops.attention import attention
from temporal_zoo.ops.causal_conv import Filter, causal_conv
from temporal_zoo.ops.diagonal_ssm import Modes, diagonal_ssm
from temporal_zoo.ops.selective_block import Affine, Branch, selective_block
from temporal_zoo.ops.selective_scan import Direction, selective_scan

ROWS, FRAMES, WIDTH = 3, 5, 4


def call_attention(x, lengths, **options):
    return attention(*(x.unflatten(-1, (2, 2)) for _ in range(3)), lengths=lengths, **options).flatten(2)


def call_conv(x, lengths, **options):
    weight = torch.linspace(-1, 1, 3 * WIDTH).view(WIDTH, 3)
    ys = causal_conv(x, [Filter(weight), Filter(weight, reverse=True)], silu=True, lengths=lengths, **options)
    return ys[0] + ys[1]


def call_ssm(x, lengths, **options):
    a = torch.polar(torch.full((WIDTH, 2), 0.9), torch.linspace(0, 1, 2 * WIDTH).view(WIDTH, 2))
    return diagonal_ssm(x, [Modes(a, a), Modes(a, a, reverse=True)], lengths=lengths, **options)


def call_scan(x, lengths, **options):
    state = x[..., :3]
    both = [Direction(x, x, -torch.ones(WIDTH, 3), state, state, reverse=reverse) for reverse in (False, True)]
    return selective_scan(both, lengths=lengths, **options)


def call_block(x, lengths):
    eye = torch.eye(WIDTH)
    shared = (torch.ones(WIDTH, 2), torch.zeros(WIDTH), torch.ones(7, WIDTH), torch.ones(WIDTH, 1))
    rest = (torch.zeros(WIDTH), -torch.ones(WIDTH, 3), torch.ones(WIDTH))
    branches = [Branch(*shared, *rest), Branch(*shared, *rest, reverse=True)]
    return selective_block(x, Affine(torch.cat([eye, eye])), branches, Affine(eye), lengths=lengths)


WITH_BACKENDS = {
    "attention": call_attention,
    "causal_conv": call_conv,
    "diagonal_ssm": call_ssm,
    "selective_scan": call_scan,
}
CALLS = WITH_BACKENDS | {"selective_block": call_block}
CALLS |= {f"mixer {name}": lambda x, lengths, name=name: build(name, WIDTH)(x, lengths) for name in names()}

every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
WRONG = {
    "one for all rows": (torch.tensor([3]), r"lengths is \(1,\)"),
    "one too many": (torch.tensor([3, 3, 3, 3]), r"lengths is \(4,\)"),
    "another rank": (torch.tensor([[3], [3], [3]]), r"lengths is \(3, 1\)"),
    "floats": (torch.tensor([3.0, 3.0, 3.0]), "float32"),
    "int32": (torch.tensor([3, 3, 3], dtype=torch.int32), "int32"),
    "a mask": (torch.tensor([True, True, False]), "bool"),
    "another device": (torch.tensor([3, 3, 3], device="meta"), "on meta"),
    "a list": ([3, 3, 3], "of type list"),
    "zero": (torch.tensor([3, 0, 3]), "from 0 to 3"),
    "negative": (torch.tensor([3, -1, 3]), "from -1 to 3"),
    "above frames": (torch.tensor([3, 6, 3]), r"each must be in 1\.\.5"),
    "far above frames": (torch.tensor([3, 2**62, 3]), r"each must be in 1\.\.5"),
}


@every_call
@pytest.mark.parametrize(("lengths", "message"), WRONG.values(), ids=WRONG)
def test_wrong_lengths_are_refused(call, lengths, message):
    with pytest.raises(InvalidInput, match=message):
        call(torch.randn(ROWS, FRAMES, WIDTH), lengths)


@every_call
def test_zero_frames_are_refused(call):
    for lengths in (None, torch.zeros(ROWS, dtype=torch.int64)):
        with pytest.raises(InvalidInput, match="at least one frame"):
            call(torch.randn(ROWS, 0, WIDTH), lengths)


@every_call
def test_zero_rows_work(call):
    for lengths in (None, torch.zeros(0, dtype=torch.int64)):
        x = torch.randn(0, FRAMES, WIDTH, requires_grad=True)
        y = call(x, lengths)
        assert y.shape == x.shape
        y.sum().backward()
        assert x.grad.shape == x.shape


@pytest.mark.parametrize("op", WITH_BACKENDS)
def test_values_that_cannot_be_read_are_clamped(op, unread_lengths):
    """A length above the number of frames means all frames, one below zero means none: in values and gradients."""
    x = torch.randn(4, FRAMES, WIDTH)
    wild, tame = torch.tensor([2**62, -(2**62), 3, FRAMES + 1]), torch.tensor([FRAMES, 0, 3, FRAMES])
    ran = set()
    for backend in ops()[op].backends:
        try:
            got, wanted = (value_and_gradient(op, x, lengths, backend) for lengths in (wild, tame))
        except BackendError:
            continue
        ran.add(backend)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert len(ran) > 1


def value_and_gradient(op, x, lengths, backend):
    x = x.clone().requires_grad_()
    y = WITH_BACKENDS[op](x, lengths, backend=backend)
    y.square().sum().backward()
    return y.detach(), x.grad


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_values_are_not_read_during_a_trace():
    """Shape and dtype are still checked, and valid values are accepted."""
    x, right, wrong = torch.randn(ROWS, FRAMES, WIDTH), torch.tensor([1, 5, 3]), torch.tensor([1, 3])

    def checked(x, lengths):
        check_lengths(x, lengths)
        return x * 2

    def attempts(lengths):
        yield lambda: torch.compile(checked, fullgraph=True, backend="eager")(x, lengths)
        yield lambda: torch.func.grad(lambda x: checked(x, lengths).sum())(x)
        yield lambda: torch.func.functionalize(checked)(x, lengths)
        yield lambda: torch.jit.trace(checked, (x, lengths))
        yield lambda: torch.vmap(checked, in_dims=(0, None))(x[None], lengths)
        yield lambda: torch.vmap(checked)(x[None], lengths[None])
        yield lambda: checked(x.to("meta"), lengths.to("meta"))

    for attempt in attempts(right):
        attempt()
    for attempt in attempts(wrong):
        # The compiler raises its own error around ours; some versions drop the message.
        with pytest.raises(Exception, match=r"expected \(3,\) int64|raised exception .*InvalidInput"):
            attempt()


def test_the_check_reads_values_of_cpu_tensors_only(monkeypatch):
    monkeypatch.setattr(torch, "aminmax", lambda lengths: pytest.fail("read the values"))
    x = torch.empty(ROWS, FRAMES, WIDTH, device="meta")
    check_lengths(x, torch.empty(ROWS, dtype=torch.int64, device="meta"))


def test_a_mixer_refuses_before_an_op_runs():
    with tracing() as ran, pytest.raises(InvalidInput):
        build("bimamba", WIDTH)(torch.randn(ROWS, FRAMES, WIDTH), torch.tensor([9, 9, 9]))
    assert not ran
