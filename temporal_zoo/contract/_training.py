"""How a mixer trains: gradients past padding, precision, recomputation, compilation, and every backend of its ops."""

from __future__ import annotations

import functools
from contextlib import suppress

import torch
from torch.utils.checkpoint import checkpoint

from temporal_zoo.contract._probe import (
    ContractError,
    Make,
    awake,
    distance,
    in_chunks,
    ragged,
    require,
    same,
    same_training,
    trained,
)
from temporal_zoo.ops import BackendError, ops, tracing, use_backend
from temporal_zoo.ops.agreement import compare


def check_padding_gradients(make: Make) -> None:
    """Gradients do not see the padding either: equal to those of the trimmed clips, and zero for padded inputs."""
    mixer = awake(make)
    x, lengths = ragged(mixer)
    weights = torch.randn_like(x)
    together = trained(mixer, x, weights, lengths)
    inputs = together.pop("gradient of the input")
    expected = {name: torch.zeros_like(tensor) for name, tensor in together.items() if name != "output"}
    for row, length in enumerate(lengths.tolist()):
        part = slice(row, row + 1), slice(length)
        alone = trained(mixer, x[part], weights[part], None)
        same(
            inputs[part],
            alone["gradient of the input"],
            f"padding a clip of {length} frames changes the gradient of its real frames: the layers below would train "
            "on what else is in the batch",
        )
        require(not inputs[row, length:].any(), "padded inputs get a gradient: padding would train the layers below")
        expected = {name: tensor + alone[name] for name, tensor in expected.items()}
    same_training(
        together, expected, "padding reaches the {}: short clips would train the mixer on what is behind their end"
    )


def check_gradients(make: Make) -> None:
    """Every parameter is used and gets a finite gradient."""
    mixer = awake(make)
    x = torch.randn(3, 7, mixer.dim, requires_grad=True)
    (mixer(x) * torch.randn_like(x)).sum().backward()
    for name, parameter in mixer.named_parameters():
        slope = parameter.grad
        if slope is None:
            raise ContractError(f"{name} is never used: it would be counted, saved, and stall distributed training")
        require(bool(slope.isfinite().all()), f"the gradient of {name} is not finite: one step would ruin the network")
        require(bool(slope.any()), f"the gradient of {name} is zero: it would never learn")


def check_autocast(make: Make) -> None:
    """Under bfloat16 autocast, output and gradients stay near those of float32, and dtypes are kept."""
    mixer = awake(make)
    x = torch.randn(3, 16, mixer.dim)
    weights = torch.randn_like(x)
    exact = trained(mixer, x, weights, None)
    with torch.autocast("cpu", torch.bfloat16):
        rough = trained(mixer, x, weights, None)
        low = mixer(x.bfloat16()).dtype
    kept = rough["output"].dtype
    require(kept == x.dtype, f"under autocast {x.dtype} became {kept}: the residual stream would lose its precision")
    require(low == torch.bfloat16, f"under autocast bfloat16 became {low}: memory would double unnoticed")
    for name, wanted in exact.items():
        moved = distance(rough[name], wanted)
        allowed = 0.05 if name == "output" else 0.2
        require(
            moved < allowed,
            f"bfloat16 autocast moves the {name} by {moved:.0%}: mixed precision would train another model",
        )


def check_checkpointing(make: Make) -> None:
    """Gradients are the same when activations are recomputed in the backward pass."""
    mixer = awake(make)
    x, lengths = ragged(mixer)
    weights = torch.randn_like(x)
    recomputing = functools.partial(checkpoint, mixer, use_reentrant=False)
    for real in (None, lengths):
        inputs = x if real is not None else x.nan_to_num()
        plain = trained(mixer, inputs, weights, real)
        again = trained(mixer, inputs, weights, real, run=recomputing)
        same_training(again, plain, "activation checkpointing changes the {}: saving memory would change the result")


def check_compile(make: Make) -> None:
    """`torch.compile` traces it as one graph, forward and backward, and the graph computes the same."""
    mixer = awake(make)
    x, lengths = ragged(mixer)
    weights = torch.randn_like(x)
    plain = trained(mixer, x, weights, lengths)
    torch.compiler.reset()
    try:
        compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
        traced = trained(mixer, x, weights, lengths, run=compiled)
    except Exception as error:  # the compiler has dozens of exceptions
        reason = str(error).strip().partition("\n")[0]
        raise ContractError(
            f"torch.compile cannot trace it in one graph ({type(error).__name__}: {reason}): compiled runs would fail "
            "or silently lose their speed"
        ) from error
    finally:
        torch.compiler.reset()
    same_training(traced, plain, "compiled, the {} is another: a compiled run would be another experiment")


def check_backends(make: Make) -> None:
    """Every backend that can run here agrees with the reference: values and gradients, in chunks too."""
    mixer = awake(make)
    x, lengths = ragged(mixer)
    weights = torch.randn_like(x)
    with tracing() as ran, torch.no_grad():
        mixer(x, lengths)
    for op in ran:
        results = {}
        for backend in ops()[op].backends:
            with suppress(BackendError), use_backend(**{op: backend}):
                results[backend] = trained(mixer, x, weights, lengths) | in_chunks(mixer, x.nan_to_num(), weights)
        wanted = results.pop("reference")
        for backend, got in results.items():
            result = compare(got, wanted, torch.float32)
            require(
                result.agrees,
                f"{op} by {backend} differs from the reference in the {result.worst}: results would depend on the "
                f"machine (off by {result.error:.2g} of the largest value)",
            )
