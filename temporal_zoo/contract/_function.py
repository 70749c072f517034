"""What a mixer computes: shapes, padding, what each frame may and must see."""

from __future__ import annotations

import torch

from temporal_zoo.contract._probe import FELT, SAME, Make, awake, ragged, require, same, share


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


def check_rows(make: Make) -> None:
    """Rows know nothing of each other, in training mode too."""
    mixer = awake(make).train()
    x = torch.randn(3, 7, mixer.dim)
    changed = x.clone()
    changed[1] = torch.randn(7, mixer.dim)
    torch.manual_seed(1)
    before = mixer(x)[[0, 2]]
    torch.manual_seed(1)
    after = mixer(changed)[[0, 2]]
    same(after, before, "a row changes with its neighbour: pixels and clips of one batch would leak into each other")


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


def check_determinism(make: Make) -> None:
    """In evaluation the same input gives the same output, to the bit, and the same with gradients off."""
    mixer = awake(make)
    x = torch.randn(3, 7, mixer.dim)
    once, twice = mixer(x), mixer(x)
    require(torch.equal(once, twice), "evaluation is not deterministic: no sample could be reproduced from its seed")
    with torch.no_grad():
        same(mixer(x), once, "it computes something else without gradients: it would sample from another model")
