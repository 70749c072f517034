"""Whether a layer may be read, weight by weight, in place of being called."""

from __future__ import annotations

from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def plain(*layers: nn.Module) -> bool:
    """Whether calling each layer does what its `weight` and `bias` say and nothing else.

    A mixer may then hand the weights to a fused function.  Every other layer has to be called: an adapter, a quantised
    or parametrised layer, one with hooks (pruning is one), with a `forward` of its own, or with a weight that is more
    than a tensor.
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
