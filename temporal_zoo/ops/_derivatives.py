"""What the custom operators of all ops do about derivatives beyond the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from temporal_zoo.ops._dispatch import BackendError


def refuse_twice(name: str, *op_names: str) -> Callable[..., Any]:
    """The derivative of an operator's gradient.  There is none, and the error says what has one.

    Args:
        name: the function that was differentiated.
        op_names: the ops whose references can be differentiated twice.
    """
    pins = ", ".join(f"{op_name}='reference'" for op_name in op_names)

    def refuse(ctx, *grads):
        raise BackendError(
            f"{name} was differentiated twice, which only the reference can do; pin it with use_backend({pins})"
        )

    return refuse


def check_gradients(name: str, grads: Iterable[Tensor | None]) -> None:
    """Refuses gradients that arrive at an operator in a form whose meaning it would lose, or cannot compute with.

    Args:
        name: the function whose gradient is asked.
        grads: the gradients of its outputs.
    Raises:
        BackendError: they are dual numbers, so the output was computed before the dual level began; or they are batched
            by `is_grads_batched`, which knows no rules of custom operators.
    """
    for grad in grads:
        if grad is None:
            continue
        if forward_ad._current_level >= 0 and forward_ad.unpack_dual(grad).tangent is not None:
            raise BackendError(
                f"the gradient of {name} was asked with dual numbers; compute its output within the same dual level"
            )
        if torch._C._functorch.is_legacy_batchedtensor(grad):
            raise BackendError(
                f"the gradient of {name} was asked with is_grads_batched; use torch.func.vmap or torch.func.jacrev"
            )


def batch_by_loop(operator: torch.library.CustomOpDef) -> None:
    """Gives an operator a rule for `vmap`: one call per member of the batch.

    For operators of gradients.  They meet `vmap` where it asks several gradients of one output that was computed
    outside of it; within `vmap` the reference computes outputs.
    """

    def rule(info, in_dims, *args):
        results = [operator(*_members(args, in_dims, index)) for index in range(info.batch_size)]
        stacked = [torch.stack(each) for each in zip(*results, strict=True)]
        kind = type(results[0])
        return kind(stacked), kind([0] * len(stacked))

    operator.register_vmap(rule)


def _members(values: Iterable[Any], dims: Iterable[Any], index: int) -> list[Any]:
    """One member of the batch: the values without their batch dimensions.  Lists have lists of dimensions."""
    return [
        value
        if dim is None
        else _members(value, dim, index)
        if isinstance(value, (list, tuple))
        else value.select(dim, index)
        for value, dim in zip(values, dims, strict=True)
    ]
