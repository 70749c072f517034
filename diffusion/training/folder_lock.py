"""A lock on a folder: one process at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from pathlib import Path

from temporal_zoo.config import ConfigError

log = logging.getLogger("temporal_zoo.run")


class FolderLock:
    """Creates a folder if needed and locks it until `close` or the end of this process.

    Raises:
        ConfigError: another process holds the lock.
        OSError: the folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(folder)
        self._release = weakref.finalize(self, lambda: None if descriptor is None else os.close(descriptor))

    def close(self) -> None:
        """Releases the lock; a second call does nothing."""
        self._release()

    def remove_if_new(self) -> None:
        """Removes the folder if this lock created it and it is empty."""
        if self._is_new:
            with contextlib.suppress(OSError):  # it is not empty
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
        raise ConfigError(
            f"another process trains in {folder}; wait for it, or choose another folder with --out"
        ) from None
    except OSError as error:  # some network file systems
        os.close(descriptor)
        log.warning("cannot lock %s (%s): use this folder with one process at a time", folder, error.strerror)
        return None
    return descriptor
