"""Autocast: torch's own, and one for the meta device, where torch has none, that casts as on the planned device.

The sets below follow torch's documented lists of operations (Automatic Mixed Precision package, op reference), as far
as networks use them; a test looks up each of them in torch's dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from temporal_zoo.ops import _planning

# Products of matrices run in the short dtype, on every device.
_SHORT: set[Callable] = {
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
    F.scaled_dot_product_attention, torch.einsum, torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm,
    Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mm, Tensor.bmm, Tensor.addmm, Tensor.baddbmm,
}  # fmt: skip
# On CUDA these run in float32; the functions of the second set return float32 without casting their inputs.
_FLOAT32: set[Callable] = {
    F.group_norm, F.layer_norm, F.softplus, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.cosine_similarity,
    torch.group_norm, torch.layer_norm, torch.exp, torch.expm1, torch.log, torch.log1p, torch.log2, torch.log10,
    torch.pow, torch.rsqrt, torch.reciprocal, torch.cosh, torch.sinh, torch.tan, torch.norm,
    Tensor.exp, Tensor.expm1, Tensor.log, Tensor.log1p, Tensor.log2, Tensor.log10, Tensor.pow, Tensor.__pow__,
    Tensor.rsqrt, Tensor.reciprocal, Tensor.cosh, Tensor.sinh, Tensor.tan, Tensor.norm,
}  # fmt: skip
_GIVE_FLOAT32: set[Callable] = {
    F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, torch.sum, torch.prod, torch.cumsum, torch.cumprod,
    Tensor.softmax, Tensor.log_softmax, Tensor.sum, Tensor.prod, Tensor.cumsum, Tensor.cumprod,
}  # fmt: skip

_planned_dtype: ContextVar[torch.dtype | None] = ContextVar("temporal_zoo_planned_dtype", default=None)


def autocast(device_type: str, dtype: torch.dtype, *, cache_enabled: bool = True) -> AbstractContextManager:
    """`torch.autocast`, also for "meta" within `planning`; float32 means no autocast.

    Args:
        cache_enabled: whether the cast of a parameter is stored until the end of the block.
    """
    if dtype == torch.float32:
        return nullcontext()
    if device_type == "meta" and (device := _planning.planned()) is not None:
        return _on_meta(device.type, dtype, cache_enabled)
    return torch.autocast(device_type, dtype=dtype, cache_enabled=cache_enabled)


def no_autocast(x: Tensor) -> AbstractContextManager:
    """Disables autocast on the device of x within the block."""
    if x.is_meta:
        return _off_on_meta() if _planning.planned() is not None else nullcontext()
    device = x.device.type
    return torch.autocast(device, enabled=False) if _available(device) else nullcontext()


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype of x, or the dtype to which autocast casts it for products of matrices."""
    if x.dtype == torch.float64:
        return x.dtype
    if _planning.plan_of(x) is not None and (dtype := _planned()) is not None:
        return dtype
    device = x.device.type
    return torch.get_autocast_dtype(device) if _available(device) and torch.is_autocast_enabled(device) else x.dtype


# torch.compile cannot trace this call before torch 2.12, and its result never changes.
@torch.compiler.assume_constant_result
def _available(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type)


@torch.compiler.assume_constant_result
def _planned() -> torch.dtype | None:
    return _planned_dtype.get()


@contextmanager
def _on_meta(device_type: str, dtype: torch.dtype, cache_enabled: bool) -> Iterator[None]:
    token = _planned_dtype.set(dtype)
    try:
        with _Casting(device_type, cache_enabled):
            yield
    finally:
        _planned_dtype.reset(token)


@contextmanager
def _off_on_meta() -> Iterator[None]:
    token = _planned_dtype.set(None)
    try:
        yield
    finally:
        _planned_dtype.reset(token)


class _Casting(TorchFunctionMode):
    """Casts the arguments of functions; operators that run inside them, custom operators too, are not changed."""

    def __init__(self, device_type: str, cache_enabled: bool) -> None:
        super().__init__()
        self._on_cuda = device_type == "cuda"
        # id of a parameter -> the parameter, which must stay alive for its id to stay unique, and its cast.
        self._cast: dict[int, tuple[Tensor, Tensor]] | None = {} if cache_enabled else None

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _planned_dtype.get() is not None:
            if function in _SHORT:
                args, kwargs = tree_map_only(Tensor, self._shortened, (args, kwargs))
            elif self._on_cuda and function in _FLOAT32:
                args, kwargs = tree_map_only(Tensor, _widened, (args, kwargs))
            elif self._on_cuda and function in _GIVE_FLOAT32 and _eligible(args[0]) and kwargs.get("dtype") is None:
                kwargs = kwargs | {"dtype": torch.float32}
        return function(*args, **kwargs)

    def _shortened(self, x: Tensor) -> Tensor:
        dtype = _planned_dtype.get()
        if not _eligible(x) or x.dtype == dtype:
            return x
        if self._cast is None or not (x.dtype == torch.float32 and x.is_leaf and x.requires_grad and not x._is_view()):
            return x.to(dtype)
        if id(x) not in self._cast:
            self._cast[id(x)] = x, x.to(dtype)
        return self._cast[id(x)][1]


def _eligible(x: Tensor) -> bool:
    return x.is_floating_point() and x.dtype != torch.float64


def _widened(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
