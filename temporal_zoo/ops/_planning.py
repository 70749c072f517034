"""Planning: within `planning`, an op that is called on the meta device chooses as on a device that need not be here.

Backends are asked (`refuses`) with tensors that have shapes, dtypes and strides of the arguments and say that they lie
on the planned device; what then runs is the fake implementation of the op's operator, on the meta device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

# Comes with torch wherever torch has CUDA, so a backend that needs it is there on every planned GPU.
_WITH_CUDA = frozenset({"triton"})


@dataclass(frozen=True)
class Planned:
    """The device that is planned for; `capability` is a GPU's compute capability, (8, 0) for an A100."""

    type: str
    capability: tuple[int, int] = (8, 0)


_planned: ContextVar[Planned | None] = ContextVar("temporal_zoo_planned", default=None)


@contextmanager
def planning(device: Planned) -> Iterator[None]:
    """Within the block, ops on the meta device take the backend that they would take on `device`.

    On a GPU, pinned backends count as installed, and `auto` takes those that need no package but torch (and Triton,
    which comes with it): a plan is the same on every machine.  On a CPU it is this machine's packages that count.
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


@torch.compiler.assume_constant_result
def assumed() -> bool:
    """Whether optional packages count as installed."""
    device = planned()
    return device is not None and device.type == "cuda"


def comes_along(package: str | None) -> bool:
    """Whether `auto` may take a backend that needs `package`: only a plan for a GPU does not look at what is here."""
    return package is None or package in _WITH_CUDA or not assumed()


def device_type(x: Tensor) -> str:
    """Where x lives, or on the meta device where it will."""
    device = planned()
    return device.type if device is not None and x.is_meta else x.device.type


def presented(value: Any) -> Any:
    """`value` with every meta tensor in it replaced by one that says that it lies on the planned device."""
    device = planned()
    if device is None:
        return value
    if isinstance(value, Tensor):
        return _Described(value, torch.device(device.type)) if value.is_meta else value
    if isinstance(value, Mapping):
        return {key: presented(each) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: presented(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, (tuple, list)):
        return [presented(each) for each in value]
    return value


@torch.compiler.assume_constant_result
def capability(device: torch.device) -> tuple[int, int]:
    """The compute capability of a GPU, or of the one that is planned for."""
    imagined = planned()
    return torch.cuda.get_device_capability(device) if imagined is None else imagined.capability


class _Described(Tensor):
    """What a tensor is, without its values and on another device; nothing can be computed with it."""

    @staticmethod
    def __new__(cls, x: Tensor, device: torch.device) -> _Described:
        # mypy: the stubs do not know the constructor of wrappers.
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, x.shape, strides=x.stride(), dtype=x.dtype, device=device, requires_grad=x.requires_grad
        )

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError(f"a backend that is asked whether it can run may look at shapes only, and called {function}")
