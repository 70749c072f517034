"""The optional packages: purpose, test statement, install command; and the versions that our tests ran with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from temporal_zoo.errors import UserError

# The library tests passed with these versions (`nox -s matrix`); `zoo doctor` names installed versions outside them.
TRIED = {
    "python": ("3.11", "3.12", "3.13"),
    "torch": ("2.8", "2.11", "2.13", "2.14", "2.15"),
    "triton": ("3.4", "3.6", "3.7", "3.8", "3.9"),
}


def not_tried(software: Mapping[str, str | None]) -> list[str]:
    """Installed versions that our tests did not run with, such as "torch 2.16.0 (tried: 2.8, 2.11)".

    Args:
        software: name -> version, None if it is not installed.
    """
    installed = {name: number for name in TRIED if (number := software.get(name)) is not None}
    return [
        f"{name} {number} (tried: {', '.join(TRIED[name])})"
        for name, number in installed.items()
        if ".".join(number.split(".")[:2]) not in TRIED[name]
    ]


@dataclass(frozen=True, kw_only=True)
class Package:
    """One optional package.

    `probe` is a statement that succeeds if the package works here; it runs after the import, in a subprocess.
    """

    module: str
    distribution: str
    purpose: str
    extra: str
    probe: str = "pass"
    needs_cuda: bool = False


OPTIONAL = (
    Package(
        module="mamba_ssm",
        distribution="mamba-ssm",
        purpose="CUDA backend of selective_scan",
        extra="mamba",
        # Recent builds lack the Mamba-1 kernel, and `import mamba_ssm` succeeds without it.
        probe="import torch, selective_scan_cuda; torch.zeros(1, device='cuda')",
        needs_cuda=True,
    ),
    Package(
        module="causal_conv1d",
        distribution="causal-conv1d",
        purpose="CUDA backend of causal_conv",
        extra="mamba",
        probe="import torch; torch.zeros(1, device='cuda')",
        needs_cuda=True,
    ),
    Package(
        module="flash_attn",
        distribution="flash-attn",
        purpose="CUDA backend of attention",
        extra="flash",
        probe="import torch; flash_attn.flash_attn_func; torch.zeros(1, device='cuda')",
        needs_cuda=True,
    ),
    Package(
        module="xformers",
        distribution="xformers",
        purpose="CUDA backend of attention",
        extra="xformers",
        probe="import torch, xformers.ops; torch.zeros(1, device='cuda')",
        needs_cuda=True,
    ),
    Package(
        module="triton",
        distribution="triton",
        purpose="GPU kernels of our own, and torch.compile on GPUs",
        extra="test",
        probe="triton.runtime.driver.active.get_current_target()",
        needs_cuda=True,
    ),
    Package(
        module="torchvision",
        distribution="torchvision",
        purpose="video classifiers as feature extractors",
        extra="vision",
        probe="import torchvision.models.video",
    ),
    Package(
        module="av",
        distribution="av",
        purpose="reading and writing video files",
        extra="train",
        probe="av.codec.Codec('mpeg4', 'w')",
    ),
    Package(
        module="PIL",
        distribution="pillow",
        purpose="reading and writing pictures",
        extra="train",
        probe="import PIL.Image; PIL.Image.new('RGB', (1, 1))",
    ),
    Package(
        module="matplotlib",
        distribution="matplotlib",
        purpose="plots",
        extra="bench",
        probe="import matplotlib.figure; matplotlib.figure.Figure()",
    ),
    Package(
        module="safetensors",
        distribution="safetensors",
        purpose="reading weights of other projects",
        extra="convert",
    ),
    Package(
        module="submitit",
        distribution="submitit",
        purpose="ablations on a SLURM cluster",
        extra="launch",
    ),
    Package(
        module="ray",
        distribution="ray",
        purpose="ablations on a Ray cluster",
        extra="launch",
    ),
    Package(
        module="psutil",
        distribution="psutil",
        purpose="memory of the process during a benchmark",
        extra="bench",
        probe="psutil.Process().memory_info()",
    ),
)


class MissingPackage(UserError):
    """A needed optional package is not installed; the message has the command that installs it."""


def need(module: str, purpose: str) -> ModuleType:
    """Imports an optional package.

    Args:
        module: such as "av" or "PIL.Image".
        purpose: what needs it, for the message, such as "writing mp4".

    Raises:
        MissingPackage: it cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        wanted = package(module)
        assert wanted is not None
        raise MissingPackage(f"{purpose} needs {wanted.distribution} ({error}): {install_command(wanted)}") from error


def package(module: str) -> Package | None:
    """The optional package that a module (such as "PIL.Image") belongs to."""
    top = module.partition(".")[0]
    return next((p for p in OPTIONAL if p.module == top), None)


def install_command(wanted: Package, *, torch_version: str | None = None, cuda: bool = False) -> str:
    """The command that installs `wanted` and keeps the installed torch."""
    if wanted.module == "torchvision" and torch_version:
        major, minor, *_ = torch_version.split(".")
        # torchvision 0.(N + 15) belongs to torch 2.N; its wheels on the package index need a CUDA build of torch.
        exact = f"torchvision==0.{int(minor) + 15}.*" if major == "2" else "torchvision"
        index = "" if cuda else ' --index-url "the CPU index that the site of PyTorch names"'
        return f'pip install --no-deps "{exact}"{index}'
    if wanted.module == "triton":
        return "pip install triton"
    if wanted.extra in ("mamba", "flash"):
        keep = "MAMBA_KEEP_CUDA_BUILD=TRUE " if wanted.extra == "mamba" else ""
        return f'{keep}MAX_JOBS=4 pip install --no-build-isolation "temporal-zoo[{wanted.extra}]"'
    if wanted.extra == "xformers":
        return 'pip install --no-deps "xformers>=0.0.35"'
    return f'pip install "temporal-zoo[{wanted.extra}]"'
