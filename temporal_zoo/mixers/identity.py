"""A control: no exchange between frames at all."""

from torch import Tensor

from temporal_zoo.interface import Mixer
from temporal_zoo.registry import register


@register("identity", summary="control: passes frames through unmixed", paper="none (control)", time="1", memory="1")
class Identity(Mixer):
    """y = x: frames pass through, so that whatever a network around it learns, it learned without temporal mixing."""

    causal = True
    order_blind = True

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return x
