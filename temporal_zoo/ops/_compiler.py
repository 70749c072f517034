"""Compiles the C++ files of this package.  Imports nothing but the standard library: the build of a wheel uses it too.

A library has a plain C interface, so that it depends on the binary interface of neither Python nor torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

log = logging.getLogger("temporal_zoo.ops")

COMPILERS = ("c++", "g++", "clang++")
OPTIONS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", "-ffp-contract=fast", "-fno-math-errno", "-w")
# Instruction sets by the names of torch, whose own kernels choose by the same test.
CPU_OPTIONS = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
    "DEFAULT": (),
}
# Libraries that a wheel brings along: one for each source and instruction set, named by a digest of their sources.
SHIPPED = Path(__file__).with_name("_shipped")
COMPILER_SECONDS = 60


class NativeError(RuntimeError):
    """A C++ file could not be compiled or loaded; the message says why."""


def sources() -> list[Path]:
    """The C++ files of all ops."""
    return sorted(Path(__file__).parent.glob("*/_cpu.cpp"))


def instruction_set(capability: str) -> str:
    """The instruction set of `CPU_OPTIONS` for what `torch.backends.cpu.get_cpu_capability()` returns."""
    return capability if capability in CPU_OPTIONS else "DEFAULT"


def shipped(source: Path, instructions: str) -> Path:
    """Where a wheel has the library of a source; its name changes with the sources, so that an old one is not used."""
    key = (OPTIONS, CPU_OPTIONS[instructions], platform.system(), platform.machine())
    return SHIPPED / f"{source.parent.name}-{instructions}-{_digest(source, key)}.so"


def library_digest(source: Path, command: list[str], compiler_version: str) -> str:
    """A digest of all that a compiled library depends on: sources, headers, compiler, options and kind of CPU."""
    return _digest(source, (command, compiler_version, platform.system(), platform.machine()))


def _digest(source: Path, key: object) -> str:
    digest = hashlib.sha256(repr(key).encode())
    for path in (source, *sorted(source.parent.glob("*.h")), *sorted(Path(__file__).parent.glob("*.h"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def compiler() -> list[str]:
    """The command of the compiler: CXX, or the first of `COMPILERS` on the path.

    Raises:
        NativeError: there is none.
    """
    asked = os.environ.get("CXX", "").strip()
    if asked:
        try:
            command = shlex.split(asked)
        except ValueError as error:
            raise NativeError(f"CXX is {asked!r}, which cannot be read as a command: {error}") from error
        if not command or not shutil.which(command[0]):
            raise NativeError(f"CXX is {asked!r}, which is not a program here")
        return command
    path = next(filter(None, map(shutil.which, COMPILERS)), None)
    if path is None:
        raise NativeError(f"no C++ compiler found; tried CXX, {', '.join(COMPILERS)}")
    return [path]


def compile_library(source: Path, command: list[str], path: Path) -> None:
    """Compiles `source` into `path`.  Raises: NativeError with the first error of the compiler."""
    what = f"{source.parent.name}/{source.name}"
    # Warnings, because these appear on standard error where logging is not configured.
    log.warning("compiling %s with %s, once; at most %d s", what, command[0], COMPILER_SECONDS)
    began = time.perf_counter()
    try:
        run([*command, str(source), "-o", str(path)])
        if not path.is_file():
            raise NativeError(f"{command[0]} wrote no library and reported no error")
    except NativeError as error:
        log.warning("%s was not compiled, after %.1f s: %s", what, time.perf_counter() - began, error)
        raise
    log.warning("compiled %s in %.1f s", what, time.perf_counter() - began)


# Compilers that did not finish; they are not called for other libraries.
_hanging: set[str] = set()


def run(command: list[str]) -> str:
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
            printed, errors = process.communicate(timeout=COMPILER_SECONDS)
        except BaseException as error:
            # A compiler is several processes, which share one process group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            _hanging.add(command[0])
            raise NativeError(f"{command[0]} did not finish within {COMPILER_SECONDS} s") from error
    if process.returncode:
        lines = [line for line in errors.splitlines() if "error" in line] or errors.splitlines()
        raise NativeError(f"{command[0]} failed: {lines[0].strip() if lines else f'exit status {process.returncode}'}")
    return printed
