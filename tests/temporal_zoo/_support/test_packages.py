"""The table of optional packages, their install commands, and the tested versions."""

import tomllib
from pathlib import Path

import pytest

from temporal_zoo._support.packages import OPTIONAL, TRIED, install_command


def test_pyproject_allows_exactly_the_tested_versions():
    """The lower bounds and the classifiers of pyproject.toml agree with `TRIED`."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    classifiers = {line.rpartition(" :: ")[2] for line in project["classifiers"] if "Python" in line}
    assert classifiers == set(TRIED["python"])
    assert project["requires-python"] == f">={TRIED['python'][0]}"
    assert f"torch>={TRIED['torch'][0]}" in project["dependencies"]
    assert any(line.startswith(f"triton>={TRIED['triton'][0]};") for line in project["optional-dependencies"]["test"])


@pytest.mark.parametrize(
    ("module", "facts", "command"),
    [
        ("av", {}, 'pip install "temporal-zoo[train]"'),
        (
            "torchvision",
            {"torch_version": "2.13.0+cpu"},
            'torchvision==0.28.*" --index-url "the CPU index that the site of PyTorch names"',
        ),
        ("torchvision", {"torch_version": "2.13.0", "cuda": True}, 'pip install --no-deps "torchvision==0.28.*"'),
        ("flash_attn", {}, 'pip install --no-build-isolation "temporal-zoo[flash]"'),
        ("mamba_ssm", {}, "MAMBA_KEEP_CUDA_BUILD=TRUE"),
    ],
)
def test_install_commands_keep_the_installed_torch(module, facts, command):
    package = next(package for package in OPTIONAL if package.module == module)
    assert command in install_command(package, **facts)
