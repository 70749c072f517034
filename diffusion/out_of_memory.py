"""Memory that runs out, as an error that a user can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from temporal_zoo.errors import UserError


class OutOfMemory(UserError, MemoryError):
    """The device has less memory than what was asked for takes; the message says what takes less."""


@contextmanager
def telling_when_memory_runs_out(remedy: str) -> Iterator[None]:
    """Turns the errors with which torch and Python report this into `OutOfMemory`.

    Args:
        remedy: what takes less memory, such as "a smaller batch (--set batch=1)".
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemory) or not _is_out_of_memory(error):
            raise
        first = str(error).partition("\n")[0] or type(error).__name__
        raise OutOfMemory(f"memory ran out ({first}). What takes less: {remedy}") from error


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch's CPU allocator has no exception type of its own, nor have sizes beyond 64 bits."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return any(words in text for words in ("can't allocate memory", "not enough memory", "size calculation overflowed"))
