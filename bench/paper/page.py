"""The page and the plot of `zoo reproduce`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.plan.devices import GIB
from temporal_zoo._support import markdown
from temporal_zoo._support.files import written_whole

from . import control, facts
from .reproduce import WITHIN, CountedMemory, Reproduction

_NAMES = {"attn": "attention", "bimamba": "Mamba, both directions", "mamba": "Mamba"}
_COLORS = {"attn": "C0", "bimamba": "C1", "mamba": "C2"}


def page(result: Reproduction, measured: Sequence[dict[str, Any]]) -> str:
    """The whole page in Markdown."""
    parts = {
        "Sizes": _sizes(result),
        "Memory of training": _memory(result),
        "Seconds for one sample": _seconds(measured),
        "The control": _control(result, measured),
        "Contradictions in the paper": (
            f"{number}. {text}" for number, text in enumerate(facts.CONTRADICTIONS, start=1)
        ),
    }
    lines = [
        f"# arXiv {facts.ARXIV}: sizes and memory recounted",
        "",
        f"`zoo reproduce {facts.ARXIV}` writes this page; it needs no GPU. Only tables that name a GPU contain",
        "measurements.",
        "",
    ]
    for title, part in parts.items():
        lines += [f"## {title}", "", *part, ""]
    return "\n".join(lines)


def plot(result: Reproduction, path: Path) -> None:
    """Draws predicted against printed memory; the diagonal is agreement, and the band is 10 %."""
    figure = Figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.subplots()
    ends = [25.0, 400.0]
    axes.fill_between(ends, [end * (1 - WITHIN) for end in ends], [end * (1 + WITHIN) for end in ends],
                      color="0.9", label="within 10 %")  # fmt: skip
    axes.plot(ends, ends, color="0.6", linewidth=1)
    for mixer, name in _NAMES.items():
        for fitted in (False, True):
            rows = [row for row in result.memory if row.mixer == mixer and (row.entry in facts.FITTED) == fitted]
            if rows:
                axes.plot([row.entry.memory_gb for row in rows], [row.predicted(result.constant) / GIB for row in rows],
                          "o", color=_COLORS[mixer], fillstyle="none" if fitted else "full", markersize=6,
                          label=f"{name}{', 64 frames (constant fitted here)' if fitted else ''}")  # fmt: skip
    for row in result.memory:
        if abs(row.error(result.constant)) > WITHIN:
            axes.annotate(f"{row.entry.size}, {row.entry.frames} frames", fontsize=8,
                          xy=(row.entry.memory_gb, row.predicted(result.constant) / GIB), xytext=(-6, 6),
                          textcoords="offset points", ha="right")  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_aspect("equal")
    axes.set_xlabel("printed in the paper, GB")
    axes.set_ylabel("predicted, GiB of eight GPUs")
    axes.set_title(f"Memory of training, arXiv {facts.ARXIV}", loc="left", fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    with written_whole(path) as file:
        figure.savefig(file, dpi=120, format="png")


def _sizes(result: Reproduction) -> Iterator[str]:
    yield (
        f"{sum(row.agrees for row in result.sizes)} of {len(result.sizes)} totals are equal to the unit. The code of "
        f"the paper counts parameters that it never trains: {facts.ROTARY_FREQUENCIES} rotary frequencies in models "
        f"with attention, and {facts.BIAS_BUCKETS} numbers per head in models with state space layers."
    )
    yield ""
    rows = [
        (row.size, row.mixer, f"{row.ours:,}", row.besides, f"{row.paper:,}", "yes" if row.agrees else "**no**")
        for row in result.sizes
    ]
    yield markdown.table(("printed", "mixer", "ours", "never trained", "official classes", "agrees"), rows, "llrrrl")


def _memory(result: Reproduction) -> Iterator[str]:
    constant = result.constant / GIB
    yield f"**How we read the column.** {facts.READING}"
    yield ""
    yield (
        "**What we count.** We count on the meta device, for one clip per GPU and for the backends that the paper ran: "
        "attention that stores its weights, and the scan of mamba_ssm between plain torch operations. The count is "
        "what torch's allocator reserves on each of eight GPUs for a training step without the optimizer, and on the "
        "first GPU also Adam's moments and the average of the weights. "
        f"**One constant, {constant:.2f} GiB per GPU**, stands for what we do not count: CUDA's context, workspaces of "
        "libraries, NCCL. It is the mean difference in the eight rows of Table 2 at 64 frames. All other rows are "
        "predictions."
    )
    yield ""
    others = [row for row in result.memory if row.entry not in facts.FITTED]
    close = sum(abs(row.error(result.constant)) <= WITHIN for row in others)
    yield (
        f"The prediction is within 10 % in {result.within} of {len(result.memory)} entries, and in {close} of the "
        f"{len(others)} entries that the constant was not fitted to."
    )
    yield ""
    columns = ("table", "frames", "model", "mixer", "printed, GB", "stored x 8", "counted", "predicted, GiB", "error")
    yield markdown.table(columns, [_entry(row, result.constant) for row in result.memory], "lrllrrrrr")
    yield ""
    yield "![predicted against printed](reproduce.png)"
    yield ""
    yield (
        "Stored bytes are those that the forward pass keeps for backward. The constant was fitted to the rows marked "
        "*. One difference between our network and the official code is known: our network stores less around its "
        "mixers, because its norms are single operations. Without mixers it stores 7.9 GiB for a clip of "
        f"{max(facts.LENGTHS)} frames at width 64, and the official code stores {facts.STORED_GIB['identity']} GiB."
    )


def _entry(row: CountedMemory, constant: float) -> tuple[object, ...]:
    entry, error = row.entry, row.error(constant)
    mark = "*" if entry in facts.FITTED else ""
    marked = f"{100 * error:+.1f} %" if abs(error) <= WITHIN else f"**{100 * error:+.1f} %**"
    sizes = (f"{size / GIB:.1f}" for size in (row.stored, row.counted, row.predicted(constant)))
    return entry.table, entry.frames, f"{entry.size}{mark}", _NAMES[row.mixer], f"{entry.memory_gb:g}", *sizes, marked


def _seconds(measured: Sequence[dict[str, Any]]) -> Iterator[str]:
    finished = [row for row in measured if row["outcome"] == "ok" and _dtype(row) == "float32"]
    times = {(row["column"], row["setup"]["frames"]): row for row in finished}
    rows = []
    for frames, pairs in facts.SECONDS.items():
        for (first, slow), (second, fast) in pairs:
            ratio = "not yet measured" if first == facts.ATTENTION_64 else "-"
            ours = [times.get((column.name, frames)) for column in (control.PUBLISHED, control.PROPOSED)]
            if (first, second) == (facts.ATTENTION_64, facts.BIMAMBA_64) and all(ours):
                ratio = f"{ours[0]['sample_ms'] / ours[1]['sample_ms']:.2f} ({ours[0]['gpu']})"  # type: ignore[index]
            rows.append((frames, f"{first}: {slow:g} s", f"{second}: {fast:g} s", f"{slow / fast:.2f}", ratio))
    columns = ("frames", "attention", "state space model", "ratio in the paper", "ratio measured")
    yield markdown.table(columns, rows, "rllrr")
    yield ""
    yield (
        f"We measure one pass of the denoiser of width 64 ({facts.ATTENTION_64} and {facts.BIMAMBA_64}); the seconds "
        f"of the paper are for {facts.NOISE_LEVELS} passes."
    )


def _control(result: Reproduction, measured: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield (
        f"This table is a plan: a training step of width 64 on one clip of {control.FRAMES} frames, with AdamW and the "
        "average of the weights, with the backends that need no package but torch and Triton. No GPU has confirmed "
        "these bytes or our Triton kernels yet. "
        "Recomputed means that the temporal layers run again in the backward pass (activation checkpointing). "
        "Longest is the longest clip on an A100 of 40 GB, in frames."
    )
    yield ""
    plans = {(plan.column, plan.dtype): plan for plan in result.control}
    rows = [
        (column.name, *(cell for dtype in control.DTYPES for cell in _sizes_of(plans.get((column.name, dtype)))))
        for column in control.COLUMNS
    ]
    sizes = ("stored, GiB", "peak, GiB", "longest")
    yield markdown.table(
        ("temporal layers", f"float32: {sizes[0]}", *sizes[1:], f"bf16: {sizes[0]}", *sizes[1:]), rows, "lrrrrrr"
    )
    yield ""
    yield from _advantage(result.control)
    yield ""
    yield (
        "Fused attention is SDPA (`attention=sdpa`). Its flash kernel supports half precision only: in float32 the "
        "memory-efficient kernel runs, in bf16 the flash kernel. With the relative bias the backend is `blocked`, "
        "because SDPA has no gradient for a bias. The cuDNN kernel supports half precision only."
    )
    yield ""
    yield from _measured(measured)


def _sizes_of(plan: control.PlannedColumn | None) -> tuple[str, str, str]:
    """Three cells of the control's table."""
    if plan is None:
        return "-", "-", "-"
    return f"{plan.stored / GIB:.1f}", f"{plan.peak / GIB:.1f}", f"{plan.longest:,}"


def _advantage(plans: Sequence[control.PlannedColumn]) -> Iterator[str]:
    if not plans:
        return
    peaks = {plan.column: plan.peak for plan in plans if plan.dtype == "float32"}
    ends = [peaks[column.name] / GIB for column in (control.PUBLISHED, control.PROPOSED)]
    yield (
        f"**Where the published advantage comes from** (peak, float32): {control.PUBLISHED.name} needs "
        f"{ends[0]:.1f} GiB and {control.PROPOSED.name} {ends[1]:.1f} GiB, a difference of {ends[0] - ends[1]:.1f} GiB."
    )
    yield ""
    changes = [
        (change, peaks[before.name] / GIB, peaks[after.name] / GIB, saved / GIB)
        for (change, saved), (_, before, after) in zip(control.advantage(plans), control.STEPS, strict=True)
    ]
    rows = [
        (change, *(f"{size:.1f}" for size in sizes))
        for change, *sizes in (*changes, ("all three", *ends, ends[0] - ends[1]))
    ]
    yield markdown.table(("change", "peak before, GiB", "peak after, GiB", "saves, GiB"), rows, "lrrr")


def _measured(measured: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not measured:
        yield f"Not yet measured: `zoo reproduce {facts.ARXIV} --measure` on a GPU adds the measurements here."
        return
    yield f"On {', '.join(sorted({row['gpu'] for row in measured}))}; width 64, one clip."
    yield ""
    rows = []
    for row in measured:
        numbers = (row["outcome"], "-", "-")
        if row["outcome"] == "ok":
            numbers = (f"{row['train_ms']:.4g}", f"{row['sample_ms']:.4g}", f"{row['peak_bytes'] / GIB:.2f}")
        rows.append((row["column"], _dtype(row), row["setup"]["frames"], *numbers))
    columns = ("temporal layers", "dtype", "frames", "training step, ms", "denoiser pass, ms", "peak of training, GiB")
    yield markdown.table(columns, rows, "llrrrr")


def _dtype(row: dict[str, Any]) -> str:
    return row["setup"].get("dtype", "float32")
