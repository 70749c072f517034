"""The records of a quarter as a page in Markdown.  Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from temporal_zoo._support.record import RecordError, read
from temporal_zoo._support.units import number

from .cases import DTYPES, key
from .results import ANSWERS, KINDS, Line, identity

_GIB = 2**30
_MODES = {"forward": "forward", "train": "with backward"}
_WORDS = {"out_of_memory": "out of memory", "too_large": "does not fit", "unsupported": "-", "timed_out": "timed out",
          "cut_off": "not finished", "disagrees": "disagrees, not timed"}  # fmt: skip


def page(records: Path) -> str:
    """The page: one part for each device, of the sources that it ran last.

    Raises:
        RecordError: the file holds no measurement.
    """
    reading = read(records)
    by_device: dict[str, dict[Any, list[Line]]] = {}
    environments: dict[str, Mapping[str, Any]] = {}
    for line in reading.records:
        if line["kind"] in KINDS:
            environment = reading.environments[line["environment"]]
            same = identity(environment, "cpu" if line["device"] == "cpu" else "cuda")
            # Moved to the end, so that the last one is the one that ran last.
            by_identity = by_device.setdefault(line["device"], {})
            by_identity[same] = [*by_identity.pop(same, []), line]
            environments[line["device"]] = environment
    if not by_device:
        raise RecordError(f"{records} holds no measurement; `python -m bench.gpu quarter` makes some")
    parts = ["# On a GPU", "", f"Drawn from `{records.name}`, which `python -m bench.gpu quarter` appends to."]
    for device, found in by_device.items():
        lines = list({key(line["kind"], line["case"]): line for line in list(found.values())[-1]}.values())
        parts += ["", *_device(device, environments[device], lines)]
    return "\n".join(parts) + "\n"


def _device(device: str, environment: Mapping[str, Any], lines: Sequence[Line]) -> Iterator[str]:
    software, code = environment["software"], environment["code"]
    commit = f"commit {code['commit'][:12]}" if code["commit"] else f"sources {code['sources']}"
    yield f"## {device}"
    yield ""
    yield (
        f"Python {software['python']}, torch {software['torch']}, Triton {software['triton'] or 'missing'}, CUDA "
        f"{software['cuda'] or 'none'}, cuDNN {software['cudnn'] or 'none'}; temporal_zoo {code['version']}, {commit}"
        f"{' with changes' if code['dirty'] else ''}. TF32 is {_tf32(environment)}. {len(lines)} cases, "
        f"{sum(line['outcome'] in ANSWERS for line in lines)} of them with an answer."
    )
    of = {kind: [line for line in lines if line["kind"] == kind] for kind in KINDS}
    for kind, write in (("agreement", _agreement), ("kernels", _kernels), ("training_step", _training),
                        ("sampling_step", _sampling)):  # fmt: skip
        if of[kind]:
            yield ""
            yield from write(of[kind])
    yield from _faults(lines)


def _tf32(environment: Mapping[str, Any]) -> str:
    """Of matrix products and convolutions of float32 tensors."""
    settings = environment.get("arithmetic", {})
    states = {True: "on", False: "off"}
    products, convolutions = (states.get(settings.get(f"tf32_{name}"), "unknown") for name in ("matmul", "cudnn"))
    return products if products == convolutions else f"{products} in products and {convolutions} in convolutions"


def _agreement(lines: Sequence[Line]) -> Iterator[str]:
    frames = [shape[1] for shape in lines[0]["case"]["shapes"]]
    yield "### Agreement with the reference"
    yield ""
    yield (
        "Largest difference from the float64 reference in any output or gradient, relative to that tensor, over rows "
        f"of {', '.join(map(str, frames))} frames, with padding and without. Allowed are "
        f"{' and '.join(f'{most:g} in {dtype}' for dtype, most in _tolerances(lines).items())}."
    )
    yield ""
    cells = {(line["case"]["op"], line["case"]["backend"], line["case"]["dtype"]): _error(line) for line in lines}
    names = dict.fromkeys((op, backend) for op, backend, _ in cells)
    rows = [(op, backend, *(cells.get((op, backend, dtype), "") for dtype in DTYPES)) for op, backend in names]
    yield from _table(("op", "backend", *DTYPES), sorted(row for row in rows if set(row[2:]) != {"-"}))
    refused: dict[str, dict[str, None]] = {}
    for line in lines:
        if line["outcome"] == "unsupported":
            refused.setdefault(line["reason"], {})[f"{line['case']['op']}/{line['case']['backend']}"] = None
    for reason, several in refused.items():
        yield ""
        yield f"Cannot run here: {', '.join(several)}: {reason.splitlines()[0]}."


def _tolerances(lines: Sequence[Line]) -> dict[str, float]:
    return {line["dtype"]: line["tolerance"] for line in lines if "tolerance" in line}


def _error(line: Line) -> str:
    if line["outcome"] != "ok":
        return _ended(line)
    told = "not finite" if line["error"] is None else f"{line['error']:.1e}"
    return told if line["agrees"] else f"**{told}: disagrees**, {line['worst']}"


def _kernels(lines: Sequence[Line]) -> Iterator[str]:
    limits = next((line["ceilings"] for line in lines if "ceilings" in line), None)
    yield "### Kernels"
    yield ""
    measured = ""
    if limits:
        exps = f", {limits['exps_per_s'] / 1e12:.2g} T exponentials per second" if limits["exps_per_s"] else ""
        measured = f" Measured here: {limits['copy_bytes_per_s'] / 1e12:.2f} TB/s copied{exps}."
    yield (
        "Median milliseconds at rows x frames x channels, in brackets how many times the larger of two floors: the "
        "bytes that must move at the speed of a copy, and the exponentials that must be computed. Contenders take "
        f"turns; the L2 cache is overwritten before every round. ± is half of the 10 to 90 % range.{measured}"
    )
    for op in dict.fromkeys(line["case"]["op"] for line in lines):
        for dtype in DTYPES:
            here = [line for line in lines if (line["case"]["op"], line["case"]["dtype"]) == (op, dtype)]
            if any(line["outcome"] == "ok" for line in here):
                yield ""
                yield from _kernel_table(op, dtype, here)


def _kernel_table(op: str, dtype: str, lines: Sequence[Line]) -> Iterator[str]:
    sizes: dict[str, list[Line]] = {}
    for line in lines:
        case = line["case"]
        sizes.setdefault(f"{case['rows']} x {case['frames']} x {case['channels']}", []).append(line)
    names = dict.fromkeys(name for line in lines for name in line.get("contenders", ()))
    rows = []
    for which in ("bytes", "exps"):
        cells = [_floor(here, mode, which) for here in sizes.values() for mode in _MODES]
        rows.append((f"floor: {'bytes' if which == 'bytes' else 'exponentials'}", *cells))
    for name in names:
        cells = [_contender(here, name, mode) for here in sizes.values() for mode in _MODES]
        if set(cells) != {"-"}:
            rows.append((name, *cells))
    columns = [f"{size}, {words}" for size in sizes for words in _MODES.values()]
    yield f"**{op}, {dtype}**"
    yield ""
    yield from _table(("", *columns), rows)
    told = {each: answer["reason"] for line in lines for each, answer in line.get("contenders", {}).items()
            if answer["outcome"] not in ("ok", "unsupported")}  # fmt: skip
    for name, reason in told.items():
        yield ""
        yield f"{name}: {reason}"


def _floor(lines: Sequence[Line], mode: str, which: str) -> str:
    values = [line["floors_ms"][mode][f"{which}_ms"] for line in lines if "floors_ms" in line]
    return number(values[0]) if values and values[0] is not None else "-"


def _contender(lines: Sequence[Line], name: str, mode: str) -> str:
    for line in lines:
        answer = line.get("contenders", {}).get(name)
        if answer is None:
            continue
        if (times := answer.get(f"{mode}_ms")) is None:
            return _ended(answer)
        least = max(
            value for which in ("bytes", "exps") if (value := line["floors_ms"][mode][f"{which}_ms"]) is not None
        )
        spread = (times["p90"] - times["p10"]) / 2 / times["p50"]
        return f"{number(times['p50'])} ±{100 * spread:.0f} % ({number(times['p50'] / least)}x)"
    return "-"


def _training(lines: Sequence[Line]) -> Iterator[str]:
    setup = lines[0]["case"]["setup"]
    yield "### A training step of the paper's network"
    yield ""
    yield (
        f"`{setup['preset']}` with other mixers, {setup['clips']} clip of {setup['size']} x {setup['size']} pixels, "
        "AdamW and the moving average of the weights; bfloat16 by autocast."
    )
    for dtype in DTYPES:
        here = [line for line in lines if line["case"]["setup"]["dtype"] == dtype]
        if here:
            yield ""
            yield f"**{dtype}: milliseconds of a step**"
            yield ""
            yield from _by_frames(here, _milliseconds)
            yield ""
            yield f"**{dtype}: peak of memory in GiB, measured / planned**"
            yield ""
            yield from _by_frames(here, _peaks)


def _sampling(lines: Sequence[Line]) -> Iterator[str]:
    yield "### A sampling step"
    yield ""
    yield "One pass of the denoiser, and the way from its answer to the next clip. Milliseconds."
    for dtype in DTYPES:
        here = [line for line in lines if line["case"]["setup"]["dtype"] == dtype]
        if here:
            yield ""
            yield f"**{dtype}**"
            yield ""
            yield from _by_frames(here, _milliseconds)


def _by_frames(lines: Sequence[Line], cell: Any) -> Iterator[str]:
    frames = sorted({line["case"]["setup"]["frames"] for line in lines})
    cells = {(line["case"]["row"], line["case"]["setup"]["frames"]): cell(line) for line in lines}
    names = dict.fromkeys(line["case"]["row"] for line in lines)
    rows = [(name, *(cells.get((name, count), "") for count in frames)) for name in names]
    yield from _table(("", *(f"{count:,} frames" for count in frames)), rows)


def _milliseconds(line: Line) -> str:
    if line["outcome"] != "ok":
        return _ended(line)
    times = line["time_ms"]
    return f"{number(times['p50'])} ±{50 * (times['p90'] - times['p10']) / times['p50']:.0f} %"


def _peaks(line: Line) -> str:
    planned = (line.get("planned") or {}).get("peak")
    told = "?" if planned is None else number(planned / _GIB)
    if line["outcome"] != "ok" or not line["memory_bytes"]:
        return f"{_ended(line) if line['outcome'] != 'ok' else '?'} / {told}"
    peak = line["memory_bytes"]["peak"]
    comparable = planned is not None and line["memory_bytes"]["counted"] == "peak allocated"
    off = f" ({100 * (planned / peak - 1):+.1f} %)" if comparable else ""
    return f"{number(peak / _GIB)} / {told}{off}"


def _ended(line: Mapping[str, Any]) -> str:
    return _WORDS.get(line["outcome"], line["outcome"])


def _faults(lines: Iterable[Line]) -> Iterator[str]:
    faults = [line for line in lines if line["outcome"] not in ANSWERS]
    if faults:
        yield ""
        yield "### Without an answer"
        yield ""
    for line in faults:
        case = {name: value for name, value in line["case"].items() if name not in ("shapes", "setup")}
        during = f", during {line['during']}" if line.get("during") else ""
        yield f"* {line['kind']} {' '.join(map(str, case.values()))}: {_ended(line)}{during}. {line['reason']}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join('---' for _ in columns)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"
