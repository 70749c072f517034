"""Out-of-memory errors with advice for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from temporal_zoo.errors import UserError


class OutOfMemory(UserError, MemoryError):
    """The device has too little memory; the message says what needs less."""


@contextmanager
def explain_out_of_memory(remedy: str) -> Iterator[None]:
    """Converts the out-of-memory errors of torch and Python to `OutOfMemory`.

    Args:
        remedy: what needs less memory, such as "a smaller batch (--set batch=1)".
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemory) or not _is_out_of_memory(error):
            raise
        first = str(error).partition("\n")[0] or type(error).__name__
        raise OutOfMemory(f"out of memory ({first}). Less memory is needed by {remedy}") from error


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means too little memory; torch's CPU allocator and sizes beyond 64 bits raise RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return any(words in text for words in ("can't allocate memory", "not enough memory", "size calculation overflowed"))
