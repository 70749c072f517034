"""The bytes of a training step on the meta device."""

import weakref

import pytest
import torch

from bench.plan.accounting import ByteCounter, account
from bench.plan.allocator import CachingAllocator
from bench.plan.devices import device
from bench.plan.plan import CHECKPOINTING, Planner
from bench.sweep.training_step import training_step
from temporal_zoo.config import ConfigError


def test_bytes_count_from_allocation_to_release():
    counter = ByteCounter(CachingAllocator())
    with counter:
        a = torch.empty(256, device="meta")
        b = a + 1
        view = b[:3]
        assert counter.allocated == 2048
        del a, b
        assert counter.allocated == 1024
        del view
        assert (counter.allocated, counter.peak) == (0, 2048)


def test_parts_of_a_step(planner, tiny):
    plan = planner.plan(tiny)
    sizes = plan.bytes
    assert sizes.parameters == sizes.gradients == sizes.average == sizes.optimizer // 2
    assert sizes.stored > 0
    assert sizes.transient > 0
    assert sizes.peak <= sizes.reserved
    assert plan.fit == "yes"
    assert plan.backends["selective_scan"] == ["triton"]
    assert Planner(device("cpu:4GiB")).plan(tiny).bytes.reserved is None


def test_old_gradients_do_not_count_during_backward():
    step = training_step("paper-57.5M", "width=8", "size=8", clips=1, frames=2, device=torch.device("meta"))
    alive = []
    call = step.step._backward

    def backward(value):
        alive.append(old())
        return call(value)

    step.pretend_a_step_was_taken()
    old = weakref.ref(next(step.network.parameters()).grad.untyped_storage())
    step.pretend_a_step_was_taken = lambda: None
    step.step._backward = backward
    account(step, "cpu")
    assert alive == [None]


@pytest.mark.parametrize("mixer", ["attn", "bimamba"])
@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_short_dtypes_store_less_and_leave_weights_as_they_are(planner, mixer, checkpointing, tiny):
    setup = tiny.replace(mixer=mixer, checkpointing=checkpointing)
    wide, short = (planner.plan(setup.replace(dtype=dtype)).bytes for dtype in ("float32", "bfloat16"))
    assert (short.parameters, short.gradients, short.optimizer) == (wide.parameters, wide.gradients, wide.optimizer)
    assert short.stored < wide.stored


def test_checkpointing_and_pins_and_clips_change_the_plan(planner, tiny):
    plain = planner.plan(tiny).bytes
    assert planner.plan(tiny.replace(checkpointing="blocks")).bytes.stored < plain.stored
    kept = planner.plan(tiny.replace(backends=("selective_scan=mamba_ssm_plain",)))
    assert kept.bytes.stored > plain.stored
    assert kept.backends["selective_scan"] == ["mamba_ssm_plain"]
    assert planner.plan(tiny.replace(clips=4)).bytes.stored > 1.9 * plain.stored
    with pytest.raises(ConfigError, match="selective_scan"):
        planner.plan(tiny.replace(backends=("selective_scam=cpu",)))
