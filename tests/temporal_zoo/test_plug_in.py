"""One file, no other edit: a new mixer is listed, keeps the contract, is benchmarked and trains."""

import json
import shutil

import pytest

from temporal_zoo.cli.main import ROOT

EMA = '''
from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torch.nn import functional as F

from temporal_zoo.config import option
from temporal_zoo.interface import Mixer
from temporal_zoo.registry import register


@register("echo", summary="adds what was a few frames ago", paper="none", time="T", memory="T")
class Echo(Mixer):
    """y[t] = W x[t] + V x[t - delay]"""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        delay: int = option(1, "how many frames ago", least=1)
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

# One process for all commands: most of the time goes into importing torch.
COMMANDS = """
import sys
from click.testing import CliRunner
from temporal_zoo.cli.main import zoo
for arguments in sys.argv[1:]:
    result = CliRunner().invoke(zoo, arguments.split(), catch_exceptions=False)
    print(f"<{arguments}> ended with {result.exit_code}", result.output, sep="\\n")
    print(result.stderr, file=sys.stderr)
"""

QUESTIONS = (
    "list --json",
    "info echo:delay=2",
    "check echo",
    "bench --layers echo,identity --lengths 4,8 --level mixer --mode train --rows 2 --dim 8 --out bench "
    "--repetitions 1",
    "train --mixer echo:delay=2 --steps 2 --out run --set data.frames=4 --set data.size=16 --set batch=1",
)


@pytest.fixture
def one_file(tmp_path):
    """A copy of our packages with one more file among the mixers."""
    tree = tmp_path / "tree"
    for package in ("temporal_zoo", "diffusion", "bench"):
        skipped = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / package, tree / package, ignore=skipped)
    (tree / "temporal_zoo" / "mixers" / "echo.py").write_text(EMA)
    return tree


@pytest.fixture
def installed(third_party):
    """Somebody else's distribution that ships the mixer."""
    return third_party({"theirs/echo_mixer.py": EMA}, "[temporal_zoo.mixers]\necho = theirs.echo_mixer\n")


@pytest.mark.parametrize("way", ["one_file", "installed"])
def test_a_mixer_is_found_checked_measured_and_trained(zoo_process, request, way):
    done = zoo_process(*QUESTIONS, path=request.getfixturevalue(way), code=COMMANDS)
    assert done.returncode == 0, done.stderr
    for question in QUESTIONS:
        assert f"<{question}> ended with 0" in done.stdout, done.stdout + done.stderr
    rows = json.loads(done.stdout.partition("\n")[2].partition("\n<info")[0])
    (echo,) = [row for row in rows if row["name"] == "echo"]
    assert echo == {
        "name": "echo",
        "summary": "adds what was a few frames ago",
        "time": "T",
        "memory": "T",
        "causal": True,
        "paper": "none",
        "parameters": 2 * (64 * 64 + 64),
    }
    assert "echo:delay=2: " in done.stdout
    home = "temporal_zoo.mixers.echo.Echo" if way == "one_file" else "theirs.echo_mixer.Echo"
    assert home in done.stdout
