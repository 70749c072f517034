"""Compares the backends of `diagonal_ssm` with the float64 reference, and tests how they work with torch's tools."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from temporal_zoo.ops import BackendError, tracing
from temporal_zoo.ops.diagonal_ssm import Modes, _kernel, chunked, diagonal_ssm, toeplitz

BACKENDS = [backend for backend in diagonal_ssm.backends if backend != "reference"]
# rows, frames, channels and the modes of the directions, of which every second runs against time
SHAPES = ((1, 1, 1, (1,)), (3, 7, 5, (4, 3)), (5, 2, 3, (8, 8)), (2, 13, 33, (2, 1, 5)), (2, 67, 4, (8, 8)))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Small chunks and blocks, so that small shapes have several of them and the last one is partial."""
    monkeypatch.setattr(chunked, "CHUNK", 6)
    monkeypatch.setattr(toeplitz, "BLOCK", 60)
    monkeypatch.setattr(toeplitz, "FEWEST_ROWS", 2)


def inputs(shape, *, padded=False, initial=False, skip=True, dtype=torch.float64):
    """u, directions, skip, lengths and initial; with `padded` NaN at padded frames."""
    rows, frames, channels, modes = shape
    pairs = dtype if dtype.itemsize > 2 else torch.float32
    u = torch.randn(rows, frames, channels, dtype=dtype)
    lengths = None
    if padded:
        lengths = torch.randint(1, frames + 1, (rows,))
        u[torch.arange(frames) >= lengths[:, None]] = float("nan")
    directions = []
    for i, count in enumerate(modes):
        angle = 6 * torch.rand(channels, count, dtype=pairs)
        a = torch.polar(torch.rand(channels, count, dtype=pairs), angle)
        directions.append(Modes(a, torch.randn_like(a), i % 2 == 1))
    states = [torch.randn(rows, channels, count, dtype=pairs.to_complex()) for count in modes] if initial else None
    return u, directions, torch.randn(channels, dtype=pairs) if skip else None, lengths, states


def evaluate(backend, u, directions, skip, lengths, states, *, dtype=torch.float64, with_final=None):
    """Output, final states and all gradients, in double; incoming gradients are NaN at padded frames."""
    with_final = states is not None if with_final is None else with_final
    pairs = dtype if dtype.itemsize > 2 else torch.float32

    def leaf(tensor, kind):
        return None if tensor is None else tensor.detach().to(kind).requires_grad_()

    u, skip = leaf(u, dtype), leaf(skip, pairs)
    directions = [Modes(leaf(m.a, pairs.to_complex()), leaf(m.c, pairs.to_complex()), m.reverse) for m in directions]
    states = None if states is None else [leaf(state, pairs.to_complex()) for state in states]
    call = {"lengths": lengths, "initial": states, "return_final": with_final}
    if reasons := diagonal_ssm.reasons(backend, u, directions, skip, **call):
        pytest.skip("; ".join(reasons))
    found = diagonal_ssm(u, directions, skip, backend=backend, **call)
    results = [found[0], *found[1]] if with_final else [found]
    slopes = [torch.linspace(-1, 2, y.numel()).reshape(y.shape).to(y.dtype) for y in results]
    slopes = [slope * (1 - 0.5j) if slope.is_complex() else slope for slope in slopes]
    if lengths is not None:
        slopes[0][torch.arange(u.shape[1]) >= lengths[:, None]] = float("nan")
    leaves = [u, *(t for m in directions for t in (m.a, m.c)), *(states or []), *([] if skip is None else [skip])]
    # Without frames the reference uses none of its parameters.
    results += torch.autograd.grad(results, leaves, slopes, materialize_grads=True)
    return [x.detach().to(torch.complex128 if x.is_complex() else torch.float64) for x in results]


def check(backend, tolerance, *args, dtype=torch.float32, **options):
    got = evaluate(backend, *args, dtype=dtype, **options)
    wanted = evaluate("reference", *args, **options)
    for number, (ours, theirs) in enumerate(zip(got, wanted, strict=True)):
        assert ours.shape == theirs.shape
        if ours.numel():
            error = (ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-3)
            assert error < tolerance, f"result {number} is off by {error:.1e}"


@pytest.mark.parametrize("shape", SHAPES)
def test_reference_is_the_convolution(shape):
    u, directions, skip, lengths, _ = inputs(shape, padded=True)
    y = diagonal_ssm(u, directions, skip, lengths=lengths, backend="reference")
    expected = torch.zeros_like(u)
    for row, real in enumerate(lengths.tolist()):
        expected[row, :real] = skip * u[row, :real]
        for modes in directions:
            kernel = [2 * (modes.c * modes.a**lag).real.sum(-1) for lag in range(real)]
            for t in range(real):
                sources = range(t, real) if modes.reverse else range(t + 1)
                expected[row, t] += sum(kernel[abs(t - s)] * u[row, s] for s in sources)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)


def test_padded_frames_do_not_change_the_state():
    u, directions, skip, lengths, states = inputs((4, 7, 3, (4, 2)), padded=True, initial=True)
    y, finals = diagonal_ssm(u, directions, skip, lengths=lengths, initial=states, return_final=True)
    for row, real in enumerate(lengths.tolist()):
        alone = slice(row, row + 1)
        starts = [state[alone] for state in states]
        trimmed, ends = diagonal_ssm(u[alone, :real], directions, skip, initial=starts, return_final=True)
        torch.testing.assert_close(y[alone, :real], trimmed)
        torch.testing.assert_close([final[alone] for final in finals], list(ends))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_equals_recurrence_in_double_precision(backend, shape):
    check(backend, 1e-10, *inputs(shape, padded=True), dtype=torch.float64)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_agrees_with_the_reference(backend, shape, padded):
    check(backend, 1e-5, *inputs(shape, padded=padded))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_takes_and_returns_states(backend, shape):
    check(backend, 1e-5, *inputs(shape, initial=True))
    check(backend, 1e-5, *inputs(shape), with_final=True)
    check(backend, 1e-5, *inputs(shape, initial=True), with_final=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_agrees_with_the_reference_in_half_precision(backend):
    check(backend, 2e-2, *inputs((3, 11, 8, (4, 4)), padded=True, dtype=torch.bfloat16), dtype=torch.bfloat16)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_takes_views_and_other_strides(backend):
    u, directions, _, _, _ = inputs((3, 6, 10, (4, 3)))
    directions = [Modes(m.a[::2].mT.contiguous().mT, m.c[1::2].conj(), m.reverse) for m in directions]
    views = (u[..., :5], u[..., ::2], u[::2, 1:, 3:8], u.transpose(0, 1)[..., 5:], u[:1, :, :5].expand(4, 6, 5))
    for view in views:
        check(backend, 1e-5, view, directions, None, None, None)


@pytest.mark.parametrize("backend", BACKENDS)
def test_very_many_rows(backend):
    check(backend, 3e-5, *inputs((131_072, 2, 1, (2, 1)), padded=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_works_with_zero_rows(backend):
    check(backend, 1e-5, *inputs((0, 4, 3, (4, 4))))


def test_modes_with_decay_zero_and_with_decay_one():
    u, (modes, other), skip, _, _ = inputs((2, 20, 3, (4, 4)))
    a = torch.cat([torch.zeros_like(modes.a[:, :2]), modes.a[:, 2:] / modes.a[:, 2:].abs()], dim=1)
    for backend in BACKENDS:
        check(backend, 1e-5, u, [Modes(a, modes.c), other], skip, None, None)


def test_powers_stay_exact_over_thousands_of_frames():
    a = torch.tensor([[0.9999 * torch.exp(torch.tensor(2j)), 0, -1]], dtype=torch.complex64)
    repeated = a.to(torch.complex128).unsqueeze(-1).repeat(1, 1, 7200)
    repeated[..., 0] = 1
    torch.testing.assert_close(_kernel.powers(a, 7200), repeated.cumprod(-1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
@pytest.mark.parametrize("initial", [False, True])
def test_gradcheck(backend, initial):
    u, directions, skip, lengths, states = inputs((2, 8, 2, (2, 1)), padded=not initial, initial=initial)
    leaves = [u.nan_to_num(), skip, *(t for m in directions for t in (m.a, m.c)), *(states or [])]
    call = {"lengths": lengths, "return_final": initial}
    if diagonal_ssm.reasons(backend, u, directions, initial=states, **call):
        pytest.skip("takes no states")

    def function(u, skip, a, c, a2, c2, *states):
        pair = [Modes(a, c), Modes(a2, c2, True)]
        found = diagonal_ssm(u, pair, skip, initial=states or None, backend=backend, **call)
        return (found[0], *found[1]) if initial else found

    assert torch.autograd.gradcheck(function, [leaf.requires_grad_() for leaf in leaves])


@pytest.mark.parametrize("backend", ["chunked", "reference"])
@pytest.mark.parametrize("reverse", [False, True])
def test_chunks_equal_the_whole(backend, reverse):
    u, (modes,), skip, _, (start,) = inputs((3, 17, 4, (3,)), initial=True)
    modes = Modes(modes.a, modes.c, reverse)
    whole, (end,) = diagonal_ssm(u, [modes], skip, initial=[start], return_final=True, backend=backend)
    for size in (1, 5, 16):
        chunks, parts, state = u.split(size, dim=1), [], start
        for chunk in reversed(chunks) if reverse else chunks:
            y, (state,) = diagonal_ssm(chunk, [modes], skip, initial=[state], return_final=True, backend=backend)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts[::-1] if reverse else parts, dim=1), whole, rtol=0, atol=1e-10)
        torch.testing.assert_close(state, end, rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_time_reversed_input_gives_time_reversed_output(backend):
    u, (one, other), skip, _, _ = inputs((3, 9, 4, (4, 3)), dtype=torch.float32)
    swapped = [Modes(other.a, other.c), Modes(one.a, one.c, True)]
    mirrored = diagonal_ssm(u.flip(1), swapped, skip, backend=backend).flip(1)
    torch.testing.assert_close(mirrored, diagonal_ssm(u, [one, other], skip, backend=backend), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_without_graph_breaks_and_under_checkpointing(backend):
    u, directions, skip, lengths, _ = inputs((3, 7, 8, (4, 3)), padded=True, dtype=torch.float32)
    leaves = [t.requires_grad_() for t in (u, skip, *(t for m in directions for t in (m.a, m.c)))]

    def function(u, skip, a, c, a2, c2):
        return diagonal_ssm(u, [Modes(a, c), Modes(a2, c2, True)], skip, lengths=lengths, backend=backend)

    wanted = function(*leaves)
    grads = torch.autograd.grad(wanted.square().sum(), leaves)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    for got in (compiled(*leaves), checkpoint(function, *leaves, use_reentrant=False)):
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(torch.autograd.grad(got.square().sum(), leaves), grads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_operator_passes_opcheck(backend):
    u, directions, skip, lengths, _ = inputs((2, 5, 3, (3, 2)), padded=True)
    a, c = [m.a.requires_grad_() for m in directions], [m.c.requires_grad_() for m in directions]
    torch.library.opcheck(
        torch.ops.temporal_zoo.diagonal_ssm.default,
        (u.nan_to_num().requires_grad_(), a, c, [skip], [], lengths, [False, True], False, backend),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize("backend", ["toeplitz", "chunked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_contiguous_as_in_the_fake_implementation(backend, dtype):
    u, directions, skip, _, _ = inputs((2, 5, 3, (2, 4)), dtype=dtype)
    a, c = [modes.a for modes in directions], [modes.c for modes in directions]
    backward = torch.ops.temporal_zoo.diagonal_ssm_backward
    found = backward([torch.randn_like(u)], u, a, c, [skip], [], None, [False, True], False, backend)
    assert all(gradient.is_contiguous() for gradient in found)


def test_second_derivative_is_refused_by_name():
    u, directions, _, _, _ = inputs((2, 5, 3, (2,)))
    (grad,) = torch.autograd.grad(
        diagonal_ssm(u.requires_grad_(), directions, backend="toeplitz").square().sum(), u, create_graph=True
    )
    with pytest.raises(RuntimeError, match=r"diagonal_ssm was differentiated twice.*diagonal_ssm='reference'"):
        grad.sum().backward()


def test_shapes_on_the_meta_device():
    u = torch.randn(131_072, 16, 64, device="meta", requires_grad=True)
    modes = Modes(*(torch.randn(64, 8, dtype=torch.cfloat, device="meta", requires_grad=True) for _ in range(2)))
    y, (state,) = diagonal_ssm(u, [modes], return_final=True, backend="chunked")
    y.sum().backward()
    assert (y.shape, state.shape, u.grad.shape, y.device.type) == (u.shape, (131_072, 64, 8), u.shape, "meta")
    assert state.dtype == modes.a.grad.dtype == torch.complex64


@pytest.mark.parametrize("backend", BACKENDS)
def test_stores_only_its_inputs(backend):
    u, directions, skip, _, _ = inputs((64, 16, 8, (4, 4)), dtype=torch.float32)
    leaves = [t.requires_grad_() for t in (u, skip, *(t for m in directions for t in (m.a, m.c)))]
    seen = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.update({t.data_ptr(): t.nbytes}) or t, lambda t: t):
        diagonal_ssm(u, directions, skip, backend=backend)
    assert sum(seen.values()) == sum(leaf.nbytes for leaf in leaves)


@pytest.mark.parametrize("backend", BACKENDS)
def test_keeps_its_precision_under_autocast(backend):
    u, directions, skip, _, _ = inputs((2, 15, 8, (4, 4)), dtype=torch.float32)
    wanted = diagonal_ssm(u, directions, skip, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(diagonal_ssm(u, directions, skip, backend=backend), wanted)
        assert diagonal_ssm(u.bfloat16(), directions, skip, backend=backend).dtype == torch.bfloat16


def test_auto_in_float64_takes_toeplitz_for_short_rows_and_chunked_for_long_rows_or_states():
    u, directions, skip, lengths, states = inputs((2, 5, 3, (2, 2)), padded=True, initial=True)
    u = u.nan_to_num()
    assert diagonal_ssm.choose(u, directions, skip, lengths=lengths) == "toeplitz"
    assert diagonal_ssm.choose(u.repeat(1, 40, 1), directions) == "chunked"
    assert diagonal_ssm.choose(u, directions, initial=states) == "chunked"
    assert diagonal_ssm.choose(u, directions, lengths=lengths, return_final=True) == "reference"
    with pytest.raises(BackendError, match="final states of rows with lengths"):
        diagonal_ssm(u, directions, lengths=lengths, return_final=True, backend="chunked")
    with tracing() as ran:
        diagonal_ssm(u, directions)
    assert ran == {"diagonal_ssm": {"toeplitz"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": torch.zeros(2, 3)}, "u is"),
        ({"directions": []}, "no directions"),
        ({"directions": [Modes(torch.zeros(4, 2) + 0j, torch.zeros(4, 3) + 0j)]}, "a and c"),
        ({"directions": [Modes(torch.zeros(4, 2), torch.zeros(4, 2))]}, "complex"),
        ({"skip": torch.zeros(3)}, "skip is"),
        ({"lengths": torch.ones(3, dtype=torch.int64)}, "lengths is"),
        ({"initial": []}, "initial has 0 entries"),
        ({"initial": [torch.zeros(2, 4, 4) + 0j]}, "entry of initial"),
    ],
)
def test_refuses_shapes_that_do_not_fit(change, message):
    call = {"u": torch.zeros(2, 3, 4), "directions": [Modes(torch.zeros(4, 2) + 0j, torch.zeros(4, 2) + 0j)]} | change
    with pytest.raises(ValueError, match=message):
        diagonal_ssm(**call)
