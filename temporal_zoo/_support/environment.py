"""The environment of a measurement: machine, software, code, compiler, arithmetic and threads, as a plain dictionary.

Two records with the same environment id come from the same code on the same kind of machine with the same settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from temporal_zoo._support import control_group
from temporal_zoo._support.packages import OPTIONAL

ROOT = Path(__file__).parents[2]
OURS = ("temporal_zoo", "diffusion", "bench")
_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "ZOO_BACKEND")


def environment() -> dict[str, Any]:
    """Machine, software, code, compiler, arithmetic, threads and settings, and `id`, a digest of all of them.

    All values can be written as JSON; unknown values are None.  The result does not depend on the time of day or the
    load of the machine.  Imports torch.
    """
    from temporal_zoo._support.arithmetic import arithmetic

    facts = {
        "machine": machine(),
        "devices": _devices(),
        "software": _software(),
        "code": code(),
        "compiler": _compiler(),
        "arithmetic": arithmetic(),
        "threads": _threads(),
        "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
    }
    return {"id": digest(facts), **facts}


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits of a plain value; equal values have equal digests, in any order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    # Lone surrogates stand for bytes of file names that are not UTF-8.
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def machine() -> dict[str, Any]:
    """Operating system, processor and memory; `memory_limit_bytes` is a container's limit, if there is one."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": _memory_bytes(),
        "memory_limit_bytes": control_group.limit_bytes(),
    }


def usable_cores() -> int:
    """The number of cores that this process may use; where the system does not say, the number of cores."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def code() -> dict[str, Any]:
    """The running code: version, digest of our source files and, in a git checkout, commit and dirty flag.

    `dirty` is true where files that can change a result (the packages and pyproject.toml, untracked files included)
    differ from the commit.
    """
    from temporal_zoo import __version__

    facts: dict[str, Any] = {"version": __version__, "sources": _source_digest(), "commit": None, "dirty": None}
    # Our package may be installed inside the checkout of another project, which does not track our files.
    if _git("ls-files", "--error-unmatch", "temporal_zoo/__init__.py"):
        facts["commit"] = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--", *OURS, "pyproject.toml")
        facts["dirty"] = None if changes is None else bool(changes)
    return facts


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(ROOT), *arguments]
    # Without this variable `git status` takes the index lock, and a commit at the same moment fails.
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=quiet, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def _source_digest() -> str:
    """A digest of every file in our packages: sources, headers, configurations, weights and videos.

    It leaves out pyproject.toml, which an installed package lacks; "software" has the versions that it asks for.
    """
    running = hashlib.blake2b(digest_size=8)
    for path in sorted(path for ours in OURS for path in (ROOT / ours).rglob("*") if _can_change_a_result(path)):
        running.update(f"{path.relative_to(ROOT).as_posix()}\0".encode(errors="surrogateescape"))
        running.update(hashlib.blake2b(path.read_bytes()).digest())
    return running.hexdigest()


def _can_change_a_result(path: Path) -> bool:
    """Whether it is a file, but neither bytecode nor a hidden file, such as those of editors."""
    parts = path.relative_to(ROOT).parts
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    return not hidden and path.suffix != ".pyc" and path.is_file()


def _devices() -> list[dict[str, Any]]:
    import torch

    devices = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        capability = f"{properties.major}.{properties.minor}"
        devices.append({"name": properties.name, "capability": capability, "memory_bytes": properties.total_memory})
    return devices


def _software() -> dict[str, Any]:
    import torch

    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        # The instruction set of torch and of our compiled backends; ATEN_CPU_CAPABILITY can lower it.
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "cudnn": cudnn,
    }
    # Versions come from metadata, because importing optional packages takes time and can fail.
    for name in ("numpy", "einops", *(package.distribution for package in OPTIONAL)):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def _compiler() -> dict[str, Any]:
    from temporal_zoo.ops import _native

    return _native.compiler_facts()


def _threads() -> dict[str, int]:
    import torch

    return {"torch": torch.get_num_threads(), "interop": torch.get_num_interop_threads()}


def _processor() -> str:
    if sys.platform == "linux":
        for line in _text("/proc/cpuinfo").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
