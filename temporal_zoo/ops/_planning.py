"""Planning: within `planning`, an op that is called on the meta device chooses as on a device that need not be here.

Only calls with meta tensors ask for the plan.  Backends are asked (`refuses`) with stand-ins (`present`): tensors with
the shapes, dtypes and strides of the arguments, whose `device` is the planned device.  Then the fake implementation of
the op's operator runs, on the meta device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

# Torch for CUDA comes with Triton, so every planned GPU has it.
_WITH_CUDA = frozenset({"triton"})


@dataclass(frozen=True)
class Planned:
    """The device that is planned for; `capability` is a GPU's compute capability, (8, 0) for an A100."""

    type: str
    capability: tuple[int, int] = (8, 0)


def assumes(plan: Planned | None) -> bool:
    """Whether all optional packages count as installed and all backends as confirmed: only in a plan for a GPU."""
    return plan is not None and plan.type == "cuda"


def considers(plan: Planned | None, package: str | None) -> bool:
    """Whether `auto` may take a backend that needs `package`: a plan for a GPU does not ask what is installed."""
    return package is None or package in _WITH_CUDA or not assumes(plan)


_planned: ContextVar[Planned | None] = ContextVar("temporal_zoo_planned", default=None)


@contextmanager
def planning(device: Planned) -> Iterator[None]:
    """Within the block, ops on the meta device take the backend that they would take on `device`.

    On a GPU, pinned backends count as installed, and `auto` takes those that need no package but torch (and Triton,
    which comes with it): a plan is the same on every machine.  On a CPU, the packages of this machine count.
    """
    token = _planned.set(device)
    try:
        yield
    finally:
        _planned.reset(token)


@torch.compiler.assume_constant_result
def planned() -> Planned | None:
    """The device that is planned for, or None outside of `planning`."""
    return _planned.get()


def device_type(x: Tensor) -> str:
    """The type of the device of x; for a meta tensor within `planning`, that of the planned device."""
    plan = planned() if x.is_meta else None
    return x.device.type if plan is None else plan.type


def plan_and_device(args: tuple) -> tuple[Planned | None, str]:
    """The plan that a call belongs to, or None, and the type of the device that it runs on.

    Only a call with meta tensors asks for the plan.
    """
    first = _first_tensor(args)
    if first is None:
        return None, "cpu"
    plan = planned() if first.is_meta else None
    return plan, first.device.type if plan is None else plan.type


def _first_tensor(args: Iterable[Any]) -> Tensor | None:
    """The first tensor of a call, in lists and in dataclasses too."""
    for value in args:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, (tuple, list)) and value:
            first = value[0]
            return _first_tensor([getattr(first, f.name) for f in fields(first)] if is_dataclass(first) else value)
    return None


class StandIn(Tensor):
    """Has the shape, strides and dtype of a tensor, and the planned device; nothing can be computed with it."""

    plan: Planned

    @staticmethod
    def __new__(cls, x: Tensor, plan: Planned) -> StandIn:
        # mypy: the stubs do not know the constructor of wrappers.
        stand_in = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            x.shape,
            strides=x.stride(),
            dtype=x.dtype,
            device=torch.device(plan.type),
            requires_grad=x.requires_grad,
        )
        stand_in.plan = plan
        return stand_in

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError(f"a backend that is asked whether it can run may look at shapes only, and called {function}")


def present(value: Any, plan: Planned) -> Any:
    """`value` with a `StandIn` in place of every meta tensor in it."""
    if isinstance(value, Tensor):
        return StandIn(value, plan) if value.is_meta else value
    if isinstance(value, Mapping):
        return {key: present(each, plan) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: present(getattr(value, field.name), plan) for field in fields(value)})
    if isinstance(value, (tuple, list)):
        return [present(each, plan) for each in value]
    return value


def plan_of(x: Tensor) -> Planned | None:
    """The plan that a stand-in or, within `planning`, a meta tensor belongs to; None for a tensor with values."""
    if isinstance(x, StandIn):
        return x.plan
    return planned() if x.is_meta else None


def capability(x: Tensor) -> tuple[int, int]:
    """The compute capability of the GPU of x, or of the GPU that is planned for."""
    plan = plan_of(x)
    return _capability(x.device) if plan is None else plan.capability


@torch.compiler.assume_constant_result
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
