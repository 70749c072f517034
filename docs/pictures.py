"""Draws the pictures of docs/index.md into docs/assets; `python docs/generate.py` calls it.

cost-time.svg and cost-memory.svg show committed measurements.  gallery/NAME.svg shows which frames a registered mixer
lets exchange information, computed from its Jacobian, and the growth that it declares.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from statistics import geometric_mean

import torch

from temporal_zoo import build, get, names

DOCS = Path(__file__).parent
RECORD = DOCS / "results" / "quick" / "records.jsonl"
FRAMES = 8
GROWTH = {"1": lambda t: 1.0, "T": lambda t: t, "T log T": lambda t: t * (1 + math.log2(t)), "T^2": lambda t: t * t}
BLUE, GREY = "#3f51b5", "#9e9e9e"


def influence(name: str) -> torch.Tensor:
    """Which input frames change which output frames of a mixer with random weights.

    Returns:
        Booleans, (output frames, input frames).
    """
    torch.manual_seed(0)
    mixer = build(name, dim=16).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # a weight that starts at zero would hide a connection
    x = torch.randn(1, FRAMES, 16, dtype=torch.float64, requires_grad=True)
    frames = mixer(x).sum((0, 2))
    rows = [torch.autograd.grad(frame, x, retain_graph=True)[0].abs().sum((0, 2)) for frame in frames]
    sizes = torch.stack(rows)
    return sizes > 1e-12 * sizes.max()  # a convolution by FFT leaves rounding errors where it has no connection


def card(name: str) -> str:
    """An SVG: `influence` as squares, and beside it the declared growth of time (solid) and memory (dashed)."""
    entry = get(name)
    squares = "".join(
        f'<rect x="{10 * s + 5}" y="{10 * t + 5}" width="9" height="9" fill="{BLUE if seen else "#e8eaf6"}"/>'
        for t, row in enumerate(influence(name).tolist())
        for s, seen in enumerate(row)
    )
    lines = _curve(entry.time, f'stroke="{BLUE}"') + _curve(entry.memory, f'stroke="{GREY}" stroke-dasharray="4 3"')
    axes = '<path d="M110 5V84H190" fill="none" stroke="#616161"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 195 90">{squares}{axes}{lines}</svg>\n'


def _curve(growth: str, style: str) -> str:
    """A growth from one to four times the frames, in an area of 80 x 80; T^2 reaches the top."""
    points = [(1 + step / 10, GROWTH[growth](1 + step / 10)) for step in range(31)]
    path = " ".join(f"{110 + 26 * (t - 1):.1f},{84 - 4.9 * value:.1f}" for t, value in points)
    return f'<polyline points="{path}" fill="none" stroke-width="2" {style}/>'


def cost() -> None:
    """Draws time and stored bytes of a row against its frames, for every mixer of the record."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "cost", "svg.fonttype": "none", "font.size": 12})
    measured = _measured()
    for index, (file, title) in enumerate(
        (("time", "time per row, ms"), ("memory", "stored for backward per row, MiB"))
    ):
        figure, axes = pyplot.subplots(figsize=(5, 4), layout="constrained")
        for number, (name, by_frames) in enumerate(measured.items()):
            values = [by_frames[frames][index] for frames in by_frames]
            # Two mixers may have almost the same cost: dashes on a line show the other below.
            axes.plot(list(by_frames), values, "o--" if number % 4 > 1 else "o-", label=name)
        axes.set(xscale="log", yscale="log", xlabel="frames", title=title)
        axes.set_xticks(list(by_frames), map(str, by_frames))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(DOCS / "assets" / f"cost-{file}.svg", metadata={"Date": None})
        pyplot.close(figure)


def _measured() -> dict[str, dict[int, tuple[float, float]]]:
    """Mixer -> frames -> (milliseconds, MiB) of a row, forward and backward; times are geometric means over processes.

    `identity` stores nothing and is left out: zero has no place on a logarithmic axis.
    """
    times: dict = defaultdict(lambda: defaultdict(list))
    stored: dict = {}
    for line in RECORD.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        case = record.get("case", {})
        if record["kind"] == "measurement" and (case["level"], case["mode"]) == ("mixer", "train"):
            times[case["mixer"]][case["frames"]].append(record["time_ms"]["p50"] / case["rows"])
            if record["stored_bytes"] is not None:  # one process of each case counts them
                stored[case["mixer"], case["frames"]] = record["stored_bytes"] / case["rows"] / 2**20
    return {
        name: {frames: (geometric_mean(by_frames[frames]), stored[name, frames]) for frames in sorted(by_frames)}
        for name, by_frames in sorted(times.items())
        if name != "identity"
    }


def draw() -> None:
    """Writes all pictures."""
    cost()
    for name in names():
        (DOCS / "assets" / "gallery" / f"{name}.svg").write_text(card(name), encoding="utf-8")
