"""Cases in subprocesses: a mixer that crashes, hangs, uses all memory or is wrong ends only its own case."""

import contextlib
import sys
import time
from subprocess import Popen
from types import SimpleNamespace

import psutil
import pytest

from bench.sweep import host_memory, subprocess
from bench.sweep.case import expand
from bench.sweep.runner import Runner, RunnerOptions
from temporal_zoo._support.record import read

MIB = 2**20

# A plug-in of another project; the option `mood` selects its behaviour.
MOODY = """
import ctypes, mmap, os, time
from dataclasses import dataclass
import torch
from temporal_zoo import Mixer, register
from temporal_zoo.config import Config, option
from temporal_zoo.ops.causal_conv import Filter, causal_conv


@register("moody", summary="a test's", paper="none", time="T", memory="T")
class Moody(Mixer):
    causal = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Config):
        mood: str = option("good", "behaviour")

    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.weight = torch.nn.Parameter(torch.ones(dim))

    def mix(self, x, lengths):
        mood = self.config.mood
        if mood == "crash":
            ctypes.string_at(0)
        if mood == "hang":
            open(__file__ + ".hangs", "w").close()
            time.sleep(600)
        if mood == "greedy":
            held = []
            while True:
                held.append(torch.ones(1 << 22))
        if mood == "mapped":  # memory that no limit of the process counts
            held = mmap.mmap(-1, 1 << 30)
            for page in range(0, 1 << 30, 4096):
                held[page] = 1
            time.sleep(600)
        if mood == "killed":
            os.kill(os.getpid(), 9)
        if mood == "print":
            os.write(1, b"output of a package")
        return causal_conv(x, [Filter(self.weight[:, None].expand(-1, 2))])[0]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which the mixer is installed; subprocesses search for modules there, too."""
    folder = tmp_path_factory.mktemp("moody")
    info = folder / "moody-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moody\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[temporal_zoo.mixers]\nmoody = moody_mixer:Moody\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.fixture
def moody(folder):
    """A function that returns a case of that mixer for each mood."""
    (folder / "moody_mixer.py").write_text(MOODY)
    (folder / "moody_mixer.py.hangs").unlink(missing_ok=True)

    def cases(*moods):
        # The mixer is not installed in this process, so that its spec is written as a text.
        (case,) = expand(layers="identity", lengths="4", level="mixer", mode="train", rows=2, dim=8)
        return [case.replace(mixer=f"moody:mood={mood}") for mood in moods]

    return cases


@pytest.fixture(scope="module")
def forking(folder):
    """Workers that fork, for all tests, so that torch is imported only once."""
    with subprocess.Workers(forks=True) as found:
        yield found


@pytest.fixture(params=["started", "forked"])
def workers(request, folder):
    if request.param == "forked":
        yield request.getfixturevalue("forking")
    else:
        with subprocess.Workers(forks=False) as found:
            yield found


def measure(workers, case, limit_s=120.0):
    return workers.measure(case, budget_s=0.01, limit_s=limit_s)


def test_a_subprocess_describes_its_machine(moody, forking, monkeypatch):
    environment, devices = subprocess.examine(moody("good"))
    assert environment["code"]["sources"]
    assert devices.endswith("(1 thread)")
    monkeypatch.setattr(subprocess, "Workers", lambda forks: contextlib.nullcontext(forking))
    with pytest.raises(subprocess.BenchError, match="no backend 'fast'"):
        subprocess.examine([case.replace(backends=("causal_conv=fast",)) for case in moody("good")])


def test_a_sweep_continues_after_every_outcome(moody, tmp_path, monkeypatch):
    # The source files may change during the tests.
    monkeypatch.setattr(subprocess, "examine", lambda *_: ({"id": "here", "code": {"sources": None}}, "here"))
    cases = moody("crash", "killed", "print")
    runner = Runner(cases, tmp_path / "records.jsonl", RunnerOptions(budget_s=0.01))
    ends = {result.case.mixer.partition("=")[2]: result.outcome for _, result in runner.run()}
    assert {mood: end.status for mood, end in ends.items()} == {
        "crash": "crashed",
        "killed": "out_of_memory",
        "print": "ok",
    }
    assert ends["crash"].reason == "the process crashed (SIGSEGV)"
    assert "in mix" in ends["crash"].traceback
    assert [m["outcome"] for m in read(tmp_path / "records.jsonl").of("measurement")] == [
        end.status for end in ends.values()
    ]


def test_a_hanging_mixer_ends_at_its_limit_with_a_traceback(moody, workers, folder):
    found = measure(workers, *moody("hang"), limit_s=1.5)
    assert found.status == "timed_out"
    assert "longer than 1.5 s" in found.reason
    # On a busy machine the limit may pass before the mixer runs.
    reached = (folder / "moody_mixer.py.hangs").exists()
    assert ("in mix" if reached else "File ") in found.traceback


def test_a_process_that_does_not_end_itself_is_killed(moody, workers, folder, monkeypatch):
    # This clock advances by an hour when the mixer hangs.
    hangs = folder / "moody_mixer.py.hangs"
    monkeypatch.setattr(subprocess, "time", SimpleNamespace(monotonic=lambda: 3600.0 * hangs.exists()))
    found = measure(workers, *moody("hang"), limit_s=600.0)
    assert (found.status, found.reason) == ("timed_out", "killed after 630 s")


def test_a_mixer_that_allocates_without_limit_runs_out_of_memory(moody, workers, monkeypatch):
    monkeypatch.setattr(host_memory, "available", lambda: 1500 * MIB)
    found = measure(workers, *moody("greedy"))
    assert found.status == "out_of_memory", found


def test_the_next_job_runs_after_every_outcome(moody, workers):
    ends = [measure(workers, case).status for case in moody("crash", "killed", "print")]
    assert ends == ["crashed", "out_of_memory", "ok"]


def test_memory_outside_of_the_limit_is_detected(moody, workers, monkeypatch):
    monkeypatch.setattr(host_memory, "available", lambda: 1000 * MIB)
    found = measure(workers, *moody("mapped"))
    assert found.status == "out_of_memory"
    assert "killed at" in found.reason


@pytest.mark.parametrize(
    ("code", "stderr", "status"),
    [
        (-9, "", "out_of_memory"),
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'", "out_of_memory"),
        (-6, "terminate called", "crashed"),
        (1, "Timeout (0:00:05)!\nThread 0x1", "timed_out"),
        (1, "ImportError: no torch", "crashed"),
    ],
)
def test_exit_codes_become_outcomes(code, stderr, status):
    assert subprocess._outcome_of_exit(code, stderr, 5.0).status == status


# The next two tests do not depend on how the process started.


def test_changed_source_files_are_not_measured(moody, forking):
    with pytest.raises(subprocess.BenchError, match="source files changed"):
        forking.measure(*moody("good"), budget_s=0.01, limit_s=60.0, sources="of yesterday")


def test_a_wrong_fast_backend_is_not_timed(moody, forking, folder):
    # The plug-in changes the backend in the subprocess.
    bug = "backend = causal_conv._modules['torch']; right = backend.forward; "
    bug += "backend.forward = lambda *a: [1.01 * y for y in right(*a)]\n"
    (case,) = moody("good")
    (folder / "moody_mixer.py").write_text(MOODY + bug)
    found = measure(forking, case.replace(backends=("causal_conv=torch",)))
    assert (found.status, found.time_ms) == ("disagrees", None)
    assert "causal_conv=torch" in found.reason


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("forks", [False, True])
def test_subprocesses_end_when_the_sweep_is_killed(moody, folder, forks):
    source = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        "from bench.sweep import subprocess; from bench.sweep.case import Case; "
        f"case = Case.from_dict({moody('hang')[0].to_dict()!r}); "
        f"subprocess.Workers(forks={forks}).measure(case, budget_s=0.01, limit_s=600.0)"
    )
    with Popen([sys.executable, "-c", source]) as parent:
        while parent.poll() is None and not (folder / "moody_mixer.py.hangs").exists():
            time.sleep(0.05)
        assert parent.poll() is None
        left = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    _, alive = psutil.wait_procs(left, timeout=120)
    assert not alive
