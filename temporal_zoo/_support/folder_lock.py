"""A folder that one process at a time has."""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from pathlib import Path

from temporal_zoo.config import ConfigError

log = logging.getLogger("temporal_zoo.run")


class FolderLock:
    """Makes a folder and takes it; other processes are refused until `close`, the end of this process, or collection.

    Raises:
        ConfigError: another process has it.
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(folder)
        self._release = weakref.finalize(self, lambda: None if descriptor is None else os.close(descriptor))

    def close(self) -> None:
        """Gives the folder back; a second call does nothing."""
        self._release()

    def remove_if_new(self) -> None:
        """Removes a folder that this lock made and in which nothing was left."""
        if self._is_new:
            with contextlib.suppress(OSError):  # not empty: an error before this one says more
                self._folder.rmdir()


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the lock, or None where the system has no such locks."""
    try:
        import fcntl
    except ImportError:  # not a Unix
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(f"another process trains in {folder}; wait for it, or give --out another folder") from None
    except OSError as error:  # some network file systems
        os.close(descriptor)
        log.warning("%s cannot be locked (%s): train in it with one process at a time", folder, error.strerror)
        return None
    return descriptor
