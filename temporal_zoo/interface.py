"""The one interface of all mixers: (rows, frames, dim) -> (rows, frames, dim)."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from temporal_zoo import config as configuration
from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._autocast import working_dtype
from temporal_zoo.ops._lengths import check_lengths


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
            x: (rows, frames, dim), any number of rows and at least one frame, in the float dtype of the weights; under
                autocast as torch's own layers: any float dtype, but float64 only where the weights are float64.
                A tensor (rows, channels, frames) with as many frames as channels cannot be told apart from it.
            lengths: (rows,) int64 on x's device, each in 1..frames, or None when every frame is real.  The range is
                checked where the values can be read at no cost (see `ops/_lengths.py`).
        Returns:
            (rows, frames, dim), dtype and device of x; zero at padded frames.
        Raises:
            InvalidInput: another layout or dtype of x, no frames, or lengths that do not fit.
        """
        self._check_layout(x)
        self._check_dtype(x)
        check_lengths(x, lengths)
        if lengths is None:
            return self.mix(x, None).to(x.dtype)
        # Filling and not multiplying: NaN behind the last real frame times zero is NaN, at the latest in a gradient.
        padding = (torch.arange(x.shape[1], device=x.device) >= lengths[:, None]).unsqueeze(-1)
        return self.mix(x.masked_fill(padding, 0), lengths).masked_fill(padding, 0).to(x.dtype)

    def _check_layout(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise InvalidInput(f"x is of type {type(x).__name__}; a mixer takes a tensor (rows, frames, {self.dim})")
        if x.ndim == 3 and x.shape[2] == self.dim:
            return
        hint = ""
        if x.ndim == 3 and x.shape[1] == self.dim:
            hint = "; this looks like (rows, channels, frames): pass x.transpose(1, 2), and transpose what comes back"
        elif x.ndim == 2 and x.shape[1] == self.dim:
            hint = "; for a single row of frames pass x[None]"
        elif x.ndim > 3:
            hint = "; fold clips, height and width into the rows"
        raise InvalidInput(f"x is {tuple(x.shape)}; this mixer takes (rows, frames, dim) with dim={self.dim}{hint}")

    def _check_dtype(self, x: Tensor) -> None:
        if not x.is_floating_point():
            raise InvalidInput(f"x is {x.dtype}; a mixer takes a float dtype, that of its weights")
        name, weight = self._typical_parameter()
        # Under autocast both become its dtype, except float64.
        if weight is not None and weight.dtype != x.dtype and working_dtype(weight) != working_dtype(x):
            raise InvalidInput(
                f"x is {x.dtype} and the weights ({name}) are {weight.dtype}: convert one, by mixer.to(x.dtype) or "
                f"x.to({weight.dtype}), or run the mixer under torch.autocast"
            )

    def _typical_parameter(self) -> tuple[str, Tensor | None]:
        """The parameter whose dtype stands for all, which keeps the check cheap: the first that decays, or the first.

        Those in `no_decay` may have another dtype than the rest: mixers read decay rates and step sizes in float32 at
        least, and some recipes keep them so.
        """
        first: tuple[str, Tensor | None] = ("", None)
        for name, parameter in self.named_parameters():
            if not parameter.is_floating_point():
                continue
            if name not in self.no_decay:
                return name, parameter
            if first[1] is None:
                first = name, parameter
        return first

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
