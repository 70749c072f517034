"""Training and sampling steps in a GPU run, on a CPU."""

import pytest

from bench.quarter import steps

SETUP = {"mixer": "flash", "frames": 2, "clips": 1, "size": 8, "preset": "tiny", "checkpointing": "mixers",
         "dtype": "float32", "backends": ["attention=blocked"]}  # fmt: skip


@pytest.mark.parametrize("task", [steps.training_step, steps.sampling_step])
def test_steps_have_a_time_a_peak_and_backends(task):
    notes = []
    answer = task({"row": "x", "setup": SETUP}, "cpu", notes.append, ())
    assert answer["outcome"] == "ok"
    assert answer["time_ms"]["p50"] > 0
    assert answer["memory_bytes"]["peak"] > 0
    assert answer["backends"] == {"attention": ["blocked"]}
    assert notes == ["building the network", "timing", "measuring the peak of memory"]
