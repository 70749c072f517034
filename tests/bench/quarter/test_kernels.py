"""Times and floors of kernels in a GPU run, on a CPU."""

import pytest
import torch

from bench.quarter import kernels


def kernel(op, **more):
    what = {"op": op, "rows": 4, "frames": 5, "channels": 64, "dtype": "float32"} | more
    return kernels.kernels(what, "cpu", lambda name: None, more.pop("without", ()))


@pytest.mark.parametrize("op", ["attention", "causal_conv", "diagonal_ssm", "selective_scan"])
def test_implementations_have_times_and_floors(op):
    answer = kernel(op)
    assert answer["outcome"] == "ok"
    timed = {name for name, each in answer["contenders"].items() if each["outcome"] == "ok"}
    assert "cpu" in timed or "sdpa" in timed
    for name in timed:
        for mode in kernels.MODES:
            times = answer["contenders"][name][f"{mode}_ms"]
            assert 0 < times["p10"] <= times["p50"] <= times["p90"]
    floors = answer["floors_ms"]
    assert 0 < floors["forward"]["bytes_ms"] < floors["train"]["bytes_ms"]
    assert floors["train"]["exps"] == 2 * floors["forward"]["exps"]


def test_floors_count_bytes_and_exponentials():
    floors = kernel("attention")["floors_ms"]["forward"]
    assert floors["bytes"] == 4 * (4 * 5 * 64) * 4  # q, k, v and the output, four bytes each
    assert floors["exps"] == 4 * 2 * 5 * 5  # of two heads
    assert kernel("selective_scan")["floors_ms"]["forward"]["exps"] == 2 * (4 * 5 * 64) * 16
    assert kernel("diagonal_ssm")["floors_ms"]["forward"]["exps"] == 0


def test_an_implementation_that_disagrees_is_not_timed(monkeypatch):
    import temporal_zoo.ops.causal_conv.torch as backend

    run = backend.run
    monkeypatch.setattr(backend, "run", lambda *args, **kwargs: [1.01 * y for y in run(*args, **kwargs)])
    answers = kernel("causal_conv")["contenders"]
    assert answers["torch"]["outcome"] == "disagrees"
    assert "forward_ms" not in answers["torch"]
    assert "forward_ms" in answers["reference"]


def test_an_implementation_that_ended_the_process_is_left_out():
    answers = kernels.kernels(
        {"op": "causal_conv", "rows": 4, "frames": 5, "channels": 64, "dtype": "float32"},
        "cpu",
        lambda name: None,
        ["torch"],
    )["contenders"]
    assert answers["torch"]["outcome"] == "crashed"
    assert answers["reference"]["outcome"] == "ok"


def test_other_implementations_continue_after_one_runs_out_of_memory(monkeypatch):
    import temporal_zoo.ops.causal_conv.torch as backend

    def run(*args, **kwargs):
        raise torch.OutOfMemoryError("tried to allocate 1 TiB")

    monkeypatch.setattr(backend, "run", run)
    answers = kernel("causal_conv")["contenders"]
    assert answers["torch"]["outcome"] == "out_of_memory"
    assert answers["reference"]["outcome"] == "ok"


def test_attention_has_our_backends_and_the_kernels_of_torch():
    names = [each.name for each in kernels.implementations("attention", compiled=False)]
    assert {"sdpa", "triton", "SDPA, flash", "SDPA, cuDNN", "SDPA, efficient"} <= set(names)
