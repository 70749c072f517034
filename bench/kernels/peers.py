"""The implementations that our backends are compared with: peers, and plain PyTorch.

A peer is an installed package, a source file in the folder of `--peers`, or a published algorithm that we restated
(`peer_algorithms`).  Some packages do not install without CUDA.  Of their source files only the needed definitions are
executed; an import that fails becomes None.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, linalg, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.sweep.outcome import first_line
from temporal_zoo.convert.vim import to_vim
from temporal_zoo.errors import InvalidInput

from . import peer_algorithms
from .subjects import Implementation, Inputs, Outputs

# Files that a folder of `--peers` may contain -> the definitions that we use.
SOURCES = {
    "selective_scan_interface.py": ("selective_scan_ref",),
    "mamba_simple.py": ("Mamba",),
    "s4d.py": ("S4DKernel", "S4D"),
}
_SCAN = "selective_scan"


class PeersError(InvalidInput):
    """The folder of peers cannot be used; the message says what it must contain."""


def of(subject: str, folder: Path | None) -> list[Implementation]:
    """The peers of a subject, then plain PyTorch.

    Args:
        folder: sources of peers that cannot be installed, or None.
    """
    if subject == _SCAN:
        scan, role, origin = _reference_scan(folder)
        reference = functools.partial(peer_algorithms.both_ways, scan, frames=2)
        return [
            Implementation("mamba_ssm selective_scan_ref", role, subject, reference, origin, swapped=True),
            _installed("mamba.py pscan", _pscan, "mambapy"),
            _installed("Transformers, slow path", _transformers, "transformers", swapped=True),
            _installed("Transformers, use_mambapy", _transformers_mambapy, "transformers", "mambapy", swapped=True),
            Implementation("ten-line loop", "plain", subject, _scan_loop, "ours"),
            _FLASH,
        ]
    if subject == "bimamba":
        return [_vim(folder)]
    if subject == "s4d":
        return [_s4d(folder)]
    return {
        "attention": [_FLASH],
        "causal_conv": [_CONV1D],
        "linear_attention": [_PRODUCTS, _FLASH],
        "ridge_attention": [_SOLVE, _FLASH],
    }.get(subject, [])


def check(folder: Path) -> dict[str, str]:
    """Checks the sources in a folder of peers; returns the sha256 of each file.

    Raises:
        PeersError: the folder contains no source, or a source without the needed definitions.
    """
    digests = {name: _digest(folder / name) for name in SOURCES if (folder / name).is_file()}
    if not digests:
        raise PeersError(f"{folder} contains no peer; copy one or more of {', '.join(SOURCES)} into it")
    for name in digests:
        load(folder / name, SOURCES[name])
    return digests


def load(path: Path, wanted: tuple[str, ...], **supplied: Any) -> dict[str, Any]:
    """Executes the wanted definitions of a source file and returns their namespace.

    Args:
        supplied: names that replace imports of the file.
    Raises:
        PeersError: the file does not contain the definitions.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (SyntaxError, ValueError) as error:
        raise PeersError(f"cannot parse {path} as Python source: {error}") from error
    space: dict[str, Any] = {"__name__": f"peer_{path.stem}"}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            _import(node, space)
    space |= supplied
    defined = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in wanted]
    if missing := set(wanted) - {node.name for node in defined}:
        raise PeersError(f"{path} does not define {', '.join(sorted(missing))}; use the version that defines them")
    exec(compile(ast.Module(defined, []), str(path), "exec"), space)  # type: ignore[arg-type]
    return space


def _import(node: ast.Import | ast.ImportFrom, space: dict[str, Any]) -> None:
    try:
        exec(compile(ast.Module([node], []), "<import of a peer>", "exec"), space)
    except Exception:  # packages that need CUDA fail in many ways without it
        for alias in node.names:
            space.setdefault(alias.asname or alias.name.partition(".")[0], None)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _source(folder: Path | None, name: str) -> tuple[Path, str] | None:
    """Path and digest of a source, or None when the folder does not contain it."""
    if folder is None or not (folder / name).is_file():
        return None
    return folder / name, f"{name} sha256:{_digest(folder / name)}"


def _installed(
    name: str, make: Callable[[], Callable[[Inputs], Tensor]], *packages: str, swapped: bool = False
) -> Implementation:
    """A peer from installed packages, or an `Implementation` without `run` that says how to install them."""
    install = f"pip install --upgrade {' '.join(packages)}"
    try:
        for package in packages:
            import_module(package)
        run = make()
    except ModuleNotFoundError as error:
        return Implementation(name, "installed", _SCAN, None, absent=f"{error.name} is not installed: {install}")
    except Exception as error:  # the installed version may be broken, or have another interface
        return Implementation(
            name, "installed", _SCAN, None, absent=f"{first_line(error)}; try another version: {install}"
        )
    return Implementation(
        name, "installed", _SCAN, run, ", ".join(f"{each} {version(each)}" for each in packages), swapped
    )


def _pscan() -> Callable[[Inputs], Tensor]:
    # The method does not use its object.
    method = functools.partial(import_module("mambapy.mamba").MambaBlock.selective_scan, None)

    def scan(u, dt, A, B, C, skip, dt_bias):
        return method(u, nn.functional.softplus(dt + dt_bias), A, B, C, skip)

    return functools.partial(peer_algorithms.both_ways, scan, frames=1)


def _transformers(**options: bool) -> Callable[[Inputs], Tensor]:
    function = import_module("transformers.models.mamba.modeling_mamba").mamba_selective_scan
    return functools.partial(peer_algorithms.both_ways, _as_scan(function, **options), frames=2)


def _transformers_mambapy() -> Callable[[Inputs], Tensor]:
    return _transformers(use_mambapy=True)


def _as_scan(function: Callable[..., Tensor], **options: bool) -> peer_algorithms.Scan:
    """Adapts a function with the signature of mamba_ssm's scan; the gate is not passed."""

    def scan(u, dt, A, B, C, skip, dt_bias):
        return function(u, dt, A, B, C, skip, delta_bias=dt_bias, delta_softplus=True, **options)

    return scan


def _reference_scan(folder: Path | None) -> tuple[peer_algorithms.Scan, Any, str]:
    """The reference scan of mamba_ssm, from the folder or restated; its role; its origin."""
    name = "selective_scan_interface.py"
    if source := _source(folder, name):
        path, origin = source
        return _as_scan(load(path, SOURCES[name])["selective_scan_ref"]), "source", origin
    return peer_algorithms.reference_scan, "restated", "arXiv 2312.00752, equation 2"


def _vim(folder: Path | None) -> Implementation:
    """Vision Mamba's layer; plain torch operations and the reference scan replace its fused CUDA function."""
    name, title = "mamba_simple.py", "Vim layer, reference ops"
    scan, _, origin = _reference_scan(folder)
    if not (source := _source(folder, name)):

        def layer(inputs: Inputs) -> Tensor:
            return peer_algorithms.vim_layer(inputs["x"], _weights(to_vim(inputs)), scan)

        return Implementation(title, "restated", "bimamba", layer, f"arXiv 2401.09417, algorithm 1; scan: {origin}")
    path, digest = source

    def branch(xz, conv_weight, conv_bias, x_proj, dt_proj, A, B, C, skip, delta_bias, delta_softplus):
        return peer_algorithms.vim_branch(xz, conv_weight, conv_bias, x_proj, dt_proj, A, skip, delta_bias, scan=scan)

    make = load(path, SOURCES[name], mamba_inner_fn_no_out_proj=branch)["Mamba"]

    @functools.cache
    def module(dim: int, state: int) -> nn.Module:
        return make(dim, d_state=state, bimamba_type="v2", if_divide_out=True)

    def run(inputs: Inputs) -> Tensor:
        weights = _weights(to_vim(inputs))
        return functional_call(module(inputs["x"].shape[-1], weights["A_log"].shape[1]), weights, (inputs["x"],))

    return Implementation(title, "source", "bimamba", run, f"{digest}; scan: {origin}")


def _s4d(folder: Path | None) -> Implementation:
    """S4D by FFT; the activation and the output layer of the official layer are removed."""
    name, title = "s4d.py", "official S4D, FFT"
    if not (source := _source(folder, name)):

        def fourier(inputs: Inputs) -> Tensor:
            return peer_algorithms.s4d_by_fourier(inputs["x"], _core(inputs))

        return Implementation(title, "restated", "s4d", fourier, "arXiv 2206.11893, listing 1", swapped=True)
    path, digest = source
    make = load(path, SOURCES[name])["S4D"]

    @functools.cache
    def module(channels: int, state: int) -> nn.Module:
        layer = make(channels, d_state=state)
        layer.activation = layer.output_linear = nn.Identity()
        return layer

    def run(inputs: Inputs) -> Tensor:
        core = _core(inputs)
        weights = {name if name == "D" else f"kernel.{name}": value for name, value in core.items()}
        layer = module(inputs["x"].shape[1], 2 * core["C"].shape[1])
        return functional_call(layer, weights, (inputs["x"],))[0]

    return Implementation(title, "source", "s4d", run, digest, swapped=True)


def _weights(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if name != "x"}


def _core(inputs: Inputs) -> dict[str, Tensor]:
    return {name.removeprefix("core."): value for name, value in _weights(inputs).items()}


def _scan_loop(inputs: Inputs) -> Tensor:
    return peer_algorithms.both_ways(peer_algorithms.scan_loop, inputs, frames=1)


def _flash(inputs: Inputs) -> Tensor:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(inputs["q"], inputs["k"], inputs["v"])


def _conv1d(inputs: Inputs) -> Outputs:
    x, past = inputs["x"], inputs["weight"].shape[1] - 1
    forward = F.conv1d(F.pad(x, (past, 0)), inputs["weight"][:, None], inputs["bias"], groups=x.shape[1])
    # The reverse direction is a convolution with reversed taps, so that x needs no flip.
    taps = inputs["weight_back"].flip(1)[:, None]
    back = F.conv1d(F.pad(x, (0, past)), taps, inputs["bias_back"], groups=x.shape[1])
    return F.silu(forward), F.silu(back)


def _solve(inputs: Inputs) -> Tensor:
    q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (inputs["q"], inputs["k"]))
    weighted = inputs["beta"][..., None] * k
    fit = linalg.solve(weighted.mT @ k + inputs["ridge"].diag_embed(), weighted.mT @ inputs["v"])
    return q @ fit


def _products(inputs: Inputs) -> Tensor:
    sums = inputs["norm_q"] @ inputs["norm_k"].sum(2)[..., None]
    return inputs["q"] @ (inputs["k"].mT @ inputs["v"]) / (sums + 1e-8)


# Attention at equal width also shows the scale beside the scan and linear attention.
_FLASH = Implementation("SDPA flash, equal width", "plain", "attention", _flash, "torch", swapped=True)
_SOLVE = Implementation("torch.linalg.solve", "plain", "ridge_attention", _solve, "torch", swapped=True)
_PRODUCTS = Implementation("torch matmul", "plain", "linear_attention", _products, "torch", swapped=True)
_CONV1D = Implementation("torch conv1d", "plain", "causal_conv", _conv1d, "torch", swapped=True)
