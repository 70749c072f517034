"""The one comparison of a backend with its reference: what it finds, and that every backend here agrees."""

import math

import pytest
import torch

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops import agreement, ops

TRUTH = {"output": torch.tensor([1.0, -2.0], dtype=torch.float64), "gradient": torch.tensor([1e-3, 0.0])}


def compared(dtype=torch.float32, **changes):
    return agreement.compare({name: x + changes.get(name, 0) for name, x in TRUTH.items()}, TRUTH, dtype)


def test_the_error_is_relative_to_the_largest_entry_of_a_tensor():
    result = compared(output=1e-3)
    assert (result.worst, result.agrees) == ("output", False)
    assert result.error == pytest.approx(5e-4)
    assert compared(output=1e-4).agrees


def test_small_tensors_are_compared_with_a_fraction_of_the_largest():
    assert compared(gradient=1e-5).error == pytest.approx(1e-5 / (1e-2 * 2))
    assert not compared(gradient=1e-5).agrees
    assert compared(gradient=1e-6).agrees


def test_tolerances_follow_the_dtype():
    assert not compared(output=1e-2).agrees
    assert compared(torch.float16, output=1e-2).agrees
    assert not compared(torch.float16, output=1e-1).agrees
    assert compared(torch.bfloat16, output=9e-2).agrees


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_disagree(value):
    result = compared(gradient=value)
    assert (result.error, result.worst, result.agrees) == (math.inf, "gradient", False)


def test_missing_tensors_and_other_shapes_disagree():
    assert agreement.compare({"output": TRUTH["output"]}, TRUTH, torch.float32).worst == "gradient"
    assert not agreement.compare(TRUTH | {"output": torch.ones(1)}, TRUTH, torch.float32).agrees


@pytest.mark.parametrize("dtype", agreement.LIMITS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", sorted(agreement.examples()))
def test_every_backend_agrees_with_the_float64_reference(name, padded, dtype):
    case = agreement.Setting("cpu", dtype, padded, frames=37)
    parts = agreement.parts(name)
    backends = {backend for part in parts for backend in ops()[part].backends}
    ran = 0
    for backend in sorted(backends):
        if any(backend not in ops()[part].backends or agreement.refusals(part, backend, case) for part in parts):
            continue
        text = backend if name in ops() else ",".join(f"{part}={backend}" for part in parts)
        result = agreement.check(name, agreement.call_of(name, text), case)
        assert result.agrees, (backend, result)
        ran += 1
    assert ran >= 2


def test_a_gradient_that_is_wrong_disagrees(monkeypatch):
    import temporal_zoo.ops.attention.blocked as backend

    backward = backend.backward
    monkeypatch.setattr(backend, "backward", lambda *args: (2 * backward(*args)[0], *backward(*args)[1:]))
    case = agreement.Setting("cpu", torch.float32, False)
    result = agreement.check("attention", agreement.call_of("attention", "blocked"), case)
    assert (result.agrees, result.worst) == (False, "gradient of input 0")


def test_a_function_without_an_example_is_named():
    with pytest.raises(InvalidInput, match="'unknown' has no example"):
        agreement.example("unknown", agreement.Setting("cpu", torch.float32, False))
