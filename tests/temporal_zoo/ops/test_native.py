"""What happens around the compiler: found or not, failing, a cache that cannot be written, two processes at once."""

import ctypes
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from temporal_zoo.ops import BackendError, _native, tracing
from temporal_zoo.ops.selective_scan import Direction, selective_scan

SOURCE = """
#include <cstdint>
extern "C" void twice(int64_t* values, int64_t at) { values[at] *= 2; }
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    _native._load.cache_clear()
    folder = tmp_path / "an_op"
    folder.mkdir()
    path = folder / "_cpu.cpp"
    path.write_text(SOURCE)
    yield path
    _native._load.cache_clear()


def made(source):
    return sorted(path.name for path in _native.cache_folder().iterdir())


def a_direction():
    torch.manual_seed(0)
    u = torch.randn(2, 3, 4)
    return Direction(u, torch.randn(2, 3, 4), -torch.rand(4, 2), torch.randn(2, 3, 2), torch.randn(2, 3, 2))


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, _native._COMPILERS)), reason="no C++ compiler on this machine"
)


@needs_compiler
def test_compiles_once_and_says_so_in_one_line(source, caplog):
    caplog.set_level(logging.INFO, "temporal_zoo.ops")
    assert _native.reason(source) is None
    assert _native.library(source).twice
    assert len(caplog.messages) == 1
    assert "an_op/_cpu.cpp" in caplog.messages[0]
    assert " s: " in caplog.messages[0]
    assert len(made(source)) == 1, "nothing but the library stays in the cache"


@needs_compiler
def test_the_second_process_finds_it_compiled(source, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "temporal_zoo.ops")
    assert _native.reason(source) is None
    _native._load.cache_clear()
    monkeypatch.setattr(_native, "_compile", lambda *args: pytest.fail("compiled again"))
    assert _native.reason(source) is None
    assert len(caplog.messages) == 1


@needs_compiler
def test_a_changed_source_is_another_library(source):
    assert _native.reason(source) is None
    source.write_text(SOURCE.replace("2", "3"))
    _native._load.cache_clear()
    assert _native.reason(source) is None
    assert len(made(source)) == 2


@needs_compiler
def test_a_damaged_library_is_made_anew(source):
    assert _native.reason(source) is None
    (name,) = made(source)
    # A new file, since this process has the old one mapped.
    damaged = _native.cache_folder() / "damaged"
    damaged.write_bytes(b"half a library")
    damaged.replace(_native.cache_folder() / name)
    _native._load.cache_clear()
    assert _native.reason(source) is None


@needs_compiler
def test_two_processes_at_once(source):
    script = (
        "import ctypes, pathlib, sys; from temporal_zoo.ops import _native\n"
        "values = (ctypes.c_int64 * 1)(21)\n"
        "_native.library(pathlib.Path(sys.argv[1])).twice(values, ctypes.c_int64(0))\n"
        "print(values[0])\n"
    )
    command = [sys.executable, "-c", script, str(source)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert out == "42\n", err
    assert len(made(source)) == 1


def test_no_compiler(source, monkeypatch):
    monkeypatch.setenv("PATH", str(source.parent))
    assert "no C++ compiler found" in _native.reason(source)
    with pytest.raises(_native.NativeError, match="no C\\+\\+ compiler found"):
        _native.library(source)


def test_named_compiler_is_missing(source, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -v")
    assert "CXX is 'no-such-compiler -v'" in _native.reason(source)


@needs_compiler
def test_failing_compiler(source):
    source.write_text("int main() { return nonsense; }")
    assert "error" in _native.reason(source)
    assert "nonsense" in _native.reason(source)
    assert made(source) == []


def test_cache_that_cannot_be_written(source, monkeypatch):
    # A file where the folder should be: permissions do not stop root.
    blocked = source.parent / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("ZOO_CACHE", str(blocked / "cache"))
    assert "could not be compiled" in _native.reason(source)


def test_the_torch_body_runs_instead(source, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    direction = a_direction()
    with tracing() as ran:
        y = selective_scan([direction])
    assert ran == {"selective_scan": {"torch"}}
    torch.testing.assert_close(y, selective_scan([direction], backend="reference"))
    assert "no-such-compiler" in selective_scan.explain([direction])["cpu"][0]
    with pytest.raises(BackendError, match="no-such-compiler"):
        selective_scan([direction], backend="cpu")


def test_importing_compiles_nothing(tmp_path):
    script = "import temporal_zoo.ops.selective_scan, temporal_zoo.ops.causal_conv"
    environment = {**os.environ, "ZOO_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=120)
    assert not (tmp_path / "cache").exists()


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("ZOO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _native.cache_folder() == tmp_path / "temporal_zoo"
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "elsewhere"))
    assert _native.cache_folder() == tmp_path / "elsewhere"


MARKING = """
#include "_groups.h"
struct Problem { int64_t* done; };
extern "C" void mark(const Problem* problem, int64_t group) { problem->done[group]++; }
"""


@needs_compiler
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("own_threads", [False, True])
def test_every_group_of_rows_runs_once(source, monkeypatch, threads, own_threads):
    shutil.copy(Path(_native.__file__).with_name("_groups.h"), source.parent)
    source.write_text(MARKING)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    if own_threads:
        monkeypatch.setattr(_native, "_parallel", lambda: None)
    done = torch.zeros(40, dtype=torch.int64)
    for num_groups, expected in ((40, [1] * 40), (7, [2] * 7 + [1] * 33), (0, [2] * 7 + [1] * 33)):
        _native.run(source, "mark", _Marked(done.data_ptr()), num_groups)
        assert done.tolist() == expected


class _Marked(ctypes.Structure):
    _fields_ = [("done", ctypes.c_void_p)]


@pytest.mark.parametrize("rows", [0, 1, 2, 31, 32, 33, 2048, 2049, 131_072])
def test_groups_cover_all_rows_and_are_many_enough_for_threads(rows):
    groups = _native.groups(rows)
    covered = [row for first in groups for row in range(first, min(rows, first + groups.step))]
    assert covered == list(range(rows))
    assert groups.step <= 64
    assert len(groups) >= min(rows, 16)
