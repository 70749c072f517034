"""Writes the records of GPU runs as a page in Markdown.  Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from temporal_zoo._support import markdown
from temporal_zoo._support.record import RecordError, read
from temporal_zoo._support.units import number

from .cases import DTYPES, key
from .results import ANSWERS, KINDS, GpuRecord, identity

_GIB = 2**30
_MODES = {"forward": "forward", "train": "with backward"}
_OUTCOMES = {"out_of_memory": "out of memory", "too_large": "does not fit", "unsupported": "-",
             "timed_out": "timed out", "cut_off": "not finished", "disagrees": "disagrees, not timed"}  # fmt: skip
Records = Sequence[GpuRecord]


def page(path: Path) -> str:
    """The page of a file of records: one part for each device, with the records of the sources that ran last.

    Raises:
        RecordError: the file has no measurement.
    """
    reading = read(path)
    # Device -> identity of a run -> its records; the identity that ran last comes last.
    by_device: dict[str, dict[Any, list[GpuRecord]]] = {}
    environments: dict[str, Mapping[str, Any]] = {}
    for record in reading.records:
        if record["kind"] in KINDS:
            environment = reading.environments[record["environment"]]
            same = identity(environment, "cpu" if record["device"] == "cpu" else "cuda")
            by_identity = by_device.setdefault(record["device"], {})
            by_identity[same] = [*by_identity.pop(same, []), record]
            environments[record["device"]] = environment
    if not by_device:
        raise RecordError(f"{path} has no measurement; run `python -m bench.gpu quarter` first")
    parts = ["# On a GPU", f"From `{path.name}`, to which `python -m bench.gpu quarter` appends."]
    for device, by_identity in by_device.items():
        last = list(by_identity.values())[-1]
        parts += _device(device, environments[device], list({_key(record): record for record in last}.values()))
    return "\n\n".join(parts) + "\n"


def _key(record: GpuRecord) -> str:
    return key(record["kind"], record["case"])


def _device(device: str, environment: Mapping[str, Any], records: Records) -> Iterator[str]:
    software, code = environment["software"], environment["code"]
    commit = f"commit {code['commit'][:12]}" if code["commit"] else f"sources {code['sources']}"
    yield f"## {device}"
    yield (
        f"Python {software['python']}, torch {software['torch']}, Triton {software['triton'] or 'missing'}, CUDA "
        f"{software['cuda'] or 'none'}, cuDNN {software['cudnn'] or 'none'}; temporal_zoo {code['version']}, {commit}"
        f"{' with changes' if code['dirty'] else ''}. TF32 is {_tf32(environment)}. {len(records)} cases, "
        f"{sum(record['outcome'] in ANSWERS for record in records)} of them with an answer."
    )
    writers = {"agreement": _agreement, "kernels": _kernels, "training_step": _training, "sampling_step": _sampling}
    for kind, write in writers.items():
        if of_kind := [record for record in records if record["kind"] == kind]:
            yield from write(of_kind)
    if faults := [record for record in records if record["outcome"] not in ANSWERS]:
        yield "### Without an answer"
        yield "\n".join(map(_fault, faults))


def _tf32(environment: Mapping[str, Any]) -> str:
    """TF32 in matrix products and convolutions of float32 tensors."""
    settings = environment.get("arithmetic", {})
    states = {True: "on", False: "off"}
    products, convolutions = (states.get(settings.get(f"tf32_{name}"), "unknown") for name in ("matmul", "cudnn"))
    return products if products == convolutions else f"{products} in products and {convolutions} in convolutions"


def _agreement(records: Records) -> Iterator[str]:
    frames = [shape[1] for shape in records[0]["case"]["shapes"]]
    tolerances = {record["dtype"]: record["tolerance"] for record in records if "tolerance" in record}
    yield "### Agreement with the reference"
    yield (
        "Largest difference from the float64 reference in any output or gradient, relative to that tensor, over rows "
        f"of {', '.join(map(str, frames))} frames, with and without padding. The tolerance is "
        f"{' and '.join(f'{tolerance:g} in {dtype}' for dtype, tolerance in tolerances.items())}."
    )
    cells = {(*_backend(record), record["case"]["dtype"]): _error(record) for record in records}
    names = dict.fromkeys(map(_backend, records))
    rows = [(*name, *(cells.get((*name, dtype), "") for dtype in DTYPES)) for name in names]
    yield markdown.table(("op", "backend", *DTYPES), sorted(row for row in rows if set(row[2:]) != {"-"}))
    refused: dict[str, dict[str, None]] = {}
    for record in records:
        if record["outcome"] == "unsupported":
            refused.setdefault(record["reason"], {})["/".join(_backend(record))] = None
    for reason, backends in refused.items():
        yield f"Cannot run here: {', '.join(backends)}: {reason.splitlines()[0]}."


def _backend(record: GpuRecord) -> tuple[str, str]:
    return record["case"]["op"], record["case"]["backend"]


def _error(record: GpuRecord) -> str:
    if record["outcome"] != "ok":
        return _outcome(record)
    error = "not finite" if record["error"] is None else f"{record['error']:.1e}"
    return error if record["agrees"] else f"**{error}: disagrees**, {record['worst']}"


def _kernels(records: Records) -> Iterator[str]:
    limits = next((record["ceilings"] for record in records if "ceilings" in record), None)
    measured = ""
    if limits:
        exps = f", {limits['exps_per_s'] / 1e12:.2g} T exponentials per second" if limits["exps_per_s"] else ""
        measured = f" Measured on this device: {limits['copy_bytes_per_s'] / 1e12:.2f} TB/s copied{exps}."
    yield "### Kernels"
    yield (
        "Median milliseconds at rows x frames x channels. The number in brackets is the time divided by the larger of "
        "two floors: the time to move the bytes at the speed of a copy, and the time to compute the exponentials. "
        "Implementations take turns, and the L2 cache is overwritten before every turn. ± is half of the "
        f"10 to 90 % range.{measured}"
    )
    for op in dict.fromkeys(record["case"]["op"] for record in records):
        for dtype in DTYPES:
            selected = [record for record in records if (record["case"]["op"], record["case"]["dtype"]) == (op, dtype)]
            if any(record["outcome"] == "ok" for record in selected):
                yield from _kernel_table(op, dtype, selected)


def _kernel_table(op: str, dtype: str, records: Records) -> Iterator[str]:
    sizes: dict[str, list[GpuRecord]] = {}
    for record in records:
        case = record["case"]
        sizes.setdefault(f"{case['rows']} x {case['frames']} x {case['channels']}", []).append(record)
    places = [(of_size, mode) for of_size in sizes.values() for mode in _MODES]
    rows = [
        (f"floor: {words}", *(_floor(of_size, mode, which) for of_size, mode in places))
        for which, words in (("bytes", "bytes"), ("exps", "exponentials"))
    ]
    for name in dict.fromkeys(name for record in records for name in record.get("contenders", ())):
        cells = [_kernel_time(of_size, name, mode) for of_size, mode in places]
        if set(cells) != {"-"}:
            rows.append((name, *cells))
    yield f"**{op}, {dtype}**"
    yield markdown.table(("", *(f"{size}, {words}" for size in sizes for words in _MODES.values())), rows)
    reasons = {name: answer["reason"] for record in records for name, answer in record.get("contenders", {}).items()
               if answer["outcome"] not in ("ok", "unsupported")}  # fmt: skip
    yield from (f"{name}: {reason}" for name, reason in reasons.items())


def _floor(records: Records, mode: str, which: str) -> str:
    values = [record["floors_ms"][mode][f"{which}_ms"] for record in records if "floors_ms" in record]
    return number(values[0]) if values and values[0] is not None else "-"


def _kernel_time(records: Records, name: str, mode: str) -> str:
    record = next((record for record in records if name in record.get("contenders", {})), None)
    if record is None:
        return "-"
    answer = record["contenders"][name]
    if (times := answer.get(f"{mode}_ms")) is None:
        return _outcome(answer)
    floors = (record["floors_ms"][mode][f"{which}_ms"] for which in ("bytes", "exps"))
    floor = max(value for value in floors if value is not None)
    return f"{_time(times)} ({number(times['p50'] / floor)}x)"


def _training(records: Records) -> Iterator[str]:
    setup = records[0]["case"]["setup"]
    yield "### A training step of the paper's network"
    yield (
        f"`{setup['preset']}` with other mixers, {setup['clips']} clip of {setup['size']} x {setup['size']} pixels, "
        "AdamW and the moving average of the weights; bfloat16 by autocast."
    )
    cells = {"milliseconds of a step": _milliseconds, "peak of memory in GiB, measured / planned": _peaks}
    yield from _by_frames(records, cells)


def _sampling(records: Records) -> Iterator[str]:
    yield "### A sampling step"
    yield "One pass of the denoiser, and the update of the clip."
    yield from _by_frames(records, {"milliseconds": _milliseconds})


def _by_frames(records: Records, cells: Mapping[str, Callable[[GpuRecord], str]]) -> Iterator[str]:
    """Tables with one column for each number of frames: for each dtype, and each kind of cell."""
    for dtype in DTYPES:
        selected = [record for record in records if record["case"]["setup"]["dtype"] == dtype]
        lengths = sorted({_frames(record) for record in selected})
        for title, cell in cells.items() if selected else ():
            texts = {(record["case"]["row"], _frames(record)): cell(record) for record in selected}
            rows = [(name, *(texts.get((name, frames), "") for frames in lengths))
                    for name in dict.fromkeys(name for name, _ in texts)]  # fmt: skip
            yield f"**{dtype}: {title}**"
            yield markdown.table(("", *(f"{frames:,} frames" for frames in lengths)), rows)


def _frames(record: GpuRecord) -> int:
    return record["case"]["setup"]["frames"]


def _milliseconds(record: GpuRecord) -> str:
    return _time(record["time_ms"]) if record["outcome"] == "ok" else _outcome(record)


def _time(times: Mapping[str, float]) -> str:
    return f"{number(times['p50'])} ±{50 * (times['p90'] - times['p10']) / times['p50']:.0f} %"


def _peaks(record: GpuRecord) -> str:
    plan = (record.get("planned") or {}).get("peak")
    planned = "?" if plan is None else number(plan / _GIB)
    if record["outcome"] != "ok" or not record["memory_bytes"]:
        return f"{_outcome(record) if record['outcome'] != 'ok' else '?'} / {planned}"
    peak = record["memory_bytes"]["peak"]
    comparable = plan is not None and record["memory_bytes"]["counted"] == "peak allocated"
    error = f" ({100 * (plan / peak - 1):+.1f} %)" if comparable else ""
    return f"{number(peak / _GIB)} / {planned}{error}"


def _outcome(answer: Mapping[str, Any]) -> str:
    return _OUTCOMES.get(answer["outcome"], answer["outcome"])


def _fault(record: GpuRecord) -> str:
    case = [str(value) for name, value in record["case"].items() if name not in ("shapes", "setup")]
    during = f", during {record['during']}" if record.get("during") else ""
    return f"* {record['kind']} {' '.join(case)}: {_outcome(record)}{during}. {record['reason']}"
