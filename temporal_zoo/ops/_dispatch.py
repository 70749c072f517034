"""Choosing a body for an op: by call argument, by context, by environment variable, or the first that can run.

An op is a folder with one file per body.  A body's module defines

    NEEDS: str | None                      the optional package that it calls, or None
    refuses(*args, **kwargs) -> list[str]  why it cannot run these inputs; empty when it can
    run(*args, **kwargs)                   the op's signature

and imports its package inside functions only.  Nothing is silent: a pinned body that cannot run raises with everybody's
reasons, `explain` gives them, `tracing` collects what ran, and `auto` on CUDA says once when only the reference is left.
"""

from __future__ import annotations

import functools
import logging
import os
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from temporal_zoo.config import nearest

log = logging.getLogger("temporal_zoo.ops")

REFERENCE = "reference"
_pins: ContextVar[dict[str, str]] = ContextVar("temporal_zoo_pins", default={})
_trace: ContextVar[dict[str, set[str]] | None] = ContextVar("temporal_zoo_trace", default=None)
_ops: dict[str, Op] = {}


class BackendError(RuntimeError):
    """The body that was asked for cannot run these inputs; the message lists every body's reasons."""


class Op:
    """One function with several bodies; call it like the function it was made from, plus `backend="name"`.

    Made by the decorator `op`; the decorated function checks the arguments and holds the documentation.
    """

    def __init__(self, check: Callable[..., None], bodies: tuple[str, ...]) -> None:
        functools.update_wrapper(self, check)
        self.name = check.__name__
        self.bodies = bodies
        self._check = check
        self._modules: dict[str, ModuleType] = {}

    def __call__(self, *args, backend: str | None = None, **kwargs):
        self._check(*args, **kwargs)
        name = self.choose(*args, backend=backend, **kwargs)
        _note(self.name, name)
        return self._modules[name].run(*args, **kwargs)

    def choose(self, *args, backend: str | None = None, **kwargs) -> str:
        """The name of the body that a call with these arguments would run.

        Raises:
            BackendError: a pinned body cannot run these inputs.
        """
        asked = backend or _pinned(self.name)
        if asked is not None:
            if asked not in self.bodies:
                raise BackendError(f"{self.name} has no body {asked!r}{nearest(asked, self.bodies)}; it has {', '.join(self.bodies)}")
            if self.reasons(asked, *args, **kwargs):
                raise BackendError(f"{self.name}: the body {asked!r} cannot run these inputs\n{self._table(*args, **kwargs)}")
            return asked
        for name in self.bodies:
            if not self.reasons(name, *args, **kwargs):
                if name == REFERENCE:
                    _warn_reference(self.name, _device(args))
                return name
        raise BackendError(f"{self.name}: no body can run these inputs\n{self._table(*args, **kwargs)}")

    def reasons(self, body: str, *args, **kwargs) -> list[str]:
        """Why `body` cannot run these inputs; empty when it can."""
        module = self._load(body)
        if module.NEEDS is not None and (absent := why_absent(module.NEEDS)):
            return [absent]
        return module.refuses(*args, **kwargs)

    def explain(self, *args, **kwargs) -> dict[str, list[str]]:
        """Body -> why it cannot run these inputs, in the order that `auto` tries."""
        return {name: self.reasons(name, *args, **kwargs) for name in self.bodies}

    def package(self, body: str) -> str | None:
        """The optional package that a body needs, or None."""
        return self._load(body).NEEDS

    def _load(self, body: str) -> ModuleType:
        if body not in self._modules:
            self._modules[body] = import_module(f"{self.__module__}.{body}")
        return self._modules[body]

    def _table(self, *args, **kwargs) -> str:
        rows = self.explain(*args, **kwargs).items()
        return "\n".join(f"  {name}: {'; '.join(reasons) or 'can run'}" for name, reasons in rows)


def op(*bodies: str) -> Callable[[Callable[..., None]], Op]:
    """Makes an `Op` of a function that checks the op's arguments; `bodies` in the order that `auto` tries."""

    def make(check: Callable[..., None]) -> Op:
        _ops[check.__name__] = made = Op(check, bodies)
        for body in bodies:
            made._load(body)
        return made

    return make


def ops() -> dict[str, Op]:
    """All ops by name: the folders beside this file."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.ispkg:
            import_module(f"temporal_zoo.ops.{module.name}")
    return dict(_ops)


@contextmanager
def use_backend(**pins: str) -> Iterator[None]:
    """Pins bodies within a block: `with use_backend(selective_scan="torch"): ...`"""
    for name in pins:
        if name not in ops():
            raise ValueError(f"no op is named {name!r}{nearest(name, ops())}; there are {', '.join(ops())}")
    token = _pins.set(_pins.get() | pins)
    try:
        yield
    finally:
        _pins.reset(token)


@contextmanager
def tracing() -> Iterator[dict[str, set[str]]]:
    """Collects op -> bodies that ran: `with tracing() as ran: ...`"""
    ran: dict[str, set[str]] = {}
    token = _trace.set(ran)
    try:
        yield ran
    finally:
        _trace.reset(token)


def pins_from_text(text: str) -> dict[str, str]:
    """Reads "selective_scan=torch,attention=sdpa", the form of ZOO_BACKEND and of `--backend`."""
    pins = dict(part.partition("=")[::2] for part in text.split(",") if part)
    if not all(pins.values()):
        raise ValueError(f"{text!r} pins no body; write op=body, such as selective_scan=torch,attention=sdpa")
    return pins


# Dynamo cannot follow context variables and the environment; it calls these two while it traces, and takes the answer as
# a constant: a compiled function keeps the body that it was compiled with.
@torch.compiler.assume_constant_result
def _pinned(op_name: str) -> str | None:
    return _pins.get().get(op_name) or pins_from_text(os.environ.get("ZOO_BACKEND", "")).get(op_name)


@torch.compiler.assume_constant_result
def _note(op_name: str, body: str) -> None:
    if (trace := _trace.get()) is not None:
        trace.setdefault(op_name, set()).add(body)


@torch.compiler.assume_constant_result
def why_absent(package: str) -> str | None:
    """Why an optional package cannot be used, or None when it can: missing and broken are told apart."""
    return _why_absent(package)


# The cache is inside: Dynamo would look through a cache outside, and trace the import.
@functools.cache
def _why_absent(package: str) -> str | None:
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package.partition(".")[0]:
            return f"{package} is not installed"
        return f"{package} is installed but broken: {error}"
    except Exception as error:  # an ABI mismatch raises OSError, ImportError, RuntimeError, ... and must not stop us
        return f"{package} is installed but broken: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def _device(args: tuple) -> str:
    for value in args:
        if isinstance(value, torch.Tensor):
            return value.device.type
        if isinstance(value, (tuple, list)) and value:
            return _device(tuple(vars(value[0]).values()) if hasattr(value[0], "__dict__") else tuple(value))
    return "cpu"


@torch.compiler.assume_constant_result
def _warn_reference(op_name: str, device: str) -> None:
    if device == "cuda":
        _warn_once(op_name)


@functools.cache
def _warn_once(op_name: str) -> None:
    log.warning("%s runs its reference on CUDA: correct, and slow; `zoo doctor` says why no faster body can", op_name)
