"""The space-time U-Net: convolutions and spatial attention per frame, and temporal mixers in named slots.

With the defaults of `ModelConfig` this is the network of arXiv 2403.07711, equal in its number of parameters: a stem;
stages of two residual blocks and linear attention, one stage per resolution and side; a middle with full attention; and
x + Mixer(norm(x)) after the stem, in every stage and in the middle.

Letters: b clips, t frames, c channels, h w height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from diffusion.config import ModelConfig
from diffusion.model.backbone import Backbone, TemporalBlocks
from diffusion.model.blocks import FullAttention, LevelEmbedding, LinearAttention, ResidualBlock
from diffusion.model.recompute import recomputed
from diffusion.model.slots import Slots
from diffusion.model.temporal import TemporalBlock


def slots(resolutions: int) -> Slots:
    """The slots of a U-Net: `stem`, `down0` (full resolution) to the coarsest, `mid`, `up0` (the coarsest) to the last.

    Groups: `high`, the finer half of the resolutions, and `low`, the rest; `down` (with the stem) and `up`, the sides.
    """
    numbers = range(resolutions)
    resolution_of = {"stem": 0}  # 0 is full resolution
    resolution_of |= {f"down{i}": i for i in numbers}
    resolution_of |= {"mid": resolutions - 1}
    resolution_of |= {f"up{i}": resolutions - 1 - i for i in numbers}
    names, finer = tuple(resolution_of), (resolutions + 1) // 2
    return Slots(
        names,
        {
            "high": tuple(slot for slot in names if resolution_of[slot] < finer),
            "low": tuple(slot for slot in names if resolution_of[slot] >= finer),
            "down": tuple(slot for slot in names if slot.startswith(("stem", "down"))),
            "up": tuple(slot for slot in names if slot.startswith("up")),
        },
    )


@dataclass(frozen=True, kw_only=True)
class Pass:
    """The arguments that all blocks get in one forward pass."""

    level: Tensor  # (b t) time_width: the embedded noise level of each frame
    frames: int
    lengths: Tensor | None  # (b,)
    real: Tensor | None  # (b t): 1 for real frames, 0 for padding
    norm_frames: int  # how many consecutive frames share the statistics of a group norm
    recompute: bool  # whether backward recomputes the activations of blocks

    def residual(self, block: nn.Module, x: Tensor) -> Tensor:
        """Applies a `ResidualBlock`."""
        return self._run(block, x, self.level, self.norm_frames, self.real)

    def temporal(self, block: nn.Module | None, x: Tensor) -> Tensor:
        """Applies a `TemporalBlock`, if the slot holds one."""
        return x if block is None else self._run(block, x, self.level, self.frames, self.lengths)

    def _run(self, block: nn.Module, *arguments: Any) -> Tensor:
        return recomputed(block, *arguments) if self.recompute else block(*arguments)


class Stage(nn.Module):
    """One resolution of one side: residual blocks, spatial attention, a slot, and the step to the next resolution."""

    def __init__(
        self, blocks: list[ResidualBlock], spatial: nn.Module, temporal: TemporalBlock | None, resample: nn.Module
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.spatial = spatial
        self.temporal = temporal
        self.resample = resample

    def forward(self, x: Tensor, now: Pass) -> tuple[Tensor, Tensor]:
        """Frames (b t) c h w at this resolution, and the same frames at the next one."""
        for block in self.blocks:
            x = now.residual(block, x)
        x = now.temporal(self.temporal, self.spatial(x))
        return x, self.resample(x)


class Network(Backbone):
    """The U-Net; the docstring of the module describes it."""

    @staticmethod
    def slots(config: ModelConfig) -> Slots:
        """See `slots`."""
        return slots(len(config.multipliers))

    def build(self, config: ModelConfig, blocks: TemporalBlocks) -> None:
        """Creates stem, stages, middle and output; attribute names are names in checkpoints."""
        widths = [config.width * m for m in config.multipliers]
        time_width = config.width * config.time_width

        def residual(inputs: int, outputs: int, timed: bool = True) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, config.groups, time_width if timed else None, config.zero_init)

        def spatial(channels: int) -> nn.Module:
            if config.spatial != "everywhere":
                return nn.Identity()
            return LinearAttention(channels, config.heads, config.zero_init)

        def stage(slot: str, inputs: int, outputs: int, resample: nn.Module) -> Stage:
            residuals = [residual(outputs if i else inputs, outputs) for i in range(config.blocks)]
            return Stage(residuals, spatial(outputs), blocks.build(slot, outputs, time_width), resample)

        self.embed = LevelEmbedding(config.width, time_width)
        self.stem = nn.Conv2d(config.channels, config.width, config.stem, padding=config.stem // 2)
        self.stem_temporal = blocks.build("stem", config.width, time_width)
        last = len(widths) - 1
        self.down = nn.ModuleList(
            stage(f"down{i}", a, b, nn.Conv2d(b, b, 4, 2, 1) if i < last else nn.Identity())
            for i, (a, b) in enumerate(zip([config.width, *widths[:-1]], widths, strict=True))
        )
        coarsest = widths[-1]
        self.mid_first = residual(coarsest, coarsest)
        self.mid_spatial = (
            nn.Identity() if config.spatial == "none" else FullAttention(coarsest, config.heads, config.zero_init)
        )
        self.mid_temporal = blocks.build("mid", coarsest, time_width)
        self.mid_second = residual(coarsest, coarsest)
        self.up = nn.ModuleList(
            stage(f"up{i}", 2 * a, b, nn.ConvTranspose2d(b, b, 4, 2, 1) if i < last else nn.Identity())
            for i, (a, b) in enumerate(zip(widths[::-1], [*widths[-2::-1], config.width], strict=True))
        )
        self.final = residual(2 * config.width, config.width, timed=False)
        self.to_out = nn.Conv2d(config.width, config.channels, 1)
        if config.zero_init:
            nn.init.zeros_(self.to_out.weight)

    def predict(self, x: Tensor, noise: Tensor, lengths: Tensor | None) -> Tensor:
        """See `Backbone.predict`."""
        frames = x.shape[1]
        real = None
        if lengths is not None:
            real = (torch.arange(frames, device=x.device) < lengths[:, None]).flatten().float()
        now = Pass(
            level=self.embed(noise.flatten()),
            frames=frames,
            lengths=lengths,
            real=real,
            norm_frames=1 if self.config.norm == "frame" else frames,
            recompute=self.config.checkpointing == "blocks",
        )
        y = rearrange(x, "b t c h w -> (b t) c h w").contiguous(memory_format=torch.channels_last)
        return rearrange(self._unet(y, now), "(b t) c h w -> b t c h w", t=frames)

    def _unet(self, x: Tensor, now: Pass) -> Tensor:
        x = stem = now.temporal(self.stem_temporal, self.stem(x))
        skips = []
        for stage in self.down:
            skip, x = stage(x, now)
            skips.append(skip)
        x = now.residual(self.mid_first, x)
        x = now.temporal(self.mid_temporal, self.mid_spatial(x))
        x = now.residual(self.mid_second, x)
        for stage in self.up:
            x = stage(torch.cat([x, skips.pop()], dim=1), now)[1]
        x = now.residual(self.final, torch.cat([x, stem], dim=1))
        return self.to_out(x)
