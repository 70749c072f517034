"""Peers by name: packages that are installed, sources in a folder that are loaded by path, or restatements of them.

Source-only peers belong to packages that do not install without CUDA.  Of such a file only the wanted definitions run;
what they import and is not here becomes None.
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

from torch import Tensor, nn
from torch.func import functional_call

from temporal_zoo.convert.vim import to_vim
from temporal_zoo.errors import InvalidInput

from . import restated
from .contenders import Contender
from .problems import Inputs

# What a folder of `--peers` may hold, and what is used of it.
SOURCES = {
    "selective_scan_interface.py": ("selective_scan_ref",),
    "mamba_simple.py": ("Mamba",),
    "s4d.py": ("S4DKernel", "S4D"),
}


_SCAN = "selective_scan"


class PeersError(InvalidInput):
    """A folder of peers that cannot be used; the message says what it should hold."""


def of(subject: str, folder: Path | None) -> list[Contender]:
    """The peers of a subject."""
    if subject == _SCAN:
        scan, role, origin = _reference_scan(folder)
        reference = functools.partial(restated.both_ways, scan, frames=2)
        return [
            Contender("mamba_ssm selective_scan_ref", role, subject, reference, origin, swapped=True),
            _installed("mamba.py pscan", _pscan, "mambapy"),
            _installed("Transformers, slow path", _transformers, "transformers", swapped=True),
            _installed("Transformers, use_mambapy", _transformers_mambapy, "transformers", "mambapy", swapped=True),
        ]
    if subject == "bimamba":
        return [_vim(folder)]
    return [_s4d(folder)] if subject == "s4d" else []


def check(folder: Path) -> dict[str, str]:
    """File -> sha256 of what the folder holds of the sources.

    Raises:
        PeersError: it holds none of them, or one that lacks what is wanted of it.
    """
    found = {name: _digest(folder / name) for name in SOURCES if (folder / name).is_file()}
    if not found:
        raise PeersError(f"{folder} holds no peer; put one or more of {', '.join(SOURCES)} there")
    for name in found:
        load(folder / name, SOURCES[name])
    return found


def load(path: Path, wanted: tuple[str, ...], **supplied: Any) -> dict[str, Any]:
    """The namespace that the wanted definitions of a source file live in; `supplied` names take the place of imports.

    Raises:
        PeersError: the file does not define them.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (SyntaxError, ValueError) as error:
        raise PeersError(f"{path} is no Python source: {error}") from error
    space: dict[str, Any] = {"__name__": f"peer_{path.stem}"}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            _import(node, space)
    space |= supplied
    defined = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in wanted]
    if missing := set(wanted) - {node.name for node in defined}:
        raise PeersError(f"{path} does not define {', '.join(sorted(missing))}; is it another version?")
    exec(compile(ast.Module(defined, []), str(path), "exec"), space)  # type: ignore[arg-type]
    return space


def _import(node: ast.Import | ast.ImportFrom, space: dict[str, Any]) -> None:
    try:
        exec(compile(ast.Module([node], []), "<import of a peer>", "exec"), space)
    except Exception:  # whatever a package that needs CUDA does when there is none
        for alias in node.names:
            space.setdefault(alias.asname or alias.name.partition(".")[0], None)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _source(folder: Path | None, name: str) -> tuple[Path, str] | None:
    """Path and digest of a source, or None when it is not there."""
    if folder is None or not (folder / name).is_file():
        return None
    return folder / name, f"{name} sha256:{_digest(folder / name)}"


def _installed(
    name: str, make: Callable[[], Callable[[Inputs], Tensor]], *packages: str, swapped: bool = False
) -> Contender:
    """A peer made of packages, or a contender that says what is missing and how to get it."""
    install = f"pip install --upgrade {' '.join(packages)}"
    try:
        for package in packages:
            import_module(package)
        run = make()
    except ModuleNotFoundError as error:
        return Contender(name, "installed", _SCAN, None, absent=f"{error.name} is not installed: {install}")
    except Exception as error:  # an installed package may be broken in any way, or have another interface
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        return Contender(name, "installed", _SCAN, None, absent=f"{told}; perhaps another version: {install}")
    return Contender(name, "installed", _SCAN, run, ", ".join(f"{each} {version(each)}" for each in packages), swapped)


def _pscan() -> Callable[[Inputs], Tensor]:
    # The method needs nothing of its object.
    method = functools.partial(import_module("mambapy.mamba").MambaBlock.selective_scan, None)

    def scan(u, dt, A, B, C, skip, dt_bias):
        return method(u, nn.functional.softplus(dt + dt_bias), A, B, C, skip)

    return functools.partial(restated.both_ways, scan, frames=1)


def _transformers(**options: bool) -> Callable[[Inputs], Tensor]:
    function = import_module("transformers.models.mamba.modeling_mamba").mamba_selective_scan
    return functools.partial(restated.both_ways, _as_scan(function, **options), frames=2)


def _transformers_mambapy() -> Callable[[Inputs], Tensor]:
    return _transformers(use_mambapy=True)


def _as_scan(function: Callable[..., Tensor], **options: bool) -> restated.Scan:
    """A function with the signature of mamba_ssm's, without its gate."""

    def scan(u, dt, A, B, C, skip, dt_bias):
        return function(u, dt, A, B, C, skip, delta_bias=dt_bias, delta_softplus=True, **options)

    return scan


def _reference_scan(folder: Path | None) -> tuple[restated.Scan, Any, str]:
    """The reference scan of mamba_ssm, as found or restated; its role; where it is from."""
    name = "selective_scan_interface.py"
    if found := _source(folder, name):
        path, origin = found
        return _as_scan(load(path, SOURCES[name])["selective_scan_ref"]), "source", origin
    return restated.scan_all_ahead, "restated", "arXiv 2312.00752, equation 2"


def _vim(folder: Path | None) -> Contender:
    """Vision Mamba's layer; its fused CUDA function is replaced by its steps in torch, with the reference scan."""
    name, title = "mamba_simple.py", "Vim layer, reference ops"
    scan, _, origin = _reference_scan(folder)
    if not (found := _source(folder, name)):

        def layer(inputs: Inputs) -> Tensor:
            return restated.vim_layer(inputs["x"], _weights(to_vim(inputs)), scan)

        return Contender(title, "restated", "bimamba", layer, f"arXiv 2401.09417, algorithm 1; scan: {origin}")
    path, digest = found

    def branch(xz, conv_weight, conv_bias, x_proj, dt_proj, A, B, C, skip, delta_bias, delta_softplus):
        return restated.vim_branch(xz, conv_weight, conv_bias, x_proj, dt_proj, A, skip, delta_bias, scan=scan)

    make = load(path, SOURCES[name], mamba_inner_fn_no_out_proj=branch)["Mamba"]

    @functools.cache
    def module(dim: int, state: int) -> nn.Module:
        return make(dim, d_state=state, bimamba_type="v2", if_divide_out=True)

    def run(inputs: Inputs) -> Tensor:
        weights = _weights(to_vim(inputs))
        return functional_call(module(inputs["x"].shape[-1], weights["A_log"].shape[1]), weights, (inputs["x"],))

    return Contender(title, "source", "bimamba", run, f"{digest}; scan: {origin}")


def _s4d(folder: Path | None) -> Contender:
    """S4D by FFT; of the official layer what follows the state space model is taken away."""
    name, title = "s4d.py", "official S4D, FFT"
    if not (found := _source(folder, name)):

        def fourier(inputs: Inputs) -> Tensor:
            return restated.s4d_by_fourier(inputs["x"], _core(inputs))

        return Contender(title, "restated", "s4d", fourier, "arXiv 2206.11893, listing 1", swapped=True)
    path, digest = found
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

    return Contender(title, "source", "s4d", run, digest, swapped=True)


def _weights(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if name != "x"}


def _core(inputs: Inputs) -> dict[str, Tensor]:
    return {name.removeprefix("core."): value for name, value in _weights(inputs).items()}
