"""Loads the C++ libraries of the ops: from the wheel, or compiled at the first use (`_compiler`), and calls them.

A compiled library stays in the user's cache under a digest of everything that it depends on (`_libraries`).  If there
is neither a library nor a compiler, `reason` says so, and the backend's `refuses` reports it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import sys
import threading
from pathlib import Path

import torch
from torch import Tensor

from temporal_zoo.ops import _compiler, _libraries
from temporal_zoo.ops._compiler import NativeError

_LEAST_GROUPS, _MOST_ROWS_PER_GROUP = 32, 64
_HUGE_PAGE, _MADV_HUGEPAGE = 2 << 20, 14


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
    """Path, version and flags of the compiler, for a record of the environment; compiles nothing.

    `path` is None if there is no compiler or none is needed; `version` then says why.
    """
    flags = [*_compiler.OPTIONS, *_compiler.CPU_OPTIONS[_instructions()]]
    if all(_shipped(source) for source in _compiler.sources()):
        return {"path": None, "version": "none needed: the wheel has the libraries", "flags": flags}
    try:
        compiler = _compiler.compiler()
        version = _compiler.run([*compiler, "--version"]).partition("\n")[0]
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
        shipped = _shipped(source)
        loaded = _compiled(source) if shipped is None else ctypes.CDLL(str(shipped))
        _compare_sizes(source, loaded)
        return loaded
    except NativeError as error:
        return str(error)
    except OSError as error:
        return f"{source.parent.name}/{source.name} could not be compiled or loaded: {error}"


def _shipped(source: Path) -> Path | None:
    """The library in the wheel, if there is one; None also where CXX asks for another compiler."""
    path = _compiler.shipped(source, _instructions())
    return path if path.is_file() and not os.environ.get("CXX", "").strip() else None


def _compiled(source: Path) -> ctypes.CDLL:
    compiler = _compiler.compiler()
    command = [*compiler, *_compiler.OPTIONS, *_compiler.CPU_OPTIONS[_instructions()]]
    digest = _compiler.library_digest(source, command, _compiler.run([*compiler, "--version"]))
    compile_library = functools.partial(_compiler.compile_library, source, command)
    return _libraries.load(f"{source.parent.name}-{digest}", compile_library)


def _instructions() -> str:
    return _compiler.instruction_set(torch.backends.cpu.get_cpu_capability())


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
