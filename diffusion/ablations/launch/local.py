"""Runs jobs on this machine: one process for each job, each with one thread.

Why no executor of the standard library or of submitit: docs/decisions/0024-one-process-for-each-job.md.  This module
imports no torch, because the command waits for the new process to import it before an interrupt can end the process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path

from diffusion.ablations.job import STDERR, Job
from diffusion.ablations.launch import ReportJob

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_PROCESSES = multiprocessing.get_context("spawn")  # a fork would copy the state of torch's threads


def launch(jobs: list[Job], workers: int, report: ReportJob) -> Iterator[tuple[Job, str | None]]:
    """Runs the jobs.  An interrupt asks the running ones for a checkpoint and waits; a second one ends them at once."""
    waiting, running = deque(jobs), dict[Connection, _Worker]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index = min(set(range(workers)) - {worker.index for worker in running.values()})
                worker = _Worker(waiting.popleft(), index)
                running[worker.messages] = worker  # before its start, which an interrupt may end
                worker.start()
            for messages in wait(list(running)):
                worker = running[messages]  # type: ignore[index]
                if not worker.receive(report):
                    del running[worker.messages]
                    yield worker.job, worker.end()
    finally:
        _stop(list(running.values()))


class _Worker:
    """The process of one job.  index: its number among the running workers."""

    def __init__(self, job: Job, index: int) -> None:
        self.job, self.index = job, index
        self._answer: tuple[str | None] | None = None
        self._errors = job.run / STDERR
        self._errors.parent.mkdir(parents=True, exist_ok=True)
        self._errors.write_bytes(b"")
        self.messages, self._sender = _PROCESSES.Pipe(duplex=False)
        arguments = replace(job, device=_device(job.device, index)), self._errors, self._sender
        self.process = _PROCESSES.Process(target=_work, args=arguments)

    def start(self) -> None:
        """Starts the process."""
        resource_tracker.ensure_running()  # its start would unblock SIGINT
        _mask_sigint(block=True)  # the process inherits the mask, and an early SIGINT waits until `_work` is ready
        try:
            self.process.start()
        finally:
            _mask_sigint(block=False)
        self._sender.close()  # so that the end of the process closes the pipe

    def receive(self, report: ReportJob) -> bool:
        """Handles one message of the process; False at its end."""
        try:
            message = self.messages.recv()
        except (EOFError, OSError):  # OSError: the process ended within a message
            return False
        if len(message) == 1:
            self._answer = message
        else:
            report(self.job, *message)
        return True

    def end(self) -> str | None:
        """The reason of a failure, or None; a crash has the last line of the process's errors."""
        self._close()
        if self._answer is not None:
            return self._answer[0]
        code = self.process.exitcode
        assert code is not None
        reason = f"its process ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
        if errors := self._errors.read_text(errors="replace").strip():
            reason += f": {errors.splitlines()[-1]}"
        self.job.record_failure(reason)
        return reason

    def interrupt(self) -> None:
        """Asks the process to write a checkpoint and to end."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGINT)

    def join(self) -> None:
        """Waits for the end of the process, if it started."""
        if self.process.pid is not None:
            self.process.join()

    def kill(self) -> None:
        """Ends the process at once; its newest checkpoint stays."""
        if self.process.pid is not None:
            self.process.kill()
        self._close()

    def _close(self) -> None:
        self.join()
        self.messages.close()


def _stop(running: list[_Worker]) -> None:
    for worker in running:
        worker.interrupt()
    try:
        for worker in running:
            worker.join()
    finally:
        for worker in running:
            worker.kill()


def _device(name: str, index: int) -> str:
    """One of several GPUs for each worker."""
    if name != "cuda":
        return name
    import torch

    return f"cuda:{index % max(1, torch.cuda.device_count())}"


def _mask_sigint(*, block: bool) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK if block else signal.SIG_UNBLOCK, {signal.SIGINT})


def _work(job: Job, errors: Path, sender: Connection) -> None:
    """The main function of a worker process.  Messages: (step, stage) during the job, (reason,) at its end."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in a terminal reaches the command only, which then interrupts each worker once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with errors.open("wb") as file:
        os.dup2(file.fileno(), 2)
    os.environ |= _ONE_THREAD  # before torch is imported
    try:
        _mask_sigint(block=False)
        from diffusion.ablations.run_job import run_job

        reason = run_job(job, lambda step, stage: sender.send((step, stage)))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    sender.send((reason,))


def _end_with_parent() -> None:
    """Ends this process when the command ends, even if it is killed, so that the next command finds the folder free."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
