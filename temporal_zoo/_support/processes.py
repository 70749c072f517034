"""Child processes that end when their parent ends, even where the parent is killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_INTERVAL_S = 0.5


def end_with_parent(parent: int) -> None:
    """Makes this process end when its parent ends.

    Linux kills it by a signal; there the parent must have started this process from a thread that does not end first,
    such as its main thread.  On other systems a thread checks twice a second whether the parent still runs.

    Args:
        parent: process id of the parent.  If the parent has ended already, this process ends at once.
    """
    if not (sys.platform == "linux" and _kill_signal_is_set()):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _kill_signal_is_set() -> bool:
    import ctypes

    try:
        return ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0
    except (OSError, AttributeError):  # the C library cannot be loaded, or has no such function
        return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_INTERVAL_S)
    os._exit(1)
