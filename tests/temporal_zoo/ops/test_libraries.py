"""Stored libraries: which are trusted, which are compiled again, and which folder replaces another."""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from temporal_zoo.ops import _libraries, _native

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, _native._COMPILERS)), reason="no C++ compiler on this machine"
)
OTHER_USER = 65534
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The folder of the libraries and that of temporary files, both new."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield _libraries._folders()[0], temporary
    tempfile.tempdir = None


class Maker:
    """Writes a library with a function `answer`, and counts the calls."""

    def __init__(self, answer=42):
        self.made = 0
        self.answer = answer

    def __call__(self, path):
        self.made += 1
        source = path.with_suffix(".c")
        source.write_text(f"int answer() {{ return {self.answer}; }}")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", path, source], check=True)


def loaded(make):
    """The answer of the library, loaded as by a new process."""
    # The same path may have been loaded before, and stays loaded.
    return _libraries.load("thing-0123", make).answer()


def the_library(folder):
    (path,) = folder.glob("*.so")
    return path


def test_a_library_is_compiled_once_and_stored_in_a_folder_of_its_user(places):
    make = Maker()
    assert [loaded(make), loaded(make)] == [42, 42]
    assert make.made == 1
    kept, temporary = places
    assert kept.stat().st_mode & 0o777 == 0o700
    assert the_library(kept).stat().st_mode & 0o022 == 0
    assert [path for path in temporary.rglob("*") if path.is_file()] == []


def test_a_permissive_umask_changes_nothing(places):
    before = os.umask(0)
    try:
        assert loaded(Maker()) == 42
    finally:
        os.umask(before)
    make = Maker()
    assert loaded(make) == 42
    assert make.made == 0


def cut(path):
    replace(path, path.read_bytes()[:5000])


def empty(path):
    replace(path, b"")


def changed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    replace(path, content)


def replace(path, content):
    """Writes a new file, because this process may have mapped the old one."""
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o600)


def writable_by_the_group(path):
    path.chmod(0o660)


def writable_by_all(path):
    path.chmod(0o606)


def a_link(path):
    elsewhere = path.parent.parent / "elsewhere.so"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def planted(path):
    """Another library, with the right digest in its name."""
    folder = path.parent.parent / "planted"
    folder.mkdir()
    Maker(answer=13)(folder / "thing.so")
    content = (folder / "thing.so").read_bytes()
    path.unlink()
    path = path.with_name(_libraries._file_name("thing-0123", content))
    path.write_bytes(content)
    os.chown(path, OTHER_USER, OTHER_USER)


@pytest.mark.parametrize(
    "harm",
    [cut, empty, changed, writable_by_the_group, writable_by_all, a_link, pytest.param(planted, marks=as_root)],
    ids=lambda harm: harm.__name__,
)
def test_damaged_libraries_and_those_that_others_can_write_are_replaced(places, harm):
    loaded(Maker())
    kept, _ = places
    harm(the_library(kept))
    make = Maker()
    assert loaded(make) == 42
    assert make.made == 1
    assert _libraries._is_private(the_library(kept))
    assert loaded(make) == 42
    assert make.made == 1


def writable_folder(folder):
    folder.chmod(0o770)


def folder_of_another_user(folder):
    os.chown(folder, OTHER_USER, OTHER_USER)


def linked_folder(folder):
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def no_folder(folder):
    # A file instead of the folder, because permissions do not stop root.
    shutil.rmtree(folder)
    folder.write_text("")


@pytest.mark.parametrize(
    "harm",
    [writable_folder, linked_folder, no_folder, pytest.param(folder_of_another_user, marks=as_root)],
    ids=lambda harm: harm.__name__,
)
def test_a_folder_that_others_can_write_is_not_used(places, harm):
    loaded(Maker())
    kept, temporary = places
    harm(kept)
    make = Maker(answer=43)
    assert [loaded(make), loaded(make)] == [43, 43]
    assert make.made == 1
    assert the_library(_libraries._run_folder()).is_file()
    assert _libraries._run_folder().parent == temporary


def test_a_folder_that_forbids_execution_is_replaced_without_compiling(places, monkeypatch):
    kept, temporary = places
    load = ctypes.CDLL

    def forbidding(path):
        if Path(path).is_relative_to(kept):
            raise OSError(f"{path}: failed to map segment from shared object: Operation not permitted")
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", forbidding)
    make = Maker()
    assert [loaded(make), loaded(make)] == [42, 42]
    assert make.made == 1
    # Another run copies the compiled library.
    monkeypatch.setenv(_libraries._RUN, f"{os.getpid()}-other")
    assert loaded(make) == 42
    assert make.made == 1
    assert {path.parent.parent for path in temporary.rglob("*.so")} == {temporary}


SCRIPT = """
import os, pathlib, subprocess, sys
from temporal_zoo.ops import _native
assert _native.library(pathlib.Path(sys.argv[1])).answer() == 42
if len(sys.argv) > 2:
    subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[1]], check=True)
    print(*pathlib.Path(os.environ["TMPDIR"]).rglob("*.so"))
"""


def test_processes_of_one_run_share_its_folder_and_the_first_removes_it(places, monkeypatch, tmp_path):
    kept, temporary = places
    kept.parent.mkdir()
    kept.write_text("")  # a file in its place
    source = tmp_path / "an_op" / "_cpu.cpp"
    source.parent.mkdir()
    source.write_text('extern "C" int answer() { return 42; }')
    monkeypatch.delenv(_libraries._RUN)
    words = [sys.executable, "-c", SCRIPT, source, SCRIPT]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert len(ran.stdout.split()) == 1
    assert ran.stderr.count("compiled ") == 1
    assert list(temporary.iterdir()) == []


def test_leftovers_of_killed_processes_are_removed(places):
    kept, temporary = places
    loaded(Maker())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = {
        "old": temporary / f"temporal_zoo-{gone.pid}-aa",
        "recent": temporary / f"temporal_zoo-{gone.pid}-bb",
        "of a living process": temporary / f"temporal_zoo-{os.getpid()}-cc",
        "of something else": temporary / "other-1-2",
        "half written": kept / "abc.part",
        "being written": kept / "def.part",
    }
    for name, path in left.items():
        path.write_text("") if path.suffix else path.mkdir()
        path.chmod(0o700)
        if name not in ("recent", "being written"):
            os.utime(path, (1, 1))
    _libraries.load("another-0123", Maker())
    assert {name for name, path in left.items() if not path.exists()} == {"old", "half written"}


def test_a_failing_compiler_leaves_no_files(places):
    kept, temporary = places

    def fails(path):
        path.write_text("half")
        raise _native.NativeError("no")

    with pytest.raises(_native.NativeError):
        loaded(fails)
    assert not kept.exists()
    assert [path for path in temporary.rglob("*") if path.is_file()] == []


def test_reasons_are_given_if_no_folder_can_be_used(places, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda path: (_ for _ in ()).throw(OSError(f"{path}: not today")))
    with pytest.raises(OSError, match="not today"):
        loaded(Maker())
