"""The minimal S4D layer of state-spaces/s4 (models/s4/s4d.py, arXiv 2206.11893) and our `s4d`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from temporal_zoo.convert._converted import ConversionError, Converted, converted, layer_of

_SOURCE = "a minimal S4D layer of state-spaces/s4"


def from_s4(state: Mapping[str, Any], *, discretisation: Literal["zoh", "bilinear"], prefix: str = "") -> Converted:
    """Converts an S4D layer to `s4d` in time order with a gated linear unit.

    Args:
        state: the state dict of the layer, or one that holds it.
        discretisation: from differential equation to recurrence, which no state dict says; the minimal layer of
            models/s4/s4d.py uses "zoh".
        prefix: beginning of the names of the layer, such as "s4_layers.0.".

    Raises:
        ConversionError: there is no such layer, or it is one of the full S4 blocks.
    """
    if discretisation not in ("zoh", "bilinear"):
        raise ConversionError(f"discretisation is {discretisation!r}; choose zoh (models/s4/s4d.py) or bilinear")
    if any(name.startswith(prefix) and name.endswith(("kernel.inv_dt", "kernel.B", "kernel.P")) for name in state):
        raise ConversionError(
            "this is a full S4 block (its kernel has inv_dt, B or P); only the minimal layer of models/s4/s4d.py can "
            "become s4d"
        )
    layer, dropped = layer_of(state, prefix, source=_SOURCE, needs=("kernel.C", "kernel.log_dt", "D"))
    options = {
        "state": 2 * layer["kernel.C"].shape[1],
        "discretisation": discretisation,
        "bidirectional": False,
        "glu": "output_linear.0.weight" in layer,
    }
    ours = direction(layer)
    return converted("s4d", options, layer["D"].shape[0], ours, source=_SOURCE, dropped=dropped)


def direction(layer: Mapping[str, Tensor], prefix: str = "", ours: str = "") -> dict[str, Tensor]:
    """One direction of `s4d` from the tensors below `prefix`; `ours` is "" or "_b", the backward direction."""
    names = {
        **{f"kernel.{name}": f"core{ours}.{name}" for name in ("C", "log_dt", "log_A_real", "A_imag")},
        "D": f"core{ours}.D",
        "output_linear.0.weight": f"glu{ours}.weight",
        "output_linear.0.bias": f"glu{ours}.bias",
    }
    found = {}
    for name, tensor in layer.items():
        if name.startswith(prefix):
            key = name.removeprefix(prefix)
            # A convolution of width 1 over channels is a linear layer.
            found[names.get(key, name)] = tensor.squeeze(-1) if key == "output_linear.0.weight" else tensor
    return found
