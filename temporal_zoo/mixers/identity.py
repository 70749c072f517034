"""A control without any exchange between frames."""

from torch import Tensor

from temporal_zoo.interface import Mixer
from temporal_zoo.registry import register


@register("identity", summary="control: returns the frames unchanged", paper="none (control)", time="1", memory="1")
class Identity(Mixer):
    """y = x: a network with this mixer learns without temporal mixing."""

    causal = True
    order_blind = True

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return x
