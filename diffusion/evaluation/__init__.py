"""How close generated videos are to real ones: FVD that says what it was computed with, and measures beside it.

Importing this package imports no torch, so that `--help` stays light.
"""

__all__ = ["EvaluationError"]


from temporal_zoo.errors import InvalidInput


class EvaluationError(InvalidInput):
    """Clips, weights or a protocol that cannot be used as asked; the message says why and what would work."""
