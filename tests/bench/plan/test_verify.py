"""Plans compared with measurements."""

import pytest
import torch

from bench.plan import verify
from bench.plan.plan import Setup


def measured_as(fraction):
    def measure(plan):
        return verify.Measured(plan.bytes.stored, int(plan.bytes.peak * fraction), plan.bytes.reserved)

    return measure


def test_a_plan_is_verified_within_ten_per_cent(planner, tmp_path, tiny):
    plan = planner.plan(tiny)
    for fraction, wrong in ((0.95, False), (0.8, True), (1.2, True)):
        (check,) = verify.run([plan], tmp_path / "verified.jsonl", lambda text: None, measured_as(fraction))
        assert check.wrong == wrong
        assert check.error == pytest.approx(1 / fraction - 1, abs=1e-3)
    (check,) = verify.run([plan], tmp_path / "verified.jsonl", lambda text: None, lambda plan: verify.Measured())
    assert check.wrong
    assert len((tmp_path / "verified.jsonl").read_text().splitlines()) == 8
    assert verify.table([check]).row_count == 1


def test_backends_of_a_plan_are_pinned_when_it_is_measured(planner, tiny):
    assert verify.pins(planner.plan(tiny.replace(mixer="attn"))) == {"attention": "sdpa"}
    assert verify.pins(planner.plan(tiny))["selective_scan"] == "triton"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_verification_needs_a_gpu(planner, tmp_path, tiny):
    with pytest.raises(verify.VerifyError, match="CUDA"):
        verify.run([planner.plan(tiny)], tmp_path / "verified.jsonl", lambda text: None)


@pytest.mark.gpu
@pytest.mark.parametrize("mixer", ["attn", "flash", "bimamba", "s4d"])
def test_peaks_on_a_gpu_are_as_planned(planner, mixer):
    plan = planner.plan(Setup(mixer=mixer, frames=64))
    measured = verify.on_cuda(plan)
    assert measured.stored == plan.bytes.stored
    assert measured.peak == pytest.approx(plan.bytes.peak, rel=0.1)
