"""Temporal attention of lucidrains' video-diffusion-pytorch (arXiv 2204.03458) and our `attn`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from temporal_zoo.convert._converted import ConversionError, Converted, converted, layer_of, multiple

_SOURCE = "an attention layer of video-diffusion-pytorch"
_ROTARY = "rotary_emb.freqs"


def from_lucidrains(
    state: Mapping[str, Any], *, heads: int, relative_bias: Tensor | None, prefix: str = ""
) -> Converted:
    """Converts a layer of temporal attention to `attn`; `flash` takes the same weights.

    Args:
        state: the state dict of the layer, or one that holds it.
        heads: number of heads, which no state dict says; the default of that project is 8.
        relative_bias: the table of the network's bias by distance, (32, heads), which lies outside of the layer
            (`time_rel_pos_bias.relative_attention_bias.weight`); None for a network without it.
        prefix: beginning of the names of the layer, such as "init_temporal_attn.fn.fn.fn.".

    Raises:
        ConversionError: there is no such layer, or `heads` does not divide its width.
    """
    layer, dropped = layer_of(state, prefix, source=_SOURCE, needs=("to_qkv.weight", "to_out.weight"))
    inner = multiple(layer["to_qkv.weight"].shape[0], 3, "rows of to_qkv")
    options = {
        "heads": heads,
        "features": multiple(inner, heads, "heads do not divide the width of the attention"),
        "rotary": _ROTARY in layer,
        "relative_bias": relative_bias is not None,
    }
    ours = {"heads.qkv.weight": layer["to_qkv.weight"], "heads.out.weight": layer["to_out.weight"]}
    ours |= {name: tensor for name, tensor in layer.items() if not name.startswith(("to_qkv.", "to_out.", _ROTARY))}
    if relative_bias is not None:
        if tuple(relative_bias.shape) != (32, heads):
            raise ConversionError(f"relative_bias has the shape {tuple(relative_bias.shape)}, not {(32, heads)}")
        ours["own.table.weight"] = relative_bias
    dim = layer["to_qkv.weight"].shape[1]
    rotary = [_ROTARY] if _ROTARY in layer else []
    return converted("attn", options, dim, ours, source=_SOURCE, dropped=[*dropped, *rotary])
