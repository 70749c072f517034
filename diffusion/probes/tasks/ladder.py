"""Does the mixer generalise to longer clips?  It learns the Kalman task on 16 frames; tests have up to 1024."""

from __future__ import annotations

from diffusion.probes.task import Knob
from diffusion.probes.tasks import kalman


class Probe(kalman.Probe):
    """The noisy walk of `kalman`: training sequences have 16 frames, test sequences 16, 64, 256 and 1024.

    The best errors hardly change with the length, so a larger error on longer sequences is due to the layer.  All
    lengths test equally many frames, so there are fewer long sequences.
    """

    question = "where was the walk, in sequences longer than those of training?"
    knob = Knob("correlation", (0.5, 0.9, 0.97), 0.9)
    frames = 16
    test_frames = (16, 64, 256, 1024)
