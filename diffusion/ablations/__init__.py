"""Ablations: what one choice in a video diffusion model changes, over cells that share data, noise and a budget.

Importing this package imports no torch, so that `--help` stays light.
"""

__all__ = ["AblationError"]


from temporal_zoo.errors import InvalidInput


class AblationError(InvalidInput):
    """An ablation that cannot be run or read as asked; the message says why and what would work."""
