"""Child processes that measure, seen from the parent: crashes and timeouts become answers.  Torch-free."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

from temporal_zoo.errors import InvalidInput

_MAIN = "from bench.quarter.child import main; main()"
# A child ends itself at its limit and prints where it was; the parent ends it this many seconds later.
_GRACE_S = 5.0
_GREETING_S = 180.0
_TAIL = 3000  # last characters of standard error in an answer


class QuarterError(InvalidInput):
    """The device cannot be used; the message says why."""


class ChildProcess:
    """A process that imports torch and then runs jobs, one after the other."""

    def __init__(self) -> None:
        # The child uses the module search path of this process.
        source = f"import sys; sys.path[:] = {sys.path!r}; {_MAIN}"
        self._stderr: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, text=True,
                                         stdout=subprocess.PIPE, stderr=self._stderr, encoding="utf-8")  # fmt: skip
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=_read, args=(self._process.stdout, self._messages), daemon=True).start()

    def greet(self, device: str) -> dict[str, Any]:
        """Selects a device; returns the environment of the process and the backends of every op.

        Raises:
            QuarterError: the device does not exist, or the process ended.
        """
        answer = self.ask({"kind": "greeting", "device": device}, _GREETING_S)
        if answer["outcome"] != "ok":
            self.close()
            raise QuarterError(f"cannot measure on {device}: {answer['reason']}")
        return answer

    def ask(self, job: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Sends a job and returns the answer; a crash or a timeout is an answer with that outcome."""
        during = None
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({**job, "limit_s": limit_s}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return self._ended(during, limit_s)
        deadline = time.monotonic() + limit_s + _GRACE_S
        while True:
            try:
                message = self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self._process.kill()
                return {"outcome": "timed_out", "reason": f"no answer within {limit_s:.0f} s", "during": during}
            if message is None:
                return self._ended(during, limit_s)
            if "answer" in message:
                return message["answer"]
            during = message["during"]

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._stderr.close()

    def _ended(self, during: str | None, limit_s: float) -> dict[str, Any]:
        code = self._process.wait()
        self._stderr.seek(0)
        output = self._stderr.read()[-_TAIL:]
        if "Timeout (" in output:
            reason, outcome = f"took longer than {limit_s:.0f} s", "timed_out"
        else:
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
            reason, outcome = f"the process ended ({name}): {last}", "crashed"
        return {"outcome": outcome, "reason": reason, "during": during, "stderr": output}


class ChildProcesses:
    """Starts child processes for one device, each while the one before measures; use it in a `with` block.

    This saves time, because importing torch takes several seconds and needs no GPU.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._next = ChildProcess()

    def __enter__(self) -> ChildProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self._next.close()

    def start(self) -> tuple[ChildProcess, dict[str, Any]]:
        """A process that is ready to measure, and its answer to the greeting.

        Raises:
            QuarterError: the device cannot be used.
        """
        process, self._next = self._next, ChildProcess()
        return process, process.greet(self._device)


def _read(lines: IO[str], to: queue.Queue[dict[str, Any] | None]) -> None:
    """Puts every message into the queue, and None at the end."""
    with lines:
        for line in lines:
            try:
                to.put(json.loads(line))
            except ValueError:  # an empty line, or an incomplete message of a process that ended
                continue
    to.put(None)
