"""Parameters and stored bytes of a network, counted on the meta device: needs no data and no GPU."""

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
class NetworkCost:
    """parameters: of the network.  stored_bytes: what one clip stores for backward."""

    parameters: int
    stored_bytes: int


@cache
def network_cost(train: TrainConfig, device: str) -> NetworkCost:
    """Counts the network of a run, with the backends that ops select on `device` ("cpu", "cuda" or "cuda:1")."""
    model, frames = train.model, train.data.frames
    with torch.device("meta"):
        network = build_network(model)
        clip = torch.empty(1, frames, model.channels, model.size, model.size)
        batch = TrainingBatch(clip, clip, torch.zeros(1, dtype=torch.int64), None)
    process = Process.from_config(train.process)
    step = TrainingStep(network, process, train.optimizer, dtype=DTYPES[train.precision], updates=False)
    with planning(Planned(device.partition(":")[0])):
        stored = stored_bytes(lambda: step.losses(batch).mean(), network)
    return NetworkCost(sum(parameter.numel() for parameter in network.parameters()), stored)
