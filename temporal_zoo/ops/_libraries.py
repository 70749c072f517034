"""Stores compiled libraries, so that each is compiled once.

A library is a file in the folder `libraries-<user id>` of the cache folder; its name ends with a digest of its bytes.
A library that another user owns or can write is not loaded (ssh has the same rule for keys), and a damaged library is
compiled again.  If that folder cannot be written or forbids execution, a folder of this run among the temporary files
is used: child processes use it too, and it is removed when the run ends.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from temporal_zoo._support.files import cache_folder
from temporal_zoo.errors import InvalidInput

# The name of this run's folder: the id of the first process of the run, and a random number.  Child processes inherit
# it in the environment.
_RUN = "TEMPORAL_ZOO_RUN"
_FIRST_PROCESS = os.getpid() if _RUN not in os.environ else None
_HERE = os.environ.setdefault(_RUN, f"{os.getpid()}-{secrets.token_hex(8)}")
_PREFIX = "temporal_zoo-"
# No process compiles for so long.  Only older folders are removed, because processes of another container may share the
# temporary folder and are not visible here.
_OLD_SECONDS = 3600


def load(name: str, make: Callable[[Path], None]) -> ctypes.CDLL:
    """The library of this name.

    Args:
        name: contains a digest of everything that the library depends on.
        make: writes the library to a path; called only if there is no valid library.
    Raises:
        OSError: no folder allows storing and executing it.
    """
    folders, problems = _folders(), []
    content = None
    for folder in folders:
        if (path := _valid(folder, name)) is not None:
            try:
                return ctypes.CDLL(str(path))
            except OSError as error:
                problems.append(str(error))
                content = path.read_bytes()
    content = _compiled(name, make) if content is None else content
    for folder in folders:
        try:
            return ctypes.CDLL(str(_stored(folder, name, content)))
        except OSError as error:
            problems.append(str(error))
    raise OSError("; ".join(dict.fromkeys(problems)))


def _folders() -> list[Path]:
    """The folders for libraries, best first."""
    try:
        user = os.geteuid() if hasattr(os, "geteuid") else "user"
        return [cache_folder().absolute() / f"libraries-{user}", _run_folder()]
    except InvalidInput:
        return [_run_folder()]


def _run_folder() -> Path:
    """The folder of this run; it may not exist yet."""
    return _temporary_folder() / f"{_PREFIX}{os.environ.get(_RUN, _HERE)}"


def _temporary_folder() -> Path:
    """The folder for temporary files, or another one if that forbids execution."""
    usual = tempfile.gettempdir()
    forbidden = getattr(os, "ST_NOEXEC", 0)
    for folder in (usual, "/var/tmp", "/dev/shm") if forbidden else ():
        if os.access(folder, os.W_OK) and not os.statvfs(folder).f_flag & forbidden:
            return Path(folder)
    return Path(usual)


def _valid(folder: Path, name: str) -> Path | None:
    """The library of this name in a folder, if it is undamaged and no other user can have written it."""
    try:
        if not _is_private(folder):
            return None
        for path in sorted(folder.glob(f"{name}-*.so")):
            if _is_private(path) and path.name == _file_name(name, path.read_bytes()):
                return path
    except OSError:  # it does not exist, or was removed meanwhile
        pass
    return None


def _stored(folder: Path, name: str, content: bytes) -> Path:
    """Writes a library into a folder, and removes invalid ones of this name."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_private(folder):
        raise PermissionError(f"other users can write in {folder}")
    for other in folder.glob(f"{name}-*.so"):
        if other.name != _file_name(name, content):
            other.unlink(missing_ok=True)
    path = folder / _file_name(name, content)
    # The file is written under another name and renamed, so that other processes never see a part of it.
    number, unfinished = tempfile.mkstemp(dir=folder, suffix=".part")
    try:
        with open(number, "wb") as file:
            file.write(content)
        os.replace(unfinished, path)
    finally:
        Path(unfinished).unlink(missing_ok=True)
    return path


def _file_name(name: str, content: bytes) -> str:
    return f"{name}-{hashlib.sha256(content).hexdigest()[:32]}.so"


def _compiled(name: str, make: Callable[[Path], None]) -> bytes:
    """The bytes that `make` writes, in the folder of this run."""
    _remove_leftovers()
    folder = _run_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(folder):
        raise PermissionError(f"other users can write in {folder}")
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        path = Path(inside) / f"{name}.so"
        make(path)
        return path.read_bytes()


def _is_private(path: Path) -> bool:
    """Whether a file or folder, not a link, belongs to this user and no other user can write it."""
    facts = path.lstat()
    if not hasattr(os, "geteuid"):
        return True
    return not stat.S_ISLNK(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o022


def _remove_leftovers() -> None:
    """Removes what killed processes left behind: folders of runs and partly written libraries."""
    old = time.time() - _OLD_SECONDS
    folder, run = _folders()[0], _run_folder()
    for path in (*run.parent.glob(f"{_PREFIX}*-*"), *folder.glob("*.part")):
        try:
            if path.lstat().st_mtime > old or not _is_private(path):
                continue
        except OSError:
            continue
        if path.suffix == ".part":
            path.unlink(missing_ok=True)
        elif not _is_alive(path.name.removeprefix(_PREFIX).partition("-")[0]):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@atexit.register
def _remove_run_folder() -> None:
    if os.getpid() == _FIRST_PROCESS:
        shutil.rmtree(_run_folder(), ignore_errors=True)
