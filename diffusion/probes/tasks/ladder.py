"""Does it keep its pace on longer clips?  The Kalman task, learnt at 16 frames and tested up to 64 times that."""

from __future__ import annotations

from diffusion.probes.task import Knob
from diffusion.probes.tasks import kalman


class Probe(kalman.Probe):
    """The noisy walk of `kalman` is learnt on 16 frames, and tested on 16, 64, 256 and 1024.

    The best answers hardly change with the length, so whatever a layer loses on longer sequences is its own.  Longer
    sequences are as much fewer, so that every rung tests equally many frames.
    """

    question = "where was the walk, in sequences longer than any seen in training?"
    knob = Knob("correlation", (0.5, 0.9, 0.97), 0.9)
    frames = 16
    test_frames = (16, 64, 256, 1024)
