"""What a process does with a case: comparisons, kernels and steps, on a CPU."""

import pytest
import torch

from bench.quarter import compare, kernels, steps
from temporal_zoo.ops import agreement as agreements


def heard():
    """A list, and what fills it."""
    found = []
    return found, found.append


def comparison(op, backend, dtype="float32", without=()):
    what = {"op": op, "backend": backend, "dtype": dtype, "shapes": [[3, 1, 64], [3, 5, 64]]}
    notes, note = heard()
    return compare.agreement(what, "cpu", note, without), notes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("op", sorted(agreements.examples()))
def test_every_op_agrees_with_its_reference_in_every_shape(op, dtype):
    plain = {
        "attention": "blocked",
        "diagonal_ssm": "toeplitz",
        "selective_block": "causal_conv=torch,selective_scan=torch",
    }
    answer, notes = comparison(op, plain.get(op, "torch"), dtype)
    assert answer["outcome"] == "ok"
    assert answer["agrees"] is True
    assert answer["error"] < answer["tolerance"]
    assert answer["compared"] == len(notes) == 4


def test_a_backend_that_is_wrong_disagrees(monkeypatch):
    import temporal_zoo.ops.causal_conv.torch as backend

    run = backend.run
    monkeypatch.setattr(backend, "run", lambda *args, **kwargs: [1.01 * y for y in run(*args, **kwargs)])
    answer, _ = comparison("causal_conv", "torch")
    assert (answer["outcome"], answer["agrees"]) == ("ok", False)
    assert 0.005 < answer["error"] < 0.02
    assert "frames" in answer["worst"]


def test_a_gradient_that_is_wrong_disagrees(monkeypatch):
    import temporal_zoo.ops.attention.blocked as backend

    backward = backend.backward
    monkeypatch.setattr(backend, "backward", lambda *args: (2 * backward(*args)[0], *backward(*args)[1:]))
    answer, _ = comparison("attention", "blocked")
    assert answer["agrees"] is False


def test_a_value_that_is_not_finite_disagrees(monkeypatch):
    import temporal_zoo.ops.causal_conv.torch as backend

    run = backend.run
    monkeypatch.setattr(backend, "run", lambda *args, **kwargs: [y * float("nan") for y in run(*args, **kwargs)])
    answer, _ = comparison("causal_conv", "torch")
    assert (answer["agrees"], answer["error"]) == (False, None)


def test_a_shape_that_ended_the_process_counts_as_wrong():
    _, notes = comparison("causal_conv", "torch")
    answer, others = comparison("causal_conv", "torch", without=notes[:1])
    assert answer["agrees"] is False
    assert answer["worst"] == notes[0]
    assert others == notes[1:]


def test_a_backend_that_takes_no_shape_is_unsupported():
    answer, notes = comparison("causal_conv", "causal_conv1d")
    assert (answer["outcome"], answer["agrees"], notes) == ("unsupported", None, [])
    assert answer["reason"]


def kernel(op, **more):
    what = {"op": op, "rows": 4, "frames": 5, "channels": 64, "dtype": "float32"} | more
    return kernels.kernels(what, "cpu", lambda name: None, more.pop("without", ()))


@pytest.mark.parametrize("op", ["attention", "causal_conv", "diagonal_ssm", "selective_scan"])
def test_contenders_have_times_and_floors(op):
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


def test_nothing_is_timed_that_disagrees(monkeypatch):
    import temporal_zoo.ops.causal_conv.torch as backend

    run = backend.run
    monkeypatch.setattr(backend, "run", lambda *args, **kwargs: [1.01 * y for y in run(*args, **kwargs)])
    found = kernel("causal_conv")["contenders"]
    assert found["torch"]["outcome"] == "disagrees"
    assert "forward_ms" not in found["torch"]
    assert "forward_ms" in found["reference"]


def test_a_contender_that_ended_the_process_is_left_out():
    found = kernels.kernels(
        {"op": "causal_conv", "rows": 4, "frames": 5, "channels": 64, "dtype": "float32"},
        "cpu",
        lambda name: None,
        ["torch"],
    )["contenders"]
    assert found["torch"]["outcome"] == "crashed"
    assert found["reference"]["outcome"] == "ok"


def test_a_contender_without_memory_ends_alone(monkeypatch):
    import temporal_zoo.ops.causal_conv.torch as backend

    def run(*args, **kwargs):
        raise torch.OutOfMemoryError("tried to allocate 1 TiB")

    monkeypatch.setattr(backend, "run", run)
    found = kernel("causal_conv")["contenders"]
    assert found["torch"]["outcome"] == "out_of_memory"
    assert found["reference"]["outcome"] == "ok"


def test_contenders_of_attention_are_ours_and_the_kernels_of_torch():
    names = [each.name for each in kernels.contenders("attention", compiled=False)]
    assert {"sdpa", "triton", "SDPA, flash", "SDPA, cuDNN", "SDPA, efficient"} <= set(names)


SETUP = {"mixer": "flash", "frames": 2, "clips": 1, "size": 8, "preset": "tiny", "checkpointing": "mixers",
         "dtype": "float32", "backends": ["attention=blocked"]}  # fmt: skip


@pytest.mark.parametrize("task", [steps.training_step, steps.sampling_step])
def test_steps_have_a_time_a_peak_and_backends(task):
    notes, note = heard()
    answer = task({"row": "x", "setup": SETUP}, "cpu", note, ())
    assert answer["outcome"] == "ok"
    assert answer["time_ms"]["p50"] > 0
    assert answer["memory_bytes"]["peak"] > 0
    assert answer["backends"] == {"attention": ["blocked"]}
    assert notes == ["making the network", "timing", "the peak of memory"]


@pytest.mark.parametrize("chip", [80, 90])
def test_the_kernel_of_exponentials_compiles_and_holds_nothing_but_them(chip):
    pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from bench.quarter._triton_kernels import exponentials

    types = {"out": "*fp32", "REPEATS": "constexpr", "BLOCK": "constexpr"}
    source = ASTSource(exponentials, types, {(1,): 1024, (2,): 1024})
    compiled = compile(source, target=GPUTarget("cuda", chip, 32), options={"enable_fp_fusion": True})
    # Of 1,024 entries the 128 threads of a program compute eight each, in a loop that is not unrolled.
    assert compiled.asm["ptx"].count("ex2.approx") == 8
