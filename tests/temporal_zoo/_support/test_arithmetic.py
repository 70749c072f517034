"""The arithmetic of torch: one setting for training and bench, recorded, without warnings of any version of torch."""

import pytest
import torch

from temporal_zoo._support import arithmetic as module
from temporal_zoo._support.arithmetic import arithmetic, set_arithmetic
from temporal_zoo._support.environment import environment

STATED = {
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


def test_settings_are_stated_whatever_they_were():
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True)
    assert arithmetic() != STATED
    set_arithmetic()
    assert arithmetic() == STATED
    set_arithmetic()
    assert arithmetic() == STATED


def test_the_record_of_an_environment_holds_them_and_its_id_depends_on_them():
    set_arithmetic()
    first = environment()
    assert first["arithmetic"] == STATED
    torch.backends.cudnn.benchmark = True
    assert environment()["arithmetic"]["cudnn_benchmark"] is True
    assert environment()["id"] != first["id"]


def test_a_command_that_opens_a_device_sets_them():
    from diffusion.device import open_device

    torch.backends.cudnn.benchmark = True
    open_device("cpu")
    assert arithmetic() == STATED


def test_a_process_of_the_bench_sets_them():
    from bench.sweep import subprocess
    from bench.sweep.case import expand

    found, _ = subprocess.examine(expand(layers="identity", lengths="4", level="mixer", mode="forward"))
    assert found["arithmetic"] == STATED
