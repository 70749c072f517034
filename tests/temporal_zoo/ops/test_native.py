"""Compilers that are missing, fail or hang, two processes at once; structs and their mirrors."""

import ctypes
import inspect
import os
import shutil
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch

from temporal_zoo.ops import BackendError, _native, ops, tracing
from temporal_zoo.ops.selective_scan import Direction, selective_scan

SOURCE = """
#include <cstdint>
extern "C" void twice(int64_t* values, int64_t at) { values[at] *= 2; }
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(_native, "_hanging", set())
    _native._load.cache_clear()
    folder = tmp_path / "an_op"
    folder.mkdir()
    path = folder / "_cpu.cpp"
    path.write_text(SOURCE)
    yield path
    _native._load.cache_clear()


def made(source):
    """The names of all files in the cache."""
    cache = Path(os.environ["ZOO_CACHE"])
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Sets CXX to a shell script."""

    def write(script):
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        monkeypatch.setenv("CXX", str(path))

    return write


def a_direction():
    torch.manual_seed(0)
    u = torch.randn(2, 3, 4)
    return Direction(u, torch.randn(2, 3, 4), -torch.rand(4, 2), torch.randn(2, 3, 2), torch.randn(2, 3, 2))


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, _native._COMPILERS)), reason="no C++ compiler on this machine"
)


@needs_compiler
def test_compiles_once_and_logs_the_time(source, caplog):
    assert _native.reason(source) is None
    assert _native.library(source).twice
    started, ended = caplog.messages
    assert started.startswith("compiling an_op/_cpu.cpp with ")
    assert ended.startswith("compiled an_op/_cpu.cpp in ")
    assert len(made(source)) == 1, "nothing but the library stays in the cache"


@needs_compiler
def test_the_second_process_finds_it_compiled(source, monkeypatch):
    assert _native.reason(source) is None
    _native._load.cache_clear()
    monkeypatch.setattr(_native, "_compile", lambda *args: pytest.fail("compiled again"))
    assert _native.reason(source) is None


@needs_compiler
def test_a_changed_source_is_another_library(source):
    assert _native.reason(source) is None
    source.write_text(SOURCE.replace("2", "3"))
    _native._load.cache_clear()
    assert _native.reason(source) is None
    assert len(made(source)) == 2


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
    ended = [process.communicate(timeout=600) for process in processes]
    assert [out for out, _ in ended] == ["42\n", "42\n"], ended
    assert any("compiled an_op/_cpu.cpp in " in err for _, err in ended), "told on standard error"
    assert len(made(source)) == 1


def test_no_compiler(source, monkeypatch):
    monkeypatch.setenv("PATH", str(source.parent))
    assert "no C++ compiler found" in _native.reason(source)
    with pytest.raises(_native.NativeError, match="no C\\+\\+ compiler found"):
        _native.library(source)


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("no-such-compiler -v", "CXX is 'no-such-compiler -v', which is not a program here"),
        ("/nonexistent", "which is not a program here"),
        ("/", "which is not a program here"),
        ("'", "cannot be read as a command"),
        ('"g++', "cannot be read as a command"),
        ("''", "which is not a program here"),
        ("false", "false failed: exit status 1"),
        ("true", "wrote no library"),
        ("echo", "wrote no library"),
        ("cat", "cat failed"),
    ],
)
def test_odd_compilers_are_a_reason(source, monkeypatch, compiler, message):
    monkeypatch.setenv("CXX", compiler)
    assert message in _native.reason(source)


@needs_compiler
@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_a_blank_compiler_counts_as_unset(source, monkeypatch, blank):
    monkeypatch.setenv("CXX", blank)
    assert _native.reason(source) is None


def test_a_compiler_may_print_any_bytes(source, compiler):
    compiler("printf '\\377\\376 error: \\200\\n' >&2; exit 1")
    assert "failed" in _native.reason(source)


def test_a_hanging_compiler_and_its_children_are_killed(source, compiler, monkeypatch, tmp_path):
    monkeypatch.setattr(_native, "_COMPILER_SECONDS", 1)
    compiler(f'test "$1" = --version && exit; sleep 300 & echo $! > {tmp_path}/child; wait')
    assert "did not finish within 1 s" in _native.reason(source)
    if (tmp_path / "child").exists():  # a busy machine may not come to it within a second
        wait_for_the_end_of(int((tmp_path / "child").read_text()))
    assert made(source) == []
    # It is not called for other libraries.
    other = source.with_name("other.cpp")
    other.write_text(SOURCE)
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("called again"))
    assert "did not finish" in _native.reason(other)


def wait_for_the_end_of(process):
    for _ in range(600):
        try:
            if "\nState:\tZ" in Path(f"/proc/{process}/status").read_text():
                return
        except OSError:
            return
        time.sleep(0.1)
    pytest.fail("what the compiler started goes on")


@needs_compiler
def test_failing_compiler(source, caplog):
    source.write_text("int main() { return nonsense; }")
    assert "error" in _native.reason(source)
    assert "nonsense" in _native.reason(source)
    assert "was not compiled, after" in caplog.messages[-1]
    assert made(source) == []


@pytest.mark.parametrize("name", [name for name, op in ops().items() if "cpu" in op.backends])
def test_every_struct_has_a_mirror_of_its_size(name):
    backend = import_module(f"temporal_zoo.ops.{name}.cpu")
    structs = {
        value for value in vars(backend).values() if inspect.isclass(value) and issubclass(value, ctypes.Structure)
    }
    assert set(_native._mirrors[name].values()) == structs
    if reason := _native.reason(backend._SOURCE):
        pytest.skip(reason)
    library = _native.library(backend._SOURCE)
    sizes = {struct: getattr(library, f"size_of_{struct}")() for struct in _native._mirrors[name]}
    assert sizes == {struct: ctypes.sizeof(mirror) for struct, mirror in _native._mirrors[name].items()}


@needs_compiler
@pytest.mark.parametrize(
    ("exported", "message"),
    [
        ("", "does not export the size of Pair"),
        (
            'extern "C" int64_t size_of_Pair() { return 24; }',
            "Pair of an_op/_cpu.cpp has 24 bytes, its mirror in Python 16",
        ),
    ],
)
def test_a_struct_of_another_size_is_a_reason(source, monkeypatch, exported, message):
    monkeypatch.setattr(_native, "_mirrors", {})
    _native.mirror(source, Pair=_Pair)
    source.write_text(SOURCE + exported)
    assert message in _native.reason(source)


class _Pair(ctypes.Structure):
    _fields_ = [("first", ctypes.c_int64), ("second", ctypes.c_int64)]


def test_the_torch_backend_runs_instead(source, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    direction = a_direction()
    with tracing() as ran:
        y = selective_scan([direction])
    assert ran == {"selective_scan": {"torch"}}
    torch.testing.assert_close(y, selective_scan([direction], backend="reference"))
    assert "no-such-compiler" in selective_scan.explain([direction])["cpu"][0]
    with pytest.raises(BackendError, match="no-such-compiler"):
        selective_scan([direction], backend="cpu")


def test_imports_do_not_compile(tmp_path):
    script = "import temporal_zoo.ops.selective_scan, temporal_zoo.ops.causal_conv"
    environment = {**os.environ, "ZOO_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=120)
    assert not (tmp_path / "cache").exists()


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
