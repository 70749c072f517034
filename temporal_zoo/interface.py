"""The interface of all mixers: (rows, frames, dim) -> (rows, frames, dim)."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor, nn

from temporal_zoo import config as configuration
from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._autocast import working_dtype
from temporal_zoo.ops._lengths import check_lengths
from temporal_zoo.spec import MixerSpec
from temporal_zoo.streaming import State


class Mixer(nn.Module, abc.ABC):
    """Lets the frames of a row exchange information: (rows, frames, dim) -> (rows, frames, dim).

    The caller decides what a row is (in a video model: clips x height x width); a mixer does not depend on it.
    `over_frames` folds and unfolds the usual layouts.

    A subclass defines a nested `Config`, `__init__(dim, config, shared=None)` and `mix`.  It declares two properties:
    `causal` (frame t depends on frames <= t only) and `order_blind` (the order of frames makes no difference, as for
    controls).  The class declares them for the default options; a constructor overrides them where options change them.
    The contract verifies both declarations in both directions.  Norm, residual, modulation and dropout belong to the
    block around the mixer.

    Padding: the first `lengths[i]` frames of row i are real.  Outputs of real frames and all gradients never depend on
    the values of padded inputs; padded outputs are zero.  `forward` fills padded frames with zero before and after
    `mix`.  `mix` must only prevent that those zeros affect real frames (a bias can make them non-zero, and a backward
    scan reads the padding first).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(configuration.Config):
        """No options."""

    causal: bool
    order_blind: bool = False
    # Names of parameters that an optimizer should not decay.  Names, because deepcopy loses attributes of tensors.
    no_decay: tuple[str, ...] = ()
    # The name under which `@register` registered this class or its nearest registered base class.
    registered_name: ClassVar[str | None] = None

    def __init__(self, dim: int, config: Config, shared: nn.Module | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.config = config
        # The tuple hides a borrowed module from nn.Module's registration: its owner, the network's root, registers it.
        self._borrowed = (shared,)
        self.own = self.make_shared(config) if shared is None else None

    @classmethod
    def make_shared(cls, config: Any) -> nn.Module | None:
        """The module that all mixers of one network and one config share over depth (say, a bias table), or None."""
        return None

    @property
    def shared(self) -> nn.Module | None:
        """The shared module: the one that the caller passed, or this mixer's own from `make_shared`."""
        return self.own if self._borrowed[0] is None else self._borrowed[0]

    @property
    def spec(self) -> MixerSpec:
        """The mixer's name and all its options: `build(mixer.spec, mixer.dim)` and the text form build an equal mixer.

        A subclass that is not registered has the name of its nearest registered base class.

        Raises:
            InvalidInput: neither the class nor a base class with the same options is registered.
        """
        bases = [cls for cls in type(self).__mro__ if issubclass(cls, Mixer)]
        owner = next(cls for cls in bases if "registered_name" in vars(cls))
        if owner.registered_name is None or owner.Config is not self.Config:
            raise InvalidInput(f"{type(self).__name__} has no name and so no spec: register the class with @register")
        return MixerSpec.of(owner.registered_name, self.config)

    def extra_repr(self) -> str:
        """`dim` and the options that differ from their defaults, as arguments of `build`."""
        default = type(self.config)()
        options = {name: getattr(self.config, name) for name in configuration.hints(type(self.config))}
        changed = {name: value for name, value in options.items() if value != getattr(default, name)}
        return ", ".join(f"{name}={value!r}" for name, value in {"dim": self.dim, **changed}.items())

    if TYPE_CHECKING:  # nn.Module's own returns Any

        def __call__(self, x: Tensor, lengths: Tensor | None = None) -> Tensor: ...

    @final  # type: ignore[misc]  # nn.Module declares it as a variable
    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mixes frames.

        Args:
            x: (rows, frames, dim), any number of rows and at least one frame, in the float dtype of the weights.  Under
                autocast, as in torch's own layers: any float dtype, but float64 only where the weights are float64.
                A tensor (rows, channels, frames) with as many frames as channels cannot be detected.
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
            hint = "; this looks like (rows, channels, frames): pass x.transpose(1, 2) and transpose the output"
        elif x.ndim == 2 and x.shape[1] == self.dim:
            hint = "; for a single row of frames pass x[None]"
        elif x.ndim > 3:
            hint = "; fold clips, height and width into the rows, or call temporal_zoo.over_frames"
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
        """The parameter whose dtype the check compares: the first that an optimizer decays, or the first of all.

        Parameters in `no_decay` may have another dtype: mixers read decay rates and step sizes in float32 at least, and
        some training recipes keep them in float32.
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
        """Mixes frames; the method that every mixer defines.  The class says what it may assume about padding."""


class StatefulMixer(Mixer):
    """A mixer that can be evaluated chunk by chunk and passes a state from one chunk to the next.

    `passes` lists the sweeps over the chunks whose outputs add up to `forward`: `(False,)` is one sweep in time order;
    `(False, True)` adds a second sweep, which visits the chunks and their frames from the last to the first.  It is
    empty when a configuration cannot be evaluated chunk by chunk.  The class declares it for the default options.

    A subclass defines `mix_chunk`, and may define `init_state`.  Callers use `init_state`, `step` and `forward_chunk`,
    or `temporal_zoo.streaming.over_chunks`.
    """

    passes: tuple[bool, ...]

    def init_state(self, rows: int, *, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """The state before the first frame of a sweep.

        None is a valid state before the first frame for every mixer, and what this method returns unless a subclass
        defines it.  The mixers of this package return a `State` of tensors.

        Args:
            rows: number of rows.
            device, dtype: of the frames; by default those of the weights.
        """
        return None

    @final
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mixes one more frame.

        Args:
            x: (rows, dim), the next frame of every row.
            state: the result of `init_state` or of the previous step; None before the first frame.
        Returns:
            (rows, dim), and the state for the next frame.
        Raises:
            InvalidInput: the output of this mixer depends on later frames, or x does not fit.
        """
        if self.passes != (False,):
            raise InvalidInput(
                f"{type(self).__name__} has no step: its output at a frame depends on later frames. Evaluate whole "
                "clips, or clips in chunks with temporal_zoo.streaming.over_chunks, or choose a causal mixer: "
                "temporal_zoo.names(causal=True, stateful=True)"
            )
        if x.ndim != 2:
            raise InvalidInput(f"x is {tuple(x.shape)}; step takes one frame of every row, (rows, {self.dim})")
        y, state = self.forward_chunk(x.unsqueeze(1), state)
        return y.squeeze(1), state

    @final
    def forward_chunk(self, x: Tensor, state: Any, *, reverse: bool = False) -> tuple[Tensor, Any]:
        """Mixes one chunk of frames in one sweep.

        Args:
            x: (rows, frames, dim), all frames real.
            state: the result of `init_state` or of the previous chunk of this sweep; None before the first chunk.
            reverse: the sweep; one of `passes`.
        Returns:
            the output of this sweep, (rows, frames, dim) in the dtype of x, and the state for the next chunk.
        Raises:
            InvalidInput: no such sweep, another layout or dtype of x, or a state of another number of rows.
        """
        if reverse not in self.passes:
            sweeps = ", ".join(f"reverse={sweep}" for sweep in self.passes) or "none"
            raise InvalidInput(f"{type(self).__name__} has no sweep with reverse={reverse}; it has {sweeps}")
        self._check_layout(x)
        self._check_dtype(x)
        if isinstance(state, State) and state.rows != x.shape[0]:
            raise InvalidInput(f"the state has {state.rows} rows and x has {x.shape[0]}; select rows with state[rows]")
        y, state = self.mix_chunk(x, state, reverse=reverse)
        return y.to(x.dtype), state

    @abc.abstractmethod
    def mix_chunk(self, x: Tensor, state: Any, *, reverse: bool = False) -> tuple[Tensor, Any]:
        """Evaluates one chunk of one sweep.

        Args:
            x: (rows, frames, dim), all frames real.
            state: the state that the previous chunk of this sweep returned, or None for the first chunk.
            reverse: the sweep; one of `passes`.
        Returns:
            the output of this sweep, (rows, frames, dim), and the state for the next chunk.
        """
