"""Measures how close generated videos are to real ones: FVD with a full record of its settings, and other measures.

Importing this package does not import torch, so that `--help` stays light.
"""

__all__ = ["EvaluationError"]


from temporal_zoo.errors import InvalidInput


class EvaluationError(InvalidInput):
    """Clips, weights or a protocol cannot be used as requested.  The message gives the reason and what would work."""
