"""Child processes end when their parent is killed."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")

CHILD = """
import os, sys, time
sys.platform = {platform!r}
from temporal_zoo._support.processes import end_with_parent
end_with_parent({parent})
print(os.getpid(), flush=True)
time.sleep(300)
"""

PARENT = """
import os, subprocess, sys, time
child = {child!r}.replace("PARENT", str(os.getpid()))
subprocess.Popen([sys.executable, "-c", child])
time.sleep(300)
"""

POOL = """
import os, time
from bench.plan.pool import planners
if __name__ == "__main__":
    with planners() as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 300).result()
"""

WORKER = """
import os, threading, time
from bench.sweep import subprocess
workers = subprocess.Workers(forks={forks})
process = workers._running()
print(process.pid, flush=True)
time.sleep(300)
"""


def ended(pid, within_s=60):
    """Whether a process ends, or becomes a zombie, within some seconds."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def killed(tmp_path, source):
    """Runs a program that prints the process id of its child, kills it, and returns whether the child ended."""
    path = tmp_path / "program.py"
    path.write_text(source)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    with subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True, env=environment) as program:
        child = int(program.stdout.readline())
        assert psutil.pid_exists(child)
        program.kill()
        program.wait()
        try:
            return ended(child)
        finally:
            if psutil.pid_exists(child):
                os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("platform", [sys.platform, "other"])
def test_a_child_ends_with_its_parent(tmp_path, platform):
    child = CHILD.format(platform=platform, parent="PARENT")
    assert killed(tmp_path, PARENT.format(child=child))


def test_a_child_whose_parent_has_ended_ends_at_once():
    source = CHILD.format(platform=sys.platform, parent=2**22 + 1)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")


def test_the_processes_of_a_plan_end_with_their_parent(tmp_path):
    assert killed(tmp_path, POOL)


@pytest.mark.parametrize("forks", [False, True])
def test_the_worker_of_the_bench_ends_with_its_parent(tmp_path, forks):
    assert killed(tmp_path, WORKER.format(forks=forks))
