"""`zoo bench --suite kernels`: compares every backend with the float64 reference, and times it with its peers."""

from __future__ import annotations

import functools
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch

from bench.sweep import host_memory
from bench.sweep.outcome import first_line
from temporal_zoo._support.arithmetic import set_arithmetic
from temporal_zoo._support.environment import environment
from temporal_zoo._support.record import Session
from temporal_zoo.ops import BackendError
from temporal_zoo.ops.agreement import compare

from . import peers
from .subjects import SUBJECTS, Implementation, Outputs, PreparedCall, SubjectSize, ours, reference_results

Report = Callable[[str], object]
Mode = Literal["forward", "train"]
MODES: tuple[Mode, ...] = ("forward", "train")

# The backends that can be linear in frames are also measured at this length, for their time per frame.
LONG, LINEAR = 7200, ("cpu", "torch")
# Peak memory is measured for our backends and for the two scans that packages use without CUDA.
WITH_MEMORY = ("cpu", "torch", "mamba_ssm selective_scan_ref", "mamba.py pscan")
# A turn repeats its step until it lasts TURN_S.  A step longer than SLOW_S has three turns, longer than ONCE_S one.
TURN_S, SLOW_S, ONCE_S = 0.05, 2.0, 10.0
_FEW = 3
_SCAN = "selective_scan"
# Rows x frames of the check before timing, which has one or two rows.
_GATE_FRAMES = 2048


@dataclass(frozen=True)
class SuiteOptions:
    """What a run of the suite measures."""

    frames: tuple[int, ...]
    repetitions: int = 5
    peers: Path | None = None
    subjects: tuple[str, ...] = tuple(SUBJECTS)
    long: int | None = LONG
    width: int = 128
    state: int = 16
    total_frames: int | None = None

    def size(self, subject: str, frames: int) -> SubjectSize:
        """The size of a measurement; rows x frames is the same for all lengths."""
        total = self.total_frames or SUBJECTS[subject].total_frames
        return SubjectSize(max(1, round(total / frames)), frames, self.width, self.state)

    def comparisons(self) -> Iterator[tuple[str, int, list[Implementation]]]:
        """Subject, frames and the implementations to compare."""
        for subject in self.subjects:
            compared = implementations(subject, self.peers)
            yield from ((subject, frames, compared) for frames in self.frames)
            if subject == _SCAN and self.long and self.long not in self.frames:
                yield subject, self.long, [each for each in ours(subject) if each.name in LINEAR]


def implementations(subject: str, folder: Path | None) -> list[Implementation]:
    """The implementations that a comparison of a subject contains: our backends first, in the order that `auto` tries.

    Args:
        folder: sources of peers that cannot be installed, or None.
    """
    return [*ours(subject), *peers.of(subject, folder)]


def run(options: SuiteOptions, record: Path, command: str, report: Report) -> list[dict[str, Any]]:
    """Runs the suite; appends a line of kind "suite" and a line for each measurement to `record`.

    Returns:
        The measurements.

    Raises:
        PeersError: the folder of peers cannot be used; raised before the first measurement.
        OSError: the record cannot be written; raised before the first measurement.
    """
    digests = peers.check(options.peers) if options.peers else {}
    set_arithmetic()
    session = Session(record, environment())
    about = {name: value for name, value in asdict(options).items() if name != "peers"}
    session.write("suite", {"suite": "kernels", "command": command, "plan": about, "peers": digests, "load": _load()})
    written: list[dict[str, Any]] = []

    def write(fields: dict[str, Any]) -> None:
        session.write("kernel", fields)
        written.append(fields)

    with threads(1):
        for subject, frames, compared in options.comparisons():
            report(f"{SUBJECTS[subject].title}, {frames} frames")
            for fields in _compare(options, subject, frames, compared, report):
                write(fields)
    able = {(each["contender"], each["frames"]) for each in written
            if each["subject"] == _SCAN and each["outcome"] == "ok"}  # fmt: skip
    for measured in (_threads, _memory):
        for fields in measured(options, able, report):
            write(fields)
    return written


def _compare(
    options: SuiteOptions, subject: str, frames: int, compared: Sequence[Implementation], report: Report
) -> Iterator[dict[str, Any]]:
    size = options.size(subject, frames)
    about = {"measured": "time", "subject": subject, **asdict(size)}
    gates = {each.name: gate(each, size) for each in compared}
    for each in compared:
        if gates[each.name]["outcome"] != "ok":
            yield about | _identity(each) | {"mode": None} | gates[each.name]
    able = [each for each in compared if gates[each.name]["outcome"] == "ok"]
    for mode in MODES:
        steps = {each.name: getattr(PreparedCall(each, size), mode) for each in able}
        turns, failures = interleaved(steps, options.repetitions, time.process_time)
        for each in able:
            if failure := failures.get(each.name):
                yield about | _identity(each) | {"mode": mode, "outcome": "failed", "reason": failure, "error": None}
                continue
            seconds = turns[each.name]
            report(f"  {mode} {each.name}: {1000 * sorted(seconds)[len(seconds) // 2]:.4g} ms")
            yield about | _identity(each) | {"mode": mode, **gates[each.name], "seconds": seconds}


def gate(implementation: Implementation, size: SubjectSize) -> dict[str, Any]:
    """Compares values and gradients with the float64 reference, on one or two rows of the same width and frames.

    Returns:
        The outcome, "ok", "missing", "unsupported", "disagrees" or "failed", with its reason and the error.
    """
    if implementation.run is None:
        return {"outcome": "missing", "reason": implementation.absent, "error": None}
    few = SubjectSize(min(2, max(1, _GATE_FRAMES // size.frames)), size.frames, size.width, size.state)
    try:
        found = PreparedCall(implementation, few).checked()
    except BackendError as error:
        return {"outcome": "unsupported", "reason": _own_reason(error, implementation.name), "error": None}
    except Exception as error:
        return {"outcome": "failed", "reason": first_line(error), "error": None}
    result = compare(_named(found), _named(reference_results(implementation.subject, few)), torch.float32)
    if not result.agrees:
        off = result.error
        reason = f"off by {off:.1e} from the reference in float64; {result.tolerance:g} is allowed"
        return {"outcome": "disagrees", "reason": reason, "error": off if math.isfinite(off) else None}
    return {"outcome": "ok", "reason": "", "error": result.error}


def interleaved(
    steps: Mapping[str, Callable[[], object]], repetitions: int, clock: Callable[[], float]
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Times steps in rounds; in each round every step has one turn.

    A turn of a fast step runs it several times.  The first run of a step is a warm-up and is not counted, except for
    slow steps, where a warm-up would take more time than it changes.

    Returns:
        Seconds of one step for each turn, and the reasons of steps that raised an exception.
    """
    turns, repeats, seconds, failures = {}, {}, {}, {}
    for name, step in steps.items():
        try:
            first = _seconds(step, 1, clock)
        except Exception as error:  # such as out of memory; the other steps continue
            failures[name] = first_line(error)
            continue
        turns[name] = 1 if first > ONCE_S else min(_FEW, repetitions) if first > SLOW_S else repetitions
        repeats[name] = max(1, math.ceil(TURN_S / max(first, 1e-6)))
        seconds[name] = [first] if first > SLOW_S else []
    while waiting := [name for name in turns if len(seconds[name]) < turns[name]]:
        for name in waiting:
            seconds[name].append(_seconds(steps[name], repeats[name], clock))
    return seconds, failures


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Within the block, torch and our backends compute in `number` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak(subject: str, name: str, size: SubjectSize, folder: Path | None) -> int:
    """Peak bytes of a forward and backward pass above its inputs; call it in a fresh process."""
    implementation = next(each for each in implementations(subject, folder) if each.name == name)
    with threads(1):
        # A first small run loads libraries and starts thread pools.
        PreparedCall(implementation, replace(size, rows=1, frames=min(size.frames, 16))).train()
        before, most = host_memory.peak_resident(PreparedCall(implementation, size).train)
    return most - before


def _threads(options: SuiteOptions, able: set[tuple[str, int]], report: Report) -> Iterator[dict[str, Any]]:
    """Wall time of the C++ scan in one and in two threads."""
    cpu = next(each for each in ours(_SCAN) if each.name == "cpu")
    for frames, mode in itertools.product(options.frames, MODES):
        if ("cpu", frames) not in able:
            continue
        size = options.size(_SCAN, frames)
        about = {"measured": "threads", "subject": _SCAN, **asdict(size), "contender": "cpu", "mode": mode}
        if (cores := environment()["machine"]["usable_cores"]) < 2:
            yield about | {"outcome": "unsupported", "reason": f"this process may use {cores} core only"}
            continue
        step = getattr(PreparedCall(cpu, size), mode)
        steps = {str(number): functools.partial(_in_threads, number, step) for number in (1, 2)}
        taken, _ = interleaved(steps, options.repetitions, time.perf_counter)
        report(f"cpu backend in one thread and in two, {mode}, {frames} frames")
        for number, seconds in taken.items():
            yield about | {"outcome": "ok", "threads": int(number), "wall_seconds": seconds}


def _in_threads(number: int, step: Callable[[], object]) -> None:
    with threads(number):
        step()


def _memory(options: SuiteOptions, able: set[tuple[str, int]], report: Report) -> Iterator[dict[str, Any]]:
    """Peak memory, each in a fresh process; two run at once, because nothing is timed."""
    report("peak memory, each in a fresh process")
    wanted = [(name, frames) for frames in options.frames for name in WITH_MEMORY if (name, frames) in able]

    def measure(key: tuple[str, int]) -> dict[str, Any]:
        name, frames = key
        size = options.size(_SCAN, frames)
        about = {"measured": "memory", "subject": _SCAN, **asdict(size), "contender": name, "mode": "train"}
        try:
            # Spawned, because a forked process starts with the memory of this process.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                peak_bytes = process.submit(peak, _SCAN, name, size, options.peers).result()
        except Exception as error:  # such as a process that the system killed for its memory
            return about | {"outcome": "failed", "reason": first_line(error)}
        return about | {"outcome": "ok", "peak_bytes": peak_bytes}

    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(measure, wanted)


def _identity(implementation: Implementation) -> dict[str, str]:
    return {"contender": implementation.name, "role": implementation.role, "origin": implementation.origin}


def _seconds(step: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(times):
        step()
    return (clock() - start) / times


def _named(computed: tuple[Outputs, Outputs]) -> dict[str, torch.Tensor]:
    """Outputs and gradients by name."""
    kinds = zip(("output", "gradient"), computed, strict=True)
    return {f"{kind} {index}": tensor for kind, tensors in kinds for index, tensor in enumerate(tensors)}


def _own_reason(error: BackendError, backend: str) -> str:
    """The line of a backend in the message of a BackendError."""
    own = [line.partition(":")[2].strip() for line in str(error).splitlines() if line.startswith(f"  {backend}:")]
    return own[0] if own else str(error).splitlines()[0]


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
