"""The space-time U-Net: convolutions and spatial attention per frame, and ten named slots for temporal mixers.

Letters: b clips, t frames, c channels, h w height and width.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from diffusion.config import ModelConfig
from diffusion.model.blocks import FullAttention, LevelEmbedding, LinearAttention, ResidualBlock
from diffusion.model.recompute import recomputed
from diffusion.model.slots import assign
from diffusion.model.temporal import TemporalBlock
from diffusion.process.process import per_frame
from diffusion.process.randomness import generator
from temporal_zoo import build
from temporal_zoo.registry import get
from temporal_zoo.spec import MixerSpec


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What every block of one forward pass is told."""

    level: Tensor  # (b t) time_width: the embedded noise level of each frame
    frames: int
    lengths: Tensor | None  # (b,)
    real: Tensor | None  # (b t): 1 for real frames, 0 for padding
    norm_frames: int  # how many consecutive frames share the statistics of a group norm
    recompute: bool  # whether blocks compute their activations again in backward

    def refine(self, block: nn.Module, x: Tensor) -> Tensor:
        """Through a `ResidualBlock`."""
        return self._run(block, x, self.level, self.norm_frames, self.real)

    def mix(self, block: nn.Module | None, x: Tensor) -> Tensor:
        """Through a `TemporalBlock`, where the slot holds one."""
        return x if block is None else self._run(block, x, self.level, self.frames, self.lengths)

    def _run(self, block: nn.Module, *arguments: Any) -> Tensor:
        return recomputed(block, *arguments) if self.recompute else block(*arguments)


class Level(nn.Module):
    """One level of one side: residual blocks, spatial attention, a slot, and the way to the next resolution."""

    def __init__(
        self, blocks: list[ResidualBlock], spatial: nn.Module, temporal: TemporalBlock | None, resample: nn.Module
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.spatial = spatial
        self.temporal = temporal
        self.resample = resample

    def forward(self, x: Tensor, now: Pass) -> tuple[Tensor, Tensor]:
        """The frames (b t) c h w as this level leaves them, and the same at the next resolution."""
        for block in self.blocks:
            x = now.refine(block, x)
        x = now.mix(self.temporal, self.spatial(x))
        return x, self.resample(x)


class Backbone(nn.Module):
    """Predicts, from a noisy clip and its noise level, what the process asks for (noise, clean clip or velocity).

    With the defaults of `ModelConfig` this is the network of arXiv 2403.07711 to the parameter: a stem, levels of two
    residual blocks and linear attention, a bottom with full attention, and x + Mixer(norm(x)) after the stem, in every
    level and at the bottom.  Slots are `stem`, `down0`.., `mid`, `up0`.. (`diffusion.model.slots`).

    Args:
        config: the network; its `mixer` text says which mixer sits in which slot.
        seed: when given, initial weights are a function of it, and those of the backbone do not depend on the mixer.
    """

    def __init__(self, config: ModelConfig, *, seed: int | None = None) -> None:
        super().__init__()
        self.config = config
        levels = len(config.multipliers)
        specs = assign(config.mixer, levels, config.slots)
        with _seeded(seed, "backbone"):
            self._build(config, specs)
        self.shared = nn.ModuleDict()
        blocks, shared = self.temporal_blocks(), dict[MixerSpec, nn.Module | None]()
        for slot, spec in specs.items():
            with _seeded(seed, f"mixer/{slot}"):
                if spec not in shared:
                    shared[spec] = get(spec.name).mixer.make_shared(spec.config())
                    if (module := shared[spec]) is not None:
                        # Registered at the root under the first slot that uses it: a name that no option changes.
                        self.shared[slot] = module
                blocks[slot].mixer = build(spec, blocks[slot].gain.shape[0], shared=shared[spec])
        # mypy: the stubs of `to` know nothing of memory formats.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _build(self, config: ModelConfig, slots: Container[str]) -> None:
        widths = [config.width * m for m in config.multipliers]
        time_width = config.width * config.time_width

        def residual(inputs: int, outputs: int, timed: bool = True) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, config.groups, time_width if timed else None, config.zero_init)

        def spatial(channels: int) -> nn.Module:
            return (
                LinearAttention(channels, config.heads, config.zero_init)
                if config.spatial == "everywhere"
                else nn.Identity()
            )

        def temporal(slot: str, channels: int) -> TemporalBlock | None:
            if slot not in slots:
                return None
            return TemporalBlock(
                slot,
                channels,
                time_width=time_width if config.modulated else None,
                gated=config.zero_init,
                recompute=config.checkpointing == "mixers",
            )

        def level(slot: str, inputs: int, outputs: int, resample: nn.Module) -> Level:
            blocks = [residual(outputs if i else inputs, outputs) for i in range(config.blocks)]
            return Level(blocks, spatial(outputs), temporal(slot, outputs), resample)

        self.embed = LevelEmbedding(config.width, time_width)
        self.stem = nn.Conv2d(config.channels, config.width, config.stem, padding=config.stem // 2)
        self.stem_temporal = temporal("stem", config.width)
        last = len(widths) - 1
        self.down = nn.ModuleList(
            level(f"down{i}", a, b, nn.Conv2d(b, b, 4, 2, 1) if i < last else nn.Identity())
            for i, (a, b) in enumerate(zip([config.width, *widths[:-1]], widths, strict=True))
        )
        bottom = widths[-1]
        self.mid_first = residual(bottom, bottom)
        self.mid_spatial = (
            nn.Identity() if config.spatial == "none" else FullAttention(bottom, config.heads, config.zero_init)
        )
        self.mid_temporal = temporal("mid", bottom)
        self.mid_second = residual(bottom, bottom)
        self.up = nn.ModuleList(
            level(f"up{i}", 2 * a, b, nn.ConvTranspose2d(b, b, 4, 2, 1) if i < last else nn.Identity())
            for i, (a, b) in enumerate(zip(widths[::-1], [*widths[-2::-1], config.width], strict=True))
        )
        self.final = residual(2 * config.width, config.width, timed=False)
        self.to_out = nn.Conv2d(config.width, config.channels, 1)
        if config.zero_init:
            nn.init.zeros_(self.to_out.weight)

    def temporal_blocks(self) -> dict[str, TemporalBlock]:
        """Slot -> block, for the slots that hold a mixer, in the order in which a clip passes them."""
        return {block.slot: block for block in self.modules() if isinstance(block, TemporalBlock)}

    def forward(self, x: Tensor, noise: Tensor, lengths: Tensor | None = None) -> Tensor:
        """One pass.

        Args:
            x: (clips, frames, channels, height, width).
            noise: noise levels, (clips,) or (clips, frames), counted from 0 to T - 1.
            lengths: (clips,) int64, how many frames of each clip are real, or None when all are.
        Returns:
            a prediction of the shape of x; zero at padded frames.
        """
        frames = x.shape[1]
        level = self.embed(per_frame(noise, frames).flatten())
        padding = real = None
        if lengths is not None:
            padding = (torch.arange(frames, device=x.device) >= lengths[:, None])[..., None, None, None]
            real = (~padding).flatten().float()
            x = x.masked_fill(padding, 0)
        now = Pass(
            level=level,
            frames=frames,
            lengths=lengths,
            real=real,
            norm_frames=1 if self.config.norm == "frame" else frames,
            recompute=self.config.checkpointing == "blocks",
        )
        y = rearrange(x, "b t c h w -> (b t) c h w").contiguous(memory_format=torch.channels_last)
        y = rearrange(self._unet(y, now), "(b t) c h w -> b t c h w", t=frames)
        return y if padding is None else y.masked_fill(padding, 0)

    def _unet(self, x: Tensor, now: Pass) -> Tensor:
        x = stem = now.mix(self.stem_temporal, self.stem(x))
        skips = []
        for level in self.down:
            skip, x = level(x, now)
            skips.append(skip)
        x = now.refine(self.mid_first, x)
        x = now.mix(self.mid_temporal, self.mid_spatial(x))
        x = now.refine(self.mid_second, x)
        for level in self.up:
            x = level(torch.cat([x, skips.pop()], dim=1), now)[1]
        x = now.refine(self.final, torch.cat([x, stem], dim=1))
        return self.to_out(x)

    def no_decay(self) -> set[str]:
        """Names of parameters that weight decay should spare: gains, biases and whatever a mixer names."""
        spared = {name for name, parameter in self.named_parameters() if parameter.ndim < 2}
        for slot, block in self.named_modules():
            if isinstance(block, TemporalBlock):
                spared |= {f"{slot}.mixer.{name}" for name in block.mixer.no_decay}
        return spared


@contextmanager
def _seeded(seed: int | None, purpose: str) -> Iterator[None]:
    """Initial weights drawn inside are a function of (seed, purpose); the caller's random state is untouched."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, purpose).initial_seed())
        yield
