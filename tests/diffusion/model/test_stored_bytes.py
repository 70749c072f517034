"""Bytes that a training step of the paper's model stores for backward, planned on the meta device."""

import pytest
import torch

from bench.paper.facts import STORED_GIB
from diffusion.model.backbones import build_network
from diffusion.presets import paper
from temporal_zoo._support.stored_bytes import stored_bytes


@pytest.mark.parametrize(("mixer", "most"), [("bimamba", 9.0), ("identity", 8.0)])
def test_gib_per_sample_of_the_papers_model_at_256_frames(mixer, most):
    assert most < STORED_GIB[mixer]
    with torch.device("meta"):
        network = build_network(paper(mixer, 64).model)
        clip, noise = torch.empty(1, 256, 3, 32, 32), torch.empty(1)
    gib = stored_bytes(lambda: network(clip, noise), network) / 2**30
    assert 0.8 * most < gib < most
