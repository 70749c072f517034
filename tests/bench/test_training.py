"""The training step that is timed is the one that plans are made for."""

from dataclasses import asdict

import pytest
import torch

from bench.case import expand
from bench.devices import device
from bench.plan import Planner, Setup
from bench.workloads import build
from temporal_zoo.stored import stored_bytes

CLIPS = 1


def built(mixer="bimamba", **options):
    case = expand(layers=mixer, lengths="5", level="model", mode="train", preset="tiny", size=16, **options)[0]
    assert case.clips == CLIPS
    return build(case)


@pytest.mark.parametrize("mixer", ["attn", "bimamba:state=8"])
def test_what_is_timed_takes_what_is_planned(mixer):
    work = built(mixer)
    planned = Planner(device("cpu:4GiB")).plan(Setup(mixer=mixer, frames=5, clips=CLIPS, size=16, preset="tiny"))
    assert stored_bytes(work.forward, work.module) == planned.bytes.stored
    work.step()
    sizes = {name: sum(tensor.nbytes for tensor in tensors) for name, tensors in work.step.parts().items()}
    del sizes["batch"]
    assert sizes.items() <= asdict(planned.bytes).items()


def test_a_timed_step_moves_the_weights_and_their_average():
    work = built()
    before = [parameter.clone() for parameter in work.module.parameters()]
    average = [weight.clone() for weight in work.step.parts()["average"]]
    work.step()
    assert any(not torch.equal(*pair) for pair in zip(before, work.module.parameters(), strict=True))
    assert any(not torch.equal(*pair) for pair in zip(average, work.step.parts()["average"], strict=True))


def test_the_network_computes_in_the_precision_of_the_case():
    wide, narrow = (built(dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert stored_bytes(narrow.forward, narrow.module) < stored_bytes(wide.forward, wide.module)
    assert narrow.forward().dtype == torch.float32
