"""Parameters of a network and the bytes that it stores, counted on the meta device: no data, no GPU, no time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from diffusion.config import TrainConfig
from diffusion.model.backbones import build_network
from diffusion.process.process import Process
from diffusion.training.step import DTYPES, TrainingBatch, TrainingStep
from temporal_zoo._support.stored_bytes import stored_bytes
from temporal_zoo.ops import Planned, planning


@dataclass(frozen=True)
class Counted:
    """parameters: of the network.  stored_bytes: kept from forward to backward for one clip."""

    parameters: int
    stored_bytes: int


@cache
def counted(train: TrainConfig, device: str) -> Counted:
    """What a run's network has and stores, with the backends that ops take on `device` ("cpu", "cuda" or "cuda:1")."""
    model, frames = train.model, train.data.frames
    with torch.device("meta"):
        network = build_network(model)
        clip = torch.empty(1, frames, model.channels, model.size, model.size)
        drawn = TrainingBatch(clip, clip, torch.zeros(1, dtype=torch.int64), None)
    process = Process.from_config(train.process)
    step = TrainingStep(network, process, train.optimizer, dtype=DTYPES[train.precision], updates=False)
    with planning(Planned(device.partition(":")[0])):
        stored = stored_bytes(lambda: step.losses(drawn).mean(), network)
    return Counted(sum(parameter.numel() for parameter in network.parameters()), stored)
