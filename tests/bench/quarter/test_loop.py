"""The time budget, the order and the resuming of a GPU run, with a fake clock, without a GPU or a process."""

import copy
from dataclasses import dataclass, field

import pytest

from bench.quarter.cases import GpuCase, Group
from bench.quarter.loop import BudgetedRun
from bench.quarter.results import RECORD, GpuResults
from temporal_zoo._support.record import read

ENVIRONMENT = {
    "id": "one",
    "machine": {"memory_bytes": 2**36},
    "devices": [{"name": "NVIDIA H100 80GB HBM3", "capability": "9.0", "memory_bytes": 85_520_809_984}],
    "software": {"python": "3.12", "torch": "2.11", "triton": "3.6", "cuda": "13.0", "cudnn": 9},
    "code": {"version": "0.1", "commit": None, "dirty": None, "sources": "ours"},
}


def agreement(name, estimate_s=10.0):
    """A case of the smallest kind."""
    return GpuCase(
        "agreement", {"op": "attention", "backend": name, "dtype": "float32", "shapes": [[3, 1, 64]]}, estimate_s
    )


def training(name, estimate_s=10.0):
    """A case that has a plan."""
    return GpuCase("training_step", {"row": name, "setup": {"frames": 16, "dtype": "float32"}}, estimate_s)


def name_of(what):
    """The argument of the functions above."""
    return what["backend"] if "backend" in what else what["row"]


def group(name, *cases, most_s=None):
    """A group of fixed cases."""
    return Group(name, lambda agreed: list(cases), most_s)


@dataclass
class World:
    """A fake clock, fake processes, and the jobs that they received.

    `takes` and `answers` map the name of a case to its seconds, and to its answers in order (the last answer repeats).
    """

    takes: dict = field(default_factory=dict)
    answers: dict = field(default_factory=dict)
    plans: dict = field(default_factory=dict)
    start_s: float = 5.0
    time: float = 0.0
    started: int = 0
    asked: list = field(default_factory=list)
    jobs: list = field(default_factory=list)
    expected: list = field(default_factory=list)
    lines: list = field(default_factory=list)

    def start(self):
        self.time += self.start_s
        self.started += 1
        return FakeChild(self)

    def now(self):
        return self.time

    def expect(self, cases):
        self.expected += [name_of(case.what) for case in cases]

    def of(self, case):
        return self.plans.get(name_of(case.what))


class FakeChild:
    """A process of a `World`."""

    def __init__(self, world):
        self.world, self.alive = world, True

    def ask(self, job, limit_s):
        assert self.alive, "a process that was ended is asked"
        name = name_of(job["what"])
        self.world.asked.append(name)
        self.world.jobs.append((job, limit_s))
        seconds = self.world.takes.get(name, 10.0)
        self.world.time += min(seconds, limit_s)
        if seconds > limit_s:
            return {"outcome": "timed_out", "reason": "no answer", "during": "a shape"}
        answers = self.world.answers.get(name, [{"outcome": "ok"}])
        return dict(answers.pop(0) if len(answers) > 1 else answers[0])

    def close(self):
        self.alive = False


@pytest.fixture
def world():
    return World()


@pytest.fixture
def call(world, tmp_path):
    """Runs groups for some minutes; calls share the records, unless their environments differ."""

    def run(*groups, minutes=8.0, environment=ENVIRONMENT, device="cuda"):
        results = GpuResults(tmp_path / RECORD, environment, device)
        until = world.time + 60 * minutes
        return BudgetedRun(
            groups, results, world.start, world, until=until, now=world.now, report=world.lines.append
        ).run()

    return run


CRASH = {"outcome": "crashed", "reason": "illegal memory access", "during": "3 rows, 1 frames, 64 channels"}


def outcomes(folder):
    return [(name_of(line["case"]), line["outcome"]) for line in read(folder / RECORD).of("agreement")]


def test_groups_run_in_order_with_one_process_each(call, world, tmp_path):
    assert call(group("first", agreement("a"), agreement("b")), group("second", agreement("c")))
    assert world.asked == ["a", "b", "c"]
    assert world.started == 2
    assert outcomes(tmp_path) == [("a", "ok"), ("b", "ok"), ("c", "ok")]


def test_the_environment_is_the_first_line(call, tmp_path):
    call(group("all", agreement("a")))
    assert [line["kind"] for line in read(tmp_path / RECORD).records] == ["environment", "agreement"]


def test_a_case_starts_only_if_it_fits(call, world):
    # 60 s: 12 s are reckoned for the start of a process, of which 5 are used.
    world.takes = {"a": 30.0, "short": 5.0}
    assert not call(group("all", agreement("a", 30), agreement("long", 40), agreement("short", 5)), minutes=1)
    assert world.asked == ["a", "short"]
    assert world.time <= 60


def test_no_process_starts_for_a_case_that_does_not_fit(call, world):
    assert not call(group("all", agreement("a", 50)), minutes=1)
    assert world.started == 0


def test_measured_durations_correct_the_estimates(call, world):
    cases = [agreement(str(number), 10) for number in range(30)]
    world.takes = {str(number): 30.0 for number in range(30)}
    assert not call(group("all", *cases), minutes=5)
    assert world.time <= 300
    # Without the correction a tenth case of 30 s would have begun at 275 s.
    assert len(world.asked) == 9


def test_estimates_also_decrease(call, world):
    cases = [agreement(str(number), 50) for number in range(30)]
    world.takes = {str(number): 2.0 for number in range(30)}
    call(group("all", *cases), minutes=2)
    assert len(world.asked) == 30


def test_cases_beyond_the_limit_of_a_group_run_after_the_other_groups(call, world):
    first = group("first", *(agreement(name) for name in "abcdefgh"), most_s=60)
    assert call(first, group("second", agreement("x")))
    assert "".join(world.asked) == "abcdexfgh"


def test_a_second_call_resumes(call, world):
    cases = [agreement(str(number)) for number in range(8)]
    assert not call(group("all", *cases), minutes=1)
    first = list(world.asked)
    assert 0 < len(first) < 8
    assert call(group("all", *cases))
    assert world.asked == [str(number) for number in range(8)]
    started = world.started
    assert call(group("all", *cases))
    assert len(world.asked) == 8
    assert world.started == started


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [("code", "sources", "others"), ("software", "torch", "2.12"), ("software", "triton", None)],
)
def test_other_code_is_measured_again(call, world, place, name, value):
    call(group("all", agreement("a")))
    other = copy.deepcopy(ENVIRONMENT) | {"id": "two"}
    other[place][name] = value
    assert call(group("all", agreement("a")), environment=other)
    assert world.asked == ["a", "a"]


def test_another_device_is_measured_again_but_not_another_machine(call, world):
    call(group("all", agreement("a")))
    assert call(group("all", agreement("a")), environment=ENVIRONMENT | {"id": "two", "machine": {}})
    assert world.asked == ["a"]
    h200 = [{"name": "NVIDIA H200", "capability": "9.0", "memory_bytes": 2**37}]
    assert call(group("all", agreement("a")), environment=ENVIRONMENT | {"id": "three", "devices": h200})
    assert call(group("all", agreement("a")), device="cpu")
    assert world.asked == ["a", "a", "a"]


def test_a_crash_is_the_outcome_of_its_case_and_other_cases_continue(call, world, tmp_path):
    world.answers = {"b": [CRASH, {"outcome": "ok"}]}
    assert call(group("all", agreement("a"), agreement("b"), agreement("c")))
    assert world.asked == ["a", "b", "c", "b"]
    assert world.started == 3  # at first, behind the crash, and for the second attempt
    assert outcomes(tmp_path) == [("a", "ok"), ("b", "crashed"), ("c", "ok"), ("b", "ok")]
    again, _ = world.jobs[-1]
    assert again["without"] == [CRASH["during"]]


@pytest.mark.parametrize("outcome", ["crashed", "failed", "timed_out"])
def test_a_failed_case_is_repeated_once(call, world, outcome):
    world.answers = {"a": [{"outcome": outcome, "reason": "no reason", "during": None}]}
    assert call(group("all", agreement("a"), agreement("b")))
    assert call(group("all", agreement("a"), agreement("b")))
    assert world.asked == ["a", "b", "a"]


@pytest.mark.parametrize("outcome", ["unsupported", "out_of_memory"])
def test_a_case_with_an_answer_is_not_repeated(call, world, outcome):
    world.answers = {"a": [{"outcome": outcome, "reason": "so it is"}]}
    assert call(group("all", agreement("a")))
    assert world.asked == ["a"]


def test_the_limit_ends_a_case_that_hangs(call, world, tmp_path):
    world.takes = {"a": 1e6}
    assert call(group("all", agreement("a", 10), agreement("b", 1)))
    assert world.asked == ["a", "b", "a"]
    assert outcomes(tmp_path) == [("a", "timed_out"), ("b", "ok"), ("a", "timed_out")]
    assert [limit for job, limit in world.jobs][:2] == [50, 45]  # five times the estimate, and the least


def test_the_deadline_ends_a_case_and_is_not_a_failure(call, world, tmp_path):
    world.takes = {"a": 300.0}
    assert not call(group("all", agreement("a", 40)), minutes=1)
    assert world.time <= 61
    assert outcomes(tmp_path) == [("a", "cut_off")]
    # It took more than 55 s; half as much again does not fit into a minute.
    assert not call(group("all", agreement("a", 40)), minutes=1)
    assert world.asked == ["a"]
    assert not call(group("all", agreement("a", 40)), minutes=2)
    assert call(group("all", agreement("a", 40)), minutes=8)
    assert outcomes(tmp_path)[-1] == ("a", "ok")


def test_a_case_whose_plan_does_not_fit_is_not_started(call, world, tmp_path):
    world.plans = {"big": {"peak": 10**12, "fit": "no"}, "small": {"peak": 10**9, "fit": "yes"}}
    assert call(group("first", agreement("a")), group("second", training("big"), training("small")))
    assert world.asked == ["a", "small"]
    assert world.expected == ["big", "small"]  # planned while other groups are measured
    lines = read(tmp_path / RECORD).of("training_step")
    assert [line["outcome"] for line in lines] == ["too_large", "ok"]
    assert [line["planned"]["peak"] for line in lines] == [10**12, 10**9]


def test_records_of_comparisons_name_the_backend(call, world, tmp_path):
    world.answers = {"a": [CRASH], "b": [{"outcome": "ok", "agrees": True, "error": 1e-7, "tolerance": 1e-4}]}
    call(group("all", agreement("a"), agreement("b")))
    crashed, good, _ = read(tmp_path / RECORD).of("agreement")
    assert (crashed["op"], crashed["backend"], crashed["dtype"]) == ("attention", "a", "float32")
    assert (crashed["agrees"], crashed["error"], crashed["device"]) == (None, None, "NVIDIA H100 80GB HBM3")
    assert (good["agrees"], good["error"]) == (True, 1e-7)


def test_later_groups_receive_the_backends_that_agree_in_all_shapes(call, world):
    agrees = {"outcome": "ok", "agrees": True}
    world.answers = {"a": [agrees], "b": [agrees | {"agrees": False}], "c": [agrees | {"refused": {"3 rows": "no"}}]}
    heard = []
    behind = Group("behind", lambda agreed: heard.append(set(agreed)) or [])
    call(group("all", agreement("a"), agreement("b"), agreement("c")), behind)
    assert heard[-1] == {("attention", "a", "float32")}


def test_backends_that_agreed_are_pinned_and_recorded(call, world, tmp_path):
    case = training("a")
    case.what["setup"]["backends"] = ["attention=reference"]
    pinned = GpuCase(case.kind, case.what, 10.0, pins=("causal_conv=triton",))
    assert call(group("all", pinned))
    job, _ = world.jobs[-1]
    assert job["what"]["setup"]["backends"] == ["attention=reference", "causal_conv=triton"]
    (line,) = read(tmp_path / RECORD).of("training_step")
    assert line["case"] == case.what
    assert line["pins"] == ["causal_conv=triton"]
    assert call(group("all", GpuCase(case.kind, case.what, 10.0, pins=("causal_conv=torch",))))
    assert len(world.jobs) == 1


def test_the_time_to_wait_for_a_plan_counts(call, world, monkeypatch):
    def slow(case):
        world.time += 30

    monkeypatch.setattr(world, "of", slow)
    assert not call(group("all", training("a", 20), training("b", 20)), minutes=1)
    assert world.asked == []
    assert world.time <= 60


def test_the_terminal_shows_a_line_for_every_case(call, world):
    world.answers = {"a": [{"outcome": "unsupported", "reason": "it is not installed\nand more"}]}
    call(group("all", agreement("a"), agreement("b")))
    assert world.lines[0].startswith("all: 2 cases, 8.0 minutes left")
    assert "unsupported: it is not installed (10.0 s)" in world.lines[1]
    assert len(world.lines) == 3
