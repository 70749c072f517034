"""The errors that users cause, and the warning about old names.

The `zoo` command shows these errors as one message; every other exception is a bug of this project.

    UserError                  the root: `except UserError` catches all of them
      InvalidInput             an argument, tensor or value that cannot be used (also a ValueError)
        ConfigError, ...       the same in configurations, records, data sets, checkpoints; defined beside their code
      BackendError             no backend can run these inputs (also a RuntimeError)

A message says what was asked, why that cannot be done, and what would work.
"""

from __future__ import annotations

import functools
import sys
import warnings


class UserError(Exception):
    """Root of all errors that a user can correct."""


class InvalidInput(UserError, ValueError):
    """An argument, tensor or value that cannot be used; the message says what would work."""


@functools.cache
def warn_renamed(message: str) -> None:
    """Emits one `DeprecationWarning` per process and message, at the line outside of this package that caused it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("temporal_zoo."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, DeprecationWarning, stacklevel=level)
