"""`zoo bench --suite kernels`: compares every backend with its definition, and times it beside peers."""

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
from temporal_zoo._support.arithmetic import set_arithmetic
from temporal_zoo._support.environment import environment
from temporal_zoo._support.record import Session
from temporal_zoo.ops import BackendError
from temporal_zoo.ops.agreement import compare

from . import peers
from .contenders import PLAIN, Contender, Work, ours
from .problems import SUBJECTS, Outputs, Size, defined

Talk = Callable[[str], object]
Mode = Literal["forward", "train"]

# Only backends that may be linear in frames are also measured at this length, for their time per frame.
LONG, FLAT = 7200, ("cpu", "torch")
# Whose peak memory is measured: ours, and the two scans that publications and packages fall back to.
WEIGHED = ("cpu", "torch", "mamba_ssm selective_scan_ref", "mamba.py pscan")
# A turn shorter than this is repeated within it; beyond SLOW_S there are THREE turns, beyond ONCE_S a single one.
TURN_S, SLOW_S, ONCE_S = 0.05, 2.0, 10.0
_FEW = 3
_SCAN = "selective_scan"
# Rows of a check times its frames; but at least one row, and at most two.
_GATE_FRAMES = 2048


@dataclass(frozen=True)
class Plan:
    """What a run of the suite measures."""

    frames: tuple[int, ...]
    repetitions: int = 5
    peers: Path | None = None
    subjects: tuple[str, ...] = tuple(SUBJECTS)
    long: int | None = LONG
    width: int = 128
    state: int = 16
    total_frames: int | None = None

    def size(self, subject: str, frames: int) -> Size:
        """The size of a measurement: the same number of frames in all, whatever the number per row."""
        total = self.total_frames or SUBJECTS[subject].total_frames
        return Size(max(1, round(total / frames)), frames, self.width, self.state)

    def comparisons(self) -> Iterator[tuple[str, int, list[Contender]]]:
        """Subject, frames and who takes part."""
        for subject in self.subjects:
            here = participants(subject, self.peers)
            yield from ((subject, frames, here) for frames in self.frames)
            if subject == _SCAN and self.long and self.long not in self.frames:
                yield subject, self.long, [each for each in here if each.role == "ours" and each.name in FLAT]


def participants(subject: str, folder: Path | None) -> list[Contender]:
    """All that compute a subject or are its yardstick: our backends first, in the order that `auto` tries.

    Args:
        folder: sources of peers that cannot be installed, or None.
    """
    return [*ours(subject).values(), *peers.of(subject, folder), *PLAIN.get(subject, ())]


def run(plan: Plan, record: Path, command: str, talk: Talk) -> list[dict[str, Any]]:
    """Measures a plan; appends a line "suite" and one per measurement to `record`, and returns the latter.

    Raises:
        PeersError: a folder of peers that cannot be used; before anything is measured.
        OSError: the record cannot be written; likewise.
    """
    digests = peers.check(plan.peers) if plan.peers else {}
    set_arithmetic()
    session = Session(record, environment())
    about = {name: value for name, value in asdict(plan).items() if name != "peers"}
    session.write("suite", {"suite": "kernels", "command": command, "plan": about, "peers": digests, "load": _load()})
    written: list[dict[str, Any]] = []

    def write(fields: dict[str, Any]) -> None:
        session.write("kernel", fields)
        written.append(fields)

    with threads(1):
        for subject, frames, here in plan.comparisons():
            talk(f"{SUBJECTS[subject].title}, {frames} frames")
            for fields in _compare(plan, subject, frames, here, talk):
                write(fields)
    able = {(each["contender"], each["frames"]) for each in written
            if each["subject"] == _SCAN and each["outcome"] == "ok"}  # fmt: skip
    for measured in (_threads, _memory):
        for fields in measured(plan, able, talk):
            write(fields)
    return written


def _compare(plan: Plan, subject: str, frames: int, here: Sequence[Contender], talk: Talk) -> Iterator[dict[str, Any]]:
    size = plan.size(subject, frames)
    about = {"measured": "time", "subject": subject, **asdict(size)}
    gates = {each.name: gate(each, size) for each in here}
    for each in here:
        if gates[each.name]["outcome"] != "ok":
            yield about | _who(each) | {"mode": None} | gates[each.name]
    able = [each for each in here if gates[each.name]["outcome"] == "ok"]
    modes: tuple[Mode, ...] = ("forward", "train")
    for mode in modes:
        steps = {each.name: getattr(Work(each, size), mode) for each in able}
        turns, failures = interleaved(steps, plan.repetitions, time.process_time)
        for each in able:
            if failure := failures.get(each.name):
                yield about | _who(each) | {"mode": mode, "outcome": "failed", "reason": failure, "error": None}
                continue
            seconds = turns[each.name]
            talk(f"  {mode} {each.name}: {1000 * sorted(seconds)[len(seconds) // 2]:.4g} ms")
            yield about | _who(each) | {"mode": mode, **gates[each.name], "seconds": seconds}


def gate(contender: Contender, size: Size) -> dict[str, Any]:
    """Outcome of the check that comes before any clock: "ok", "missing", "unsupported", "disagrees" or "failed".

    Values and gradients of a contender, on few rows of the same width and frames, against the float64 definition.
    """
    if contender.run is None:
        return {"outcome": "missing", "reason": contender.absent, "error": None}
    few = Size(min(2, max(1, _GATE_FRAMES // size.frames)), size.frames, size.width, size.state)
    try:
        found = Work(contender, few).checked()
    except BackendError as error:
        return {"outcome": "unsupported", "reason": _own_reason(error, contender.name), "error": None}
    except Exception as error:
        return {"outcome": "failed", "reason": _told(error), "error": None}
    result = compare(_named(found), _named(defined(contender.subject, few)), torch.float32)
    if not result.agrees:
        off = result.error
        reason = f"off by {off:.1e} from the reference in float64; {result.tolerance:g} is allowed"
        return {"outcome": "disagrees", "reason": reason, "error": off if math.isfinite(off) else None}
    return {"outcome": "ok", "reason": "", "error": result.error}


def interleaved(
    steps: Mapping[str, Callable[[], object]], repetitions: int, clock: Callable[[], float]
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of one step per turn, and why some raised; all take their turns one after the other, round by round.

    A turn of a fast step is several of them.  The first run of each warms up and does not count, except of slow ones,
    which take fewer turns: there it would cost more than it changes.
    """
    turns, repeats, seconds, failures = {}, {}, {}, {}
    for name, step in steps.items():
        try:
            first = _seconds(step, 1, clock)
        except Exception as error:  # too much memory, say: a result of one, and no end for the others
            failures[name] = _told(error)
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


def peak(subject: str, name: str, size: Size, folder: Path | None) -> int:
    """Bytes of a forward and backward pass above its inputs; to be called in a process of its own."""
    contender = next(each for each in participants(subject, folder) if each.name == name)
    with threads(1):
        # Libraries and thread pools are there after the first, small, run.
        Work(contender, replace(size, rows=1, frames=min(size.frames, 16))).train()
        before, most = host_memory.peak_resident(Work(contender, size).train)
    return most - before


def _threads(plan: Plan, able: set[tuple[str, int]], talk: Talk) -> Iterator[dict[str, Any]]:
    """The C++ scan in one thread and in two, on the clock on the wall."""
    modes: tuple[Mode, ...] = ("forward", "train")
    for frames, mode in itertools.product(plan.frames, modes):
        if ("cpu", frames) not in able:
            continue
        size = plan.size(_SCAN, frames)
        about = {"measured": "threads", "subject": _SCAN, **asdict(size), "contender": "cpu", "mode": mode}
        if (cores := environment()["machine"]["usable_cores"]) < 2:
            yield about | {"outcome": "unsupported", "reason": f"this process may use {cores} core only"}
            continue
        step = getattr(Work(ours(_SCAN)["cpu"], size), mode)
        steps = {str(number): functools.partial(_in_threads, number, step) for number in (1, 2)}
        taken, _ = interleaved(steps, plan.repetitions, time.perf_counter)
        talk(f"cpu backend in one thread and in two, {mode}, {frames} frames")
        for number, seconds in taken.items():
            yield about | {"outcome": "ok", "threads": int(number), "wall_seconds": seconds}


def _in_threads(number: int, step: Callable[[], object]) -> None:
    with threads(number):
        step()


def _memory(plan: Plan, able: set[tuple[str, int]], talk: Talk) -> Iterator[dict[str, Any]]:
    """Peak memory, each in a fresh process; two at a time, since no clock runs."""
    talk("peak memory, in processes of their own")
    wanted = [(name, frames) for frames in plan.frames for name in WEIGHED if (name, frames) in able]

    def weigh(place: tuple[str, int]) -> dict[str, Any]:
        name, frames = place
        size = plan.size(_SCAN, frames)
        about = {"measured": "memory", "subject": _SCAN, **asdict(size), "contender": name, "mode": "train"}
        try:
            # Spawned, not forked: a copy of this process would begin with its memory.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                found = process.submit(peak, _SCAN, name, size, plan.peers).result()
        except Exception as error:  # a process that was killed for its memory is one of them
            return about | {"outcome": "failed", "reason": _told(error)}
        return about | {"outcome": "ok", "peak_bytes": found}

    with ThreadPoolExecutor(2) as two:
        yield from two.map(weigh, wanted)


def _who(contender: Contender) -> dict[str, str]:
    return {"contender": contender.name, "role": contender.role, "origin": contender.origin}


def _seconds(step: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(times):
        step()
    return (clock() - start) / times


def _named(computed: tuple[Outputs, Outputs]) -> dict[str, torch.Tensor]:
    """Outputs and gradients by name."""
    kinds = zip(("output", "gradient"), computed, strict=True)
    return {f"{kind} {index}": tensor for kind, tensors in kinds for index, tensor in enumerate(tensors)}


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _own_reason(error: BackendError, backend: str) -> str:
    """The line of a backend in the table that a BackendError holds."""
    own = [line.partition(":")[2].strip() for line in str(error).splitlines() if line.startswith(f"  {backend}:")]
    return own[0] if own else str(error).splitlines()[0]


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
