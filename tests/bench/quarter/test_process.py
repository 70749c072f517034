"""Fake child processes that answer, crash, hang and print; and a real child process on a CPU."""

from types import SimpleNamespace

import pytest

from bench.quarter import process
from bench.quarter.process import ChildProcess, ChildProcesses, QuarterError

# Has the protocol of `bench.quarter.child`, without torch.
FAKE = """
import faulthandler, json, os, signal, time
def say(**message): print(json.dumps(message), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if job["kind"] == "greeting":
        say(answer={"outcome": GREETING, "reason": "there is none"})
        continue
    say(during="the third shape")
    if job["kind"] == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job["kind"] == "leave":
        sys.exit("an unknown driver")
    if job["kind"] == "sleep":
        faulthandler.dump_traceback_later(job["limit_s"], exit=True)
        time.sleep(600)
    if job["kind"] == "hang":
        time.sleep(600)
    print("a word of some package\\n{\\"half")
    say(answer={"outcome": "ok", "job": job})
"""


@pytest.fixture
def fake(monkeypatch):
    """Starts fake processes, and ends them after the test."""
    begun = []

    def start(greeting="ok"):
        source = FAKE.replace("GREETING", repr(greeting))
        monkeypatch.setattr(process, "_MAIN", f"exec({source!r})")
        begun.append(ChildProcess())
        begun[-1].greet("cpu")
        return begun[-1]

    yield start
    for each in begun:
        each.close()


def test_other_output_does_not_disturb_answers(fake):
    child = fake()
    assert child.ask({"kind": "ok", "what": {"a": 1}}, 60)["job"] == {"kind": "ok", "what": {"a": 1}, "limit_s": 60}
    assert child.ask({"kind": "ok"}, 60)["outcome"] == "ok"


def test_a_crash_names_the_signal_and_the_part_that_ran(fake):
    answer = fake().ask({"kind": "crash"}, 60)
    assert (answer["outcome"], answer["during"]) == ("crashed", "the third shape")
    assert "SIGSEGV" in answer["reason"]


def test_an_exit_without_an_answer_has_the_last_line_of_output(fake):
    answer = fake().ask({"kind": "leave"}, 60)
    assert answer["outcome"] == "crashed"
    assert answer["reason"] == "the process ended (exit code 1): an unknown driver"


def test_a_job_for_an_ended_process_is_a_crash_and_not_an_exception(fake):
    child = fake()
    child.ask({"kind": "leave"}, 60)
    assert child.ask({"kind": "ok"}, 60)["outcome"] == "crashed"


def test_a_process_that_takes_too_long_prints_where_it_was(fake, monkeypatch):
    monkeypatch.setattr(process, "_GRACE_S", 60.0)  # a busy machine may come late to what takes no time
    answer = fake().ask({"kind": "sleep"}, 0.05)
    assert (answer["outcome"], answer["during"]) == ("timed_out", "the third shape")
    assert "most recent call first" in answer["stderr"]


def test_the_parent_ends_a_process_that_cannot_end_itself(fake, monkeypatch):
    child = fake()
    # By this clock an hour passes when the process has said what it does.
    clock = iter((0.0, 0.0, 3600.0))
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    answer = child.ask({"kind": "hang"}, 60)
    assert (answer["outcome"], answer["during"]) == ("timed_out", "the third shape")
    assert child._process.wait() < 0


def test_a_missing_device_raises_an_error_with_the_reason(fake):
    with pytest.raises(QuarterError, match="cannot measure on cpu: there is none"):
        fake("failed")


def test_the_next_process_starts_while_the_first_measures(fake, monkeypatch):
    fake()
    with ChildProcesses("cpu") as processes:
        first, _ = processes.start()
        waiting = processes._next
        second, _ = processes.start()
        assert second is waiting
        assert first.ask({"kind": "ok"}, 60)["outcome"] == second.ask({"kind": "ok"}, 60)["outcome"] == "ok"
        last = processes._next
        first.close()
        second.close()
    assert last._process.poll() is not None


def test_a_real_process_compares_a_backend(monkeypatch):
    child = ChildProcess()
    try:
        greeting = child.greet("cpu")
        assert "sdpa" in greeting["backends"]["attention"]
        assert greeting["environment"]["code"]["sources"]
        assert greeting["environment"]["arithmetic"]["tf32_cudnn"] is False
        what = {"op": "attention", "backend": "blocked", "dtype": "float32", "shapes": [[3, 5, 64]]}
        answer = child.ask({"kind": "agreement", "what": what, "without": []}, 60)
        assert answer["outcome"] == "ok"
        assert answer["agrees"] is True
        failed = child.ask({"kind": "agreement", "what": what | {"backend": "nobody"}, "without": []}, 60)
        assert failed["outcome"] == "failed"
        assert "KeyError" in failed["traceback"] or "Error" in failed["reason"]
    finally:
        child.close()
