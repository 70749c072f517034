"""A pool of processes on this machine, one for each job, on one thread each."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from diffusion.ablations.job import Job
from diffusion.ablations.launch import Watch
from diffusion.ablations.trial import TOLD, note

_THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def launch(jobs: list[Job], workers: int, watch: Watch) -> Iterator[tuple[Job, str | None]]:
    """Does the jobs; interrupted, it asks those under way for a checkpoint and waits for it."""
    waiting, running = deque(jobs), set[_Worker]()
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    place = min(set(range(workers)) - {worker.place for worker in running})
                    worker = _Worker(waiting.popleft(), place)
                    running.add(worker)
                    selector.register(worker.output, selectors.EVENT_READ, worker)
                for key, _ in selector.select():
                    worker = key.data
                    if not worker.listen(watch):
                        selector.unregister(worker.output)
                        running.remove(worker)
                        yield worker.job, worker.end()
        finally:
            _stop(running)


class _Worker:
    """One process and what it has said; `place` is its number among those at work."""

    def __init__(self, job: Job, place: int) -> None:
        self.job, self.place = job, place
        self._said = b""
        self._answer: dict[str, Any] | None = None
        # It looks for modules exactly where this process does; Ctrl-C reaches it from here, once, and not by itself.
        source = f"import sys; sys.path[:] = {sys.path!r}; from diffusion.ablations.worker import main; main()"
        job.run.mkdir(parents=True, exist_ok=True)
        self._told = job.run / TOLD
        with self._told.open("wb") as told:
            self.process = subprocess.Popen(
                [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told,
                start_new_session=True, env=os.environ | _THREADS,
            )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.output = self.process.stdout
        placed = replace(job, device=_device(job.device, place))
        self.process.stdin.write(json.dumps(placed.to_dict()).encode() + b"\n")
        self.process.stdin.flush()

    def listen(self, watch: Watch) -> bool:
        """Passes on what the process says; False at its end."""
        part = os.read(self.output.fileno(), 65536)
        *lines, self._said = (self._said + part).split(b"\n")
        for line in lines:
            facts = json.loads(line)
            if "ended" in facts:
                self._answer = facts
            else:
                watch(self.job, facts["step"], facts["doing"])
        return bool(part)

    def end(self) -> str | None:
        """Why the job failed, or None; of a crash, what the process left to say."""
        code = self.process.wait()
        self._close()
        if self._answer is not None:
            return self._answer["ended"]
        reason = f"its process ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
        if said := self._told.read_text(errors="replace").strip():
            reason += f": {said.splitlines()[-1]}"
        note(self.job, reason)
        return reason

    def kill(self) -> None:
        """Ends the process at once; its checkpoint is the last one that it wrote."""
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.output.close()


def _device(name: str, place: int) -> str:
    """Of several GPUs, every worker takes another one."""
    if name != "cuda":
        return name
    import torch

    return f"cuda:{place % max(1, torch.cuda.device_count())}"


def _stop(running: set[_Worker]) -> None:
    for worker in running:
        worker.process.send_signal(signal.SIGINT)
    try:
        for worker in running:
            worker.process.wait()
    finally:
        for worker in running:
            worker.kill()
