"""The outcome of a case in this process: what was measured, or why it was not."""

import json

import pytest
import torch

from bench.sweep.case import expand
from bench.sweep.outcome import Agreement, Outcome
from bench.sweep.run_case import run_case
from bench.sweep.workloads import build
from temporal_zoo.ops.causal_conv import Filter, causal_conv


def outcome(mixer, **options):
    defaults = {"lengths": "4", "level": "mixer", "mode": "train", "rows": 2, "dim": 8}
    (case,) = expand(layers=mixer, **defaults | options)
    return run_case(case, budget_s=0.01)


def test_an_outcome_has_the_measurements_and_the_backends():
    found = outcome("bimamba", backends=["selective_scan=torch", "causal_conv=torch"])
    assert found.status == "ok", found.reason
    assert found.backends == {"causal_conv": ["torch"], "selective_scan": ["torch"]}
    assert found.stored_bytes > 0
    assert found.time_ms.rounds >= 1  # more on an idle machine
    assert 0 <= found.agreement.max_error < 1e-3
    assert found.agreement.checked == ("causal_conv=torch", "selective_scan=torch")
    assert found.declared == {"time": "T", "memory": "T"}
    assert found.threads == torch.get_num_threads()
    assert outcome("bimamba", mode="forward").stored_bytes is None


def test_an_outcome_can_be_written_and_read():
    for found in (outcome("bimamba"), outcome("bimamba", backends=["selective_scan=mamba_ssm"])):
        assert Outcome.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), None])
def test_out_of_memory_is_an_outcome(planted, error):
    def greedy(self, x):
        if error is not None:
            raise error
        return torch.empty(2**60, dtype=torch.uint8)

    planted(greedy)
    found = outcome("planted")
    assert found.status == "out_of_memory"
    assert found.time_ms is None


def test_an_exception_is_an_outcome(planted):
    def broken(self, x):
        raise ValueError("no such frame")

    planted(broken)
    found = outcome("planted")
    assert (found.status, found.reason) == ("failed", "ValueError: no such frame")
    assert "in broken" in found.traceback


def test_a_backend_that_cannot_run_gives_its_reasons():
    found = outcome("bimamba", backends=["selective_scan=mamba_ssm"])
    assert found.status == "unsupported"
    assert "mamba_ssm" in found.reason


def test_a_wrong_backend_is_not_timed(planted, monkeypatch):
    backend = causal_conv._modules["torch"]
    right = backend.forward
    monkeypatch.setattr(backend, "forward", lambda *a: [1.01 * y for y in right(*a)])
    found = outcome("bimamba", backends=["causal_conv=torch"])
    assert found.status == "disagrees"
    assert "causal_conv=torch" in found.reason
    assert "differs from the reference" in found.reason
    assert found.time_ms is None


def test_a_backend_that_the_mixer_pins_is_unchecked(planted):
    def pinned(self, x):
        return causal_conv(x, [Filter(torch.ones(x.shape[-1], 2))], backend="torch")[0] * self.weight

    planted(pinned)
    found = outcome("planted")
    assert found.status == "ok", found.reason
    assert found.agreement == Agreement(unchecked=("causal_conv=torch",))


def test_a_case_does_not_change_the_random_state():
    before = torch.random.get_rng_state()
    found = outcome("bimamba", dtype="bfloat16")
    assert found.status == "ok", found.reason
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_whole_model_trains():
    case = expand(layers="identity", lengths="2", level="model", mode="train")[0].replace(size=8)
    found = run_case(case, budget_s=0.01)
    assert found.status == "ok", found.reason
    assert found.stored_bytes > 0
    assert found.num_parameters > 10_000


def test_a_sampling_step_of_a_whole_model():
    case = expand(layers="identity", lengths="2", level="model", mode="sample")[0].replace(size=8)
    cleaner = build(case).step()
    assert cleaner.shape == (1, 2, 3, 8, 8)
    assert cleaner.abs().max() <= 1
    found = run_case(case, budget_s=0.01)
    assert (found.status, found.stored_bytes) == ("ok", None), found.reason
