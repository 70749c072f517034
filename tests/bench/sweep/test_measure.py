"""Bytes are counted exactly, clocks and peaks are read as said, and every end of a case is a value."""

import contextlib
import json
import sys
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bench.analysis.fit import quadratic
from bench.sweep import host_memory, measure
from bench.sweep.case import expand
from bench.sweep.outcome import Agreement, Outcome, Times
from bench.sweep.repetitions import drift
from bench.sweep.run_case import run
from bench.sweep.workloads import build
from temporal_zoo._support.stored_bytes import stored_bytes
from temporal_zoo.ops import use_backend
from temporal_zoo.ops.causal_conv import Filter, causal_conv

MIB = 2**20
CPU = torch.device("cpu")


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return (x * self.weight).exp()


@pytest.fixture
def x():
    return torch.randn(3, 5, 8).requires_grad_()


def stored(function, module=None):
    return stored_bytes(function, module or nn.Module())


def test_stored_bytes_of_a_module_made_by_hand(x):
    module = Scaled()
    # The product keeps x (the weight is the module's own), exp keeps its result.
    assert stored(lambda: module(x), module) == 2 * 3 * 5 * 8 * 4
    assert stored(lambda: module(x)) == (2 * 3 * 5 * 8 + 8) * 4


def test_a_storage_counts_once_and_whole(x):
    assert stored(lambda: x.sin() + x.cos()) == 3 * 5 * 8 * 4
    assert stored(lambda: x[:, :2].sin()) == 3 * 5 * 8 * 4
    assert stored(lambda: x[:1] + x[1:2]) == 0


def test_what_is_freed_before_backward_is_not_stored(x):
    def forward():
        x.exp().sum()  # a graph that nobody keeps
        return x.detach().requires_grad_() + 1

    assert stored(forward) == 0
    inner = nn.Sequential(*(nn.Tanh() for _ in range(4)))
    assert stored(lambda: inner(x)) == 4 * x.nbytes
    assert stored(lambda: checkpoint(inner, x, use_reentrant=False)) == x.nbytes


def test_bytes_stored_by_an_operator_of_ours_are_seen():
    case = expand(layers="bimamba", lengths="16", level="mixer", mode="train", rows=2, dim=16)[0]
    work = build(case)
    # At least what every backend must keep: the input, 16 wide, and the sum of the scans, inner width 32.
    assert stored_bytes(work.forward, work.module) >= 2 * 16 * (16 + 32) * 4


def growth(mixer):
    cases = expand(layers=mixer, lengths="16,64,256", level="mixer", mode="train", rows=2)
    works = [build(case) for case in cases]
    return quadratic([16, 64, 256], [stored_bytes(work.forward, work.module) for work in works])


def test_attention_stores_its_weights_and_the_others_nothing_quadratic():
    rows, heads, size = 2, 8, 4
    assert growth("attn").quadratic == pytest.approx(rows * heads * size, rel=1e-6)
    assert growth("flash").quadratic == 0
    for scan in ("torch", "auto"):
        with use_backend(selective_scan="torch") if scan == "torch" else contextlib.nullcontext():
            assert growth("bimamba").quadratic == 0


class Clock:
    """In place of the module `time`: wall time and processor time, in seconds, pass only when a step spends them."""

    def __init__(self):
        self.wall = self.worked = 0.0

    def perf_counter(self):
        return self.wall

    def process_time(self):
        return self.worked

    def spend(self, ms, share=1.0):
        """Lets `ms` pass; the processor works for that share of it."""
        self.wall += ms / 1000
        self.worked += share * ms / 1000


@pytest.fixture
def clock(monkeypatch):
    """Replaces the clock of the measuring module; the caches are not emptied."""
    made = Clock()
    monkeypatch.setattr(measure, "time", made)
    monkeypatch.setattr(measure, "_cache_emptier", lambda device: lambda: None)
    return made


def test_the_clock_warms_up_until_rounds_no_longer_get_faster(clock):
    rounds = iter([50, 20, 10, 9.8, *[10] * 6])
    times = measure.time_ms(lambda: clock.spend(next(rounds)), CPU, budget_s=0.1)
    assert (times.warmups, times.rounds, times.steady) == (5, 5, True)
    assert times.p50 == pytest.approx(10)


def test_rounds_that_agree_at_once_go_on_for_a_while(clock):
    # A fifth of the budget, in rounds of 10 ms, give or take the rounding of the sum.
    assert measure.time_ms(lambda: clock.spend(10), CPU, budget_s=2.0).rounds in (40, 41)


def test_a_step_that_takes_minutes_is_timed_once(clock):
    times = measure.time_ms(lambda: clock.spend(60_000), CPU, budget_s=1.0)
    assert (times.warmups, times.rounds, times.steady) == (1, 1, False)


def test_waiting_is_told_from_working(clock):
    waiting = measure.time_ms(lambda: clock.spend(10, share=0.1), CPU, budget_s=0.05)
    assert waiting.processor == pytest.approx(1)
    assert waiting.waited
    assert not Times(9, 10, 11, 5, 2, True, processor=19).waited
    assert not Times(9, 10, 11, 5, 2, True).waited


def test_the_clock_stops_at_its_budget_and_says_so(clock):
    rounds = iter([900, *[400, 800, 900, 500] * 5])
    times = measure.time_ms(lambda: clock.spend(next(rounds)), CPU, budget_s=1.0)
    assert times.rounds == 3
    assert not times.steady
    assert times.p10 < times.p50 < times.p90


@pytest.mark.parametrize("sampled", [False, True])
def test_peak_resident_set(monkeypatch, sampled):
    looks = threading.Semaphore(0)
    if sampled:
        resident = host_memory.resident
        monkeypatch.setattr(host_memory, "_forget_peak", lambda: False)
        monkeypatch.setattr(host_memory, "resident", lambda: (resident(), looks.release())[0])

    def step():
        held = torch.ones(64 * MIB // 4)
        for _ in range(3 if sampled else 0):  # the look before the step, one that may have begun before it, a full one
            assert looks.acquire(timeout=60)
        assert held.nbytes == 64 * MIB

    memory = measure.peak_memory(step, CPU)
    assert memory.counted == "peak resident set"
    assert 0.9 * 64 * MIB < memory.above < 1.3 * 64 * MIB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets a process be limited so")
def test_a_process_at_its_limit_gets_an_exception(monkeypatch):
    monkeypatch.setattr(host_memory, "available", lambda: 64 * MIB)
    with host_memory.limited(), pytest.raises(RuntimeError, match="can't allocate memory"):
        torch.ones(256 * MIB // 4)
    assert torch.ones(256 * MIB // 4).nbytes == 256 * MIB


def outcome(mixer, **options):
    defaults = {"lengths": "4", "level": "mixer", "mode": "train", "rows": 2, "dim": 8}
    (case,) = expand(layers=mixer, **defaults | options)
    return run(case, budget_s=0.01)


def test_an_outcome_says_what_was_measured_and_what_ran():
    found = outcome("bimamba", backends=["selective_scan=torch", "causal_conv=torch"])
    assert found.status == "ok", found.reason
    assert found.backends == {"causal_conv": ["torch"], "selective_scan": ["torch"]}
    assert found.stored_bytes > 0
    assert found.time_ms.rounds >= 1  # more where the machine is not busy
    assert 0 <= found.agreement.max_error < 1e-3
    assert found.agreement.checked == ("causal_conv=torch", "selective_scan=torch")
    assert found.declared == {"time": "T", "memory": "T"}
    assert found.threads == torch.get_num_threads()
    assert outcome("bimamba", mode="forward").stored_bytes is None


def test_an_outcome_survives_its_record():
    for found in (outcome("bimamba"), outcome("bimamba", backends=["selective_scan=mamba_ssm"])):
        assert Outcome.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_cache_is_emptied_before_every_round(monkeypatch, clock):
    emptied = []
    monkeypatch.setattr(measure, "_cache_emptier", lambda device: lambda: emptied.append(len(emptied)))
    times = measure.time_ms(lambda: clock.spend(1), CPU, budget_s=0.01)
    assert len(emptied) == times.warmups + times.rounds
    assert len(times.each) == times.rounds
    assert 2 * host_memory.cache_bytes() >= 2**20


def test_a_wide_spread_is_told():
    assert not Times(9.2, 10, 11, 5, 2, True).wide
    assert Times(7, 10, 11, 5, 2, True).wide


def test_processes_together_have_the_interval_of_their_medians():
    rounds = (8, 10, 12)
    parts = [Times(8 * k, 10 * k, 12 * k, 3, 2, True, 20 * k, tuple(k * ms for ms in rounds)) for k in (1, 1.1, 1.21)]
    found = Times.together(parts)
    assert found.p50 == pytest.approx(11)
    assert found.medians == pytest.approx((10, 11, 12.1))
    # Logarithms lie log(1.1) apart, so that this is their deviation; 4.3027 is Student's quantile of three.
    assert found.margin == pytest.approx(1.1 ** (4.3027 / 3**0.5) - 1, rel=1e-3)
    assert found.interval == pytest.approx((11 / (1 + found.margin), 11 * (1 + found.margin)))
    assert (found.rounds, found.warmups, found.processor) == (9, 6, pytest.approx(20 * 3.31 / 3))
    assert len(found.each) == 9
    assert Times.together(parts[:1]) is parts[0]


def test_what_all_cases_did_from_repetition_to_repetition_is_the_machines_doing():
    def outcome(*medians):
        return Outcome("ok", time_ms=Times.together([Times(ms, ms, ms, 5, 2, True) for ms in medians]))

    assert drift([outcome(1, 2), outcome(10, 20), outcome(7)]) == pytest.approx([0.5**0.5, 2**0.5])
    assert drift([outcome(3), Outcome("failed", "no")]) == []


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), None])
def test_out_of_memory_is_a_result(planted, error):
    def greedy(self, x):
        if error is not None:
            raise error
        return torch.empty(2**60, dtype=torch.uint8)

    planted(greedy)
    found = outcome("planted")
    assert found.status == "out_of_memory"
    assert found.time_ms is None


def test_a_mixer_that_fails_is_a_result(planted):
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


def test_a_backend_that_is_wrong_is_not_timed(planted, monkeypatch):
    backend = causal_conv._modules["torch"]
    right = backend.forward
    monkeypatch.setattr(backend, "forward", lambda *a: [1.01 * y for y in right(*a)])
    found = outcome("bimamba", backends=["causal_conv=torch"])
    assert found.status == "disagrees"
    assert "causal_conv=torch" in found.reason
    assert "differs from the reference" in found.reason
    assert found.time_ms is None


def test_a_backend_that_a_mixer_insists_on_is_named_unchecked(planted):
    def insistent(self, x):
        return causal_conv(x, [Filter(torch.ones(x.shape[-1], 2))], backend="torch")[0] * self.weight

    planted(insistent)
    found = outcome("planted")
    assert found.status == "ok", found.reason
    assert found.agreement == Agreement(unchecked=("causal_conv=torch",))


def test_short_precision_and_the_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    found = outcome("bimamba", dtype="bfloat16")
    assert found.status == "ok", found.reason
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_whole_model_trains():
    case = expand(layers="identity", lengths="2", level="model", mode="train")[0].replace(size=8)
    found = run(case, budget_s=0.01)
    assert found.status == "ok", found.reason
    assert found.stored_bytes > 0
    assert found.num_parameters > 10_000


def test_a_sampling_step_of_a_whole_model():
    case = expand(layers="identity", lengths="2", level="model", mode="sample")[0].replace(size=8)
    cleaner = build(case).step()
    assert cleaner.shape == (1, 2, 3, 8, 8)
    assert cleaner.abs().max() <= 1
    found = run(case, budget_s=0.01)
    assert (found.status, found.stored_bytes) == ("ok", None), found.reason
