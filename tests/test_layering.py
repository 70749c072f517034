"""Which way imports point: read from the syntax trees, so that an arrow the wrong way fails before it can grow."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("temporal_zoo", "diffusion", "bench")
HEAVY = {"torch", "numpy", "einops", "av", "PIL", "matplotlib", "psutil"}
# Reached through op backends or functions, when asked for; nothing of ours needs them in order to be imported.
OPTIONAL = {"mamba_ssm", "causal_conv1d", "flash_attn", "xformers", "torchvision", "triton", "submitit", "ray"}
# The modules of bench that build a denoiser, inside functions: to measure one, and to plan one.
REACHING = ("bench.sweep.workloads", "bench.sweep.training_step")
# What the support layer imports from this project.  Its environment also reads the compiler's version from the ops.
BELOW_SUPPORT = ("temporal_zoo._support", "temporal_zoo.errors")
COMPILER = ("temporal_zoo._support.environment", "temporal_zoo.ops._native")
LIGHT = [
    "temporal_zoo",
    "temporal_zoo._support.files",
    "temporal_zoo.cli.catalogue",
    "temporal_zoo.cli.main",
    "temporal_zoo.cli.list",
    "temporal_zoo.cli.info",
    "temporal_zoo.cli.check",
    "temporal_zoo.cli.doctor",
    "temporal_zoo.cli.doctor_report",
    "temporal_zoo.config",
    "temporal_zoo._support.environment",
    "temporal_zoo.errors",
    "temporal_zoo._support.packages",
    "temporal_zoo._support.record",
    "temporal_zoo.registry",
    "temporal_zoo.spec",
]


class Arrow(NamedTuple):
    """One import: from module to module, at module level or when a function runs."""

    source: str
    target: str
    late: bool


def arrows(source, text, is_package=False):
    """All imports in a module's text; those for type checkers only do not count."""
    found = []

    def visit(node, late):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            found.extend(Arrow(source, alias.name, late) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                inside = source.split(".") if is_package else source.split(".")[:-1]
                parents = inside[: len(inside) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            # `from package import module` points at the module.
            found.extend(
                Arrow(source, f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base, late)
                for alias in node.names
            )
        for child in ast.iter_child_nodes(node):
            visit(child, late or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    visit(ast.parse(text), late=False)
    return found


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def all_arrows():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            yield from arrows(".".join(parts[:-1] if is_package else parts), path.read_text(), is_package)


ARROWS = list(all_arrows())


def top(module):
    return module.partition(".")[0]


def under(module, *parents):
    return any(module == parent or module.startswith(f"{parent}.") for parent in parents)


def wrong_way(arrow):
    """What an import does wrong, or None."""
    source, target, late = arrow
    if top(source) == "temporal_zoo" and top(target) in ("diffusion", "bench"):
        return "the library knows nothing of its applications"
    if top(source) == "diffusion" and top(target) == "bench":
        return "bench measures diffusion, not the other way round"
    if (top(source), top(target)) == ("bench", "diffusion") and not (source in REACHING and late):
        return f"bench reaches diffusion in functions of {' and '.join(REACHING)}"
    if under(source, "bench.sweep") and under(target, "bench.analysis"):
        return "a sweep writes results, and the analysis reads them"
    if (
        under(target, "diffusion.data")
        and target not in ("diffusion.data", "diffusion.data.clips")
        and not under(source, "diffusion.data", "diffusion.cli.data")
    ):
        return "other packages only read clips: they import diffusion.data and diffusion.data.clips"
    if (
        under(source, "temporal_zoo._support")
        and top(target) in PACKAGES
        and target != "temporal_zoo"
        and not under(target, *BELOW_SUPPORT)
        and (source, target) != COMPILER
    ):
        return "the support layer imports no other part of the project"
    across = top(source) != top(target) and top(target) in PACKAGES
    if across and any(part.startswith("_") and part != "_support" for part in target.split(".")):
        return "private modules belong to their package"
    if (
        under(source, "temporal_zoo.ops")
        and under(target, "temporal_zoo")
        and not under(target, *(f"temporal_zoo.{name}" for name in ("ops", "_support", "config", "errors")))
    ):
        return "ops know nothing of mixers"
    if (
        under(source, "temporal_zoo.mixers")
        and under(target, "temporal_zoo")
        and not under(
            target,
            *(
                f"temporal_zoo.{name}"
                for name in ("mixers", "ops", "interface", "registry", "config", "errors", "streaming")
            ),
        )
    ):
        return "mixers are made of ops"
    if (
        under(source, "temporal_zoo.mixers")
        and not source.rpartition(".")[2].startswith("_")
        and under(target, "temporal_zoo.mixers")
        and not target.removeprefix("temporal_zoo.mixers.").startswith("_")
        and target != "temporal_zoo.mixers"
    ):
        return "mixers share by underscore modules, not with each other"
    # Triton reads a kernel's source and the names around it, so that kernels need a module that imports it.
    to_kernels = "._triton_kernels" in target
    of_kernels = source.endswith("._triton_kernels") and (to_kernels or top(target) == "triton")
    if (top(target) in OPTIONAL or to_kernels) and not of_kernels and not late:
        return "optional packages are imported inside functions"
    light = source in LIGHT or under(source, "diffusion.cli", "bench.cli") or source == "bench.sweep.case"
    if light and not late and top(target) in HEAVY:
        return "this module must answer without heavy imports"
    return None


def test_no_import_points_the_wrong_way():
    wrong = [f"{arrow.source} -> {arrow.target}: {why}" for arrow in ARROWS if (why := wrong_way(arrow))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("temporal_zoo.registry", "from diffusion import clip"),
        ("temporal_zoo.mixers.attn", "def f():\n    import bench.sweep.case"),
        ("diffusion.training.trainer", "from bench.sweep.measure import peak"),
        ("bench.sweep.measure", "def f():\n    from diffusion.model.backbone import Backbone"),
        ("bench.sweep.workloads", "from diffusion.model.backbone import Backbone"),
        ("bench.sweep.training_step", "from diffusion.training.ema import MovingAverage"),
        ("bench.plan.plan", "def f():\n    from diffusion.presets import preset"),
        ("diffusion.evaluation.clips", "from diffusion.data.build import is_cache"),
        ("diffusion.training.trainer", "def f():\n    from diffusion.data import readers"),
        ("bench.sweep.gate", "from temporal_zoo.ops import _dispatch"),
        ("temporal_zoo._support.files", "def f():\n    from temporal_zoo.config import Config"),
        ("temporal_zoo._support.files", "from temporal_zoo.ops import _native"),
        ("bench.sweep.runner", "from bench.analysis.curves import Curve"),
        ("temporal_zoo.ops.attention", "from temporal_zoo.mixers import attn"),
        ("temporal_zoo.ops.attention.sdpa", "from temporal_zoo.registry import get"),
        ("temporal_zoo.mixers.flash", "from temporal_zoo.mixers.attn import Attention"),
        ("temporal_zoo.mixers.flash", "from .attn import Attention"),
        ("temporal_zoo.ops.attention.flash_attn", "from flash_attn import flash_attn_func"),
        ("temporal_zoo.ops.selective_scan.triton", "from temporal_zoo.ops.selective_scan import _triton_kernels"),
        ("temporal_zoo.ops.selective_scan.triton", "from temporal_zoo.ops._triton_kernels import load"),
        ("temporal_zoo.ops.selective_scan._triton_kernels", "import mamba_ssm"),
        ("temporal_zoo.spec", "import torch.nn"),
        ("diffusion.cli.train", "from torch import nn"),
        ("diffusion.cli.data", "try:\n    import numpy\nexcept ImportError:\n    pass"),
    ],
)
def test_that_check_can_fail(source, text):
    assert [arrow for arrow in arrows(source, text) if wrong_way(arrow)]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("bench.sweep.workloads", "def f():\n    from diffusion.model.backbone import Backbone"),
        ("diffusion.cli.train", "from diffusion.data import DataConfig"),
        ("temporal_zoo.mixers.flash", "from temporal_zoo.mixers import _heads"),
        ("temporal_zoo.mixers.flash", "from ._heads import Heads"),
        ("temporal_zoo.ops.selective_scan._triton_kernels", "import triton.language as tl"),
        ("temporal_zoo.ops.selective_scan._triton_kernels", "from temporal_zoo.ops._triton_kernels import load"),
        ("temporal_zoo.registry", "if TYPE_CHECKING:\n    import torch"),
        ("temporal_zoo.cli.catalogue", "def f():\n    import torch"),
    ],
)
def test_right_arrows_pass(source, text):
    assert not [arrow for arrow in arrows(source, text) if wrong_way(arrow)]


def circles(edges):
    """Groups of nodes that reach each other, by Tarjan's algorithm."""
    graph: dict[str, set[str]] = {}
    for source, target in edges:
        graph.setdefault(source, set()).add(target)
    order, low, stack, found = {}, {}, [], []

    def visit(node):
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in order:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == order[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in order:
            visit(node)
    return found


def room(module):
    """The folder of a module in its package; the numbers of the paper, which import nothing, are a separate room."""
    return module if module == "bench.paper.facts" else ".".join(module.split(".")[:2])


def test_no_modules_and_no_rooms_import_each_other_in_a_circle():
    edges = {(a.source, a.target) for a in ARROWS if not a.late and top(a.target) in PACKAGES and a.source != a.target}
    assert not circles(edges)
    rooms = {(room(source), room(target)) for source, target in edges if target not in PACKAGES}
    assert not circles({(source, target) for source, target in rooms if source != target})


def test_a_circle_is_found():
    assert circles([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]) == [["a", "b", "c"]]
    assert not circles([("a", "b"), ("b", "c"), ("a", "c")])


# One class of this name in each file of a folder, which a registry of files looks for; mirrors of C structs of one op.
REPEATED = {"Probe", "Network", "_Problem"}
# Kernels of one backward pass share their parts; Triton reads all of them from one module.
LONG = {"temporal_zoo/ops/selective_scan/_triton_kernels.py"}


def sources():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def test_no_two_classes_have_one_name():
    homes: dict[str, list[str]] = {}
    for path in sources():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name not in REPEATED:
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert not {name: files for name, files in homes.items() if len(files) > 1}


def test_no_module_is_longer_than_300_lines():
    long = {str(path.relative_to(ROOT)) for path in sources() if len(path.read_text().splitlines()) > 300}
    assert long == LONG


def test_the_trees_are_read():
    assert {top(arrow.source) for arrow in ARROWS} == set(PACKAGES)
    assert len(ARROWS) > 100


def test_light_modules_import_nothing_heavy_by_detours_either():
    code = f"import sys, {', '.join(LIGHT)}; print(sorted({HEAVY | OPTIONAL!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
