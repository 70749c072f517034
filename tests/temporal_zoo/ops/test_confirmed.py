"""The evidence that each backend states: torch, our tests, or a record that exists and shows agreement."""

from pathlib import Path

import pytest

from temporal_zoo._support.record import Session, read
from temporal_zoo.ops import ops
from temporal_zoo.ops._dispatch import REFERENCE

ROOT = Path(__file__).parents[3]
BACKENDS = [(op, backend) for op, each in sorted(ops().items()) for backend in each.backends]


def confirms(path, op, backend):
    """Whether a record has compared the backend with the reference on a GPU, and its last sources always agreed."""
    lines = [
        line
        for line in read(path).of("agreement")
        if (line["op"], line["backend"], line["outcome"]) == (op, backend, "ok") and line["device"] != "cpu"
    ]
    return bool(lines) and all(line["agrees"] for line in lines if line["environment"] == lines[-1]["environment"])


@pytest.mark.parametrize(("op", "backend"), BACKENDS)
def test_every_backend_states_its_evidence(op, backend):
    module = ops()[op]._load(backend)
    for device in ("cpu", "cuda"):
        record = ops()[op].confirmed(backend, device)
        if record == "torch":
            assert module.NEEDS is None
            assert backend != "cpu"
        elif record == "tests":
            assert backend == "cpu" or device == "cpu"
        elif record is not None:
            assert confirms(ROOT / record, op, backend), f"{record} does not say that {backend} of {op} agrees on a GPU"
        assert record == "torch" or backend != REFERENCE


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True),
        ({"device": "cpu"}, False),
        ({"agrees": False}, False),
        ({"outcome": "failed", "agrees": None}, False),
        ({"backend": "cudnn"}, False),
        ({"op": "causal_conv"}, False),
    ],
)
def test_only_a_line_about_this_backend_on_a_gpu_confirms(tmp_path, change, right):
    line = {"op": "attention", "backend": "triton", "device": "NVIDIA H100", "outcome": "ok", "agrees": True}
    session = Session(tmp_path / "gpu.jsonl", {"id": "0" * 16})
    session.write("agreement", line | change)
    assert confirms(tmp_path / "gpu.jsonl", "attention", "triton") is right


def test_a_repaired_backend_is_confirmed_by_its_last_sources(tmp_path):
    for number, agrees in enumerate((False, True)):
        session = Session(tmp_path / "gpu.jsonl", {"id": str(number) * 16})
        line = {"op": "attention", "backend": "triton", "device": "NVIDIA H100", "outcome": "ok", "agrees": agrees}
        session.write("agreement", line)
    assert confirms(tmp_path / "gpu.jsonl", "attention", "triton")


def test_one_disagreement_confirms_nothing(tmp_path):
    session = Session(tmp_path / "gpu.jsonl", {"id": "0" * 16})
    for agrees in (True, False):
        line = {"op": "attention", "backend": "triton", "device": "NVIDIA H100", "outcome": "ok", "agrees": agrees}
        session.write("agreement", line)
    assert not confirms(tmp_path / "gpu.jsonl", "attention", "triton")
