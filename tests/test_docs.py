"""README and docs/: code runs, commands are understood, links lead somewhere, tables say what the code says.

A block of ```python is run, all blocks of a page in one module.  A line of ```sh that begins with `zoo` is read by the
command itself, with whatever takes long replaced; what looks up names, presets and options is not.
"""

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from diffusion.ablations.network_cost import NetworkCost
from diffusion.model.slots import assign
from temporal_zoo import build, get, registry
from temporal_zoo.cli.main import zoo
from temporal_zoo.contract import CHECKS, outcomes

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
EXAMPLE = "docs/adding-a-mixer.md"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page].read_text(), re.DOTALL | re.MULTILINE)


def with_code(language):
    return [page for page in PAGES if blocks(page, language)]


def commands():
    lines = [(page, line) for page in with_code("sh") for block in blocks(page, "sh") for line in block.splitlines()]
    return [(page, line) for page, line in lines if line.startswith("zoo ")]


@pytest.fixture
def run_page(monkeypatch, tmp_path):
    """Runs the Python of a page in a module of its own; the mixers that it registers are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)

    def run(page):
        module = types.ModuleType("page_of_the_docs")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        for number, block in enumerate(blocks(page, "python")):
            exec(compile(block, f"{page}, Python block {number}", "exec"), module.__dict__)
        return module

    yield run
    for name, entry in list(registry._entries.items()):
        if entry.mixer.__module__ == "page_of_the_docs":
            del registry._entries[name]


class Understood(Exception):
    """Raised where a command, all of its words understood, would begin to work."""


def understood(*args, **kwargs):
    raise Understood


@pytest.fixture
def no_work(monkeypatch, tmp_path):
    """Commands end where they would begin to work."""

    def no_run(config, *_):
        assign(config.model.mixer, len(config.model.multipliers), config.model.slots)
        raise Understood

    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("diffusion.training.run.Run", no_run)
    monkeypatch.setattr("diffusion.device.open_device", str)
    monkeypatch.setattr("diffusion.training.checkpoint.find", understood)
    monkeypatch.setattr("diffusion.cli.data.locate", understood)
    monkeypatch.setattr("diffusion.probes.experiment.Experiment", understood)
    monkeypatch.setattr("diffusion.ablations.fit_budget.network_cost", lambda *_: NetworkCost(1, 1))
    monkeypatch.setattr("diffusion.cli.ablate._prepare", understood)
    monkeypatch.setattr("temporal_zoo.cli.examine.examine", understood)
    monkeypatch.setattr("diffusion.evaluation.extractors.open_extractor", understood)
    monkeypatch.setattr("diffusion.evaluation.weights.convert", understood)
    monkeypatch.setattr("temporal_zoo.cli.check._check_one", lambda *_: True)
    monkeypatch.setattr("bench.sweep.results.load", understood)
    monkeypatch.setattr("bench.plan.pool.planners", understood)
    monkeypatch.setattr("bench.paper.reproduce.reproduce", understood)


@pytest.mark.parametrize("page", with_code("python"))
def test_the_code_of_a_page_runs(page, run_page):
    run_page(page)


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_is_understood(page, line, run_page, no_work):
    if page == EXAMPLE:
        run_page(page)
    words = shlex.split(line, comments=True)[1:]
    result = CliRunner().invoke(zoo, [*words, "--dry-run"] if words[0] == "bench" else words)
    assert isinstance(result.exception, Understood) or result.exit_code == 0, result.output


@pytest.mark.parametrize("line", ["zoo train --mixer bimambo", "zoo train --set model.widht=8", "zoo bench --length 8",
                                  "zoo train --mixer flash@middle", "zoo check mumba", "zoo lst"])  # fmt: skip
def test_that_a_command_can_be_misunderstood(line, no_work):
    result = CliRunner().invoke(zoo, shlex.split(line)[1:])
    assert result.exit_code == 2


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_sessions_that_are_named_exist(page):
    text = PAGES[page].read_text()
    assert set(re.findall(r"`zoo ([a-z]+)", text)) <= set(zoo.list_commands(None))
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    sessions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    assert set(re.findall(r"nox -s (\w+)", text)) <= sessions


def test_continuous_integration_runs_the_test_command_of_the_readme():
    assert "nox -s tests\n" in PAGES["README.md"].read_text()
    assert "nox -s tests\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```$|^    .*?$", "", PAGES[page].read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#\s]+)", prose):
        assert target.startswith("https://") or (PAGES[page].parent / target).exists(), target


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- generated" in PAGES[page].read_text()])
def test_generated_parts_are_fresh(page, generate):
    assert PAGES[page].read_text() == generate.filled(PAGES[page].read_text()), "run: python docs/generate.py"


def test_every_check_of_the_contract_is_explained():
    contract = PAGES["docs/interface.md"].read_text().partition("## The contract")[2].partition("## Reference")[0]
    assert set(re.findall(r"^### (\w+)$", contract, re.MULTILINE)) == set(CHECKS)


def test_the_example_keeps_the_contract(run_page):
    run_page(EXAMPLE)
    for options in ("", *get("leaky").mixer.Config.examples):
        spec = ":".join(filter(None, ("leaky", options)))
        assert not {name: why for name, why in outcomes(lambda spec=spec: build(spec, 8)) if why}


def test_the_example_works_as_a_plug_in(tmp_path):
    project = tomllib.loads(blocks(EXAMPLE, "toml")[0])["project"]
    ((group, points),) = project["entry-points"].items()
    info = tmp_path / "my_mixers-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    module = tmp_path.joinpath(*points["leaky"].split(".")).with_suffix(".py")
    module.parent.mkdir()
    module.write_text(blocks(EXAMPLE, "python")[0])
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", "from temporal_zoo.cli.main import zoo; zoo()", "info", "leaky:both=yes"],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "my_mixers.leaky.Leaky" in done.stdout
