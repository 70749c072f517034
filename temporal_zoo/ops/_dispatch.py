"""Chooses the backend of an op: by call argument, context, environment variable, or the first that can run.

An op is a folder with one file per backend.  A backend's module defines

    NEEDS: str | None                      the optional package that it calls, or None
    CONFIRMED: str | None, or by device    the evidence that it is right: "torch" (it consists of torch's operators),
                                           "tests" (our tests, on CPUs), or the path of a record of a GPU in the
                                           repository; None: no evidence yet.  A mapping such as {"cpu": "tests"}
                                           where it depends on the type of the device
    refuses(*args, **kwargs) -> list[str]  why it cannot run these inputs; empty when it can
    run(*args, **kwargs)                   the op's signature

and imports its package inside functions only.  Its folder also has `example.py` (`agreement`).

A pinned backend that cannot run raises with the reasons of all backends.  `explain` returns these reasons, and
`tracing` collects the backends that ran.  `auto` warns once when it takes the reference on CUDA, or a backend without
evidence.
"""

from __future__ import annotations

import functools
import logging
import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from types import MappingProxyType, ModuleType

import torch

from temporal_zoo.config import nearest
from temporal_zoo.errors import InvalidInput, UserError
from temporal_zoo.ops import _planning, _transforms

log = logging.getLogger("temporal_zoo.ops")

REFERENCE = "reference"
_pins: ContextVar[Mapping[str, str]] = ContextVar("temporal_zoo_pins", default=MappingProxyType({}))
_trace: ContextVar[dict[str, set[str]] | None] = ContextVar("temporal_zoo_trace", default=None)
_strict: ContextVar[bool] = ContextVar("temporal_zoo_strict", default=False)
_ops: dict[str, Op] = {}


class BackendError(UserError, RuntimeError):
    """The backend that was asked for cannot run these inputs; the message lists every backend's reasons."""


class Op:
    """One function with several backends; call it as the decorated function, plus `backend="name"`.

    The decorator `op` creates it; the decorated function checks the arguments and has the documentation.
    """

    def __init__(self, check: Callable[..., None], backends: tuple[str, ...]) -> None:
        functools.update_wrapper(self, check)
        self.name = check.__name__
        self.backends = backends
        self._check = check
        self._modules: dict[str, ModuleType] = {}

    def __call__(self, *args, backend: str | None = None, **kwargs):
        self._check(*args, **kwargs)
        name = self.choose(*args, backend=backend, **kwargs)
        note(self.name, name)
        return self._modules[name].run(*args, **kwargs)

    def choose(self, *args, backend: str | None = None, **kwargs) -> str:
        """The name of the backend that a call with these arguments would run.

        Raises:
            BackendError: a pinned backend cannot run these inputs.
        """
        asked = backend or _pinned(self.name)
        if asked is not None:
            if asked not in self.backends:
                raise BackendError(_no_backend(self, asked))
            if self.reasons(asked, *args, **kwargs):
                table = self._table(*args, **kwargs)
                raise BackendError(f"{self.name}: the backend {asked!r} cannot run these inputs\n{table}")
            return asked
        plan, device = _planning.plan_and_device(args)
        for name in self._order(device, plan):
            if _planning.considers(plan, self.package(name)) and not self._reasons(name, plan, args, kwargs):
                self._warn(name, device, plan, args, kwargs)
                return name
        raise BackendError(f"{self.name}: no backend can run these inputs\n{self._table(*args, **kwargs)}")

    def reasons(self, backend: str, *args, **kwargs) -> list[str]:
        """Why `backend` cannot run these inputs; empty when it can."""
        return self._reasons(backend, _planning.plan_and_device(args)[0], args, kwargs)

    def explain(self, *args, **kwargs) -> dict[str, list[str]]:
        """Backend -> why it cannot run these inputs, in the order that `auto` tries."""
        plan, device = _planning.plan_and_device(args)
        return {name: self._reasons(name, plan, args, kwargs) for name in self._order(device, plan)}

    def tried(self, device: str) -> tuple[str, ...]:
        """The backends in the order that `auto` tries: confirmed ones, then those that are not, and the reference last.

        Args:
            device: type of the device, such as "cuda".
        """
        return tuple(sorted(self.backends, key=lambda name: (name == REFERENCE, self.confirmed(name, device) is None)))

    def confirmed(self, backend: str, device: str) -> str | None:
        """The evidence for a backend on a type of device: "torch", "tests", the path of a record, or None."""
        stated = getattr(self._load(backend), "CONFIRMED", None)
        # Outside of a plan, tensors on the meta device count as on a CPU.
        return stated.get("cpu" if device == "meta" else device) if isinstance(stated, dict) else stated

    def package(self, backend: str) -> str | None:
        """The optional package that a backend needs, or None."""
        return self._load(backend).NEEDS

    def _order(self, device: str, plan: _planning.Planned | None) -> tuple[str, ...]:
        """As `tried`; a plan for a GPU takes the order of `backends`, as if all were confirmed."""
        return self.backends if _planning.assumes(plan) else self.tried(device)

    def _reasons(self, backend: str, plan: _planning.Planned | None, args: tuple, kwargs: dict) -> list[str]:
        module = self._load(backend)
        if module.NEEDS is not None and not _planning.assumes(plan) and (absent := why_absent(module.NEEDS)):
            return [absent]
        if backend != REFERENCE and (why := _transforms.why_not(self.name)) is not None:
            return [why]
        if plan is not None:
            args, kwargs = _planning.present(args, plan), _planning.present(kwargs, plan)
        return module.refuses(*args, **kwargs)

    def _warn(self, name: str, device: str, plan: _planning.Planned | None, args: tuple, kwargs: dict) -> None:
        """Says once what a user should know about the choice of `auto`; refuses a reference where it is not allowed."""
        if name == REFERENCE:
            if device == "cuda" and _strict.get():
                raise BackendError(
                    f"{self.name}: only the slow reference can run these inputs on CUDA; --allow-reference allows it\n"
                    f"{self._table(*args, **kwargs)}"
                )
            if device == "cuda":
                _warn_reference(self.name)
            _transforms.warn(self.name)
        elif self.confirmed(name, device) is None and not _planning.assumes(plan):
            _warn_unconfirmed(self.name, name)

    def _load(self, backend: str) -> ModuleType:
        if backend not in self._modules:
            self._modules[backend] = import_module(f"{self.__module__}.{backend}")
        return self._modules[backend]

    def _table(self, *args, **kwargs) -> str:
        rows = self.explain(*args, **kwargs).items()
        return "\n".join(f"  {name}: {'; '.join(reasons) or 'can run'}" for name, reasons in rows)


def op(*backends: str) -> Callable[[Callable[..., None]], Op]:
    """Turns a function that checks an op's arguments into an `Op`; `backends` from the fastest to the reference."""

    def make(check: Callable[..., None]) -> Op:
        _ops[check.__name__] = new = Op(check, backends)
        for backend in backends:
            new._load(backend)
        return new

    return make


def ops() -> dict[str, Op]:
    """All ops by name: the folders beside this file."""
    folders()
    return dict(_ops)


@functools.cache  # listing the folder takes longer than a small step of a fast backend
def folders() -> tuple[str, ...]:
    """The folders beside this file, imported: ops, and functions that are composed of ops."""
    names = tuple(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.ispkg)
    for name in names:
        import_module(f"temporal_zoo.ops.{name}")
    return names


@contextmanager
def use_backend(**pins: str) -> Iterator[None]:
    """Pins backends within a block: `with use_backend(selective_scan="torch"): ...`"""
    _check_pins(pins)
    token = _pins.set({**_pins.get(), **pins})
    try:
        yield
    finally:
        _pins.reset(token)


@contextmanager
def tracing() -> Iterator[dict[str, set[str]]]:
    """Collects op -> backends that ran: `with tracing() as ran: ...`; blocks around it collect them too."""
    ran: dict[str, set[str]] = {}
    token = _trace.set(ran)
    try:
        yield ran
    finally:
        _trace.reset(token)
        for op_name, backends in ran.items():
            for backend in backends:
                note(op_name, backend)


@contextmanager
def refusing_reference(refuse: bool = True) -> Iterator[None]:
    """Within the block, `auto` on CUDA raises where only the reference can run: its speed means nothing."""
    token = _strict.set(refuse)
    try:
        yield
    finally:
        _strict.reset(token)


def pins_from_text(text: str) -> dict[str, str]:
    """Reads "selective_scan=torch,attention=sdpa", the form of ZOO_BACKEND and of `--backend`."""
    pins = dict(part.partition("=")[::2] for part in text.split(",") if part)
    if not all(pins.values()):
        raise InvalidInput(f"{text!r} pins no backend; write op=backend, such as selective_scan=torch,attention=sdpa")
    return pins


def _check_pins(pins: dict[str, str]) -> None:
    for name, backend in pins.items():
        if name not in ops():
            raise InvalidInput(f"no op is named {name!r}{nearest(name, ops())}; choose from {', '.join(ops())}")
        if backend not in ops()[name].backends:
            raise InvalidInput(_no_backend(ops()[name], backend))


def _no_backend(op: Op, asked: str) -> str:
    return f"{op.name} has no backend {asked!r}{nearest(asked, op.backends)}; it has {', '.join(op.backends)}"


# Dynamo cannot trace context variables and the environment.  It calls these functions while it traces and treats the
# result as a constant: a compiled function keeps the backend that it was compiled with.
@torch.compiler.assume_constant_result
def _pinned(op_name: str) -> str | None:
    return _pins.get().get(op_name) or _pins_of_environment(os.environ.get("ZOO_BACKEND", "")).get(op_name)


@functools.cache
def _pins_of_environment(text: str) -> dict[str, str]:
    pins = pins_from_text(text)
    _check_pins(pins)
    return pins


@torch.compiler.assume_constant_result
def note(op_name: str, backend: str) -> None:
    """Reports to `tracing` a backend that ran; needed where it is not called through its op."""
    if (trace := _trace.get()) is not None:
        trace.setdefault(op_name, set()).add(backend)


@torch.compiler.assume_constant_result
def why_absent(package: str) -> str | None:
    """Why an optional package cannot be used, or None when it can; a missing and a broken package get other reasons."""
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
    # An ABI mismatch raises OSError, ImportError, RuntimeError, ..., and some packages exit when they see no GPU.
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}".strip(": \n").partition("\n")[0]
        return f"{package} is installed but broken: {reason}"
    return None


@torch.compiler.assume_constant_result
def _warn_reference(op_name: str) -> None:
    _warn_once(f"{op_name} runs its reference on CUDA: correct, and slow; `zoo doctor` says why no faster backend can")


@torch.compiler.assume_constant_result
def _warn_unconfirmed(op_name: str, backend: str) -> None:
    _warn_once(
        f"{op_name} runs its backend {backend}, which no hardware has confirmed yet, because of the confirmed ones "
        f"only the slow reference can run; `zoo doctor` compares it with the reference"
    )


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)
