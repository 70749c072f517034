"""The Triton backends of all ops in Triton's interpreter, in one process, which imports torch and Triton once."""

from pathlib import Path

import pytest

pytest.importorskip("triton")

HERE = Path(__file__).parent


def test_in_the_interpreter(interpret):
    """The tests for hardware of each op, and a few of those for every backend, which take long there."""
    hardware = sorted(HERE.glob("test_*_triton.py"))
    assert len(hardware) == 3
    interpret(
        [*hardware, "-m", "gpu"],
        [HERE / "test_selective_scan.py", "-k", "triton and (shared or registered)"],
        [HERE / "test_causal_conv.py", "-k", "triton and (only_some or no_rows)"],
        [HERE / "test_lengths.py", "-k", "clamped"],
    )
