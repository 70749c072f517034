"""Probes: small tasks with an exactly known best answer, which show in a minute what a mixer can do.

A probe asks for values that noise, time or an occluder hides.  The best answer is the conditional mean of the hidden
values: given the past and present for a causal mixer, given the whole sequence for a bidirectional one.  Both are
computed exactly, on the same sequences that test the mixer.

Importing this package imports no torch, so that `--help` is fast.
"""

__all__ = ["ProbeError"]


from temporal_zoo.errors import InvalidInput


class ProbeError(InvalidInput):
    """A probe that cannot be run as requested; the message says why and what would work."""
