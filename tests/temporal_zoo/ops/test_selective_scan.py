"""Every backend of `selective_scan` that runs here against the float64 reference, values and gradients."""

import math
from itertools import product

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from temporal_zoo.ops import BackendError
from temporal_zoo.ops.selective_scan import Direction, selective_scan
from temporal_zoo.ops.selective_scan import torch as blocked

BACKENDS = [backend for backend in selective_scan.backends if backend != "reference"]
SWEEPS = [(False,), (True,), (False, True), (True, False)]
# rows, frames, channels, state
SHAPES = [(3, 1, 5, 4), (5, 37, 1, 1), (2, 17, 33, 16), (7, 13, 33, 8), (2, 67, 3, 64), (1, 131, 2, 16), (0, 5, 3, 2)]
NAMES = ("u", "dt", "A", "B", "C", "skip", "dt_bias")


class Case:
    """Tensors for one call; they lean to one side, so that a gradient of few terms does not cancel to nothing."""

    def __init__(
        self, shape, sweeps, *, gate=True, plain=False, lengths=None, carried=True, shift=0.0, dtype=torch.float32
    ):
        rows, frames, channels, state = shape
        generator = torch.Generator().manual_seed(rows + 10 * frames + 100 * channels + len(sweeps))

        def draw(*size):
            return torch.randn(size, generator=generator, dtype=torch.float64) + 0.5

        self.lengths = None if lengths is None else torch.tensor(lengths)
        self.padding = None if lengths is None else (torch.arange(frames) >= self.lengths[:, None]).unsqueeze(-1)
        self.reverse, self.return_final = sweeps, carried
        self.leaves = {}
        for place in range(len(sweeps)):
            sizes = (
                [(rows, frames, channels)] * 2 + [(channels, state)] + [(rows, frames, state)] * 2 + [(channels,)] * 2
            )
            values = dict(zip(NAMES, (draw(*size) for size in sizes), strict=True))
            values["A"] = -values["A"].abs() - 0.05
            values["dt"] += shift - 1
            for name in ("skip", "dt_bias") if plain else ():
                del values[name]
            if carried:
                values["initial"] = draw(rows, channels, state)
            for name, value in values.items():
                if name in ("u", "dt", "B", "C"):
                    value = self._spoil(value)
                keep = torch.float32 if name in ("A", "skip", "dt_bias", "initial") else dtype
                self.leaves[f"{name}{place}"] = value.to(keep)
        if gate:
            self.leaves["gate"] = self._spoil(draw(rows, frames, channels)).to(dtype)
        self.slope = self._spoil(draw(rows, frames, channels))
        self.final_slopes = [draw(rows, channels, state) for _ in sweeps]

    def _spoil(self, x):
        return x if self.padding is None else x.masked_fill(self.padding, math.nan)

    def call(self, leaves, backend=None, **options):
        directions = [
            Direction(**{name: leaves.get(f"{name}{place}") for name in NAMES}, reverse=reverse)
            for place, reverse in enumerate(self.reverse)
        ]
        initial = [leaves.get(f"initial{place}") for place in range(len(directions))]
        options = {"lengths": self.lengths, "initial": initial, "return_final": self.return_final, **options}
        return selective_scan(directions, leaves.get("gate"), **options, **({"backend": backend} if backend else {}))

    def evaluate(self, backend, dtype=None, run=None):
        """Name -> output or gradient, in float64."""
        leaves = {name: x.detach().to(dtype or x.dtype).requires_grad_() for name, x in self.leaves.items()}
        results = (run or self.call)(leaves, backend)
        y, finals = results if self.return_final else (results, ())
        outputs = {"y": y, **{f"final{place}": final for place, final in enumerate(finals)}}
        slopes = [self.slope, *self.final_slopes[: len(finals)]]
        slopes = [slope.to(x.dtype) for slope, x in zip(slopes, outputs.values(), strict=True)]
        grads = torch.autograd.grad(list(outputs.values()), list(leaves.values()), slopes)
        for leaf, grad in zip(leaves.values(), grads, strict=True):
            assert grad.dtype == leaf.dtype
        named = {f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}
        return {name: x.detach().double() for name, x in (outputs | named).items()}


def compare(backend, case, out=1e-6, gradient=1e-5):
    skip_unless_runs(backend, case)
    got, wanted = case.evaluate(backend), case.evaluate("reference", torch.float64)
    for name, theirs in wanted.items():
        if theirs.any():
            error = (got[name] - theirs).abs().max() / theirs.abs().max()
            assert error <= (gradient if name.startswith("d") else out), f"{name} is off by {error:.1e}"
    if case.padding is not None:
        padded = [name for name in got if name == "y" or name == "dgate" or name[:-1] in ("du", "ddt", "dB", "dC")]
        assert not any(got[name].masked_select(case.padding).any() for name in padded)


def skip_unless_runs(backend, case):
    with torch.no_grad():
        try:
            case.call(case.leaves, backend)
        except BackendError as error:
            pytest.skip(str(error))


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def test_reference_is_the_equation():
    case = Case((2, 4, 3, 2), (False, True), dtype=torch.float64, lengths=[4, 3])
    x = {name: value.double() for name, value in case.leaves.items()}
    y, finals = case.call(x, "reference")
    for row, channel in product(range(2), range(3)):
        total = [0.0] * 4
        for place, reverse in enumerate(case.reverse):
            u, dt, A, B, C, skip, dt_bias = (x[f"{name}{place}"] for name in NAMES)
            h = x[f"initial{place}"][row, channel].tolist()
            real = range(int(case.lengths[row]))
            for t in reversed(real) if reverse else real:
                delta = math.log1p(math.exp(dt[row, t, channel] + dt_bias[channel]))
                for n in range(2):
                    fed = delta * B[row, t, n] * u[row, t, channel]
                    h[n] = float(math.exp(delta * A[channel, n]) * h[n] + fed)
                    total[t] += float(C[row, t, n] * h[n])
                total[t] += float(skip[channel] * u[row, t, channel])
            torch.testing.assert_close(finals[place][row, channel].tolist(), h)
        for t in range(int(case.lengths[row])):
            z = x["gate"][row, t, channel].item()
            torch.testing.assert_close(y[row, t, channel].item(), total[t] * z / (1 + math.exp(-z)))


@pytest.mark.parametrize("sweeps", SWEEPS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_reference(backend, shape, sweeps):
    compare(backend, Case(shape, sweeps))


@pytest.mark.parametrize("sweeps", SWEEPS, ids=str)
def test_agrees_without_optional_inputs(backend, sweeps):
    compare(backend, Case((3, 19, 6, 5), sweeps, gate=False, plain=True, carried=False))


@pytest.mark.parametrize("sweeps", [(False, True), (True, False)], ids=str)
@pytest.mark.parametrize("carried", [False, True])
def test_padding_is_invisible(backend, sweeps, carried, unread_lengths):
    compare(backend, Case((5, 37, 6, 3), sweeps, carried=carried, lengths=[37, 1, 16, 17, 20]))
    compare(backend, Case((3, 5, 2, 3), sweeps, carried=carried, gate=False, lengths=[5, 0, 2]))


@pytest.mark.parametrize("frames", [16, 150])
def test_long_steps(backend, frames):
    compare(backend, Case((3, frames, 9, 16), (False, True), shift=4))


def test_small_blocks_and_chunks(monkeypatch):
    monkeypatch.setattr(blocked, "_CACHED", 1)
    monkeypatch.setattr(blocked, "_chunk_size", lambda directions: 4)
    compare("torch", Case((3, 11, 5, 3), (True, False), lengths=[11, 4, 9]))


def test_directions_of_different_states(backend):
    case = Case((3, 18, 5, 4), (False, True))
    other = Case((3, 18, 5, 20), (False, True))
    case.leaves |= {name: x for name, x in other.leaves.items() if name.endswith("1")}
    case.final_slopes[1] = other.final_slopes[1]
    compare(backend, case)


def test_strides_do_not_matter(backend):
    case = Case((4, 19, 6, 3), (False, True))
    for name, x in case.leaves.items():
        spread = torch.full((*x.mT.shape, 2) if x.ndim > 1 else (*x.shape, 2), math.nan)[..., 1]
        spread = spread.mT if x.ndim > 1 else spread
        case.leaves[name] = spread.copy_(x)
        assert not case.leaves[name].is_contiguous()
    leaves = {name: x.requires_grad_() for name, x in case.leaves.items()}
    skip_unless_runs(backend, case)
    y, _ = case.call(leaves, backend)
    assert y.is_contiguous()
    grads = torch.autograd.grad(y, [leaves["u0"], leaves["gate"]], case.slope.float().mT.contiguous().mT)
    wanted = case.evaluate("reference", torch.float64, run=lambda x, b: (case.call(x, b)[0], ()))
    for ours, name in zip((y, *grads), ("y", "du0", "dgate"), strict=True):
        assert (ours - wanted[name]).abs().max() < 1e-5 * wanted[name].abs().max()


def test_shared_and_expanded_inputs(backend):
    """Both directions may read one tensor, whose gradient is then the sum of two."""
    case = Case((3, 7, 4, 2), (False, True), carried=False)
    skip_unless_runs(backend, case)

    def run(leaves, backend):
        return case.call(leaves | {"u1": leaves["u0"], "B0": leaves["B1"][:, :1].expand(3, 7, 2)}, backend)

    used = {name: x for name, x in case.leaves.items() if name not in ("u1", "B0")}
    case.leaves = used
    got, wanted = case.evaluate(backend, run=run), case.evaluate("reference", torch.float64, run=run)
    for name in wanted:
        assert (got[name] - wanted[name]).abs().max() < 1e-5 * wanted[name].abs().max(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_and_out(backend, dtype):
    case = Case((3, 40, 9, 8), (False, True), dtype=dtype, lengths=[40, 7, 33])
    skip_unless_runs(backend, case)
    y, finals = case.call(case.leaves, backend)
    assert y.dtype == dtype
    assert all(final.dtype == torch.float32 for final in finals)
    compare(backend, case, out=2e-2, gradient=2e-2)


@pytest.mark.parametrize("tested", ["reference", "torch"])
def test_gradcheck(tested, monkeypatch):
    monkeypatch.setattr(blocked, "_chunk_size", lambda directions: 2)
    monkeypatch.setattr(blocked, "_CACHED", 4)
    case = Case((2, 3, 2, 2), (False, True), dtype=torch.float64)
    leaves = {name: x.double().requires_grad_() for name, x in case.leaves.items()}

    def function(*values):
        y, finals = case.call(dict(zip(leaves, values, strict=True)), tested, lengths=torch.tensor([3, 2]))
        return y, *finals

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))


def test_some_outputs_unused(backend):
    """A loss on one final state only, and only one input that requires a gradient."""
    case = Case((2, 18, 3, 4), (False, True))
    skip_unless_runs(backend, case)

    def gradient(backend, dtype):
        leaves = {name: x.to(dtype) for name, x in case.leaves.items()}
        _, finals = case.call(leaves | {"B1": leaves["B1"].requires_grad_()}, backend)
        return torch.autograd.grad(finals[1].sum(), leaves["B1"])[0]

    wanted = gradient("reference", torch.float64)
    assert (gradient(backend, torch.float32) - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_an_initial_state_for_one_direction_only(backend):
    case = Case((2, 6, 3, 4), (False, True))
    skip_unless_runs(backend, case)
    del case.leaves["initial0"]
    compare(backend, case)


def test_chunk_by_chunk_equals_the_whole(backend):
    """The final state of one call is the initial state of the next, in either direction."""
    for reverse in (False, True):
        case = Case((3, 40, 5, 4), (reverse,), carried=False)
        skip_unless_runs(backend, case)
        whole = case.call(case.leaves, backend)
        state, parts = None, {}
        for start in (33, 5, 0) if reverse else (0, 5, 33):
            stop = {0: 5, 5: 33, 33: 40}[start]
            part = {name: x[:, start:stop] if x.ndim == 3 else x for name, x in case.leaves.items()}
            parts[start], (state,) = case.call(part, backend, initial=[state], return_final=True)
        torch.testing.assert_close(torch.cat([parts[start] for start in sorted(parts)], 1), whole)


def test_autocast_does_not_change_the_state(backend):
    case = Case((3, 20, 5, 4), (False, True))
    skip_unless_runs(backend, case)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = case.evaluate(backend)
    for name, plain in case.evaluate(backend).items():
        assert torch.equal(cast[name], plain), name


@pytest.mark.parametrize("padded", [False, True])
def test_compiles_without_graph_breaks(backend, padded):
    case = Case((3, 20, 5, 4), (False, True), lengths=[20, 3, 17] if padded else None)
    skip_unless_runs(backend, case)
    torch._dynamo.reset()
    compiled = torch.compile(lambda leaves: case.call(leaves, backend), fullgraph=True, backend="aot_eager")
    got, wanted = case.evaluate(backend, run=lambda leaves, _: compiled(leaves)), case.evaluate(backend)
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, msg=name, rtol=1e-6, atol=1e-6)


def test_meta_device_plans_without_computing():
    rows, frames, channels, state = 10**5, 256, 128, 16
    sizes = {"u": channels, "dt": channels, "B": state, "C": state}
    tensors = {name: torch.empty(rows, frames, size, device="meta", requires_grad=True) for name, size in sizes.items()}
    direction = Direction(**tensors, A=torch.empty(channels, state, device="meta"))
    y, (final,) = selective_scan([direction], return_final=True)
    assert y.shape == (rows, frames, channels)
    assert final.shape == (rows, channels, state)
    y.backward(torch.empty_like(y))
    assert tensors["B"].grad.shape == (rows, frames, state)


def test_checkpointing_gives_the_same_gradients(backend):
    case = Case((3, 20, 5, 4), (False, True))
    skip_unless_runs(backend, case)
    got = case.evaluate(
        backend,
        run=lambda leaves, _: checkpoint(
            lambda *values: case.call(dict(zip(leaves, values, strict=True)), backend),
            *leaves.values(),
            use_reentrant=False,
        ),
    )
    for name, value in case.evaluate(backend).items():
        assert torch.equal(got[name], value), name


def test_second_derivatives_are_refused(backend):
    case = Case((2, 5, 3, 2), (False,), carried=False)
    skip_unless_runs(backend, case)
    u = case.leaves["u0"].requires_grad_()
    (grad,) = torch.autograd.grad(case.call(case.leaves, backend).square().sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match=r"differentiated twice.*selective_scan='reference'"):
        grad.sum().backward()
    (grad,) = torch.autograd.grad(case.call(case.leaves, "reference").square().sum(), u, create_graph=True)
    grad.sum().backward()


@pytest.mark.parametrize("state", [1, 16, 64])
def test_little_is_stored_for_backward(backend, state):
    rows, frames, channels = 4, 130, 24
    case = Case((rows, frames, channels, state), (False, True), carried=False)
    skip_unless_runs(backend, case)
    leaves = {name: x.requires_grad_() for name, x in case.leaves.items()}
    given = {x.untyped_storage().data_ptr() for x in leaves.values()}
    kept = {}

    def note(x):
        if x.untyped_storage().data_ptr() not in given:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        y = case.call(leaves, backend)
    # The sum before the gate, and per direction states that are not larger than an input.
    assert sum(kept.values()) <= 3.5 * y.nbytes
    with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(pytest.fail, pytest.fail):
        case.call(leaves, backend)


def test_very_many_rows(backend):
    case = Case((131_072, 2, 1, 1), (False, True), carried=False)
    skip_unless_runs(backend, case)
    compare(backend, case, gradient=3e-5)


def test_the_operator_passes_opcheck(backend):
    case = Case((2, 5, 3, 2), (False, True))
    skip_unless_runs(backend, case)
    leaves = {name: x.requires_grad_() for name, x in case.leaves.items()}
    tensors = [leaves[f"{name}{place}"] for place in range(2) for name in NAMES]
    initial = [leaves[f"initial{place}"] for place in range(2)]
    arguments = (backend, tensors, [False, True], leaves["gate"], None, initial, True, True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.temporal_zoo.selective_scan, arguments, test_utils=tests)
