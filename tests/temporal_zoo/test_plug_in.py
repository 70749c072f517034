"""A new mixer is one file: every command, the list of names and the tables of the docs find it without another edit."""

import json
import shutil
from pathlib import Path

import pytest

from temporal_zoo.cli.main import ROOT

ECHO = '''
from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torch.nn import functional as F

from temporal_zoo.config import option
from temporal_zoo.interface import Mixer
from temporal_zoo.registry import register


@register("echo", summary="adds an earlier frame", paper="none", time="T", memory="T")
class Echo(Mixer):
    """y[t] = W x[t] + V x[t - delay]"""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        delay: int = option(1, "distance in frames", least=1)
        examples: ClassVar[tuple[str, ...]] = ("delay=2",)

    causal = True

    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.now = nn.Linear(dim, dim)
        self.then = nn.Linear(dim, dim)

    def mix(self, x, lengths):
        delayed = F.pad(x, (0, 0, self.config.delay, 0))[:, : x.shape[1]]
        return self.now(x) + self.then(delayed)
'''

# One process for all commands, because the import of torch takes most of the time.
COMMANDS = """
import runpy
import sys
from click.testing import CliRunner
from temporal_zoo.cli.main import zoo
for arguments in sys.argv[1:]:
    result = CliRunner().invoke(zoo, arguments.split(), catch_exceptions=False)
    print(f"<{arguments}> ended with {result.exit_code}", result.output, sep="\\n")
    print(result.stderr, file=sys.stderr)
from temporal_zoo import build, names
print("names:", names("ec*", causal=True, stateful=False), build("echo", 8, delay=2).spec)
tables = runpy.run_path(GENERATE)
print(tables["mixers"](), tables["options"]())
"""

QUESTIONS = (
    "list --json",
    "info echo:delay=2",
    "check echo",
    "bench --layers echo,identity --dry-run",
    "plan --layers echo --lengths 2 --checkpointing none --preset tiny --size 16 --gpu cpu:16GiB --out plan",
    "bench --layers echo,identity --lengths 4,8 --level mixer --mode train --rows 2 --dim 8 --out bench "
    "--repetitions 1",
    "train --mixer echo:delay=2 --steps 2 --out run --set data.frames=4 --set data.size=16 --set batch=1",
)


@pytest.fixture
def one_file(tmp_path):
    """A copy of the three packages with one more file among the mixers."""
    tree = tmp_path / "tree"
    for package in ("temporal_zoo", "diffusion", "bench"):
        skipped = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / package, tree / package, ignore=skipped)
    (tree / "temporal_zoo" / "mixers" / "echo.py").write_text(ECHO)
    return tree


@pytest.fixture
def installed(third_party):
    """Another distribution that ships the mixer."""
    return third_party({"theirs/echo_mixer.py": ECHO}, "[temporal_zoo.mixers]\necho = theirs.echo_mixer\n")


@pytest.mark.parametrize("way", ["one_file", "installed"])
def test_a_mixer_is_found_checked_measured_planned_trained_and_documented(zoo_process, request, way):
    code = COMMANDS.replace("GENERATE", repr(str(Path(__file__).parents[2] / "docs" / "generate.py")))
    done = zoo_process(*QUESTIONS, path=request.getfixturevalue(way), code=code)
    assert done.returncode == 0, done.stderr
    for question in QUESTIONS:
        assert f"<{question}> ended with 0" in done.stdout, done.stdout + done.stderr
    rows = json.loads(done.stdout.partition("\n")[2].partition("\n<info")[0])
    (echo,) = [row for row in rows if row["name"] == "echo"]
    assert echo == {
        "name": "echo",
        "summary": "adds an earlier frame",
        "time": "T",
        "memory": "T",
        "causal": True,
        "paper": "none",
        "parameters": 2 * (64 * 64 + 64),
    }
    assert "echo:delay=2: " in done.stdout
    assert "names: ['echo'] echo:delay=2" in done.stdout
    assert f"| `echo` | adds an earlier frame | {2 * (64 * 64 + 64):,} | T | T | none |" in done.stdout
    assert "y[t] = W x[t] + V x[t - delay]" in done.stdout.rpartition("names: ")[2]
    home = "temporal_zoo.mixers.echo.Echo" if way == "one_file" else "theirs.echo_mixer.Echo"
    assert home in done.stdout
