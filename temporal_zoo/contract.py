"""The contract of a mixer, as plain functions that anybody can run over their own mixer:

    for check in CHECKS.values():
        check(lambda: MyMixer(16, MyMixer.Config()))

A check takes `make`, a function without arguments that returns a new mixer (on the meta device when it is called within
`torch.device("meta")`), and raises `ContractError` with a message that says what the failure would mean for an
experiment.  Checks draw from a random state of their own and leave the caller's as it was.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator

import torch
from torch.utils.checkpoint import checkpoint

from temporal_zoo._probe import (
    FELT,
    SAME,
    ContractError,
    Make,
    awake,
    distance,
    gradients,
    ragged,
    require,
    same,
    share,
    swept,
)
from temporal_zoo.config import ConfigError, hints
from temporal_zoo.interface import StatefulMixer

__all__ = ["CHECKS", "ContractError", "outcomes"]

Check = Callable[[Make], None]

CHECKS: dict[str, Check] = {}


def outcomes(make: Make) -> Iterator[tuple[str, str | None]]:
    """Runs all checks and yields (name of the check, None or why it failed), also when the mixer itself raises."""
    for name, check in CHECKS.items():
        try:
            check(make)
        except ContractError as failure:
            yield name, str(failure)
        except Exception as error:  # whatever a stranger's mixer raises is a result here
            yield name, f"{type(error).__name__}: {error}"
        else:
            yield name, None


def _enter(check: Check) -> Check:
    """Enters `check_x` as "x", with a random state of its own."""

    @functools.wraps(check)
    def seeded(make: Make) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            check(make)

    CHECKS[check.__name__.removeprefix("check_")] = seeded
    return seeded


@_enter
def check_shapes(make: Make) -> None:
    """Shape, dtype and input are kept, whatever the number of frames: one, primes, powers of two; in any strides."""
    mixer = awake(make)
    for frames in (1, 2, 7, 16, 33):
        x = torch.randn(frames, 3, mixer.dim).transpose(0, 1).requires_grad_()
        before = x.detach().clone()
        y = mixer(x)
        require(
            y.shape == x.shape, f"{frames} frames of {tuple(x.shape)} became {tuple(y.shape)}: no residual can add it"
        )
        require(y.dtype == x.dtype, f"{x.dtype} became {y.dtype}: the network around it would change its precision")
        (slope,) = torch.autograd.grad(y.square().sum(), x)
        finite = bool(y.isfinite().all() and slope.isfinite().all())
        require(
            finite, f"output or gradient is not finite with {frames} frames: training would end at the first such clip"
        )
        require(torch.equal(x, before), "the input was changed in place: the residual around the mixer would be wrong")
        same(mixer(before.contiguous()), y, f"the strides of an input of {frames} frames change what comes out")
    double = mixer.double()(torch.randn(2, 5, mixer.dim, dtype=torch.float64))
    require(
        double.dtype == torch.float64, f"float64 became {double.dtype}: nothing could be verified in double precision"
    )


@_enter
def check_padding_values(make: Make) -> None:
    """What stands behind the last real frame, even NaN, changes nothing; padded outputs are zero."""
    mixer = awake(make)
    x, lengths = ragged(mixer)
    with torch.no_grad():
        y = mixer(x, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = mixer(x[row : row + 1, :length])
            same(
                y[row : row + 1, :length],
                alone,
                f"a clip of {length} frames padded to {x.shape[1]} differs from the clip alone: "
                "results would depend on what else is in the batch",
            )
            require(not y[row, length:].any(), "padded outputs are not zero: the network behind would read them")


@_enter
def check_padding_gradients(make: Make) -> None:
    """Gradients do not see the padding either: equal to those of the trimmed clips, and zero for padded inputs."""
    mixer = awake(make)
    x, lengths = ragged(mixer)
    weights = torch.randn_like(x)
    slope, *slopes = gradients(mixer, x, weights, lengths)
    expected = [torch.zeros_like(s) for s in slopes]
    for row, length in enumerate(lengths.tolist()):
        part = slice(row, row + 1), slice(length)
        alone, *others = gradients(mixer, x[part], weights[part], None)
        same(slope[part], alone, f"padding a clip of {length} frames changes the gradient of its real frames")
        require(not slope[row, length:].any(), "padded inputs get a gradient: padding would train the layers below")
        expected = [e + o for e, o in zip(expected, others, strict=True)]
    for (name, _), got, wanted in zip(mixer.named_parameters(), slopes, expected, strict=True):
        same(
            got, wanted, f"padding reaches the gradient of {name}: short clips would train on what is behind their end"
        )


@_enter
def check_rows(make: Make) -> None:
    """Rows know nothing of each other, in training mode too."""
    mixer = awake(make).train()
    x = torch.randn(3, 7, mixer.dim)
    changed = x.clone()
    changed[1] = torch.randn(7, mixer.dim)
    outputs = []
    for rows in (x, changed):
        torch.manual_seed(1)
        outputs.append(mixer(rows)[[0, 2]])
    same(*outputs, "a row changes with its neighbour: pixels and clips of one batch would leak into each other")


@_enter
def check_causality(make: Make) -> None:
    """The future is seen if and only if `causal` says no, and the past is seen at all."""
    mixer = awake(make)
    x = torch.randn(3, 7, mixer.dim)
    for now in (1, 4, 6):
        future, past = x.clone(), x.clone()
        future[:, now:] = torch.randn(3, 7 - now, mixer.dim)
        past[:, :now] = torch.randn(3, now, mixer.dim)
        with torch.no_grad():
            leak = share(mixer(future)[:, :now], mixer(x)[:, :now])
            memory = share(mixer(past)[:, now:], mixer(x)[:, now:])
        if mixer.causal:
            require(
                leak <= SAME,
                f"declared causal, but frames before {now} change with later ones: drawn frame by frame, it would have "
                "been trained on the answer",
            )
        elif not mixer.order_blind:
            require(
                leak > FELT,
                f"declared not causal, but frames before {now} ignore later ones: a comparison would credit it with a "
                "view of the future that it does not have",
            )
        if not mixer.order_blind:
            require(
                memory > FELT, f"frames from {now} on ignore earlier ones: nothing would connect the frames of a clip"
            )


@_enter
def check_order(make: Make) -> None:
    """The order of frames matters if and only if `order_blind` says no."""
    mixer = awake(make)
    x = torch.randn(3, 7, mixer.dim)
    shuffle = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    with torch.no_grad():
        difference = share(mixer(x[:, shuffle]), mixer(x)[:, shuffle])
    if mixer.order_blind:
        require(difference <= SAME, "declared order-blind, but it notices the order of frames: it is no control")
    else:
        require(
            difference > FELT,
            "shuffled frames come out as the shuffled output: it cannot tell forwards from backwards, and declares "
            "no order_blind",
        )


@_enter
def check_gradients(make: Make) -> None:
    """Every parameter is used and gets a finite gradient."""
    mixer = awake(make)
    x = torch.randn(3, 7, mixer.dim, requires_grad=True)
    (mixer(x) * torch.randn_like(x)).sum().backward()
    for name, parameter in mixer.named_parameters():
        slope = parameter.grad
        require(slope is not None, f"{name} is never used: it would be counted, saved, and stall distributed training")
        require(bool(slope.isfinite().all()), f"the gradient of {name} is not finite: one step would ruin the network")
        require(bool(slope.any()), f"the gradient of {name} is zero: it would never learn")


@_enter
def check_chunks(make: Make) -> None:
    """Chunks of 1, 5 and 16 frames, with the state handed on, add up to the whole clip (for stateful mixers)."""
    mixer = awake(make)
    if not isinstance(mixer, StatefulMixer) or not mixer.passes:
        return
    x = torch.randn(2, 33, mixer.dim)
    with torch.no_grad():
        whole = mixer(x)
        for size in (1, 5, 16):
            total = sum(swept(mixer, x, size, reverse=reverse) for reverse in mixer.passes)
            require(total.dtype == whole.dtype, f"chunks come out in {total.dtype}, the whole in {whole.dtype}")
            same(
                total,
                whole,
                f"chunks of {size} frames do not add up to the whole: long clips made in pieces would have seams",
            )


@_enter
def check_autocast(make: Make) -> None:
    """Under bfloat16 autocast, output and gradients stay near those of float32, and dtypes are kept."""
    mixer = awake(make)
    x = torch.randn(3, 16, mixer.dim)
    weights = torch.randn_like(x)
    exact = gradients(mixer, x, weights, None)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
        rough = gradients(mixer, x, weights, None)
        low = mixer(x.bfloat16())
    require(
        y.dtype == x.dtype, f"under autocast {x.dtype} became {y.dtype}: the residual stream would lose its precision"
    )
    require(low.dtype == torch.bfloat16, f"under autocast bfloat16 became {low.dtype}: memory would double unnoticed")
    with torch.no_grad():
        values = distance(y, mixer(x))
    require(
        values < 0.05, f"bfloat16 autocast moves the output by {values:.0%}: mixed precision would be another model"
    )
    names = ["the input", *(name for name, _ in mixer.named_parameters())]
    for name, got, wanted in zip(names, rough, exact, strict=True):
        moved = distance(got, wanted)
        require(
            moved < 0.2, f"bfloat16 autocast moves the gradient of {name} by {moved:.0%}: it would train differently"
        )


@_enter
def check_checkpointing(make: Make) -> None:
    """Gradients are the same when activations are recomputed in the backward pass."""
    mixer = awake(make)
    x, lengths = ragged(mixer)
    weights = torch.randn_like(x)
    recomputing = functools.partial(checkpoint, mixer, use_reentrant=False)
    for real in (None, lengths):
        inputs = x if real is not None else x.nan_to_num()
        plain = gradients(mixer, inputs, weights, real)
        again = gradients(mixer, inputs, weights, real, run=recomputing)
        for got, wanted in zip(again, plain, strict=True):
            same(got, wanted, "activation checkpointing changes gradients: saving memory would change the result")


@_enter
def check_compile(make: Make) -> None:
    """`torch.compile` traces it as one graph, forward and backward, and the graph computes the same."""
    mixer = awake(make)
    x, lengths = ragged(mixer)
    weights = torch.randn_like(x)
    plain = gradients(mixer, x, weights, lengths)
    torch.compiler.reset()
    try:
        compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
        traced = gradients(mixer, x, weights, lengths, run=compiled)
    except Exception as error:  # the compiler has dozens of exceptions
        reason = str(error).strip().partition("\n")[0]
        raise ContractError(
            f"torch.compile cannot trace it in one graph ({type(error).__name__}: {reason}): compiled runs would fail "
            "or silently lose their speed"
        ) from error
    finally:
        torch.compiler.reset()
    for got, wanted in zip(traced, plain, strict=True):
        same(got, wanted, "the compiled mixer computes something else")


@_enter
def check_meta(make: Make) -> None:
    """It can be built and run on the meta device, so that sizes and memory can be planned without any."""
    with torch.device("meta"):
        mixer = make()
        x = torch.empty(3, 7, mixer.dim, requires_grad=True)
        lengths = torch.empty(3, dtype=torch.int64)
    for name, tensor in [*mixer.named_parameters(), *mixer.named_buffers()]:
        require(tensor.is_meta, f"{name} takes memory on the meta device: large networks could not be planned")
    for real in (None, lengths):
        y = mixer(x, real)
        require(y.is_meta and y.shape == x.shape, f"on the meta device {tuple(x.shape)} became {tuple(y.shape)}")
        y.sum().backward()


@_enter
def check_state(make: Make) -> None:
    """A state dict, a deep copy and the configuration as a dictionary each bring back the same mixer."""
    mixer = awake(make)
    x = torch.randn(2, 7, mixer.dim)
    loaded, copied = make().eval(), copy.deepcopy(mixer)
    loaded.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        same(loaded(x), mixer(x), "a state dict does not bring the mixer back: a checkpoint would not resume the run")
        same(copied(x), mixer(x), "a deep copy computes something else: an averaged network (EMA) would be wrong")
        before = mixer(x)
        for parameter in copied.parameters():
            parameter.add_(1)
        same(mixer(x), before, "a deep copy shares parameters: averaging weights would change the trained ones")
    config = mixer.config
    again = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
    require(
        again == config, f"{config} comes back from its dictionary as {again}: a checkpoint would rebuild another mixer"
    )
    unknown = set(mixer.no_decay) - {name for name, _ in mixer.named_parameters()}
    require(not unknown, f"no_decay names {', '.join(sorted(unknown))}, which are no parameters: they would be decayed")


@_enter
def check_determinism(make: Make) -> None:
    """In evaluation the same input gives the same output, to the bit, and the same with gradients off."""
    mixer = awake(make)
    x = torch.randn(3, 7, mixer.dim)
    once, twice = mixer(x), mixer(x)
    require(torch.equal(once, twice), "evaluation is not deterministic: no sample could be reproduced from its seed")
    with torch.no_grad():
        same(mixer(x), once, "it computes something else without gradients: it would sample from another model")


@_enter
def check_options(make: Make) -> None:
    """Options that do not exist and values of a wrong type are refused by name."""
    kind = type(make().config)
    wrong = {"no_such_option": lambda name: kind.from_dict({name: 1})}
    wrong |= dict.fromkeys(hints(kind), lambda name: kind(**{name: object()}))
    for name, attempt in wrong.items():
        try:
            attempt(name)
        except ConfigError as refusal:
            require(name in str(refusal), f"the refusal of {name} does not name it: {refusal}")
        else:
            raise ContractError(f"a wrong {name} is accepted: a mistyped experiment would run as another one")
