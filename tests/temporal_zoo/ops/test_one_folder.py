"""One folder, no other edit: a new op is tried by the doctor, compared, benchmarked by pins, and planned."""

import json
import shutil

import pytest

from temporal_zoo.cli.main import ROOT

OP = {
    "__init__.py": '''"""Scales every channel, with SiLU."""

from torch import Tensor

from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops._dispatch import op
from temporal_zoo.ops._lengths import check_lengths


@op("fused", "wrong", "reference")
def scaling(x: Tensor, weight: Tensor, *, lengths: Tensor | None = None) -> None:
    """y = silu(weight x), zero at padded frames."""
    if weight.shape != x.shape[2:]:
        raise InvalidInput(f"weight is {tuple(weight.shape)}; it must be {tuple(x.shape[2:])}")
    check_lengths(x, lengths)
''',
    "example.py": '''"""Inputs of `scaling` at a size and dtype."""


def example(draw, case):
    """Positional and keyword arguments, without `lengths`."""
    return (draw(case.rows, case.frames, case.channels), draw(case.channels)), {}
''',
    "_operator.py": '''"""The custom operator of `scaling`."""

from functools import partial

from torch import Tensor

from temporal_zoo.ops._register import backend_module, register


def run(backend, x, weight, *, lengths=None):
    """`scaling` by the named backend."""
    return _forward(x, weight, lengths, backend)


def _compute(x: Tensor, weight: Tensor, lengths: Tensor | None, backend: str) -> Tensor:
    return _backend(backend).forward(x, weight, lengths)


def _gradients(dy: Tensor, x: Tensor, weight: Tensor, lengths: Tensor | None, backend: str) -> list[Tensor]:
    return _backend(backend).backward(dy, x, weight, lengths)


def _fake(x, weight, lengths, backend):
    return x.new_empty(x.shape)


_backend = partial(backend_module, __package__)
_forward, _ = register(
    _compute, _gradients, fake=_fake, outputs=("y",), gradients={"dy": "y"}, differentiable=("x", "weight")
)
''',
    "reference.py": '''"""The definition."""

from torch.nn.functional import silu

from temporal_zoo.ops._lengths import fill_padding

NEEDS, CONFIRMED = None, "torch"


def refuses(*args, **kwargs):
    return []


def run(x, weight, *, lengths=None):
    return fill_padding(silu(weight * fill_padding(x, lengths)), lengths)
''',
    "fused.py": '''"""Stores its inputs only."""

from functools import partial

import torch
from torch.nn.functional import silu

from temporal_zoo.ops._lengths import fill_padding
from temporal_zoo.ops.scaling import _operator

NEEDS, CONFIRMED = None, "torch"
run = partial(_operator.run, "fused")


def refuses(*args, **kwargs):
    return []


def forward(x, weight, lengths):
    return fill_padding(silu(weight * x), lengths).contiguous()


def backward(dy, x, weight, lengths):
    x, dy = fill_padding(x, lengths), fill_padding(dy, lengths)
    dproduct = torch.ops.aten.silu_backward(dy, weight * x)
    return [(dproduct * weight).contiguous(), (dproduct * x).sum((0, 1))]
''',
}
OP["wrong.py"] = OP["fused.py"].replace('"fused"', '"wrong"').replace("dproduct * x", "2 * dproduct * x")

MIXER = '''
import torch
from torch import nn

from temporal_zoo.interface import Mixer
from temporal_zoo.ops.scaling import scaling
from temporal_zoo.registry import register


@register("scaled", summary="scales channels", paper="none", time="1", memory="1")
class Scaled(Mixer):
    """y = silu(weight x)"""

    causal, order_blind = True, True

    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.weight = nn.Parameter(torch.ones(dim))

    def mix(self, x, lengths):
        return scaling(x, self.weight, lengths=lengths)
'''

# One process for all commands: most of the time goes into importing torch.
COMMANDS = """
import json, sys
from click.testing import CliRunner
from temporal_zoo.cli import doctor_report
from temporal_zoo.cli.main import zoo
# Packages and other ops are tested elsewhere.
doctor_report.OPTIONAL = ()
one_op = "in [key for key in trials() if key[0] == 'scaling']:"
doctor_report._TRIALS = doctor_report._TRIALS.replace("in trials():", one_op)
for arguments in sys.argv[1:]:
    result = CliRunner().invoke(zoo, arguments.split(), catch_exceptions=False)
    print(json.dumps({"arguments": arguments, "code": result.exit_code, "output": result.stdout + result.stderr}))
"""
BENCH = (
    "bench --layers scaled --lengths 5 --level mixer --mode train --rows 2 --dim 8 --repetitions 1 --out bench --json "
    "--backend scaling=fused,wrong"
)
PLAN = "plan --layers scaled --lengths 16 --preset tiny --checkpointing none --backend scaling=fused --json"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of our packages with one more op, and a mixer that runs it."""
    tree = tmp_path_factory.mktemp("tree")
    for package in ("temporal_zoo", "diffusion", "bench"):
        skipped = shutil.ignore_patterns("__pycache__", "*.safetensors", "doom*")
        shutil.copytree(ROOT / package, tree / package, ignore=skipped)
    folder = tree / "temporal_zoo" / "ops" / "scaling"
    folder.mkdir()
    for name, source in OP.items():
        (folder / name).write_text(source)
    (tree / "temporal_zoo" / "mixers" / "scaled.py").write_text(MIXER)
    return tree


def test_commands_find_the_op(zoo_process, tree):
    done = zoo_process("doctor --json", BENCH, PLAN, path=tree, code=COMMANDS)
    assert done.returncode == 0, done.stderr
    doctor, bench, plan = (json.loads(line) for line in done.stdout.splitlines())

    rows = {row["backend"]: row for row in json.loads(doctor["output"])["backends"] if row["op"] == "scaling"}
    assert {name: (row["agrees"], row["auto"]) for name, row in rows.items()} == {
        "fused": (True, True), "wrong": (False, False), "reference": (True, False),
    }  # fmt: skip
    assert rows["wrong"]["failure"].startswith("differs from the reference by")
    assert "not timed: scaling=wrong differs from the reference" in bench["output"]
    assert "scaling=fused differs" not in bench["output"]
    assert plan["code"] == 0, plan["output"]
    assert '"fused"' in plan["output"]


def test_python_finds_the_op(zoo_process, tree):
    code = """
import torch
from temporal_zoo.ops import Planned, agreement, ops, planning
from temporal_zoo.ops.scaling import scaling
from bench.quarter import compare, kernels, selection
assert "scaling" in ops() and "scaling" in agreement.examples()
case = agreement.Setting("cpu", torch.float32, True)
print([agreement.check("scaling", agreement.call_of("scaling", name), case).agrees for name in scaling.backends])
with planning(Planned("cuda")):
    print(scaling.choose(torch.empty(2, 3, 4, device="meta"), torch.empty(4, device="meta")))
backends = {name: op.backends for name, op in ops().items()}
cases = [case for group in selection.groups(backends, selection.REHEARSAL)[:2] for case in group.cases({})]
print(sorted({case.what["backend"] for case in cases if case.what["op"] == "scaling" and "backend" in case.what}))
print(any(case.kind == "kernels" and case.what["op"] == "scaling" for case in cases))
"""
    done = zoo_process(path=tree, code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[True, False, True]", "fused", "['fused', 'reference', 'wrong']", "True"]
