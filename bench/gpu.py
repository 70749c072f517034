"""Everything that only a GPU can tell, in parts, into one folder of records: `nox -s gpu -- scaling paper`.

`parity`   the tests that need a GPU, file by file
`kernels`  every body of every op in the mixer that uses it
`paper`    `zoo bench --suite paper`
`scaling`  `zoo bench --suite scaling`
`plan`     `zoo plan --verify`: planned bytes beside measured ones

Without a name, all of them.  One call takes at most its minutes; exit code 3 says that there is more to do, and the
same call goes on from the records.  It runs from a checkout, with the interpreter that is there: `python -m bench.gpu`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from temporal_zoo.record import Session, read

from . import apart, suites
from .case import Case, expand
from .runs import RECORD
from .sweep import Sweep, Terms, beginning, summary

ROOT = Path(__file__).parent.parent
UNFINISHED = 3
# A case that takes longer on a GPU hangs; what is short leaves more of the minutes to the others.
_LIMIT_S = 90.0
_FEWEST_S = 30.0
# A mixer whose bodies of an op are all measured.
_USERS = {"attention": "flash", "causal_conv": "bimamba", "diagonal_ssm": "s4d", "selective_scan": "bimamba"}
_HOST_ONLY = ("cpu",)


@dataclass(frozen=True)
class Job:
    """What a part is told: where records go, which device, and until when by `time.monotonic`."""

    folder: Path
    device: str
    expected: str | None
    until: float

    @property
    def left_s(self) -> float:
        """Seconds until then."""
        return self.until - time.monotonic()


def bodies(device: str, dtype: str) -> list[Case]:
    """Every body that may run on a GPU, pinned in the mixer that uses it; those that cannot say so in their outcome."""
    from temporal_zoo.ops import ops

    return [
        case
        for op, mixer in _USERS.items()
        for case in expand(
            layers=mixer, lengths="16,256,1024", level="mixer", mode="train", total=2**18, device=device, dtype=dtype,
            backends=[f"{op}={','.join(body for body in ops()[op].bodies if body not in _HOST_ONLY)}"],
        )
    ]  # fmt: skip


def sweep(cases: Sequence[Case], job: Job) -> bool:
    """Measures what waits of some cases; returns whether all are done."""
    terms = Terms(repetitions=suites.ON_GPU, limit_s=_LIMIT_S, until=job.until)
    running = Sweep(cases, job.folder / RECORD, terms, job.expected)
    click.echo(beginning(running), err=True)
    for repetition, result in running.run():
        told = f"[{repetition}/{suites.ON_GPU}] {result.case}: {summary(result.outcome)}"
        click.echo(told.partition("\n")[0], err=True)
    return not running.waiting


def parity(job: Job) -> bool:
    """Runs the test files that have tests for a GPU, each once per environment; returns whether all are done."""
    (case, *_) = bodies(job.device, "float32")
    environment, _ = apart.examine([case], job.expected)
    session = Session(job.folder / RECORD, environment)
    known = {line["file"] for line in read(session.path).of("parity") if line["environment"] == environment["id"]}
    if not (files := sorted(Path("tests").rglob("test_*.py"))):
        raise click.UsageError("parity runs the tests of a checkout, and this folder holds none; begin in its root")
    for path in files:
        name = path.as_posix()
        if name in known or "mark.gpu" not in path.read_text(encoding="utf-8"):
            continue
        if job.left_s < _FEWEST_S:
            return False
        begun, whole = time.monotonic(), not known
        ended = _run(["-m", "pytest", "-q", "-m", "gpu", name], job.left_s)
        if ended is None and not whole:  # it may yet end, with all of the minutes for itself
            return False
        known.add(name)
        outcome, said = ended or ("timed_out", "no end within all of the minutes")
        fields = {"file": name, "outcome": outcome, "summary": said, "seconds": round(time.monotonic() - begun, 1)}
        session.write("parity", fields)
        click.echo(f"{name}: {said}", err=True)
    return True


def plan(job: Job) -> bool:
    """Measures what was planned; the command keeps its own record."""
    environment, _ = apart.examine(bodies(job.device, "float32")[:1], job.expected)
    place = environment["devices"][int(job.device.partition(":")[2] or 0)]
    words = ["plan", "--verify", "--gpu", known_as(**place), "--out", str(job.folder / "plan")]
    ended = _run(["-m", "temporal_zoo.cli", *words], job.left_s)
    click.echo(f"plan: {ended[1] if ended else 'the minutes are over'}", err=True)
    return ended is not None


def known_as(*, name: str, memory_bytes: int, **_: object) -> str:
    """What the planner calls a GPU: a name of its list, or else its bytes."""
    from .devices import GPUS, device

    like = [key for key in GPUS if key.partition("-")[0] in name.lower()]
    near = [key for key in like if abs(device(key).memory_bytes - memory_bytes) < memory_bytes / 10]
    return (near or [f"{memory_bytes / 2**30:.1f}GiB"])[0]


PARTS: dict[str, Callable[[Job], bool]] = {
    "parity": parity,
    "kernels": lambda job: sweep(bodies(job.device, "bfloat16"), job),
    "paper": lambda job: sweep(suites.paper(job.device, "float32"), job),
    "scaling": lambda job: sweep(suites.scaling(job.device, "bfloat16"), job),
    "plan": plan,
}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/gpu"), show_default=True,
              help="Folder of the records.")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(min=3), default=8.0, show_default=True, help="Of this call.")
@click.option("--device", default="cuda", show_default=True, help="cuda or cuda:N.")
@click.option("--expect-device", metavar="NAME", help="Stops on a device whose name has no NAME in it, such as A100.")
def gpu(parts: tuple[str, ...], out: Path, minutes: float, device: str, expect_device: str | None) -> None:
    """Runs PARTS, or all of them, and goes on where the records in OUT end.  `zoo report OUT` makes a page of them."""
    job = Job(out, device, expect_device, time.monotonic() + 60 * minutes)
    for name in parts or PARTS:
        click.echo(f"{name}: {job.left_s / 60:.1f} minutes left", err=True)
        try:
            done = PARTS[name](job)
        except apart.BenchError as error:
            raise click.ClickException(str(error)) from error
        if not done:
            click.echo(f"{name} is not finished; the same command goes on from here.", err=True)
            raise SystemExit(UNFINISHED)
    click.echo(f"All is done. Records: {out}", err=True)


def _run(words: list[str], seconds: float) -> tuple[str, str] | None:
    """Outcome and last line of a Python command, or None when it took longer."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=seconds,
                              env=os.environ | {"PYTHONPATH": paths})  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return ("ok" if done.returncode == 0 else "failed"), (said or ["no word"])[-1]


if __name__ == "__main__":
    gpu()
