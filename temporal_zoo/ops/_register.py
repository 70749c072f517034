"""Registers the custom operator of an op: schema, fake implementation, gradient, vmap rule, what backward receives.

Every backend but a reference runs inside such an operator, so that `torch.compile`, meta tensors, activation
checkpointing and saved-tensor counts see one opaque function with a known gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import CustomOpDef

from temporal_zoo.ops._dispatch import BackendError

Function = Callable[..., Any]


class _Place(NamedTuple):
    """Stands for a tensor, or for a list of `length` tensors."""

    length: int | None


def register(
    forward: Function,
    backward: Function,
    *,
    fake: Function,
    outputs: Sequence[str],
    gradients: Mapping[str, str],
    differentiable: Sequence[str],
    fake_backward: Function | None = None,
    complete: Callable[[dict[str, Any]], None] | None = None,
    references: Sequence[str] = (),
) -> tuple[CustomOpDef, CustomOpDef]:
    """Registers `temporal_zoo::NAME` and `temporal_zoo::NAME_backward`, where NAME is the package of `forward`.

    Both functions run without autograd and without autocast.  Their annotations give the schemas.  The parameters of
    `backward` are found by name: each is a gradient (see `gradients`), an argument of `forward`, an output of
    `forward`, or `X_gradient`, which is whether the gradient of the argument X is asked for.  Only these arguments and
    outputs are saved for backward.

    Args:
        forward: computes the outputs.
        backward: returns one tensor for each tensor in the `differentiable` arguments, in their order; where
            `X_gradient` is false the tensor of X is not used.
        fake: takes the arguments of `forward` and returns empty tensors like its outputs.
        outputs: names of the outputs of `forward`, each a tensor or a list of tensors.
        gradients: parameter of `backward` -> the output whose gradient it is.  Other outputs are not differentiable.
        differentiable: the arguments of `forward` that have gradients.
        fake_backward: as `fake`; needed only where backward returns other shapes than those of its arguments.
        complete: changes the arguments of `backward` where a gradient is missing (None); without it, missing gradients
            are zeros.
        references: the ops whose references can be differentiated twice; by default the op itself.
    """
    name = forward.__module__.split(".")[-2]
    names, wanted = list(inspect.signature(forward).parameters), list(inspect.signature(backward).parameters)
    saved = [key for key in wanted if key in names or key in outputs]
    constant = [key for key in outputs if key not in gradients.values()]
    optional = [key for key in differentiable if f"{key}_gradient" in wanted]
    arriving = {key: outputs.index(output) for key, output in gradients.items()}

    def like_arguments(*args: Any) -> list[Tensor]:
        given = dict(zip(wanted, args, strict=True))
        return [x.new_empty(x.shape) for x in _flat([given[each] for each in differentiable])]

    def save(ctx, inputs, output) -> None:
        values = dict(zip(names, inputs, strict=True))
        values |= zip(outputs, output if len(outputs) > 1 else [output], strict=True)
        tensors, ctx.places = _pack([values[key] for key in saved])
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(*_flat([values[key] for key in constant]))
        ctx.set_materialize_grads(complete is None)

    def differentiate(ctx, *grads):
        _check_gradients(name, _flat(grads))
        values = dict(zip(saved, _unpack(ctx.saved_tensors, ctx.places), strict=True))
        values |= {key: grads[index] for key, index in arriving.items()}
        needed = {key: ctx.needs_input_grad[names.index(key)] for key in optional}
        values |= {f"{key}_gradient": need for key, need in needed.items()}
        if complete is not None:
            complete(values)
        results = iter(backward_operator(*[values[key] for key in wanted]))
        computed = {key: _next_like(values[key], results) for key in differentiable}
        return tuple([computed.get(key) if needed.get(key, True) else None for key in names])

    forward_operator = _operator(f"temporal_zoo::{name}", forward, fake)
    backward_operator = _operator(f"temporal_zoo::{name}_backward", backward, fake_backward or like_arguments)
    forward_operator.register_autograd(differentiate, setup_context=save)
    backward_operator.register_autograd(_refuse_twice(name, references or (name,)))
    _batch_by_loop(backward_operator)
    return forward_operator, backward_operator


def backend_module(folder: str, name: str) -> ModuleType:
    """The module of a backend in the package `folder`."""
    return import_module(f"{folder}.{name}")


def _operator(name: str, function: Function, fake: Function) -> CustomOpDef:
    def without_autocast(*args: Any) -> Any:
        with torch.autocast(_flat(args)[0].device.type, enabled=False):
            return function(*args)

    schema = torch.library.infer_schema(function, mutates_args=())
    operator = torch.library.custom_op(name, without_autocast, mutates_args=(), schema=schema)
    operator.register_fake(fake)
    return operator


def _flat(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among the values, and in lists among them."""
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, list):
            tensors += [each for each in value if isinstance(each, Tensor)]
    return tensors


def _pack(values: Sequence[Any]) -> tuple[list[Tensor], list[Any]]:
    """All tensors of some arguments, and the arguments with a `_Place` instead of each tensor and list of tensors."""
    tensors: list[Tensor] = []
    places: list[Any] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
            places.append(_Place(None))
        elif isinstance(value, list) and value and isinstance(value[0], Tensor):
            tensors += value
            places.append(_Place(len(value)))
        else:
            places.append(value)
    return tensors, places


def _unpack(tensors: Sequence[Tensor], places: Sequence[Any]) -> list[Any]:
    """The inverse of `_pack`."""
    rest = iter(tensors)
    return [
        place if type(place) is not _Place else next(rest) if place.length is None else list(islice(rest, place.length))
        for place in places
    ]


def _next_like(value: Tensor | list[Tensor] | None, results: Iterator[Tensor]) -> Any:
    """As many results as `value` has tensors, in its form."""
    if value is None:
        return None
    return list(islice(results, len(value))) if isinstance(value, list) else next(results)


def _refuse_twice(name: str, references: Iterable[str]) -> Function:
    """The derivative of an operator's gradient.  There is none; the error names what has a second derivative."""
    pins = ", ".join(f"{each}='reference'" for each in references)

    def refuse(ctx, *grads):
        raise BackendError(
            f"{name} was differentiated twice, which only the reference can do; pin it with use_backend({pins})"
        )

    return refuse


def _check_gradients(name: str, grads: Iterable[Tensor]) -> None:
    """Refuses gradients that an operator cannot compute with, or whose tangents it would lose.

    Raises:
        BackendError: they are dual numbers, so the output was computed before the dual level began; or they are batched
            by `is_grads_batched`, which ignores the vmap rules of custom operators.
    """
    for grad in grads:
        if forward_ad._current_level >= 0 and forward_ad.unpack_dual(grad).tangent is not None:
            raise BackendError(
                f"the gradient of {name} was asked with dual numbers; compute its output within the same dual level"
            )
        if torch._C._functorch.is_legacy_batchedtensor(grad):
            raise BackendError(
                f"the gradient of {name} was asked with is_grads_batched; use torch.func.vmap or torch.func.jacrev"
            )


def _batch_by_loop(operator: CustomOpDef) -> None:
    """Registers a vmap rule: one call per member of the batch.

    Operators of gradients need it when vmap asks for several gradients of one output that was computed outside of vmap.
    Inside vmap the reference computes outputs.
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
