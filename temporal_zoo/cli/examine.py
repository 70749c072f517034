"""What works on this machine, and exactly why the rest does not.

Whatever may crash runs in a process of its own: a package built for another torch can end the interpreter, and the
report must outlive that.  This module imports no torch.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from temporal_zoo._support.environment import code, machine
from temporal_zoo._support.packages import OPTIONAL, Package, install_command, not_tried

SECONDS_PER_PROBE = 180
# All trial runs together; the first ones may compile a kernel.
SECONDS_FOR_TRIALS = 600

_ENVIRONMENT = """
import json
from temporal_zoo._support.environment import environment
print(json.dumps(environment()))
"""

_TRIALS = """
import json
from temporal_zoo.ops.agreement import trials, try_backend
for key in trials():
    if list(key) not in skip:
        print(json.dumps({"key": key}), flush=True)
        try:
            print(json.dumps({"result": try_backend(*key)}), flush=True)
        except Exception as error:
            print(json.dumps({"failure": f"{type(error).__name__}: {error}"}), flush=True)
"""

_PROBE = """
import json
state, reason = "broken", None
try:
    import {module}
    state = "unusable"
    {probe}
    state = "works"
except BaseException as error:
    reason = type(error).__name__ + ": " + str(error).strip()
print(json.dumps({{"state": state, "reason": reason}}))
"""


def examine() -> dict[str, Any]:
    """The whole report as plain values: `environment`, `packages`, `backends`, `broken` and `not_tried`."""
    environment = _environment()
    backends = _backends()
    cuda = bool(environment.get("devices"))
    software = environment.get("software", {})
    torch_version = software.get("torch")
    with ThreadPoolExecutor() as pool:
        packages = list(pool.map(lambda package: _package(package, backends, cuda, torch_version), OPTIONAL))
    broken = [f"torch: {environment['error']}"] if "error" in environment else []
    broken += [f"{row['package']}: {row['reason']}" for row in packages if row["state"] == "broken"]
    broken += [
        f"{row['op']}/{row['backend']} on {row['device']}: {row['failure']}" for row in backends if row["failure"]
    ]
    report = {"environment": environment, "packages": packages, "backends": backends, "broken": broken}
    return report | {"not_tried": not_tried(software)}


def _environment() -> dict[str, Any]:
    done = _python(_ENVIRONMENT, SECONDS_PER_PROBE)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"machine": machine(), "code": code(), "error": _ending(done)}


def _package(wanted: Package, backends: list[dict[str, Any]], cuda: bool, torch_version: str | None) -> dict[str, Any]:
    """One row: `state` is works, missing, broken (installed, but fails) or unusable (installed, but not for here)."""
    command = install_command(wanted, torch_version=torch_version, cuda=cuda)
    state, reason = _probe(wanted) if _installed(wanted.module) else ("missing", "not installed")
    fix: str | None = None
    if state == "missing":
        fix = command
    elif state == "broken":
        fix = command.replace("pip install", "pip install --force-reinstall", 1)
    own = [row for row in backends if row["package"] == wanted.module]
    used = sorted({f"{row['op']}/{row['backend']}" for row in own if row["runs"]})
    if state == "works" and own and not used:
        state, reason = "unusable", "; ".join(reason for row in own for reason in row["reasons"] or [row["failure"]])
    if wanted.needs_cuda and not cuda and state in ("missing", "unusable"):
        reason, fix = f"{reason}; it needs a CUDA device, and there is none here", None
    purpose = {"purpose": wanted.purpose, "backends": used}
    return {"package": wanted.module, "state": state, "reason": reason, "fix": fix, **purpose}


def _probe(wanted: Package) -> tuple[str, str | None]:
    done = _python(_PROBE.format(module=wanted.module, probe=wanted.probe), SECONDS_PER_PROBE)
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        return answer["state"], answer["reason"]
    except (IndexError, ValueError, KeyError, TypeError):
        return "broken", _ending(done)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a module without a spec was put there by hand; the probe will tell
        return True


def _backends() -> list[dict[str, Any]]:
    """One row per op, backend and device; a backend that ends its process is noted, and the rest run without it."""
    rows: list[dict[str, Any]] = []
    while True:
        skip = [[row["op"], row["backend"], row["device"]] for row in rows]
        done = _python(f"skip = {skip!r}\n{_TRIALS}", SECONDS_FOR_TRIALS)
        key: list[str] | None = None
        for message in map(_message, done.stdout.splitlines()):
            if "key" in message:
                key = message["key"]
            elif key is not None and message.keys() & {"result", "failure"}:
                rows.append(_row(key, message.get("result"), message.get("failure")))
                key = None
        if done.returncode == 0:
            break
        if key is None:
            rows.append(_row(["all ops", "all backends", "any device"], None, _ending(done)))
            break
        rows.append(_row(key, None, _ending(done)))
    for row in rows:
        first = next((r for r in rows if (r["op"], r["device"]) == (row["op"], row["device"]) and r["runs"]), None)
        row["auto"] = row is first
    return rows


def _row(key: list[str], result: dict[str, Any] | None, failure: str | None) -> dict[str, Any]:
    nothing = dict.fromkeys(("dtype", "padded", "error", "agrees", "package", "confirmed"))
    result = {"reasons": [], **nothing} | (result or {})
    if result["agrees"] is False:
        failure = f"differs from the reference by {result['error']:.1e}"
    op, backend, device = key
    runs = result["dtype"] is not None
    return {"op": op, "backend": backend, "device": device, "runs": runs, "failure": failure, **result}


def _message(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:  # packages may print while they are imported
        return {}
    return message if isinstance(message, dict) else {}


def _python(source: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Runs source in a fresh interpreter that looks for modules exactly where this one does."""
    source = f"import sys; sys.path[:] = {sys.path!r}\n{source}"
    try:
        return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
        return subprocess.CompletedProcess(late.cmd, 1, said, f"no answer within {seconds:.0f} s")


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    """How a child ended: the signal that killed it, or the last line that it wrote."""
    if done.returncode < 0:
        return f"crashed ({signal.Signals(-done.returncode).name})"
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return said[-1] if said else f"ended with exit code {done.returncode}"
