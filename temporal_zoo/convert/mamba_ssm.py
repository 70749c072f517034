"""The layer of mamba_ssm (arXiv 2312.00752) and our `mamba`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from temporal_zoo.convert._converted import Converted, converted, layer_of, multiple, rank_option, renamed

_SOURCE = "a layer of mamba_ssm"
_CORE = ("x_proj.", "dt_proj.", "A_log", "D")


def from_mamba_ssm(state: Mapping[str, Any], *, prefix: str = "") -> Converted:
    """Converts a `mamba_ssm.Mamba` layer to `mamba`.

    Args:
        state: the state dict of the layer, or one that holds it.
        prefix: beginning of the names of the layer, such as "backbone.layers.0.mixer.".

    Raises:
        ConversionError: there is no such layer, or it has options that `mamba` lacks.
    """
    layer, dropped = layer_of(state, prefix, source=_SOURCE, needs=("in_proj.weight", "A_log", "x_proj.weight"))
    options, dim = options_of(layer)
    ours = renamed(layer, lambda name: f"core.{name}" if name.startswith(_CORE) else name)
    return converted("mamba", options, dim, ours, source=_SOURCE, dropped=dropped)


def to_mamba_ssm(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of our `mamba` under the names of mamba_ssm.

    The flavour `literal` fits `mamba_ssm.Mamba(dim)`, the default fits `mamba_ssm.Mamba(dim, bias=True, dt_rank=...)`.
    """
    return renamed(state, lambda name: name.removeprefix("core."))


def options_of(layer: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The options of `mamba` that the shapes of such a layer imply, and its width."""
    doubled, dim = layer["in_proj.weight"].shape
    inner, state = layer["A_log"].shape
    rank = layer["x_proj.weight"].shape[0] - 2 * state
    conv = layer["conv1d.weight"].shape[-1] if "conv1d.weight" in layer else 1
    multiple(doubled, 2 * inner, "rows of in_proj and twice the channels of A_log")
    return {
        "state": state,
        "conv": conv,
        "expand": multiple(inner, dim, "channels of A_log and columns of in_proj"),
        "dt_rank": rank_option(rank, inner, dim),
        "projection_bias": "in_proj.bias" in layer,
    }, dim
