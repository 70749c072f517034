"""Signals that ask a long command to stop: noted, so that it can end well."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Ctrl-C, what `kill` and schedulers send, and a terminal that was closed (not on Windows).
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


@dataclass
class Stop:
    """signal: the number of the signal that came, None before."""

    signal: int | None = None


def exit_code(number: int) -> int:
    """Of a command that a signal ended, by convention."""
    return 128 + number


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Notes the first signal instead of ending the program; the next one has its usual effect.

    A hang-up that the program was told to ignore (`nohup`) stays ignored.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread receives signals
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: handler for number in numbers if _is_ours(number, handler := signal.getsignal(number))}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: object) -> None:
        stop.signal = number
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()


def _is_ours(number: int, handler: object) -> bool:
    """Whether a signal may be handled here: its handler is one of Python, and `nohup` did not switch it off."""
    return handler is not None and (number == signal.SIGINT or handler != signal.SIG_IGN)
