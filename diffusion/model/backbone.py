"""What all backbones have in common: slots with mixers, modules that mixers share, seeds, and padding."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from diffusion.config import ModelConfig
from diffusion.model.slots import Slots, assign
from diffusion.model.temporal import TemporalBlock
from diffusion.process.process import per_frame
from diffusion.randomness import generator
from temporal_zoo import build
from temporal_zoo.registry import get
from temporal_zoo.spec import MixerSpec


class Backbone(nn.Module, abc.ABC):
    """A denoiser: predicts the noise, the clean clip or the velocity from a noisy clip and its noise levels.

    A subclass writes `slots`, `build` and `predict`, in a file of `diffusion.model.backbones`.  It stores the temporal
    blocks that it builds as submodules.  This class owns the modules that mixers share over depth (`shared`).

    Args:
        config: the network; its `mixer` text says which mixer goes into which slot.
        seed: initial weights are a function of it, and those outside mixers do not depend on the mixers.  Without a
            seed, weights are drawn from torch's global generator.
    Raises:
        ConfigError, UnknownMixer: see `diffusion.model.slots.assign`.
    """

    def __init__(self, config: ModelConfig, *, seed: int | None = None) -> None:
        super().__init__()
        self.config = config
        blocks = TemporalBlocks(config, self.mixers(config), seed)
        with _seeded(seed, "backbone"):
            self.build(config, blocks)
        self.shared = blocks.shared
        # mypy: the stubs of `to` lack memory formats.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @staticmethod
    @abc.abstractmethod
    def slots(config: ModelConfig) -> Slots:
        """The slots that a network of this configuration has."""

    @abc.abstractmethod
    def build(self, config: ModelConfig, blocks: TemporalBlocks) -> None:
        """Creates all submodules; `blocks.build` creates the temporal block of a slot."""

    @abc.abstractmethod
    def predict(self, x: Tensor, noise: Tensor, lengths: Tensor | None) -> Tensor:
        """The prediction.

        Args:
            x: (clips, frames, channels, height, width); padded frames are zero.
            noise: (clips, frames) noise levels.
            lengths: (clips,) int64, how many frames of each clip are real, or None when all are.
        Returns:
            a tensor of the shape of x; real frames must not depend on padded ones.
        """

    @final  # type: ignore[misc]  # nn.Module declares it as a variable
    def forward(self, x: Tensor, noise: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Predicts.

        Args:
            x: (clips, frames, channels, height, width).
            noise: noise levels, (clips,) or (clips, frames), counted from 0 to T - 1.
            lengths: (clips,) int64, how many frames of each clip are real, or None when all are.
        Returns:
            a prediction of the shape of x; zero at padded frames.
        """
        frames = x.shape[1]
        noise = per_frame(noise, frames)
        if lengths is None:
            return self.predict(x, noise, None)
        padding = (torch.arange(frames, device=x.device) >= lengths[:, None])[..., None, None, None]
        return self.predict(x.masked_fill(padding, 0), noise, lengths).masked_fill(padding, 0)

    @classmethod
    def mixers(cls, config: ModelConfig) -> dict[str, MixerSpec]:
        """Slot -> spec of its mixer, in the order of the slots; no network is built."""
        return assign(config.mixer, cls.slots(config), config.slots)

    def temporal_blocks(self) -> dict[str, TemporalBlock]:
        """Slot -> block, for the slots that hold a mixer, in the order in which a clip passes them."""
        return {block.slot: block for block in self.modules() if isinstance(block, TemporalBlock)}

    def no_decay(self) -> set[str]:
        """Names of parameters without weight decay: gains, biases and the parameters that a mixer names."""
        names = {name for name, parameter in self.named_parameters() if parameter.ndim < 2}
        for place, block in self.named_modules():
            if isinstance(block, TemporalBlock):
                names |= {f"{place}.mixer.{name}" for name in block.mixer.no_decay}
        return names


class TemporalBlocks:
    """Builds the temporal block of each slot, and one shared module for each distinct spec (`Mixer.make_shared`).

    Attributes:
        shared: slot -> shared module, named after the first slot that uses it, because no option changes that name.
    """

    def __init__(self, config: ModelConfig, mixers: Mapping[str, MixerSpec], seed: int | None) -> None:
        self.shared = nn.ModuleDict()
        self._config, self._mixers, self._seed = config, mixers, seed
        self._by_spec: dict[MixerSpec, nn.Module | None] = {}

    def build(self, slot: str, channels: int, time_width: int) -> TemporalBlock | None:
        """The block of a slot with frames of `channels` channels; None if the slot holds no mixer.

        Args:
            time_width: width of the noise-level embedding.
        """
        if slot not in self._mixers:
            return None
        spec, config = self._mixers[slot], self._config
        with _seeded(self._seed, f"mixer/{slot}"):
            mixer = build(spec, channels, shared=self._shared_of(spec, slot))
        return TemporalBlock(
            slot,
            mixer,
            time_width=time_width if config.modulated else None,
            gated=config.zero_init,
            recompute=config.checkpointing == "mixers",
        )

    def _shared_of(self, spec: MixerSpec, slot: str) -> nn.Module | None:
        if spec not in self._by_spec:
            module = self._by_spec[spec] = get(spec.name).mixer.make_shared(spec.config())
            if module is not None:
                self.shared[slot] = module
        return self._by_spec[spec]


@contextmanager
def _seeded(seed: int | None, purpose: str) -> Iterator[None]:
    """Weights that are drawn inside are a function of (seed, purpose); the caller's random state does not change."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, purpose).initial_seed())
        yield
