"""The one interface of all mixers: (rows, frames, dim) -> (rows, frames, dim)."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from temporal_zoo import config as configuration


class Mixer(nn.Module, abc.ABC):
    """Lets the frames of a row exchange information: (rows, frames, dim) -> (rows, frames, dim).

    `rows` is whatever the caller folded away (clips x height x width); a mixer knows nothing of video.

    A mixer writes a nested `Config`, `__init__(dim, config, shared=None)` and `mix`.  It declares, on the instance,
    what it is: `causal` (frame t depends on frames <= t only) and `order_blind` (frame order makes no difference, as
    for controls); the contract verifies both declarations, both ways.  Norm, residual, modulation and dropout belong to
    the block around it.

    Padding: the first `lengths[i]` frames of row i are real.  Real outputs and all gradients never depend on padded
    inputs, whatever they hold; padded outputs are zero.  `forward` owns that: it fills padded frames with zero before
    and after `mix`, and `mix` must only keep those zeros from reaching real frames (a bias can make them non-zero, and
    a backward scan meets the padding first).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(configuration.Config):
        """No options."""

    causal: bool
    order_blind: bool = False
    # Names of parameters that an optimizer should not decay; names and not marks on tensors, which deepcopy loses.
    no_decay: tuple[str, ...] = ()

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.config = config
        # A borrowed module is kept out of the registered children: its owner, the network's root, holds its parameters.
        self._borrowed = (shared,)
        self.own = self.make_shared(config) if shared is None else None

    @classmethod
    def make_shared(cls, config: Any) -> nn.Module | None:
        """What all mixers of one network and one config have in common across depth (say, a bias table), or None."""
        return None

    @property
    def shared(self) -> nn.Module | None:
        """The module that `make_shared` built: this mixer's own, or the one it was handed."""
        return self.own if self._borrowed[0] is None else self._borrowed[0]

    @final  # type: ignore[misc]  # nn.Module declares it as a variable
    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mixes frames.

        Args:
            x: (rows, frames, dim), any float dtype.
            lengths: (rows,) int64 on x's device, each in 1..frames, or None when every frame is real.
        Returns:
            (rows, frames, dim), dtype and device of x; zero at padded frames.
        """
        if lengths is None:
            return self.mix(x, None).to(x.dtype)
        # Filling and not multiplying: NaN behind the last real frame times zero is NaN, at the latest in a gradient.
        padding = (torch.arange(x.shape[1], device=x.device) >= lengths[:, None]).unsqueeze(-1)
        return self.mix(x.masked_fill(padding, 0), lengths).masked_fill(padding, 0).to(x.dtype)

    @abc.abstractmethod
    def mix(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """The one method that a mixer writes; see the class for what it may assume and must keep."""


class StatefulMixer(Mixer):
    """A mixer that can be evaluated chunk by chunk, carrying a state from one chunk to the next.

    `passes` says which sweeps over the chunks make up the whole: `(False,)` one in time order, `(False, True)` a second
    one that walks the chunks (and the frames in them) from the last to the first; the outputs of the sweeps add up to
    `forward`.  Empty when this configuration cannot be evaluated so.
    """

    passes: tuple[bool, ...]

    @abc.abstractmethod
    def mix_chunk(self, x: Tensor, state: Any, *, reverse: bool = False) -> tuple[Tensor, Any]:
        """One chunk of one sweep.

        Args:
            x: (rows, frames, dim), all frames real.
            state: what the previous chunk of this sweep returned, or None at its start.
            reverse: which sweep; one of `passes`.
        Returns:
            this sweep's share of the output, (rows, frames, dim), and the state to hand to the next chunk.
        """
