"""Streaming: states that mixers pass from one chunk of frames to the next, and whole clips in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor

from temporal_zoo.errors import InvalidInput

if TYPE_CHECKING:
    from temporal_zoo.interface import StatefulMixer


StateType = TypeVar("StateType", bound="State")


@dataclass(frozen=True)
class State:
    """The state of one sweep between two chunks: the base class of frozen dataclasses whose fields are tensors.

    The first axis of every field is rows.  `register_state` makes a subclass known to torch.
    """

    @property
    def rows(self) -> int:
        """Number of rows."""
        return next(self._tensors()).shape[0]

    def detach(self) -> Self:
        """The same values without their history: truncated backpropagation through time."""
        return self._map(torch.detach)

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Self:
        """On another device or in another real dtype; complex tensors take the complex dtype that belongs to it."""

        def moved(tensor: Tensor) -> Tensor:
            wanted = dtype.to_complex() if dtype is not None and tensor.is_complex() else dtype
            return tensor.to(device=device, dtype=wanted)

        return self._map(moved)

    def __getitem__(self, rows: Any) -> Self:
        """Some of the rows: a slice, a mask, or an index tensor; a repeated index copies a row.

        Raises:
            InvalidInput: an index that would remove the axis of rows.
        """
        if isinstance(rows, int):
            raise InvalidInput(f"state[{rows}] would remove the axis of rows; write state[{rows}:{rows + 1}]")
        return self._map(lambda tensor: tensor[rows])

    def _tensors(self) -> Iterator[Tensor]:
        return (getattr(self, field.name) for field in fields(self))

    def _map(self, function: Any) -> Self:
        return replace(self, **{field.name: function(getattr(self, field.name)) for field in fields(self)})


def register_state(cls: type[StateType]) -> type[StateType]:
    """A decorator above `@dataclass(frozen=True)`: makes a subclass of `State` a pytree.

    Functions of torch (`torch.compile`, `torch.func`, `torch.export`, tree maps) then take and return such states.
    """
    torch.export.register_dataclass(cls, serialized_type_name=f"{cls.__module__}.{cls.__qualname__}")
    return cls


def over_chunks(mixer: StatefulMixer, chunks: Sequence[Tensor]) -> list[Tensor]:
    """The output for a clip that is cut into chunks: equal to `mixer` of the whole clip, with the state of one chunk.

    A causal mixer visits the chunks once.  A mixer in both directions visits them twice, from the first to the last and
    back, so the whole clip must exist before the first output is complete.

    Args:
        mixer: its `passes` must not be empty.
        chunks: the frames in time order, each (rows, frames, dim), all frames real.

    Returns:
        outputs of the same shapes.

    Raises:
        InvalidInput: this mixer cannot be evaluated in chunks, or a chunk does not fit.
    """
    if not mixer.passes:
        raise InvalidInput(
            f"{type(mixer).__name__} with these options cannot be evaluated in chunks; call it on whole clips"
        )
    outputs: list[Tensor | None] = [None] * len(chunks)
    for reverse in mixer.passes:
        state = None
        for index in reversed(range(len(chunks))) if reverse else range(len(chunks)):
            y, state = mixer.forward_chunk(chunks[index], state, reverse=reverse)
            earlier = outputs[index]
            outputs[index] = y if earlier is None else earlier + y
    return [y for y in outputs if y is not None]
