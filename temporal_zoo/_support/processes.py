"""Processes that end with the process that started them, also when that one is killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_LOOK_S = 0.5


def end_with_parent(parent: int) -> None:
    """Lets this process be ended when its parent ends.

    Linux does it by itself, which costs the process nothing; there the parent must have started this process from a
    thread that lives on, such as its main thread.  Elsewhere a thread looks for the parent now and then.

    Args:
        parent: the number of the process that started this one; where it has ended already, so does this one.
    """
    if not (sys.platform == "linux" and _signalled_by_linux()):
        threading.Thread(target=_look, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _signalled_by_linux() -> bool:
    import ctypes

    try:
        return ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0
    except (OSError, AttributeError):  # no C library that can be loaded, or one without this function
        return False


def _look(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)
