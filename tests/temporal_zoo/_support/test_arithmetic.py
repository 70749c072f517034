"""The arithmetic settings of torch: equal for training and bench, recorded, without warnings."""

import pytest
import torch

from temporal_zoo._support import arithmetic as module
from temporal_zoo._support.arithmetic import arithmetic, set_arithmetic
from temporal_zoo._support.environment import environment

SETTINGS = {
    "float32_matmul": "highest",
    "tf32_matmul": False,
    "tf32_cudnn": False,
    "cudnn_benchmark": False,
    "cudnn_deterministic": False,
    "deterministic_algorithms": False,
}


@pytest.fixture(autouse=True)
def _restored():
    before = arithmetic()
    yield
    with module._without_warnings():
        torch.set_float32_matmul_precision(before["float32_matmul"])
        torch.backends.cudnn.allow_tf32 = before["tf32_cudnn"]
    torch.backends.cudnn.benchmark = before["cudnn_benchmark"]
    torch.backends.cudnn.deterministic = before["cudnn_deterministic"]
    torch.use_deterministic_algorithms(before["deterministic_algorithms"])


def test_set_arithmetic_overrides_all_settings():
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True)
    assert arithmetic() != SETTINGS
    set_arithmetic()
    assert arithmetic() == SETTINGS
    set_arithmetic()
    assert arithmetic() == SETTINGS


def test_the_environment_has_the_settings_and_its_id_depends_on_them():
    set_arithmetic()
    first = environment()
    assert first["arithmetic"] == SETTINGS
    torch.backends.cudnn.benchmark = True
    assert environment()["arithmetic"]["cudnn_benchmark"] is True
    assert environment()["id"] != first["id"]


def test_opening_a_device_sets_them():
    from diffusion.device import open_device

    torch.backends.cudnn.benchmark = True
    open_device("cpu")
    assert arithmetic() == SETTINGS


def test_a_process_of_the_bench_sets_them():
    from bench.sweep import subprocess
    from bench.sweep.case import expand

    facts, _ = subprocess.examine(expand(layers="identity", lengths="4", level="mixer", mode="forward"))
    assert facts["arithmetic"] == SETTINGS
