"""The page and the plot of `zoo reproduce`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.plan.devices import GIB
from temporal_zoo._support.files import written_whole

from . import control
from . import facts as paper
from .reproduce import WITHIN, Memory, Reproduction

_NAMES = {"attn": "attention", "bimamba": "Mamba, both directions", "mamba": "Mamba"}
_COLORS = {"attn": "C0", "bimamba": "C1", "mamba": "C2"}


def page(found: Reproduction, measured: Sequence[dict[str, Any]]) -> str:
    """The whole page in Markdown."""
    return "\n".join(
        [
            f"# arXiv {paper.ARXIV}: sizes and memory recounted",
            "",
            f"Made by `zoo reproduce {paper.ARXIV}`, which needs no GPU. Nothing here was measured unless a table",
            "names the GPU.",
            "",
            "## Sizes",
            "",
            f"{sum(row.agrees for row in found.sizes)} of {len(found.sizes)} to the unit. The paper's code counts what "
            "it never trains: beside attention 16 frequencies, beside state space models 32 numbers per head.",
            "",
            *_sizes(found),
            "",
            "## Memory of training",
            "",
            *_memory(found),
            "",
            "## Seconds for one sample",
            "",
            *_seconds(measured),
            "",
            "## The control",
            "",
            *_planned(found),
            "",
            *_control(measured),
            "",
            "## What contradicts itself",
            "",
            *(f"{number}. {text}" for number, text in enumerate(paper.CONTRADICTIONS, start=1)),
            "",
        ]
    )


def plot(found: Reproduction, path: Path) -> None:
    """Predicted against printed: the diagonal is agreement, the band ten per cent."""
    figure = Figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.subplots()
    ends = [25.0, 400.0]
    axes.fill_between(ends, [end * (1 - WITHIN) for end in ends], [end * (1 + WITHIN) for end in ends],
                      color="0.9", label="within 10 %")  # fmt: skip
    axes.plot(ends, ends, color="0.6", linewidth=1)
    for mixer, name in _NAMES.items():
        for fitted in (False, True):
            rows = [row for row in found.memory if row.mixer == mixer and (row.entry in paper.FITTED) == fitted]
            if rows:
                axes.plot([row.entry.memory_gb for row in rows], [row.predicted(found.constant) / GIB for row in rows],
                          "o", color=_COLORS[mixer], fillstyle="none" if fitted else "full", markersize=6,
                          label=f"{name}{', 64 frames (constant fitted here)' if fitted else ''}")  # fmt: skip
    for row in found.memory:
        if abs(row.error(found.constant)) > WITHIN:
            axes.annotate(f"{row.entry.size}, {row.entry.frames} frames", fontsize=8,
                          xy=(row.entry.memory_gb, row.predicted(found.constant) / GIB), xytext=(-6, 6),
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
    axes.set_title(f"Memory of training, arXiv {paper.ARXIV}", loc="left", fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    with written_whole(path) as file:
        figure.savefig(file, dpi=120, format="png")


def _sizes(found: Reproduction) -> Iterator[str]:
    yield "| printed | mixer | ours | counted besides | official classes | agrees |"
    yield "| --- | --- | ---: | ---: | ---: | --- |"
    for row in found.sizes:
        agrees = "yes" if row.agrees else "**no**"
        yield f"| {row.size} | {row.mixer} | {row.ours:,} | {row.besides} | {row.paper:,} | {agrees} |"


def _memory(found: Reproduction) -> Iterator[str]:
    constant = found.constant / GIB
    yield f"**The reading.** {paper.READING}"
    yield ""
    yield (
        "**What is counted**, on the meta device, for the backends that the paper ran (attention that holds its "
        "weights, mamba_ssm's scan with plain torch around it) and one clip per GPU: what torch's allocator reserves "
        "for a "
        "training step without the optimizer, on each of eight GPUs, and on the first one Adam's moments and the "
        f"average of the weights. **One constant, {constant:.2f} GiB per GPU**, stands for what is not counted (CUDA's "
        "context, workspaces of libraries, NCCL). It is the mean of what is missing in the eight rows of Table 2 at 64 "
        "frames; all other rows are predictions."
    )
    yield ""
    others = [row for row in found.memory if row.entry not in paper.FITTED]
    met = sum(abs(row.error(found.constant)) <= WITHIN for row in others)
    yield (
        f"{found.within} of {len(found.memory)} entries are met within 10 %, and of the {len(others)} that nothing was "
        f"fitted to, {met}."
    )
    yield ""
    yield "| table | frames | model | mixer | printed, GB | stored x 8 | counted | predicted, GiB | error |"
    yield "| --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |"
    yield from (_entry(row, found.constant) for row in found.memory)
    yield ""
    yield "![predicted against printed](reproduce.png)"
    yield ""
    yield (
        "Stored is what the forward pass keeps for backward. Rows marked * were fitted to. What is planned differs "
        "from what ran in one known way: our network keeps less around its mixers, whose norms are single operations, "
        "7.9 GiB instead of 8.9 for a clip of 256 frames at width 64."
    )


def _entry(row: Memory, constant: float) -> str:
    entry, error = row.entry, row.error(constant)
    mark = "*" if entry in paper.FITTED else ""
    told = f"{100 * error:+.1f} %" if abs(error) <= WITHIN else f"**{100 * error:+.1f} %**"
    return (
        f"| {entry.table} | {entry.frames} | {entry.size}{mark} | {_NAMES[row.mixer]} | {entry.memory_gb:g} | "
        f"{row.stored / GIB:.1f} | {row.counted / GIB:.1f} | {row.predicted(constant) / GIB:.1f} | {told} |"
    )


def _seconds(measured: Sequence[dict[str, Any]]) -> Iterator[str]:
    here_ok = [row for row in measured if row["outcome"] == "ok" and _dtype(row) == "float32"]
    times = {(row["column"], row["setup"]["frames"]): row for row in here_ok}
    yield "| frames | attention | state space model | ratio in the paper | ratio measured |"
    yield "| ---: | --- | --- | ---: | ---: |"
    for frames, pairs in paper.SECONDS.items():
        for (first, slow), (second, fast) in pairs:
            here = "not yet measured"
            ours = [times.get((column.name, frames)) for column in (control.PUBLISHED, control.PROPOSED)]
            if (first, second) == ("56.3M", "57.5M") and all(ours):
                here = f"{ours[0]['sample_ms'] / ours[1]['sample_ms']:.2f} ({ours[0]['gpu']})"  # type: ignore[index]
            elif first != "56.3M":
                here = "-"
            yield f"| {frames} | {first}: {slow:g} s | {second}: {fast:g} s | {slow / fast:.2f} | {here} |"
    yield ""
    yield "Measured is one pass of the denoiser of width 64 (56.3M and 57.5M); the paper's seconds are 256 of them."


def _planned(found: Reproduction) -> Iterator[str]:
    yield (
        f"Planned: a training step of width 64 on {control.FRAMES} frames, one clip, with AdamW and the average of the "
        "weights, with the backends that need no package but torch and Triton. No GPU has confirmed these bytes or "
        "our Triton kernels yet. "
        "Recomputed means that the temporal layers run again in the backward pass (activation checkpointing). "
        "Longest is the longest clip on an A100 of 40 GB, in frames."
    )
    yield ""
    yield "| temporal layers | float32: stored, GiB | peak, GiB | longest | bf16: stored, GiB | peak, GiB | longest |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    plans = {(plan.column, plan.dtype): plan for plan in found.control}
    for column in control.COLUMNS:
        cells = [_sizes_of(plans.get((column.name, dtype))) for dtype in control.DTYPES]
        yield f"| {column.name} | {' | '.join(cells)} |"
    yield ""
    yield from _advantage(found.control)
    yield ""
    yield (
        "Fused attention is SDPA (`attention=sdpa`). Its flash kernel takes half precision only: in float32 the "
        "memory-efficient kernel runs, in bf16 the flash kernel. With the relative bias the backend is `blocked`, "
        "since SDPA has no gradient for a bias. The cuDNN kernel takes half precision only."
    )


def _sizes_of(plan: control.PlannedColumn | None) -> str:
    """Three cells of the control's table."""
    return "- | - | -" if plan is None else f"{plan.stored / GIB:.1f} | {plan.peak / GIB:.1f} | {plan.longest:,}"


def _advantage(plans: Sequence[control.PlannedColumn]) -> Iterator[str]:
    if not plans:
        return
    peaks = {plan.column: plan.peak for plan in plans if plan.dtype == "float32"}
    ends = [peaks[column.name] / GIB for column in (control.PUBLISHED, control.PROPOSED)]
    yield (
        f"**Where the published advantage comes from** (peak, float32): {control.PUBLISHED.name} takes "
        f"{ends[0]:.1f} GiB, {control.PROPOSED.name} {ends[1]:.1f} GiB, a difference of {ends[0] - ends[1]:.1f} GiB."
    )
    yield ""
    yield "| change | peak before, GiB | peak after, GiB | saves, GiB |"
    yield "| --- | ---: | ---: | ---: |"
    for (change, saved), (_, before, after) in zip(control.advantage(plans), control.STEPS, strict=True):
        yield f"| {change} | {peaks[before.name] / GIB:.1f} | {peaks[after.name] / GIB:.1f} | {saved / GIB:.1f} |"
    yield f"| all three | {ends[0]:.1f} | {ends[1]:.1f} | {ends[0] - ends[1]:.1f} |"


def _control(measured: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not measured:
        yield f"Not yet measured: `zoo reproduce {paper.ARXIV} --measure` on a GPU fills this in."
        return
    yield f"On {', '.join(sorted({row['gpu'] for row in measured}))}; width 64, one clip."
    yield ""
    yield "| temporal layers | dtype | frames | training step, ms | denoiser pass, ms | peak of training, GiB |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for row in measured:
        frames = row["setup"]["frames"]
        if row["outcome"] == "ok":
            numbers = f"{row['train_ms']:.4g} | {row['sample_ms']:.4g} | {row['peak_bytes'] / GIB:.2f}"
        else:
            numbers = f"{row['outcome']} | - | -"
        yield f"| {row['column']} | {_dtype(row)} | {frames} | {numbers} |"


def _dtype(row: dict[str, Any]) -> str:
    return row["setup"].get("dtype", "float32")
