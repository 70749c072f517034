"""The errors that users cause.  The `zoo` command shows them in one message; every other exception is a bug of ours.

    UserError                  the root: catch this one to catch them all
      InvalidInput             an argument, tensor or value that cannot be used (also a ValueError)
        ConfigError, ...       the same in configurations, records, data sets, checkpoints; defined beside their code
      BackendError             no backend can run these inputs (also a RuntimeError)

A message says what was asked, why that cannot be done, and what would work.
"""

from __future__ import annotations


class UserError(Exception):
    """Root of all errors that a user can mend."""


class InvalidInput(UserError, ValueError):
    """An argument, tensor or value that cannot be used; the message says what would work."""
