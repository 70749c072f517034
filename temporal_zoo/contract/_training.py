"""Checks of training: gradients with padding, precision, recomputation, compilation, and every backend."""

from __future__ import annotations

import functools
from contextlib import suppress

import torch
from torch.utils.checkpoint import checkpoint

from temporal_zoo.contract._common import (
    ContractError,
    Make,
    in_chunks,
    ragged,
    require,
    require_same,
    require_same_step,
    rms_error,
    training_step,
    with_nonzero_weights,
)
from temporal_zoo.ops import BackendError, ops, tracing, use_backend
from temporal_zoo.ops.agreement import compare


def check_padding_gradients(make: Make) -> None:
    """Padding does not change gradients: they equal those of the trimmed clips, and are zero for padded inputs."""
    mixer = with_nonzero_weights(make)
    x, lengths = ragged(mixer)
    weights = torch.randn_like(x)
    padded = training_step(mixer, x, weights, lengths)
    gradient = padded.pop("gradient of the input")
    expected = {name: torch.zeros_like(tensor) for name, tensor in padded.items() if name != "output"}
    for row, length in enumerate(lengths.tolist()):
        part = slice(row, row + 1), slice(length)
        alone = training_step(mixer, x[part], weights[part], None)
        require_same(
            gradient[part],
            alone["gradient of the input"],
            f"padding a clip of {length} frames changes the gradient of its real frames: the layers below would train "
            "on the other clips of the batch",
        )
        require(not gradient[row, length:].any(), "padded inputs get a gradient: padding would train the layers below")
        expected = {name: tensor + alone[name] for name, tensor in expected.items()}
    require_same_step(padded, expected, "padding changes the {}: short clips would train the mixer on their padding")


def check_gradients(make: Make) -> None:
    """Every parameter gets a finite gradient that is not zero."""
    mixer = with_nonzero_weights(make)
    x = torch.randn(3, 7, mixer.dim, requires_grad=True)
    (mixer(x) * torch.randn_like(x)).sum().backward()
    for name, parameter in mixer.named_parameters():
        gradient = parameter.grad
        if gradient is None:
            raise ContractError(f"{name} is never used: it would be counted, saved, and stall distributed training")
        finite = bool(gradient.isfinite().all())
        require(finite, f"the gradient of {name} is not finite: one step would destroy the network")
        require(bool(gradient.any()), f"the gradient of {name} is zero: it would never learn")


def check_autocast(make: Make) -> None:
    """Under bfloat16 autocast the output has the dtype of the input; values and gradients are near those of float32."""
    mixer = with_nonzero_weights(make)
    x = torch.randn(3, 16, mixer.dim)
    weights = torch.randn_like(x)
    exact = training_step(mixer, x, weights, None)
    with torch.autocast("cpu", torch.bfloat16):
        rough = training_step(mixer, x, weights, None)
        low = mixer(x.bfloat16()).dtype
    dtype = rough["output"].dtype
    require(dtype == x.dtype, f"under autocast {x.dtype} becomes {dtype}: the residual stream would lose precision")
    require(low == torch.bfloat16, f"under autocast bfloat16 becomes {low}: memory would double")
    for name, tensor in exact.items():
        error = rms_error(rough[name], tensor)
        require(
            error < (0.05 if name == "output" else 0.2),
            f"bfloat16 autocast changes the {name} by {error:.0%}: mixed precision would train another model",
        )


def check_checkpointing(make: Make) -> None:
    """Activation checkpointing does not change the output and the gradients."""
    mixer = with_nonzero_weights(make)
    x, lengths = ragged(mixer)
    weights = torch.randn_like(x)
    recomputing = functools.partial(checkpoint, mixer, use_reentrant=False)
    for argument in (None, lengths):
        inputs = x if argument is not None else x.nan_to_num()
        plain = training_step(mixer, inputs, weights, argument)
        recomputed = training_step(mixer, inputs, weights, argument, run=recomputing)
        require_same_step(
            recomputed, plain, "activation checkpointing changes the {}: saving memory would change the result"
        )


def check_compile(make: Make) -> None:
    """`torch.compile` traces the mixer in one graph, forward and backward, with the same output and gradients."""
    mixer = with_nonzero_weights(make)
    x, lengths = ragged(mixer)
    weights = torch.randn_like(x)
    plain = training_step(mixer, x, weights, lengths)
    torch.compiler.reset()
    try:
        compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
        traced = training_step(mixer, x, weights, lengths, run=compiled)
    except Exception as error:  # the compiler raises many classes of errors
        reason = str(error).strip().partition("\n")[0]
        raise ContractError(
            f"torch.compile cannot trace the mixer in one graph ({type(error).__name__}: {reason}): compiled runs "
            "would fail or be slow"
        ) from error
    finally:
        torch.compiler.reset()
    require_same_step(traced, plain, "torch.compile changes the {}: a compiled run would be another experiment")


def check_backends(make: Make) -> None:
    """Every backend that can run on this machine agrees with the reference: values and gradients, in chunks too."""
    mixer = with_nonzero_weights(make)
    x, lengths = ragged(mixer)
    weights = torch.randn_like(x)
    with tracing() as ran, torch.no_grad():
        mixer(x, lengths)
    for op in ran:
        results = {}
        for backend in ops()[op].backends:
            with suppress(BackendError), use_backend(**{op: backend}):
                results[backend] = training_step(mixer, x, weights, lengths) | in_chunks(mixer, x.nan_to_num(), weights)
        expected = results.pop("reference")
        for backend, actual in results.items():
            result = compare(actual, expected, torch.float32)
            require(
                result.agrees,
                f"{op} by {backend} differs from the reference in the {result.worst}: results would depend on the "
                f"machine (off by {result.error:.2g} of the largest value)",
            )
