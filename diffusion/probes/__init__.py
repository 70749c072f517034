"""Probes: small tasks whose best possible answer is known exactly, so that a mixer is understood in a minute.

A probe asks for numbers that noise, time or an occluder hides.  The best answer of all is the mean of what is hidden,
given what was shown: given what was shown so far for whoever sees the past alone, and given all of it for whoever sees
the future too.  Both are computed exactly, on the very sequences that a mixer is tested on.

Importing this package imports no torch, so that `--help` stays light.
"""

__all__ = ["ProbeError"]


from temporal_zoo.errors import InvalidInput


class ProbeError(InvalidInput):
    """A probe that cannot be run as asked; the message says why and what would work."""
