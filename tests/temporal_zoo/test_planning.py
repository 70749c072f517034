"""Planning: backends are chosen on the meta device as on a device and with packages that are not here."""

from dataclasses import dataclass

import pytest
import torch

from temporal_zoo.ops import BackendError, Planned, _planning, planning, tracing, use_backend
from temporal_zoo.ops._planning import present
from temporal_zoo.ops.attention import attention
from temporal_zoo.ops.selective_scan import Direction, selective_scan
from temporal_zoo.registry import build

A100, V100 = Planned("cuda", (8, 0)), Planned("cuda", (7, 0))


def directions():
    wide, narrow = torch.empty(2, 5, 8, device="meta"), torch.empty(2, 5, 4, device="meta")
    return [Direction(wide, wide, torch.empty(8, 4, device="meta"), narrow, narrow)]


def heads(dtype=torch.float32):
    return [torch.empty(2, 5, 2, 16, device="meta", dtype=dtype) for _ in range(3)]


def test_a_backend_is_asked_with_tensors_that_lie_on_the_planned_device():
    (before,) = directions()
    (after,), lengths = present(([before], None), A100)
    assert lengths is None
    assert (after.u.device.type, after.u.shape, after.u.dtype, after.u.stride()) == (
        "cuda", before.u.shape, before.u.dtype, before.u.stride(),
    )  # fmt: skip
    assert not after.reverse
    with pytest.raises(RuntimeError, match="may look at shapes only"):
        after.u + 1
    assert present(torch.ones(1), A100).tolist() == [1.0]  # tensors with values stay


def test_auto_takes_packages_of_torch_and_pins_take_any_package():
    with planning(A100):
        assert selective_scan.choose(directions()) == "triton"
        assert attention.choose(*heads(torch.bfloat16)) == "sdpa"
        with use_backend(selective_scan="mamba_ssm", attention="flash_attn"):
            assert selective_scan.choose(directions()) == "mamba_ssm"
            assert attention.choose(*heads(torch.bfloat16)) == "flash_attn"


def test_a_backend_that_the_planned_device_cannot_run_is_refused_with_its_reason():
    with planning(V100), pytest.raises(BackendError, match=r"capability 8\.0"):
        attention(*heads(torch.float16), backend="flash_attn")
    with planning(A100), pytest.raises(BackendError, match="runs on the CPU only"):
        selective_scan(directions(), backend="cpu")
    with planning(Planned("cpu")), pytest.raises(BackendError, match="mamba_ssm is not installed"):
        selective_scan(directions(), backend="mamba_ssm")


def test_outside_a_plan_nothing_is_assumed():
    with pytest.raises(BackendError, match="mamba_ssm"):
        selective_scan(directions(), backend="mamba_ssm")


def test_calls_on_a_cpu_do_not_ask_for_the_plan(monkeypatch):
    def fail():
        raise AssertionError("a call with values asked for the plan")

    monkeypatch.setattr(_planning, "planned", fail)
    mixers = [build(name, 16) for name in ("bimamba", "flash", "s4d")]
    for mixer in mixers:
        for dtype in (torch.float32, torch.bfloat16):
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                mixer(torch.randn(2, 5, 16)).sum().backward()
    with pytest.raises(AssertionError, match="asked for the plan"):
        mixers[0].to("meta")(torch.empty(2, 5, 16, device="meta"))


def test_the_first_tensor_is_found_in_lists_and_dataclasses():
    @dataclass(frozen=True)
    class Part:
        x: torch.Tensor

    meta = torch.zeros(1, device="meta")
    assert all(_planning._first_tensor(args) is meta for args in ((meta,), ([Part(meta)],), (None, (meta,))))
    assert _planning._first_tensor(()) is None


def stored(mixer, frames, **pins):
    from temporal_zoo._support.stored_bytes import stored_bytes

    with planning(A100), use_backend(**pins), tracing() as ran, torch.device("meta"):
        module, x = build(mixer, 16), torch.empty(3, frames, 16, requires_grad=True)
        return stored_bytes(lambda: module(x), module), ran


def test_mamba_ssm_plain_stores_the_tensors_of_its_kernel():
    rows, frames, inner, state, rank, size = 3, 64, 32, 16, 2, 4
    pins = {"causal_conv": "reference", "selective_scan": "mamba_ssm_plain"}
    found, ran = stored("mamba", frames, **pins)
    assert ran == {"causal_conv": {"reference"}, "selective_scan": {"mamba_ssm_plain"}}
    per_frame = [
        16,  # x, of the projection in
        2 * inner,  # both halves of what it gives
        inner,  # of the convolution, before SiLU
        inner,  # after it, of x_proj
        rank + 2 * state,  # what x_proj gives
        2 * inner + 2 * state,  # laid out for the kernel: u, dt, B, C
        inner,  # y, of the product with the gate
        inner,  # the gate after SiLU
        inner,  # the product, of the projection out
    ]
    padded = (frames + 3) * inner  # of the convolution, with the frames before the first
    states = inner * 2 * state
    parameters = inner * state  # -exp(A_log), made anew in every pass: kept by the exponential and the scan as one
    assert found == size * (rows * (frames * sum(per_frame) + padded + states) + parameters + parameters)


def test_recomputation_stores_less():
    assert stored("bimamba", 64)[0] < stored("bimamba", 64, selective_scan="mamba_ssm_plain")[0] / 3
