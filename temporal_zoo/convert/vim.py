"""The bidirectional "v2" layer of Vim (arXiv 2401.09417) and our `bimamba`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from temporal_zoo.convert._converted import ConversionError, Converted, converted, layer_of, renamed
from temporal_zoo.convert.mamba_ssm import options_of

_SOURCE = 'a "v2" layer of Vim'
_CORE = ("A_log", "D", "x_proj.weight", "dt_proj.weight", "dt_proj.bias")


def from_vim(state: Mapping[str, Any], *, merge: Literal["mean", "sum"], prefix: str = "") -> Converted:
    """Converts a "v2" layer of Vim to `bimamba`.

    Args:
        state: the state dict of the layer, or one that holds it.
        merge: how the code around the weights combines the two directions, which no state dict says.  Released Vim
            models halve the sum ("mean", their option `if_divide_out`); without that option it is "sum".
        prefix: beginning of the names of the layer, such as "layers.0.mixer.".

    Raises:
        ConversionError: there is no such layer, or it has options that `bimamba` lacks.
    """
    if merge not in ("mean", "sum"):
        raise ConversionError(f"merge is {merge!r}; choose mean (released Vim models) or sum")
    layer, dropped = layer_of(state, prefix, source=_SOURCE, needs=("in_proj.weight", "A_log", "x_proj.weight"))
    if "A_b_log" not in layer:
        raise ConversionError("this layer has one direction only (there is no A_b_log): use from_mamba_ssm")
    if "x_proj_b.weight" not in layer:
        raise ConversionError(
            'this is a "v1" layer of Vim, whose directions share their projections; only "v2" can become a mixer'
        )
    options, dim = options_of(layer)
    names = {_name(f"{core}.{name}"): f"{core}.{name}" for core in ("core", "core_b") for name in _CORE}
    ours = renamed(layer, lambda name: names.get(name, name))
    # The start of the backward step sizes, which loaded weights replace.
    options |= {"merge": merge, "backward_dt": "generic"}
    return converted("bimamba", options, dim, ours, source=_SOURCE, dropped=dropped)


def to_vim(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of our `bimamba` under the names of Vim; the flavour `vim` fits the released layer."""
    return renamed(state, _name)


def _name(name: str) -> str:
    core, _, rest = name.partition(".")
    if core == "core":
        return rest
    if core != "core_b":
        return name
    parameter, dot, part = rest.partition(".")
    return "A_b_log" if parameter == "A_log" else f"{parameter}_b{dot}{part}"
