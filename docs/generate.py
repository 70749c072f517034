"""Fills in the tables of README.md and docs/ that are facts of the code: `python docs/generate.py`.

Such a part stands between the comments `<!-- generated: NAME -->` and `<!-- end -->`; NAME is a function below.
tests/test_docs.py fails when a page is not what this would write.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch

from bench.paper.facts import BIAS_BUCKETS, MODELS
from bench.plan.devices import GIB
from diffusion.ablations import catalogue as ablation_files
from diffusion.model.backbone import Backbone
from diffusion.presets import PAPER, PRESETS, preset
from temporal_zoo.cli import catalogue
from temporal_zoo.contract import CHECKS

ROOT = Path(__file__).parent.parent
# Rows of README's first table: the published baseline, then the best that attention can do, then the alternatives.
FIRST_TABLE = (
    "attention with bias, weights held",
    "attention with bias, weights held, recomputed",
    "attention with bias, fused",
    "attention with bias, fused, recomputed",
    "s4d",
    "mamba",
    "bimamba",
    "identity: no temporal layer",
)
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def mixers() -> str:
    """One row per mixer."""
    rows = [
        (f"`{row['name']}`", row["summary"], f"{row['parameters']:,}", row["time"], row["memory"], row["paper"])
        for row in catalogue.mixers()
    ]
    return table(("mixer", "what it is", f"parameters at width {catalogue.DIM}", "time", "memory", "paper"), rows)


def options() -> str:
    """A section per mixer: its own words, its equation, its options, flavours and examples."""
    return "\n".join(_section(catalogue.mixer(row["name"])) for row in catalogue.mixers())


def backends() -> str:
    """One row per backend of every op, in the order that `auto` tries on a CPU."""
    rows = [
        (
            f"`{row['op']}`",
            row["place"],
            f"`{row['backend']}`",
            row["package"] or "",
            _confirmed(**row["confirmed"]),
            row["summary"],
        )
        for row in catalogue.backends()
    ]
    return table(("op", "tried", "backend", "package", "confirmed by", "what it is"), rows)


def _confirmed(cpu: str | None, cuda: str | None) -> str:
    if cpu == cuda:
        return cpu or "not yet"
    # The C++ backends run on nothing but CPUs.
    return f"{cpu or 'not yet'} on CPUs, {cuda or 'not yet'} on GPUs"


def checks() -> str:
    """One row per check of the contract."""
    return table(("check", "what holds"), [(f"`{name}`", inspect.getdoc(check)) for name, check in CHECKS.items()])


def presets() -> str:
    """The presets of `zoo train` that are not the paper's."""
    rows = []
    for name in PRESETS:
        if name.startswith("paper-"):
            continue
        config = preset(name)
        model, data = config.model, config.data
        clips = f"{data.frames} frames, stride {data.stride}, {data.size} x {data.size}"
        network = f"width {model.width}, levels {', '.join(map(str, model.multipliers))}"
        trained = f"{config.steps:,} steps of {config.batch} clips"
        numbers = (config.process.prediction, trained, f"{count(model):,}")
        rows.append((f"`{name}`", f"`{data.source}`", clips, network, ", ".join(model.slots) or "all", *numbers))
    header = ("preset", "data", "clips", "network", "slots", "predicts", "trained for", "parameters with `bimamba`")
    return table(header, rows)


def totals() -> str:
    """The paper's models: the numbers that it prints and its code counts, ours, and the difference explained."""
    rows = []
    for printed, (mixer, width) in PAPER.items():
        model = preset(f"paper-{printed}").model
        official, spare, ours = MODELS[printed].parameters, MODELS[printed].untrained, count(model)
        table_size = f"{BIAS_BUCKETS} x {model.heads}"
        what = "rotary frequencies, a buffer here" if mixer == "attn" else f"bias table, {table_size}, never used"
        if ours + spare != official:
            raise ValueError(f"paper-{printed} has {ours:,} parameters; {official - spare:,} are expected")
        numbers = (f"{official:,}", f"{ours:,}", f"{spare:,}: {what}")
        rows.append((f"`paper-{printed}`", f"`{mixer}`", width, *numbers))
    return table(("preset", "mixer", "width", "its code counts", "here", "difference"), rows)


def control() -> str:
    """The planned control of arXiv 2403.07711, the rows that README shows first; from the committed page's numbers."""
    plans = {(plan["column"], plan["dtype"]): plan for plan in _reproduced()["control"]}
    rows = []
    for name in FIRST_TABLE:
        float32, bfloat16 = (plans[name, dtype] for dtype in ("float32", "bfloat16"))
        peaks = (f"{plan['peak'] / GIB:.1f} GiB" for plan in (float32, bfloat16))
        rows.append((name, *peaks, f"{float32['longest']:,} frames"))
    return table(("temporal layers", "peak, float32", "peak, bf16", "longest clip in 40 GB, float32"), rows)


def advantage() -> str:
    """Where the published advantage comes from, in one sentence."""
    changes = _reproduced()["advantage_bytes"]
    parts = ", ".join(f"{change} saves {saved / GIB:.1f}" for change, saved in changes.items())
    return f"Of the {sum(changes.values()) / GIB:.1f} GiB between the first row and `bimamba` in float32, {parts}.\n"


def _reproduced() -> dict:
    return json.loads((ROOT / "docs" / "results" / "reproduce.json").read_text(encoding="utf-8"))


def ablations() -> str:
    """What `zoo ablate` ships, and how many cells of each are trained for one seed."""
    rows = []
    for name in ablation_files.names():
        cells = [len(ablation_files.get(name, scale).scale.cells) for scale in ("toy", "paper")]
        rows.append((f"`{name}`", ablation_files.summary(name), *cells))
    return table(("ablation", "what it asks", "cells, toy", "cells, paper"), rows)


def count(model) -> int:
    """Parameters of a network, without building it in memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Backbone(model).parameters())


def table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def filled(text: str) -> str:
    """A page with its generated parts written anew."""
    return PART.sub(lambda found: f"{found[1]}\n{globals()[found[2]]()}\n{found[3]}", text)


def pages() -> list[Path]:
    """README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _section(facts: dict) -> str:
    parts = [f"## {facts['name']}\n", f"{facts['description']}\n"]
    causal = "sees earlier frames only" if facts["causal"] else "sees the whole clip"
    chunks = "" if facts["passes"] else "not "
    parts.append(
        f"{facts['parameters']:,} parameters at width {facts['dim']}; time {facts['time']}, memory {facts['memory']} "
        f"(declared); {causal}; can {chunks}be evaluated chunk by chunk.  Source: {facts['paper']}.\n"
    )
    if facts["options"]:
        rows = [(f"`{o['name']}`", o["type"], f"`{o['default']}`", o["doc"]) for o in facts["options"]]
        parts.append(table(("option", "type", "default", "what it is"), rows))
    if facts["flavours"]:
        rows = [(f"`flavour={name}`", f"`{spec}`") for name, spec in facts["flavours"].items()]
        parts.append(table(("flavour", "stands for"), rows))
    return "\n".join(parts)


if __name__ == "__main__":
    for page in pages():
        page.write_text(filled(page.read_text()))
