"""Writes the parts of README.md and docs/ that come from the code: `python docs/generate.py`.

Such a part is between the comments `<!-- generated: NAME -->` and `<!-- end -->`; NAME is a function below.  The
script also draws the pictures (docs/pictures.py).  tests/test_docs.py fails when a page differs from the output.
"""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import click
import torch

from bench.paper.facts import BIAS_BUCKETS, MODELS
from bench.plan.devices import GIB
from diffusion.ablations import catalogue as ablation_files
from diffusion.config import fields
from diffusion.model.backbones import build_network
from diffusion.presets import PAPER, PRESETS, preset
from diffusion.probes import tasks as probe_files
from diffusion.probes.task import Knob
from temporal_zoo._support import markdown
from temporal_zoo.cli import catalogue
from temporal_zoo.cli.main import zoo
from temporal_zoo.contract import CHECKS

ROOT = Path(__file__).parent.parent
EQUATIONS = ROOT / "docs" / "assets" / "equations.toml"
# Rows of README's table: the published baseline, then better attention, then the alternatives.
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
# The pages about each command.
COMMAND_PAGES = {
    "list": "mixers",
    "info": "mixers",
    "check": "interface",
    "doctor": "backends",
    "train": "diffusion settings",
    "convert": "converting",
    "sample": "diffusion",
    "data": "data",
    "evaluate": "evaluation",
    "weights": "evaluation",
    "ablate": "ablations",
    "probe": "probes",
    "bench": "benchmarking",
    "report": "benchmarking",
    "compare": "benchmarking",
    "plan": "planning",
    "reproduce": "planning",
}
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def commands() -> str:
    """One row per command of `zoo`: what it does, the meanings of its own exit codes, and the page about it."""
    context = click.Context(zoo)
    rows = []
    for name in sorted(zoo.list_commands(context), key=list(COMMAND_PAGES).index):
        command = zoo.get_command(context, name)
        inner = command.commands if isinstance(command, click.Group) else {}
        links = ", ".join(f"[{_title(page)}]({page}.md)" for page in COMMAND_PAGES[name].split())
        for words, each in {name: command, **{f"{name} {other}": inner[other] for other in inner}}.items():
            codes = (each.epilog or "").replace("Exit code ", "")
            rows.append((f"`zoo {words}`", each.get_short_help_str(limit=200), codes, links))
    return table(("command", "what it does", "exit codes of its own", "page"), rows)


def _title(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def mixers() -> str:
    """One row per mixer."""
    rows = [
        (f"`{row['name']}`", row["summary"], f"{row['parameters']:,}", row["time"], row["memory"], row["paper"])
        for row in catalogue.mixers()
    ]
    return table(("mixer", "what it is", f"parameters at width {catalogue.DIM}", "time", "memory", "paper"), rows)


def gallery() -> str:
    """One card per mixer: its name, its diagram by docs/pictures.py, and one sentence."""
    cards = [
        f"- [**{row['name']}**](mixers.md#{row['name']})\n\n"
        f"    ![frames that exchange information, and growth](assets/gallery/{row['name']}.svg)\n\n"
        f"    {row['summary']}; time {row['time']}, memory {row['memory']}\n"
        for row in catalogue.mixers()
    ]
    return "\n".join(['<div class="grid cards" markdown>\n', *cards, "</div>\n"])


def settings() -> str:
    """One table per part of a training run's configuration: every field that `--set` changes."""
    parts = groupby(fields(), key=lambda row: row[0].rpartition(".")[0])
    header = ("field", "type", "default", "meaning")
    tables = (
        (part, table(header, [(f"`{path}`", kind, f"`{default}`", doc) for path, kind, default, doc in rows]))
        for part, rows in parts
    )
    return "\n".join(f"## {part or 'the run'}\n\n{text}" for part, text in tables)


def options() -> str:
    """One section per mixer: its docstring, equations, options and flavours."""
    return "\n".join(_section(catalogue.mixer(row["name"])) for row in catalogue.mixers())


def backends() -> str:
    """One row per backend of every op, in the order that `auto` tries on a CPU."""
    rows = [
        (
            f"`{row['op']}`",
            row["position"],
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
    # The C++ backends run on CPUs only.
    return f"{cpu or 'not yet'} on CPUs, {cuda or 'not yet'} on GPUs"


def checks() -> str:
    """One row per check of the contract."""
    return table(("check", "what holds"), [(f"`{name}`", inspect.getdoc(check)) for name, check in CHECKS.items()])


def presets() -> str:
    """The presets of `zoo train` except those of the paper."""
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
    """The paper's models: parameters that its code counts, ours, and the reason for the difference."""
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
    """Memory of the control of arXiv 2403.07711, from the committed `reproduce.json`."""
    plans = {(plan["column"], plan["dtype"]): plan for plan in _reproduced()["control"]}
    rows = []
    for name in FIRST_TABLE:
        float32, bfloat16 = (plans[name, dtype] for dtype in ("float32", "bfloat16"))
        peaks = (f"{plan['peak'] / GIB:.1f} GiB" for plan in (float32, bfloat16))
        rows.append((name, *peaks, f"{float32['longest']:,} frames"))
    return table(("temporal layers", "peak, float32", "peak, bf16", "longest clip in 40 GB, float32"), rows)


def advantage() -> str:
    """The sources of the published advantage, in one sentence."""
    changes = _reproduced()["advantage_bytes"]
    parts = ", ".join(f"{change} saves {saved / GIB:.1f}" for change, saved in changes.items())
    return f"Of the {sum(changes.values()) / GIB:.1f} GiB between the first row and `bimamba` in float32, {parts}.\n"


def _reproduced() -> dict:
    return json.loads((ROOT / "docs" / "results" / "reproduce.json").read_text(encoding="utf-8"))


def probes() -> str:
    """One row per probe of `zoo probe`, with the best possible errors at its default difficulty and noise."""
    rows = []
    for name in probe_files.names():
        task = probe_files.get(name)
        bounds = task(task.knob.default, task.noises.default).bounds(task.frames)
        errors = [f"{bound:.4f}" for bound in bounds] if bounds else ["from samples"] * 2
        difficulty = f"{task.knob.name}: {_values(task.knob)}"
        rows.append((f"`{name}`", probe_files.summary(name), difficulty, _values(task.noises), *errors))
    return table(("probe", "question", "difficulty", "noise", "best of the past", "best of all"), rows)


def _values(knob: Knob) -> str:
    return ", ".join(f"**{value:g}**" if value == knob.default else f"{value:g}" for value in knob.values)


def ablations() -> str:
    """One row per ablation of `zoo ablate`, with the number of cells per seed."""
    rows = []
    for name in ablation_files.names():
        scales = {scale: ablation_files.get(name, scale).scale for scale in ablation_files.scales(name)}
        cells = [len(scales[scale].cells) if scale in scales else "-" for scale in ("toy", "paper")]
        rows.append((f"`{name}`", ablation_files.summary(name), *cells))
    return table(("ablation", "question", "cells, toy", "cells, paper"), rows)


def count(model) -> int:
    """Parameters of a network, without building it in memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(model).parameters())


def table(header: Iterable[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown, with a line break at its end."""
    return markdown.table([*header], rows) + "\n"


def filled(text: str) -> str:
    """A page with new generated parts."""
    return PART.sub(lambda part: f"{part[1]}\n{globals()[part[2]]()}\n{part[3]}", text)


def pages() -> list[Path]:
    """README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _section(facts: dict) -> str:
    parts = [f"## {facts['name']}\n", f"{_typeset(facts['name'], facts['description'])}\n"]
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


def _typeset(name: str, description: str) -> str:
    """A description with the mixer's typeset equations in place of the plain ones, where docs/assets has them."""
    equations = tomllib.loads(EQUATIONS.read_text(encoding="utf-8")).get(name)
    if equations is None:
        return description
    first, *rest = description.split("\n\n")
    prose = [paragraph for paragraph in rest if not paragraph.startswith("    ")]
    return "\n\n".join([first, *(f"$$\n{equation}\n$$" for equation in equations), *prose])


if __name__ == "__main__":
    import pictures

    pictures.draw()
    for page in pages():
        page.write_text(filled(page.read_text()))
