"""The temporal layers of arXiv 2403.07711's own code and our mixers.

Its classes carry numbers: 1 "mixing MLP", 2 "mixing GLU", 10 (GSS, BiGS), 20 (Mamba, Vim), each on an S4D or an S6
core.  The state dict shows which class and which number it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from temporal_zoo.convert._converted import (
    ConversionError,
    Converted,
    converted,
    layer_of,
    multiple,
    rank_option,
    renamed,
)
from temporal_zoo.convert.lucidrains import from_lucidrains
from temporal_zoo.convert.s4 import direction
from temporal_zoo.spec import MixerSpec

_TABLE = "time_rel_pos_bias.relative_attention_bias.weight"
_SOURCE = "a temporal layer of the code of arXiv 2403.07711"


def from_official(
    state: Mapping[str, Any],
    *,
    heads: int | None = None,
    relative_bias: Tensor | None = None,
    attention: str | None = None,
    prefix: str = "",
) -> Converted:
    """Converts a temporal layer to `attn`, `linattn`, `s4d`, `gss`, `bigs`, `mamba` or `bimamba`.

    Args:
        state: the state dict of the layer, or one that holds it.
        heads: number of heads of an attention layer, which no state dict says (an eighth of the base width in the
            paper); None for other layers.
        attention: "softmax", or "linear" for a layer of linear attention ("l-attn"), whose tensors have the same names
            and shapes; None for other layers.
        relative_bias: the table of the network's bias by distance, (32, heads), for softmax attention; it lies outside
            of the layer (`time_rel_pos_bias.relative_attention_bias.weight`).  Other layers never use it.
        prefix: beginning of the names of the layer, such as "init_temporal_layer.fn.fn.fn.".

    Raises:
        ConversionError: there is no such layer, a keyword of attention layers is missing or unknown, or no mixer
            of ours computes this layer.
    """
    if attention not in (None, "softmax", "linear"):
        raise ConversionError(f"unknown attention {attention!r}; choose from softmax, linear")
    names = {name.removeprefix(prefix) for name in state if name.startswith(prefix)}
    if "to_qkv.weight" in names:
        if heads is None or attention is None:
            raise ConversionError(
                "this is an attention layer: give heads and attention (softmax or linear), which the file does not say"
            )
        if attention == "softmax" and relative_bias is None:
            raise ConversionError(
                f"softmax attention of that code has a bias by distance: give relative_bias, {_TABLE}"
            )
        if attention == "softmax":
            return from_lucidrains(state, heads=heads, relative_bias=relative_bias, prefix=prefix)
        linear = from_lucidrains(state, heads=heads, relative_bias=None, prefix=prefix)
        return replace(linear, spec=MixerSpec("linattn", linear.spec.options))
    core = "s6" if any(name.startswith("s6.") for name in names) else "s4d"
    first = "s6.A_log" if core == "s6" else "s4d.kernel.C"
    layer, dropped = layer_of(state, prefix, source=_SOURCE, needs=(first,))
    both = any(name.startswith(f"{core}_rev.") for name in layer)
    if "fc_shortcut.weight" in layer:
        return _gss(layer, core, both, dropped)
    if "fc_init.weight" in layer:
        return _mamba(layer, core, both, dropped)
    if core == "s6":
        raise ConversionError("this is S6 with an MLP or GLU (version 1 or 2 on s6), which is no registered mixer yet")
    return _s4d(layer, both, dropped)


def _gss(layer: Mapping[str, Tensor], core: str, both: bool, dropped: list[str]) -> Converted:
    """Version 10: `gss`, or `bigs` in both directions."""
    width, dim = layer["fc_shortcut.weight"].shape
    options: dict[str, Any] = {"core": core, "state": _state(layer, core)}
    # In that code the width is 3 dim on S4D, and on S6 a constant of the network.
    options["width"] = 0 if core == "s4d" and width == 3 * dim else width
    places = {
        "fc_shortcut.": "shortcut.", "fc1.": "branch.before.", "fc2.": "branch.after.", "fc_rev1.": "branch_b.before.",
        "fc_rev2.": "branch_b.after.", "fc3.": "up.", "fc_out.": "out.",
    }  # fmt: skip
    inside = {"core.": "branch.core.", "core_b.": "branch_b.core."}
    state_dict = renamed(_ours(layer, places), lambda name: _placed(name, inside))
    return converted("bigs" if both else "gss", options, dim, state_dict, source=_SOURCE, dropped=dropped)


def _mamba(layer: Mapping[str, Tensor], core: str, both: bool, dropped: list[str]) -> Converted:
    """Version 20: `mamba`, or `bimamba` with the sum of the directions."""
    doubled, dim = layer["fc_init.weight"].shape
    inner = layer[f"{core}.D"].shape[0]
    multiple(doubled, 2 * inner, "rows of fc_init and twice the channels of the core")
    options = {
        "core": core,
        "state": _state(layer, core),
        "conv": layer["conv.weight"].shape[-1],
        "expand": multiple(inner, dim, "channels of the core and columns of fc_init"),
        "projection_bias": "fc_init.bias" in layer,
    }
    if core == "s6":
        options["dt_rank"] = rank_option(layer["s6.dt_proj.weight"].shape[1], inner, dim)
    if both:
        options["merge"] = "sum"
    places = {"fc_init.": "in_proj.", "fc_out.": "out_proj.", "conv.": "conv1d.", "conv_rev.": "conv1d_b."}
    name = "bimamba" if both else "mamba"
    return converted(name, options, dim, _ours(layer, places), source=_SOURCE, dropped=dropped)


def _s4d(layer: Mapping[str, Tensor], both: bool, dropped: list[str]) -> Converted:
    """Versions 1 and 2 on S4D: an MLP on the concatenated directions, or a GLU for each."""
    mlp = layer["fc1.weight"].shape[0] if "fc1.weight" in layer else 0
    options: dict[str, Any] = {
        "state": _state(layer, "s4d"),
        "discretisation": "zoh",  # the only one of that code
        "bidirectional": both,
        "glu": "s4d.output_linear.0.weight" in layer,
    }
    if mlp:
        options |= {"mlp": mlp, "mlp_gelu": True, "merge": "concat" if both else "sum"}
    ours = _ours(layer, {"fc1.": "mlp.1.", "fc2.": "mlp.3."})
    return converted("s4d", options, layer["s4d.D"].shape[0], ours, source=_SOURCE, dropped=dropped)


def _state(layer: Mapping[str, Tensor], core: str) -> int:
    """The size of the state per channel; S4D has half as many modes."""
    return layer["s6.A_log"].shape[1] if core == "s6" else 2 * layer["s4d.kernel.C"].shape[1]


def _ours(layer: Mapping[str, Tensor], places: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors under our names: the cores as `core` and `core_b`, other modules as `places` says."""
    diagonal = ("s4d.", "s4d_rev.")
    places = {**places, "s6.": "core.", "s6_rev.": "core_b."}
    others = {name: tensor for name, tensor in layer.items() if not name.startswith(diagonal)}
    cores = direction(layer, diagonal[0]) | direction(layer, diagonal[1], "_b")
    return cores | renamed(others, lambda name: _placed(name, places))


def _placed(name: str, places: Mapping[str, str]) -> str:
    """The name with its first part replaced; names that `places` lacks stay."""
    old = next((old for old in places if name.startswith(old)), "")
    return places.get(old, "") + name.removeprefix(old)
