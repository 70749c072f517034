"""Checks of what a mixer computes: shapes, padding, and the frames that each output frame depends on."""

from __future__ import annotations

import torch

from temporal_zoo.contract._common import (
    MIN_EFFECT,
    TOLERANCE,
    Make,
    ragged,
    relative_error,
    require,
    require_same,
    with_nonzero_weights,
)


def check_shapes(make: Make) -> None:
    """For any number of frames and any strides, the output has the shape and dtype of the input, which is unchanged."""
    mixer = with_nonzero_weights(make)
    for frames in (1, 2, 7, 16, 33):
        x = torch.randn(frames, 3, mixer.dim).transpose(0, 1).requires_grad_()
        before = x.detach().clone()
        y = mixer(x)
        require(
            y.shape == x.shape, f"{frames} frames: {tuple(x.shape)} becomes {tuple(y.shape)}: a residual cannot add it"
        )
        require(y.dtype == x.dtype, f"{x.dtype} becomes {y.dtype}: the network around it would change its precision")
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        finite = bool(y.isfinite().all() and gradient.isfinite().all())
        require(
            finite,
            f"the output or the gradient of {frames} frames is not finite: training would end at the first such clip",
        )
        require(
            torch.equal(x, before), "the mixer changes its input in place: the residual around the mixer would be wrong"
        )
        require_same(mixer(before.contiguous()), y, f"the strides of an input of {frames} frames change the output")
    double = mixer.double()(torch.randn(2, 5, mixer.dim, dtype=torch.float64))
    require(
        double.dtype == torch.float64,
        f"float64 becomes {double.dtype}: results could not be verified in double precision",
    )


def check_padding_values(make: Make) -> None:
    """Values after the last real frame, even NaN, do not change the output; padded outputs are zero."""
    mixer = with_nonzero_weights(make)
    x, lengths = ragged(mixer)
    with torch.no_grad():
        y = mixer(x, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = mixer(x[row : row + 1, :length])
            require_same(
                y[row : row + 1, :length],
                alone,
                f"a clip of {length} frames padded to {x.shape[1]} differs from the clip alone: "
                "results would depend on the other clips of the batch",
            )
            require(not y[row, length:].any(), "padded outputs are not zero: the next layers would read them")


def check_rows(make: Make) -> None:
    """The output of a row depends on this row only, in training mode too."""
    mixer = with_nonzero_weights(make).train()
    x = torch.randn(3, 7, mixer.dim)
    changed = x.clone()
    changed[1] = torch.randn(7, mixer.dim)
    torch.manual_seed(1)
    before = mixer(x)[[0, 2]]
    torch.manual_seed(1)
    after = mixer(changed)[[0, 2]]
    require_same(
        after,
        before,
        "the output of a row changes with another row: pixels and clips of one batch would leak into each other",
    )


def check_causality(make: Make) -> None:
    """Outputs depend on later frames if and only if `causal` is False; they depend on earlier frames."""
    mixer = with_nonzero_weights(make)
    x = torch.randn(3, 7, mixer.dim)
    for now in (1, 4, 6):
        future, past = x.clone(), x.clone()
        future[:, now:] = torch.randn(3, 7 - now, mixer.dim)
        past[:, :now] = torch.randn(3, now, mixer.dim)
        with torch.no_grad():
            leak = relative_error(mixer(future)[:, :now], mixer(x)[:, :now])
            memory = relative_error(mixer(past)[:, now:], mixer(x)[:, now:])
        if mixer.causal:
            require(
                leak <= TOLERANCE,
                f"declared causal, but outputs before frame {now} depend on later frames: a model that samples "
                "frame by frame would have been trained with the answer",
            )
        elif not mixer.order_blind:
            require(
                leak > MIN_EFFECT,
                f"declared not causal, but outputs before frame {now} do not depend on later frames: a comparison "
                "would treat it as bidirectional, and it is not",
            )
        if not mixer.order_blind:
            require(
                memory > MIN_EFFECT,
                f"outputs from frame {now} on do not depend on earlier frames: the mixer would not connect frames",
            )


def check_order(make: Make) -> None:
    """The order of frames changes the output if and only if `order_blind` is False."""
    mixer = with_nonzero_weights(make)
    x = torch.randn(3, 7, mixer.dim)
    shuffle = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    with torch.no_grad():
        difference = relative_error(mixer(x[:, shuffle]), mixer(x)[:, shuffle])
    if mixer.order_blind:
        require(
            difference <= TOLERANCE,
            "declared order-blind, but the order of frames changes the output: it is not a control",
        )
    else:
        require(
            difference > MIN_EFFECT,
            "shuffled frames give the shuffled output: the mixer does not depend on the order of frames, and does not "
            "declare order_blind",
        )


def check_determinism(make: Make) -> None:
    """In evaluation the same input gives bitwise the same output; without gradients the output agrees."""
    mixer = with_nonzero_weights(make)
    x = torch.randn(3, 7, mixer.dim)
    once, twice = mixer(x), mixer(x)
    require(torch.equal(once, twice), "evaluation is not deterministic: a seed would not reproduce its sample")
    with torch.no_grad():
        require_same(mixer(x), once, "without gradients the output is different: it would sample from another model")
