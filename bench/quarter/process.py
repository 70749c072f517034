"""The processes that measure, as their parent sees them: a crash, a hang and an answer are all answers.  Torch-free."""

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
# A process ends itself at its limit and says where it was; so much later it is ended from here.
_GRACE_S = 5.0
_GREETING_S = 180.0
_TAIL = 3000  # characters of standard error that are kept


class QuarterError(InvalidInput):
    """Nothing can be measured; the message says why."""


class Process:
    """A process that imports torch, and then does jobs one after the other."""

    def __init__(self) -> None:
        # It looks for modules exactly where this process does.
        source = f"import sys; sys.path[:] = {sys.path!r}; {_MAIN}"
        self._stderr: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, text=True,
                                         stdout=subprocess.PIPE, stderr=self._stderr, encoding="utf-8")  # fmt: skip
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=_read, args=(self._process.stdout, self._messages), daemon=True).start()

    def greet(self, device: str) -> dict[str, Any]:
        """Has the process use a device; returns its environment, and the backends of every op.

        Raises:
            QuarterError: there is no such device, or the process ended.
        """
        answer = self.ask({"kind": "greeting", "device": device}, _GREETING_S)
        if answer["outcome"] != "ok":
            self.close()
            raise QuarterError(f"nothing can be measured on {device}: {answer['reason']}")
        return answer

    def ask(self, job: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """The answer to a job; where the process crashed or was ended after the limit, an outcome that says so."""
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
        told = self._stderr.read()[-_TAIL:]
        if "Timeout (" in told:
            reason, outcome = f"took longer than {limit_s:.0f} s", "timed_out"
        else:
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            last = next((line for line in reversed(told.splitlines()) if line.strip()), "")
            reason, outcome = f"the process ended ({name}): {last}", "crashed"
        return {"outcome": outcome, "reason": reason, "during": during, "stderr": told}


class Processes:
    """Starts processes for one device, each while the one before still measures; to be used in a `with` block.

    Importing torch takes several seconds and needs no GPU.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._next = Process()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self._next.close()

    def start(self) -> tuple[Process, dict[str, Any]]:
        """A process that is ready to measure, and what it said of itself.

        Raises:
            QuarterError: nothing can be measured on the device.
        """
        process, self._next = self._next, Process()
        return process, process.greet(self._device)


def _read(lines: IO[str], to: queue.Queue[dict[str, Any] | None]) -> None:
    """Hands on every message, and None at the end."""
    with lines:
        for line in lines:
            try:
                to.put(json.loads(line))
            except ValueError:  # an empty line, or half a message of a process that was ended
                continue
    to.put(None)
