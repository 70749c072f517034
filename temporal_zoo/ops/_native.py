"""Compiles a C++ file of this package on first use, with any C++ compiler of this machine, and loads it.

The library has a plain C interface, so that it depends on neither Python's nor torch's binary interface.  Its
name has a digest of everything that it depends on (`_libraries`).  Where it cannot be compiled or used, the reason is
stored instead, and the backend's `refuses` reports it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from torch import Tensor

from temporal_zoo.ops import _libraries

log = logging.getLogger("temporal_zoo.ops")

_COMPILERS = ("c++", "g++", "clang++")
_OPTIONS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", "-ffp-contract=fast", "-fno-math-errno", "-w")
# By the instruction set that torch detected; its own kernels rely on the same test.
_CPU_OPTIONS = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}
_COMPILER_SECONDS = 60
_LEAST_GROUPS, _MOST_ROWS_PER_GROUP = 32, 64
_HUGE_PAGE, _MADV_HUGEPAGE = 2 << 20, 14


class NativeError(RuntimeError):
    """A C++ file could not be compiled or loaded; the message says why."""


@torch.compiler.assume_constant_result
def reason(source: Path) -> str | None:
    """Why `source` cannot be used on this machine, or None; compiles it when it has not been compiled yet."""
    loaded = _load_once(source)
    return loaded if isinstance(loaded, str) else None


def library(source: Path) -> ctypes.CDLL:
    """The library made of `source`.

    Raises:
        NativeError: with the text of `reason`.
    """
    loaded = _load_once(source)
    if isinstance(loaded, str):
        raise NativeError(loaded)
    return loaded


def mirror(source: Path, **structs: type[ctypes.Structure]) -> None:
    """Declares which ctypes structures mirror the structs of `source`, by their names in C++.

    The library exports the size of each (`EXPORT_SIZE` in `_groups.h`); a library with other sizes is not used, because
    it would access memory out of bounds.
    """
    _mirrors[source.parent.name] = structs


_mirrors: dict[str, dict[str, type[ctypes.Structure]]] = {}


def compiler_facts() -> dict[str, object]:
    """The compiler that would be used, its version and its flags, for a record of the environment; compiles nothing.

    `path` is None where there is none, and `version` then says why.
    """
    flags = [*_OPTIONS, *_CPU_OPTIONS.get(torch.backends.cpu.get_cpu_capability(), ())]
    try:
        compiler = _compiler()
        version = _run([*compiler, "--version"]).partition("\n")[0]
    except (NativeError, OSError, ValueError) as error:
        return {"path": None, "version": str(error), "flags": []}
    return {"path": shutil.which(compiler[0]), "version": version, "flags": [*compiler[1:], *flags]}


class Addresses:
    """Gives tensors to C as pointers; the tensors live as long as this object."""

    def __init__(self) -> None:
        self._alive: list[Tensor] = []

    def __call__(self, tensor: Tensor | None) -> int | None:
        """The address of a contiguous float32 (or int64) copy, or of the tensor itself where no copy is needed."""
        if tensor is None:
            return None
        return self.strided(tensor.contiguous())

    def strided(self, tensor: Tensor) -> int:
        """The address of a tensor in float32, with its strides."""
        tensor = tensor.to(torch.float32 if tensor.is_floating_point() else torch.int64)
        self._alive.append(tensor)
        return tensor.data_ptr()


def empty(*shape: int) -> Tensor:
    """Float32 memory for a result.

    Large memory uses huge pages: with pages of 4 KB, page faults take longer than the computation of most backends.
    """
    memory = torch.empty(shape, dtype=torch.float32)
    first = -(-memory.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
    pages = (memory.data_ptr() + memory.nbytes - first) // _HUGE_PAGE
    if pages > 0 and sys.platform == "linux":
        # Only advice to the system: an error does not matter.
        _system().madvise(ctypes.c_void_p(first), ctypes.c_size_t(pages * _HUGE_PAGE), _MADV_HUGEPAGE)
    return memory


@functools.cache
def _system() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def groups(num_rows: int) -> range:
    """The first row of each group of rows; a thread computes one group at a time.

    The size of the groups (the step) depends on the number of rows only, so that sums over rows, taken group by
    group, do not depend on the number of threads.
    """
    return range(0, num_rows, max(1, min(_MOST_ROWS_PER_GROUP, -(-num_rows // _LEAST_GROUPS))))


def run(source: Path, function: str, problem: ctypes.Structure, num_groups: int) -> None:
    """Calls a function of the library made of `source` for every group of rows.

    In up to `torch.get_num_threads()` threads; ctypes releases Python's lock meanwhile.
    """
    loaded = library(source)
    threads = min(torch.get_num_threads(), num_groups)
    loaded.run_groups(
        getattr(loaded, function),
        ctypes.byref(problem),
        ctypes.c_int64(num_groups),
        ctypes.c_int64(threads),
        _parallel(),
    )


@functools.cache
def _parallel() -> ctypes.c_void_p | None:
    """The function that starts torch's own threads, if torch uses OpenMP; see `_groups.h`."""
    if "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    start = getattr(_system(), "GOMP_parallel", None)
    return start and ctypes.cast(start, ctypes.c_void_p)


_lock = threading.Lock()


def _load_once(source: Path) -> ctypes.CDLL | str:
    with _lock:
        return _load(source)


@functools.cache
def _load(source: Path) -> ctypes.CDLL | str:
    try:
        compiler = _compiler()
        command = [*compiler, *_OPTIONS, *_CPU_OPTIONS.get(torch.backends.cpu.get_cpu_capability(), ())]
        digest = _digest(source, command, _run([*compiler, "--version"]))
        loaded = _libraries.load(f"{source.parent.name}-{digest}", functools.partial(_compile, source, command))
        _compare_sizes(source, loaded)
        return loaded
    except NativeError as error:
        return str(error)
    except OSError as error:
        return f"{source.parent.name}/{source.name} could not be compiled or loaded: {error}"


def _compare_sizes(source: Path, loaded: ctypes.CDLL) -> None:
    for name, struct in _mirrors.get(source.parent.name, {}).items():
        try:
            size = getattr(loaded, f"size_of_{name}")()
        except AttributeError:
            raise NativeError(f"{source.parent.name}/{source.name} does not export the size of {name}") from None
        if size != ctypes.sizeof(struct):
            raise NativeError(
                f"{name} of {source.parent.name}/{source.name} has {size} bytes, its mirror in Python "
                f"{ctypes.sizeof(struct)}: the two sources do not belong together; install the package again"
            )


def _compiler() -> list[str]:
    asked = os.environ.get("CXX", "").strip()
    if asked:
        try:
            compiler = shlex.split(asked)
        except ValueError as error:
            raise NativeError(f"CXX is {asked!r}, which cannot be read as a command: {error}") from error
        if not compiler or not shutil.which(compiler[0]):
            raise NativeError(f"CXX is {asked!r}, which is not a program here")
        return compiler
    compiler_path = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler_path is None:
        raise NativeError(f"no C++ compiler found; tried CXX, {', '.join(_COMPILERS)}")
    return [compiler_path]


def _digest(source: Path, command: list[str], compiler_version: str) -> str:
    """A digest of what a library depends on: source, headers, compiler, kind of CPU."""
    digest = hashlib.sha256(repr((command, compiler_version, platform.system(), platform.machine())).encode())
    for path in (source, *sorted(source.parent.glob("*.h")), *sorted(Path(__file__).parent.glob("*.h"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(source: Path, command: list[str], path: Path) -> None:
    what = f"{source.parent.name}/{source.name}"
    # Warnings, because these appear on standard error where logging is not configured.
    log.warning("compiling %s with %s, once; at most %d s", what, command[0], _COMPILER_SECONDS)
    began = time.perf_counter()
    try:
        _run([*command, str(source), "-o", str(path)])
        if not path.is_file():
            raise NativeError(f"{command[0]} wrote no library and reported no error")
    except NativeError as error:
        log.warning("%s was not compiled, after %.1f s: %s", what, time.perf_counter() - began, error)
        raise
    log.warning("compiled %s in %.1f s", what, time.perf_counter() - began)


# Compilers that did not finish; they are not called for other libraries.
_hanging: set[str] = set()


def _run(command: list[str]) -> str:
    """Runs a compiler and returns its output.

    Raises:
        NativeError: it failed, or did not finish in time; in the second case its processes are killed.
    """
    if command[0] in _hanging:
        raise NativeError(f"{command[0]} did not finish when it was called before")
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise NativeError(f"{command[0]} cannot be run: {error}") from error
    with process:
        try:
            printed, errors = process.communicate(timeout=_COMPILER_SECONDS)
        except BaseException as error:
            # A compiler is several processes, which share one process group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            _hanging.add(command[0])
            raise NativeError(f"{command[0]} did not finish within {_COMPILER_SECONDS} s") from error
    if process.returncode:
        lines = [line for line in errors.splitlines() if "error" in line] or errors.splitlines()
        raise NativeError(f"{command[0]} failed: {lines[0].strip() if lines else f'exit status {process.returncode}'}")
    return printed
