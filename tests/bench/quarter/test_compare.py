"""Comparisons of backends with the reference in a GPU run, on a CPU."""

import pytest

from bench.quarter import compare
from temporal_zoo.ops import agreement as agreements


def comparison(op, backend, dtype="float32", without=()):
    what = {"op": op, "backend": backend, "dtype": dtype, "shapes": [[3, 1, 64], [3, 5, 64]]}
    notes = []
    return compare.agreement(what, "cpu", notes.append, without), notes


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


def test_a_backend_that_refuses_all_shapes_is_unsupported():
    answer, notes = comparison("causal_conv", "causal_conv1d")
    assert (answer["outcome"], answer["agrees"], notes) == ("unsupported", None, [])
    assert answer["reason"]
