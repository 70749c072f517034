"""Signals that ask a long command to stop, so that the command can save its work and end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Ctrl-C; the signal of `kill` and of schedulers; a closed terminal (not on Windows).
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


@dataclass
class Stop:
    """signal: number of the signal that arrived, or None."""

    signal: int | None = None


def exit_code(number: int) -> int:
    """The conventional exit code of a command that a signal ended."""
    return 128 + number


@contextmanager
def stoppable(*, interrupt: bool = False) -> Iterator[Stop]:
    """Stores the first signal in the result instead of ending the program; the next signal has its usual effect.

    Under `nohup` the program ignores SIGHUP as before.

    Args:
        interrupt: the first signal, whichever it is, also raises KeyboardInterrupt in the block.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread can receive signals
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: handler for number in numbers if _can_handle(number, handler := signal.getsignal(number))}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def store(number: int, _: object) -> None:
        stop.signal = number
        restore()
        if interrupt:
            raise KeyboardInterrupt

    for number in before:
        signal.signal(number, store)
    try:
        yield stop
    finally:
        restore()


def _can_handle(number: int, handler: object) -> bool:
    """Whether this module may handle a signal: Python has a handler for it, and `nohup` does not ignore it."""
    return handler is not None and (number == signal.SIGINT or handler != signal.SIG_IGN)
