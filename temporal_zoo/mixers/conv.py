"""A control with a short reach: a centred convolution over frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from temporal_zoo.config import ConfigError, option
from temporal_zoo.interface import Mixer
from temporal_zoo.registry import register


@register(
    "conv", summary="control: a centred depthwise convolution over frames", paper="none (control)", time="T", memory="T"
)
class Conv(Mixer):
    """y_i = b + sum_j w_j x_{i + j} per channel, for j from -(width - 1) / 2 to (width - 1) / 2.

    Frames outside of the row count as zero.  The default width reaches three frames into the past and into the future,
    as far as the two short convolutions of `bimamba`.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of `conv`."""

        width: int = option(7, "number of frames that an output depends on; odd", least=3)

        examples: ClassVar[tuple[str, ...]] = ("width=3",)

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.width % 2 == 0:
                raise ConfigError(
                    f"Config.width is {self.width}; it must be odd, so that as many frames precede the output as "
                    f"follow it: use {self.width + 1}"
                )

    causal = False

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__(dim, config, shared)
        self.conv1d = nn.Conv1d(dim, dim, config.width, padding=config.width // 2, groups=dim)

    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.conv1d(x.transpose(1, 2)).transpose(1, 2)
