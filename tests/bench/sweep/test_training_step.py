"""The bench times the trainer's own step, and plans count the same step."""

import weakref
from dataclasses import asdict

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.plan.devices import device
from bench.plan.plan import Planner, Setup
from bench.sweep.case import expand
from bench.sweep.training_step import training_step
from bench.sweep.workloads import build
from diffusion.presets import preset
from diffusion.training import step
from diffusion.training.trainer import Trainer
from temporal_zoo._support.stored_bytes import stored_bytes

CLIPS = 1


def built(mixer="bimamba", **options):
    case = expand(layers=mixer, lengths="5", level="model", mode="train", preset="tiny", size=16, **options)[0]
    assert case.clips == CLIPS
    return build(case)


@pytest.mark.parametrize("mixer", ["attn", "bimamba:state=8"])
def test_the_timed_step_needs_the_planned_bytes(mixer):
    work = built(mixer)
    planned = Planner(device("cpu:4GiB")).plan(Setup(mixer=mixer, frames=5, clips=CLIPS, size=16, preset="tiny"))
    assert stored_bytes(work.forward, work.module) == planned.bytes.stored
    work.step()
    sizes = {name: sum(tensor.nbytes for tensor in tensors) for name, tensors in work.step.parts().items()}
    del sizes["batch"]
    assert sizes.items() <= asdict(planned.bytes).items()


def test_a_timed_step_changes_the_weights_and_their_average():
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


class Ledger(TorchDispatchMode):
    """Counts the bytes of living storages that CPU operations allocated, and their peak."""

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and (key := (storage := leaf.untyped_storage())._cdata) not in self.known:
                self.known.add(key)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self.end, key, storage.nbytes())
        self.peak = max(self.peak, self.alive)
        return result

    def end(self, key, size):
        self.known.discard(key)
        self.alive -= size


def counted(step):
    """The sum of the bytes that a step stores for backward, and the peak of the bytes that it allocates."""
    stored = []

    def pack(tensor):
        stored.append(tensor.nbytes)
        return tensor

    with Ledger() as ledger, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(stored), ledger.peak


@pytest.mark.parametrize("changes", [
    ("mixer=bimamba:state=4",),
    ("mixer=attn:relative_bias=yes",),
    ("mixer=s4d", "checkpointing=blocks"),
])  # fmt: skip
def test_trainer_and_bench_take_the_same_step(tmp_path, monkeypatch, changes):
    config = preset("tiny").override([
        *(f"model.{change}" for change in changes), "model.size=16", "data.size=16", "data.frames=5", "batch=2",
        "data.videos=2", f"data.cache={tmp_path}", "data.test_share=0", "optimizer.warmup=0",
    ])  # fmt: skip
    plain, seen = step.TrainingStep.__call__, []
    monkeypatch.setattr(step.TrainingStep, "__call__", lambda self, drawn: seen.append(drawn) or plain(self, drawn))
    trainer = Trainer(config, torch.device("cpu"))
    bench = training_step("tiny", *changes, "size=16", clips=2, frames=5, device=torch.device("cpu"))
    for ours, theirs in networks(bench, trainer):
        ours.load_state_dict(theirs.state_dict())
    stored, peaks = [], []
    for _ in range(2):
        theirs = counted(trainer.advance)
        bench.drawn = seen[-1]
        ours = counted(bench)
        stored.append((ours[0], theirs[0]))
        peaks.append(theirs[1] - ours[1])
    assert all(ours == theirs > 0 for ours, theirs in stored)
    # Only the trainer's step also makes its clips, from bytes and noise.
    assert all(0 <= more <= 2 * sum(tensor.nbytes for tensor in bench.parts()["batch"]) for more in peaks), peaks
    for ours, theirs in networks(bench, trainer):
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def networks(bench, trainer):
    """The networks in training, and their averages."""
    return (bench.network, trainer.network), (bench.step.average.module, trainer.average.module)
