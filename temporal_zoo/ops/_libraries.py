"""Where compiled libraries are kept, so that they are made once.

A library lies in the folder `libraries-<user id>` of the cache folder, under a name that ends with a digest of its
bytes.  Nothing is loaded that another user owns or can write (the rule that ssh has for keys), and nothing that is
damaged: it is made again.  Where that folder cannot be used, since it cannot be written or forbids execution, a folder
of this run among the temporary files takes its place: processes that this one starts use it too, and it is removed when
the run ends.
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

# The name of this run's folder: the process that began the run, and a number that others cannot guess.  It travels in
# the environment, which child processes inherit.
_RUN = "TEMPORAL_ZOO_RUN"
_BEGAN_HERE = os.getpid() if _RUN not in os.environ else None
_HERE = os.environ.setdefault(_RUN, f"{os.getpid()}-{secrets.token_hex(8)}")
_PREFIX = "temporal_zoo-"
# No process compiles for so long.  Folders of processes that are gone are swept only then, as processes of another
# container may share the temporary folder and not be seen from here.
_OLD_SECONDS = 3600


def load(name: str, make: Callable[[Path], None]) -> ctypes.CDLL:
    """The library of this name.

    Args:
        name: changes with everything that the library is made of.
        make: makes the library as the file that it is given; called only if there is no sound one.
    Raises:
        OSError: there is no folder in which it can be kept and executed.
    """
    folders, problems = _folders(), []
    content = None
    for folder in folders:
        if (path := _sound(folder, name)) is not None:
            try:
                return ctypes.CDLL(str(path))
            except OSError as error:
                problems.append(str(error))
                content = path.read_bytes()
    content = _made(name, make) if content is None else content
    for folder in folders:
        try:
            return ctypes.CDLL(str(_kept(folder, name, content)))
        except OSError as error:
            problems.append(str(error))
    raise OSError("; ".join(dict.fromkeys(problems)))


def _folders() -> list[Path]:
    """Where a library may lie, best first."""
    try:
        user = os.geteuid() if hasattr(os, "geteuid") else "user"
        return [cache_folder().absolute() / f"libraries-{user}", _run_folder()]
    except InvalidInput:
        return [_run_folder()]


def _run_folder() -> Path:
    """The folder of this run; it need not exist."""
    return _temporary_folder() / f"{_PREFIX}{os.environ.get(_RUN, _HERE)}"


def _temporary_folder() -> Path:
    """The folder for temporary files, or another one if that forbids execution."""
    usual = tempfile.gettempdir()
    forbidden = getattr(os, "ST_NOEXEC", 0)
    for folder in (usual, "/var/tmp", "/dev/shm") if forbidden else ():
        if os.access(folder, os.W_OK) and not os.statvfs(folder).f_flag & forbidden:
            return Path(folder)
    return Path(usual)


def _sound(folder: Path, name: str) -> Path | None:
    """The library of this name in a folder, if there is one that is whole and that no other user can have written."""
    try:
        if not _is_private(folder):
            return None
        for path in sorted(folder.glob(f"{name}-*.so")):
            if _is_private(path) and path.name == _file_name(name, path.read_bytes()):
                return path
    except OSError:  # it is not there, or was removed meanwhile
        pass
    return None


def _kept(folder: Path, name: str, content: bytes) -> Path:
    """Writes a library into a folder, in place of all of this name that are not sound."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_private(folder):
        raise PermissionError(f"other users can write in {folder}")
    for other in folder.glob(f"{name}-*.so"):
        if other.name != _file_name(name, content):
            other.unlink(missing_ok=True)
    path = folder / _file_name(name, content)
    # Written under another name first: other processes see either no library or a whole one.
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


def _made(name: str, make: Callable[[Path], None]) -> bytes:
    """What `make` makes, in the folder of this run."""
    _sweep()
    folder = _run_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(folder):
        raise PermissionError(f"other users can write in {folder}")
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        path = Path(inside) / f"{name}.so"
        make(path)
        return path.read_bytes()


def _is_private(path: Path) -> bool:
    """Whether a file or folder belongs to this user, and no other can write it.  A link belongs to nobody."""
    facts = path.lstat()
    if not hasattr(os, "geteuid"):
        return True
    return not stat.S_ISLNK(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o022


def _sweep() -> None:
    """Removes what killed processes left: folders of runs, and libraries that were half written."""
    old = time.time() - _OLD_SECONDS
    kept, run = _folders()[0], _run_folder()
    for path in (*run.parent.glob(f"{_PREFIX}*-*"), *kept.glob("*.part")):
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
    if os.getpid() == _BEGAN_HERE:
        shutil.rmtree(_run_folder(), ignore_errors=True)
