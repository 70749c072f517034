"""Tells whether a mixer may use the weights of a layer directly and not call the layer."""

from __future__ import annotations

from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def plain(*layers: nn.Module) -> bool:
    """Whether each layer computes only what its `weight` and `bias` define.

    A mixer may then pass the weights to a fused function.  It must call every other layer: an adapter, a quantised or
    parametrised layer, one with hooks (such as pruning), with its own `forward`, or whose weight is a tensor subclass.
    """
    return all(_is_plain(layer) for layer in layers)


def _is_plain(layer: nn.Module) -> bool:
    if type(layer) not in (nn.Linear, nn.Conv1d) or "forward" in layer.__dict__:
        return False
    return not (_hooked(layer) or is_traceable_wrapper_subclass(layer.weight))


def _hooked(layer: nn.Module) -> bool:
    return (
        bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)
        or nn.modules.module._has_any_global_hook()
    )
