"""An ablation and a probe are one file each: the commands and the documentation find a new file."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from diffusion.ablations import catalogue
from diffusion.probes import tasks
from temporal_zoo.cli.main import zoo

ROOT = Path(__file__).parents[2]
ABLATION = '''"""Does a wider network have a lower loss? (a test)"""

from diffusion.ablations.ablation import Contrast, Scale, crossed
from diffusion.ablations.catalogue._toy import toy

QUESTION = "Does a wider network have a lower loss?"
CONTRASTS = (Contrast("width", "16", "8"),)
CELLS = crossed({"width": {"8": "train.model.width=8", "16": "train.model.width=16"}})
SCALES = {"toy": lambda: Scale(base=toy("train.steps=1"), cells=CELLS)}
'''
PROBE = '''"""Does the mixer average?  It estimates a constant from noisy observations."""

import torch

from diffusion.probes.task import Best, Knob, Sequences, Task


class Probe(Task):
    """A constant with noise."""

    question = "what is the constant?"
    knob = Knob("scale", (1.0,), 1.0)
    noises = Knob("noise", (1.0,), 1.0)
    channels = ("value",)

    def num_normals(self, frames):
        return frames + 1

    def make_sequences(self, normals, frames):
        constant = normals[:, :1].expand(-1, frames)
        inputs = constant + self.noise * normals[:, 1:]
        return Sequences(inputs[..., None].float(), constant[..., None].float(), torch.ones_like(inputs, dtype=bool))

    def answers(self, sequences):
        y = sequences.inputs.double()
        count = torch.arange(1, y.shape[1] + 1)[:, None]
        past = y.cumsum(1) / (count + self.noise**2)
        return Best(past, past[:, -1:].expand_as(past))
'''


@pytest.fixture
def add_file(tmp_path, monkeypatch):
    """`add_file(package, name, text)`: a file that belongs to a package, without a copy of the package."""

    def add(package, name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
        # The import adds both; `undo` removes them.
        monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", None)
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}")
        monkeypatch.setattr(package, name, None, raising=False)

    return add


@pytest.fixture
def generate():
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments):
    result = CliRunner().invoke(zoo, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_an_ablation_is_one_file(add_file, generate, tmp_path):
    add_file(catalogue, "wider_network", ABLATION)
    assert "Does a wider network have a lower loss? (a test)" in run("ablate", "--list")
    rows = json.loads(run("ablate", "wider-network", "--seeds", 1, "--dry-run", "--json", "--out", tmp_path / "out"))
    assert [row["trial"] for row in rows] == ["width 8, seed 0", "width 16, seed 0"]
    assert "| `wider-network` | Does a wider network have a lower loss? (a test) | 2 | - |" in generate.ablations()


def test_a_probe_is_one_file(add_file, generate, tmp_path):
    pytest.importorskip("matplotlib")
    add_file(tasks, "constant", PROBE)
    assert "Does the mixer average?" in run("probe", "--list")
    words = ("--mixers", "identity", "--seeds", 1, "--steps", 1, "--sequences", 2, "--out", tmp_path / "out")
    assert "what is the constant?" in run("probe", "constant", *words)
    assert "| `constant` | Does the mixer average?" in generate.probes()
