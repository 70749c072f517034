"""Cases in processes of their own: mixers that crash, hang, take all memory or compute wrongly end one case each."""

import subprocess
import sys
import time

import psutil
import pytest

from bench import apart, host_memory
from bench.case import expand
from bench.sweep import Sweep, Terms
from temporal_zoo.record import read

MIB = 2**20

# A plug-in as another project would install it; `mood` says what it does.
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
        mood: str = option("good", "what it does")

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
            os.write(1, b"what packages print")
        return causal_conv(x, [Filter(self.weight[:, None].expand(-1, 2))])[0]
"""


@pytest.fixture
def moody(tmp_path, monkeypatch):
    """Makes a list of cases of that mixer, and installs it."""
    info = tmp_path / "moody-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moody\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[temporal_zoo.mixers]\nmoody = moody_mixer:Moody\n")
    (tmp_path / "moody_mixer.py").write_text(MOODY)
    monkeypatch.syspath_prepend(str(tmp_path))

    def cases(*moods):
        # Specs are made by hand, for this process does not know the mixer and need not.
        (case,) = expand(layers="identity", lengths="4", level="mixer", mode="train", rows=2, dim=8)
        return [case.replace(mixer=f"moody:mood={mood}") for mood in moods]

    return cases


@pytest.fixture(params=[False, True], ids=["started", "forked"])
def workers(request):
    with apart.Workers(forks=request.param) as found:
        yield found


def measure(workers, case, limit_s=120.0):
    return workers.measure(case, budget_s=0.01, limit_s=limit_s)


def test_a_process_that_measures_says_where_it_is(moody):
    environment, place = apart.examine(moody("good"))
    assert environment["code"]["sources"]
    assert place.endswith("(1 thread)")
    with pytest.raises(apart.BenchError, match="no body 'fast'"):
        apart.examine([case.replace(backends=("causal_conv=fast",)) for case in moody("good")])


def test_a_sweep_outlives_whatever_its_cases_do(moody, tmp_path, monkeypatch):
    # Somebody may work on the code while its tests run.
    monkeypatch.setattr(apart, "examine", lambda *_: ({"id": "here", "code": {"sources": None}}, "here"))
    cases = moody("crash", "killed", "print")
    sweep = Sweep(cases, tmp_path / "records.jsonl", Terms(budget_s=0.01))
    ends = {result.case.mixer.partition("=")[2]: result.outcome for _, result in sweep.run()}
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


def test_a_mixer_that_hangs_is_ended_at_its_limit_and_the_record_says_where(moody, workers, tmp_path):
    found = measure(workers, *moody("hang"), limit_s=5.0)
    assert found.status == "timed_out"
    assert "longer than 5 s" in found.reason
    # On a busy machine the limit may pass before the mixer is reached.
    reached = (tmp_path / "moody_mixer.py.hangs").exists()
    assert ("in mix" if reached else "File ") in found.traceback


def test_what_cannot_end_itself_is_ended_from_outside(moody, workers, monkeypatch):
    monkeypatch.setattr(apart, "GRACE_S", -56.0)
    found = measure(workers, *moody("hang"), limit_s=60.0)
    assert (found.status, found.reason) == ("timed_out", "had to be ended after 4 s")


def test_a_mixer_that_allocates_without_end_runs_out_of_memory(moody, workers, monkeypatch):
    monkeypatch.setattr(host_memory, "available", lambda: 1500 * MIB)
    found = measure(workers, *moody("greedy"))
    assert found.status == "out_of_memory", found


def test_after_any_end_the_next_job_is_done(moody, workers):
    ends = [measure(workers, case).status for case in moody("crash", "good", "killed", "print")]
    assert ends == ["crashed", "ok", "out_of_memory", "ok"]


def test_memory_that_escapes_the_limit_is_seen_from_outside(moody, workers, monkeypatch):
    monkeypatch.setattr(host_memory, "available", lambda: 1000 * MIB)
    found = measure(workers, *moody("mapped"))
    assert found.status == "out_of_memory"
    assert "ended at" in found.reason


@pytest.mark.parametrize(
    ("code", "told", "status"),
    [
        (-9, "", "out_of_memory"),
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'", "out_of_memory"),
        (-6, "terminate called", "crashed"),
        (1, "Timeout (0:00:05)!\nThread 0x1", "timed_out"),
        (1, "ImportError: no torch", "crashed"),
    ],
)
def test_how_a_process_ended(code, told, status):
    assert apart._end(code, told, 5.0).status == status


def test_other_code_than_the_record_names_is_not_measured(moody, workers):
    with pytest.raises(apart.BenchError, match="code has changed"):
        workers.measure(*moody("good"), budget_s=0.01, limit_s=60.0, sources="of yesterday")


def test_a_wrong_fast_body_is_not_timed(moody, workers, tmp_path):
    # The plug-in spoils the body where it is loaded: in the process that measures.
    path = tmp_path / "moody_mixer.py"
    spoil = "body = causal_conv._modules['torch']; right = body.forward; "
    spoil += "body.forward = lambda *a: [1.01 * y for y in right(*a)]\n"
    path.write_text(MOODY + spoil)
    (case,) = moody("good")
    found = measure(workers, case.replace(backends=("causal_conv=torch",)))
    assert (found.status, found.time_ms) == ("disagrees", None)
    assert "causal_conv=torch" in found.reason


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("forks", [False, True])
def test_no_process_is_left_behind_when_the_sweep_is_killed(moody, tmp_path, forks):
    source = (
        f"import sys; sys.path[:] = {sys.path!r}; from bench import apart; from bench.case import Case; "
        f"case = Case.from_dict({moody('hang')[0].to_dict()!r}); "
        f"apart.Workers(forks={forks}).measure(case, budget_s=0.01, limit_s=600.0)"
    )
    with subprocess.Popen([sys.executable, "-c", source]) as parent:
        while not (tmp_path / "moody_mixer.py.hangs").exists():
            time.sleep(0.05)
        left = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    _, alive = psutil.wait_procs(left, timeout=120)
    assert not alive
