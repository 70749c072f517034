"""Cases in processes of their own: mixers that crash, hang, take all memory or compute wrongly end one case each."""

import os
import subprocess
import sys
import time

import pytest

from bench import apart, host_memory
from bench.case import expand
from bench.sweep import Sweep, Terms
from temporal_zoo.record import read

MIB = 2**20

# A plug-in as another project would install it; `mood` says what it does.
MOODY = """
import ctypes, os, time
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
            time.sleep(600)
        if mood == "greedy":
            held = []
            while True:
                held.append(torch.ones(1 << 22))
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


def measure(case, limit_s=120.0):
    return apart.measure(case, budget_s=0.01, limit_s=limit_s)


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
    ends = {result.case.mixer.partition("=")[2]: result.outcome for result in sweep.run()}
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


def test_a_mixer_that_hangs_is_ended_at_its_limit_and_the_record_says_where(moody):
    found = measure(*moody("hang"), limit_s=5.0)
    assert found.status == "timed_out"
    assert "longer than 5 s" in found.reason
    assert "in mix" in found.traceback


def test_a_mixer_that_allocates_without_end_runs_out_of_memory(moody, monkeypatch):
    monkeypatch.setattr(host_memory, "available", lambda: 1500 * MIB)
    found = measure(*moody("greedy"))
    assert found.status == "out_of_memory", found


def test_memory_that_escapes_the_limit_is_seen_from_outside(monkeypatch):
    hog = "import mmap, time; held = mmap.mmap(-1, 300 << 20); held.write(bytes(300 << 20)); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hog]) as process:
        found = apart._watch(process, 120, 200 * MIB)
        process.kill()
    assert found.status == "out_of_memory"


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


def test_other_code_than_the_record_names_is_not_measured(moody):
    with pytest.raises(apart.BenchError, match="code has changed"):
        apart.measure(*moody("good"), budget_s=0.01, limit_s=60.0, sources="of yesterday")


def test_a_wrong_fast_body_is_not_timed(moody, tmp_path, monkeypatch):
    # The plug-in spoils the body where it is loaded: in the process that measures.
    path = tmp_path / "moody_mixer.py"
    spoil = "body = causal_conv._modules['torch']; right = body.forward; "
    spoil += "body.forward = lambda *a: [1.01 * y for y in right(*a)]\n"
    path.write_text(MOODY + spoil)
    (case,) = moody("good")
    found = measure(case.replace(backends=("causal_conv=torch",)))
    assert (found.status, found.time_ms) == ("disagrees", None)
    assert "causal_conv=torch" in found.reason


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_no_process_is_left_behind_when_the_sweep_is_killed(moody, tmp_path):
    source = (
        f"import sys; sys.path[:] = {sys.path!r}; from bench import apart; from bench.case import Case; "
        f"apart.measure(Case.from_dict({moody('hang')[0].to_dict()!r}), budget_s=0.01, limit_s=3.0)"
    )
    with subprocess.Popen([sys.executable, "-c", source]) as parent:
        child = next(filter(None, (_child(parent.pid) for _ in iter(lambda: time.sleep(0.05), 0))))
        parent.kill()
    deadline = time.monotonic() + 120
    while os.path.exists(f"/proc/{child}/cmdline") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{child}/cmdline")


def _child(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return int((file.read().split() or ["0"])[0])
