"""Plans: devices, the bytes of a step, the longest clip that fits, the command, and the verification."""

import contextlib
import json
import math
import os
import signal
import time
import types
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from bench.plan import pool, verify
from bench.plan.accounting import ByteCounter
from bench.plan.allocator import CachingAllocator
from bench.plan.devices import GIB, GPUS, device
from bench.plan.plan import CHECKPOINTING, MOST_FRAMES, Planner, Setup, largest, plans_of
from temporal_zoo.cli.main import zoo
from temporal_zoo.config import ConfigError

TINY = Setup(mixer="bimamba", frames=8, clips=2, size=16, preset="tiny")


def test_devices_by_name_and_by_bytes():
    assert device("A100-40GB").memory_bytes == 40 * GIB
    assert device("24GiB").memory_bytes == 24 * GIB
    assert device("24GiB").type == "cuda"
    assert (device("cpu:16gib").type, device("cpu:16gib").usable_bytes) == ("cpu", 16 * GIB)
    assert all(device(name).usable_bytes < device(name).memory_bytes for name in GPUS)


@pytest.mark.parametrize("text", ["a100", "40", "24 parsecs", "cpu:", "tpu:16GiB", ""])
def test_an_unknown_device_raises_with_the_known_devices(text):
    with pytest.raises(ConfigError, match="a100-40gb"):
        device(text)


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


@pytest.fixture(scope="module")
def planner():
    return Planner(device("a100-40gb"))


def test_parts_of_a_step(planner):
    plan = planner.plan(TINY)
    sizes = plan.bytes
    assert sizes.parameters == sizes.gradients == sizes.average == sizes.optimizer // 2
    assert sizes.stored > 0
    assert sizes.transient > 0
    assert sizes.peak <= sizes.reserved
    assert plan.fit == "yes"
    assert plan.backends["selective_scan"] == ["triton"]
    assert Planner(device("cpu:4GiB")).plan(TINY).bytes.reserved is None


@pytest.mark.parametrize("mixer", ["attn", "bimamba"])
@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_short_dtypes_store_less_and_leave_weights_as_they_are(planner, mixer, checkpointing):
    setup = TINY.replace(mixer=mixer, checkpointing=checkpointing)
    wide, short = (planner.plan(setup.replace(dtype=dtype)).bytes for dtype in ("float32", "bfloat16"))
    assert (short.parameters, short.gradients, short.optimizer) == (wide.parameters, wide.gradients, wide.optimizer)
    assert short.stored < wide.stored


def test_checkpointing_and_pins_and_clips_change_the_plan(planner):
    plain = planner.plan(TINY).bytes
    assert planner.plan(TINY.replace(checkpointing="blocks")).bytes.stored < plain.stored
    kept = planner.plan(TINY.replace(backends=("selective_scan=mamba_ssm_plain",)))
    assert kept.bytes.stored > plain.stored
    assert kept.backends["selective_scan"] == ["mamba_ssm_plain"]
    assert planner.plan(TINY.replace(clips=4)).bytes.stored > 1.9 * plain.stored
    with pytest.raises(ConfigError, match="selective_scan"):
        planner.plan(TINY.replace(backends=("selective_scam=cpu",)))


@pytest.mark.parametrize("law", [(3e9, 2e6, 0), (1e9, 80e6, 2e5), (1e9, 39e6, 0), (1e9, 4e9, 5e8)])
def test_the_longest_clip_fits_and_a_longer_one_does_not(law):
    lengths = []

    def peak(frames):
        lengths.append(frames)
        return int(law[0] + law[1] * frames + law[2] * frames**2)

    limit = 40 * 10**9
    known = {frames: peak(frames) for frames in (64, 256, 1024)}
    longest = largest(peak, limit, known)
    assert peak(longest) <= limit
    assert peak(longest + max(1, math.ceil(0.011 * longest))) > limit
    assert len(lengths) < 20


def test_the_search_ends_when_no_length_or_every_length_fits():
    assert largest(lambda frames: 2 + frames, 1, {64: 66}) == 0
    assert largest(lambda frames: 1, 1, {64: 1}) == MOST_FRAMES


@pytest.fixture
def no_processes(monkeypatch):
    """Commands plan in this process; another test covers the subprocesses."""
    monkeypatch.setattr("bench.plan.pool.planners", lambda: contextlib.nullcontext(types.SimpleNamespace(map=map)))


def run_plan(*options, code=0):
    result = CliRunner().invoke(zoo, ["plan", "--preset", "tiny", "--size", "16", *options])
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_plans_tables_a_plot_and_a_file(tmp_path, no_processes):
    options = ["--layers", "attn,bimamba", "--lengths", "8,32", "--checkpointing", "none", "--gpu", "2GiB"]
    output = run_plan(*options, "--out", str(tmp_path))
    assert "fits up to" in output
    plans = json.loads((tmp_path / "plan.json").read_text())
    assert [plan["setup"]["frames"] for plan in plans["plans"]] == [8, 32, 8, 32]
    attention, mamba = (each["frames"] for each in plans["longest"])
    assert 32 < attention < mamba
    assert (tmp_path / "plan.png").stat().st_size > 10_000


def test_a_plan_that_does_not_fit_says_how_much_it_needs(tmp_path, no_processes):
    output = run_plan(
        "--layers", "attn", "--lengths", "72000", "--checkpointing", "none", "--out", str(tmp_path), code=1
    )
    (line,) = (line for line in output.splitlines() if "72,000 frames need" in line)
    assert "GiB" in line
    assert "up to" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpointing", "all"], "unknown checkpointing 'all'; choose from none, mixers, blocks"),
        (["--gpu", "a101"], "unknown device 'a101'"),
        (["--gpu", "9" * 400 + "GiB"], "unknown device"),
        (["--lengths", "1000000000000"], "1000000000000 frames are too many"),
        (["--clips", "1000000000000"], "are 256,000,000,000,000 pixels; the limit"),
        (["--size", "100000000"], "pixels; the limit"),
        (["--layers", "atn"], "attn"),
        (["--preset", "huge"], "no preset"),
    ],
)
def test_bad_options_give_one_message(options, message, no_processes):
    assert message in run_plan("--lengths", "8", *options, code=2)


def measured_as(fraction):
    def measure(plan):
        return verify.Measured(plan.bytes.stored, int(plan.bytes.peak * fraction), plan.bytes.reserved)

    return measure


def test_a_plan_is_verified_within_ten_per_cent(planner, tmp_path):
    plan = planner.plan(TINY)
    for fraction, wrong in ((0.95, False), (0.8, True), (1.2, True)):
        (check,) = verify.run([plan], tmp_path / "verified.jsonl", lambda text: None, measured_as(fraction))
        assert check.wrong == wrong
        assert check.error == pytest.approx(1 / fraction - 1, abs=1e-3)
    (check,) = verify.run([plan], tmp_path / "verified.jsonl", lambda text: None, lambda plan: verify.Measured())
    assert check.wrong
    assert len((tmp_path / "verified.jsonl").read_text().splitlines()) == 8
    assert verify.table([check]).row_count == 1


def test_backends_of_a_plan_are_pinned_when_it_is_measured(planner):
    assert verify.pins(planner.plan(TINY.replace(mixer="attn"))) == {"attention": "sdpa"}
    assert verify.pins(planner.plan(TINY))["selective_scan"] == "triton"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_verification_needs_a_gpu(planner, tmp_path):
    with pytest.raises(verify.VerifyError, match="CUDA"):
        verify.run([planner.plan(TINY)], tmp_path / "verified.jsonl", lambda text: None)


@pytest.mark.gpu
@pytest.mark.parametrize("mixer", ["attn", "flash", "bimamba", "s4d"])
def test_peaks_on_a_gpu_are_as_planned(planner, mixer):
    plan = planner.plan(Setup(mixer=mixer, frames=64))
    measured = verify.on_cuda(plan)
    assert measured.stored == plan.bytes.stored
    assert measured.peak == pytest.approx(plan.bytes.peak, rel=0.1)


def test_processes_plan_and_end_with_ctrl_c(planner, monkeypatch):
    monkeypatch.setattr(pool, "usable_cores", lambda: 1)
    with pool.planners() as executor:
        without_memory = replace(planner.device, memory_bytes=0)
        assert executor.submit(plans_of, without_memory, [8], TINY).result() == (
            [Planner(without_memory).plan(TINY)],
            0,
        )
        with pytest.raises(ConfigError, match="no preset"):
            executor.submit(plans_of, planner.device, [8], TINY.replace(preset="huge")).result()
        worker = executor.submit(os.getpid).result()
        waiting = [executor.submit(time.sleep, 600) for _ in range(3)]
        os.kill(worker, signal.SIGINT)  # as the terminal does, to all of them
        with pytest.raises(BrokenProcessPool):
            waiting[0].result(timeout=60)
