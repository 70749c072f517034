"""Facts about mixers and backends as plain values (numbers, strings, lists), for the commands and for the docs."""

from __future__ import annotations

import inspect
from importlib import import_module
from types import ModuleType
from typing import Any

from temporal_zoo.config import describe, to_text
from temporal_zoo.registry import build, get, names
from temporal_zoo.spec import MixerSpec

# The width at which parameters are counted.
DIM = 64


def mixers() -> list[dict[str, Any]]:
    """One row per mixer, sorted by name.  A mixer that cannot be loaded has only `name` and `error`."""
    return [_row(name) for name in names()]


def mixer(text: str) -> dict[str, Any]:
    """All facts about the mixer of a spec, with the spec's options.

    Raises:
        UnknownMixer, ConfigError: see `temporal_zoo.build`.
    """
    spec = MixerSpec.parse(text)
    entry = get(spec.name)
    config = spec.config()
    built = build(spec, DIM)
    return {
        "name": entry.name,
        "spec": str(spec.canonical()),
        "summary": entry.summary,
        "description": inspect.cleandoc(entry.mixer.__doc__ or ""),
        "paper": entry.paper,
        "time": entry.time,
        "memory": entry.memory,
        "causal": built.causal,
        "order_blind": built.order_blind,
        "passes": list(getattr(built, "passes", ())),
        "options": [
            {"name": name, "type": kind, "default": default, "value": to_text(getattr(config, name)), "doc": doc}
            for name, kind, default, doc in describe(type(config))
        ],
        "examples": [f"{entry.name}:{example}" for example in config.examples],
        "flavours": {name: f"{entry.name}:{options}" for name, options in config.flavours.items()},
        "dim": DIM,
        "parameters": sum(parameter.numel() for parameter in built.parameters()),
        "backends": {device: _backends_that_run(spec, device) for device in devices()},
        "home": entry.home,
    }


def specs(text: str) -> list[str]:
    """The specs that `zoo check` runs for a text: the mixer's default and examples, or only a text that has options.

    Raises:
        UnknownMixer, ConfigError: see `temporal_zoo.build`.
    """
    spec = MixerSpec.parse(text)
    config = spec.config()
    return [text] if spec.options else [spec.name, *(f"{spec.name}:{example}" for example in config.examples)]


def backends() -> list[dict[str, Any]]:
    """One row per op and backend, in the order that `auto` tries them on a CPU."""
    from temporal_zoo.ops import ops

    return [
        {
            "op": name,
            "backend": backend,
            "position": position,
            "package": op.package(backend),
            "confirmed": {device: op.confirmed(backend, device) for device in ("cpu", "cuda")},
            "summary": _first_line(import_module(f"{op.__module__}.{backend}")),
        }
        for name, op in sorted(ops().items())
        for position, backend in enumerate(op.tried("cpu"), start=1)
    ]


def devices() -> list[str]:
    """The types of device of this machine: "cpu", and "cuda" if torch can use one."""
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def _row(name: str) -> dict[str, Any]:
    try:
        entry = get(name)
        built = build(name, DIM)
    except Exception as error:  # the list must show the other mixers
        return {"name": name, "error": f"{type(error).__name__}: {error}"}
    return {
        "name": name,
        "summary": entry.summary,
        "time": entry.time,
        "memory": entry.memory,
        "causal": built.causal,
        "paper": entry.paper,
        "parameters": sum(parameter.numel() for parameter in built.parameters()),
    }


def _backends_that_run(spec: MixerSpec, device: str) -> dict[str, str]:
    """Op -> the backends that a small forward pass runs; "error" -> why no backend can run."""
    import torch

    from temporal_zoo.ops import BackendError, tracing

    with tracing() as ran, torch.no_grad():
        try:
            build(spec, DIM).to(device)(torch.zeros(2, 16, DIM, device=device))
        except BackendError as error:
            return {"error": str(error)}
    return {op: ", ".join(sorted(names)) for op, names in sorted(ran.items())}


def _first_line(module: ModuleType) -> str:
    return inspect.cleandoc(module.__doc__ or "").partition("\n")[0]
