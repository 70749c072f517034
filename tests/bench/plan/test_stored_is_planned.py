"""The bytes that a CPU stores for backward, counted on real tensors, equal the plan on the meta device."""

import pytest
import torch

from diffusion.config import ModelConfig
from diffusion.model.backbones import build_network
from diffusion.model.blocks import GroupNorm
from temporal_zoo._support.stored_bytes import stored_bytes
from temporal_zoo.ops import BackendError, Planned, autocast, ops, planning, tracing, use_backend
from temporal_zoo.registry import build, get, names

ROWS, DIM = 3, 24
# Below the width of a short convolution, no multiple of anything, and beyond the 256 frames of a chunk of the C++ scan.
LENGTHS = (2, 37, 300)
# References have no chunks: they take frame after frame, slowly.
LENGTHS_OF_REFERENCES = LENGTHS[:2]
SMALL = ModelConfig(size=8, width=8, multipliers=(1, 2), groups=2, heads=1, time_width=2, stem=3)


def specs():
    return [
        f"{name}:{options}" if options else name
        for name in names()
        for options in ("", *get(name).mixer.Config.examples)
    ]


def counted(module, forward):
    """Bytes and the backends that ran, or None if a pinned backend cannot run."""
    try:
        with tracing() as ran:
            return stored_bytes(forward, module), ran
    except BackendError:
        return None


def of_shape(spec, device, frames, dtype=torch.float32):
    with torch.device(device):
        mixer = build(spec, DIM)
        x = torch.zeros(ROWS, frames, DIM, requires_grad=True)

    def forward():
        with autocast(device, dtype):
            return mixer(x)

    return counted(mixer, forward)


def backends(spec):
    """No pin, and every pin of one op that the mixer calls."""
    _, ran = of_shape(spec, "cpu", 4)
    return [{}, *({op: backend} for op in ran for backend in ops()[op].backends)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spec", specs())
def test_of_every_mixer_with_every_backend_at_every_length(spec, dtype):
    compared = 0
    for pins in backends(spec):
        for frames in LENGTHS_OF_REFERENCES if "reference" in pins.values() else LENGTHS:
            with use_backend(**pins):
                measured = of_shape(spec, "cpu", frames, dtype)
                with planning(Planned("cpu")):
                    planned = of_shape(spec, "meta", frames, dtype)
            assert planned == measured, f"{spec}, {pins}, {frames} frames"
            compared += measured is not None
    assert compared >= len(LENGTHS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", ["none", "mixers", "blocks"])
@pytest.mark.parametrize("mixer", names())
def test_of_a_whole_model_with_every_mixer(mixer, checkpointing, dtype):
    def found(device):
        with torch.device(device):
            network = build_network(SMALL.replace(mixer=mixer, checkpointing=checkpointing))
            clip, level = torch.zeros(2, 5, 3, 8, 8), torch.zeros(2, dtype=torch.int64)

        def forward():
            with autocast(device, dtype):
                return network(clip, level)

        return counted(network, forward)

    with planning(Planned("cpu")):
        planned, backends = found("meta")
    # Torch's group norm keeps mean and deviation in float32 on a CPU, and on the meta device in the dtype of its input.
    missing = 0
    if dtype != torch.float32 and checkpointing != "blocks":
        with torch.device("meta"):
            norms = sum(isinstance(module, GroupNorm) for module in build_network(SMALL).modules())
        missing = norms * 2 * (2 * SMALL.groups) * 2
    assert (planned + missing, backends) == found("cpu")
    assert planned > 0
