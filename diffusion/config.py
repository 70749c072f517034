"""The configuration of a training run, as frozen records; `zoo train --set model.width=32` changes one field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffusion.data import DataConfig
from temporal_zoo import config as configuration
from temporal_zoo.config import Config, ConfigError, option

# The longest clip; a larger number of frames is probably a mistake.
MOST_FRAMES = 2**16


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """The network; the defaults are those of arXiv 2403.07711 except where a line says otherwise.

    A backbone reads the fields that it has a use for; the U-Net reads all.
    """

    backbone: str = option("unet", "the network: the name of a file in diffusion/model/backbones")
    mixer: str = option("bimamba", 'the mixer of each slot: "bimamba", "flash:heads=4", "bimamba+flash@mid"')
    slots: tuple[str, ...] = option((), "slots that hold a mixer, such as mid,up0; () for all slots of the backbone")
    channels: int = option(3, "colour channels; read from the data when a run starts", least=1, most=64)
    size: int = option(32, "height and width in pixels; read from the data when a run starts", least=1, most=4096)
    width: int = option(64, "channels at full resolution", least=8, most=16_384)
    multipliers: tuple[int, ...] = option(
        (1, 2, 4, 8), "channels at each resolution, in widths; each resolution halves the size", least=1, most=256
    )
    blocks: int = option(2, "residual blocks per resolution and side", least=1, most=256)
    groups: int = option(8, "groups of each group norm", least=1, most=16_384)
    heads: int = option(8, "heads of the spatial attention, 32 features each", least=1, most=1024)
    spatial: Literal["everywhere", "bottom", "none"] = option(
        "everywhere", "spatial attention: linear at every resolution and full at the coarsest, only the latter, or none"
    )
    time_width: int = option(32, "width of the noise-level embedding, in widths", least=1, most=256)
    stem: int = option(7, "kernel of the first convolution, odd", least=1, most=255)
    norm: Literal["clip", "frame"] = option(
        "clip", "whether the statistics of group norms are over all frames of a clip, or per frame"
    )
    modulated: bool = option(False, "whether the noise level scales and shifts the frames before a mixer (paper: no)")
    zero_init: bool = option(
        False, "whether the last weights of residual branches and of the network start at zero (paper: no)"
    )
    checkpointing: Literal["none", "mixers", "blocks"] = option(
        "none", "parts whose activations backward recomputes instead of storing them"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone == "unet":
            self._check_unet()

    def _check_unet(self) -> None:
        if not self.multipliers:
            raise ConfigError("ModelConfig.multipliers is empty; a U-Net has at least one resolution, such as 1,2,4")
        if self.width % 2:
            raise ConfigError(
                f"ModelConfig.width is {self.width}; it must be even, for sines and cosines of the noise level"
            )
        if self.stem % 2 == 0:
            raise ConfigError(f"ModelConfig.stem is {self.stem}; it must be odd, for a centred kernel")
        if self.width % self.groups:
            raise ConfigError(f"ModelConfig.width {self.width} is not a multiple of its {self.groups} groups")
        if self.size % 2 ** (len(self.multipliers) - 1):
            raise ConfigError(
                f"ModelConfig.size {self.size} cannot be halved {len(self.multipliers) - 1} times "
                f"(multipliers {list(self.multipliers)}); use fewer multipliers or a size that is a multiple of "
                f"{2 ** (len(self.multipliers) - 1)}"
            )


@dataclass(frozen=True, kw_only=True)
class ProcessConfig(Config):
    """The diffusion process; the defaults are the paper's."""

    steps: int = option(256, "number of noise levels T", least=2, most=1_000_000)
    prediction: Literal["epsilon", "x0", "v"] = option("epsilon", "the prediction of the network")
    levels: Literal["clip", "frame"] = option("clip", "noise levels: one per clip, or one per frame")
    draw: Literal["uniform", "stratified"] = option(
        "uniform", "noise levels in training: independent, or spread evenly over consecutive clips"
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Config):
    """AdamW and the moving average of the weights."""

    lr: float = option(1e-5, "learning rate", least=0, most=1e38)
    beta2: float = option(0.999, "second moment decay of Adam (the first is 0.9)", least=0, most=1)
    weight_decay: float = option(
        0.0, "decoupled weight decay, without biases, norms and the parameters that a mixer names", least=0, most=1000
    )
    warmup: int = option(0, "steps over which the learning rate rises from zero", least=0)
    decay: float = option(
        0.0, "fraction of the steps, at the end, over which the learning rate falls to zero", least=0, most=1
    )
    clip: float | None = option(None, "largest norm of the gradient; none for no clipping", least=0)
    ema: float = option(0.9999, "decay of the moving average of the weights", least=0, most=1)
    ema_warmup: bool = option(False, "whether that decay rises with the steps n as (1 + n) / (10 + n)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta2 == 1:
            raise ConfigError("OptimizerConfig.beta2 is 1; it must be below 1, since Adam divides by 1 - beta2^n")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """One training run."""

    model: ModelConfig = option(ModelConfig(), "the network")
    process: ProcessConfig = option(ProcessConfig(), "the diffusion process")
    data: DataConfig = option(DataConfig(), "the clips")
    optimizer: OptimizerConfig = option(OptimizerConfig(), "the optimizer")
    steps: int = option(100_000, "optimizer steps", least=1)
    batch: int = option(8, "clips per step", least=1, most=1_000_000)
    seed: int = option(0, "seed of every random choice", least=0)
    precision: Literal["fp32", "bf16"] = option("fp32", "arithmetic of the network: float32, or bfloat16 by autocast")
    start: str | None = option(
        None, "checkpoint whose averaged weights are the initial weights; none for random weights"
    )
    save_every: int = option(1000, "steps between checkpoints", least=1)
    sample_every: int = option(5000, "steps between sample sheets", least=1)
    test_every: int = option(1000, "steps between measurements of the held-out loss", least=1)
    test_clips: int = option(32, "held-out clips in that measurement", least=1, most=1_000_000)


def fields() -> list[tuple[str, str, str, str]]:
    """(path, type, default, doc) of every field that `--set` takes: ("model.width", "whole number", "64", ...)."""
    return configuration.fields(TrainConfig)
