"""README and docs/: the code runs, commands have valid arguments, links have targets, generated parts are current.

The test runs all ```python blocks of a page in one module.  It passes each line of ```sh that begins with `zoo` to the
command itself.  Functions that take long are replaced; the lookup of names, presets and options is not.
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
import torch
from click.testing import CliRunner

from diffusion.ablations.network_cost import NetworkCost
from diffusion.model import backbones
from temporal_zoo import build, get, names, registry
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
    """Runs the Python of a page in a new module and removes the mixers that it registers afterwards."""
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


class Accepted(Exception):
    """Raised where a command has accepted all arguments and would begin to work."""


def accept(*args, **kwargs):
    raise Accepted


@pytest.fixture
def no_work(monkeypatch, tmp_path):
    """Stops commands where they would begin to work."""

    def no_run(config, *_):
        backbones.mixers(config.model)
        raise Accepted

    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("diffusion.training.run.Run", no_run)
    monkeypatch.setattr("diffusion.device.open_device", str)
    monkeypatch.setattr("diffusion.training.checkpoint.find", accept)
    monkeypatch.setattr("diffusion.cli.data.files_of", accept)
    monkeypatch.setattr("diffusion.probes.experiment.Experiment", accept)
    monkeypatch.setattr("diffusion.ablations.fit_budget.network_cost", lambda *_: NetworkCost(1, 1))
    monkeypatch.setattr("diffusion.cli.ablate._prepare", accept)
    monkeypatch.setattr("temporal_zoo.cli.doctor_report.build_report", accept)
    monkeypatch.setattr("diffusion.evaluation.extractors.open_extractor", accept)
    monkeypatch.setattr("diffusion.evaluation.weights.convert", accept)
    monkeypatch.setattr("temporal_zoo.cli.check._check_one", lambda *_: True)
    monkeypatch.setattr("diffusion.training.converting.convert_file", accept)
    monkeypatch.setattr("bench.sweep.results.load", accept)
    monkeypatch.setattr("bench.plan.pool.planners", accept)
    monkeypatch.setattr("bench.paper.reproduce.reproduce", accept)


@pytest.mark.parametrize("page", with_code("python"))
def test_the_code_of_a_page_runs(page, run_page):
    run_page(page)


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_has_valid_arguments(page, line, run_page, no_work):
    if page == EXAMPLE:
        run_page(page)
    words = shlex.split(line, comments=True)[1:]
    result = CliRunner().invoke(zoo, [*words, "--dry-run"] if words[0] == "bench" else words)
    assert isinstance(result.exception, Accepted) or result.exit_code == 0, result.output


@pytest.mark.parametrize("line", ["zoo train --mixer bimambo", "zoo train --set model.widht=8", "zoo bench --length 8",
                                  "zoo train --mixer flash@middle", "zoo check mumba", "zoo lst"])  # fmt: skip
def test_a_command_with_wrong_arguments_fails(line, no_work):
    result = CliRunner().invoke(zoo, shlex.split(line)[1:])
    assert result.exit_code == 2


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_nox_sessions_on_a_page_exist(page):
    text = PAGES[page].read_text()
    assert set(re.findall(r"`zoo ([a-z]+)", text)) <= set(zoo.list_commands(None))
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    sessions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    assert set(re.findall(r"nox -s (\w+)", text)) <= sessions


def test_continuous_integration_runs_the_test_command_of_the_readme():
    assert "nox -s tests\n" in PAGES["README.md"].read_text()
    assert "nox -s tests\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_links_have_targets(page):
    prose = re.sub(r"^```.*?^```$|^    .*?$", "", PAGES[page].read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#\s]+)", prose):
        assert target.startswith("https://") or (PAGES[page].parent / target).exists(), target


def test_every_path_that_answers_a_question_exists():
    rows = re.findall(r"^\| (?:Where|How) (.*?)\? \| (.*) \|$", PAGES["docs/where.md"].read_text(), re.MULTILINE)
    assert len(rows) >= 10
    for question, answer in rows:
        paths = re.findall(r"`([\w/.]+)`", answer)
        assert paths, question
        assert not [path for path in paths if "/" in path and not (ROOT / path).exists()], question


def test_a_command_and_its_file_have_the_same_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    commands = project["entry-points"]["temporal_zoo.commands"]
    assert all(point.partition(":")[0].endswith(f".cli.{name}") for name, point in commands.items())


def test_navigation_lists_every_page():
    listed = re.findall(r"(?:- |: )(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(f"docs/{page}" for page in listed) == sorted(PAGES.keys() - {"README.md"})


@pytest.mark.parametrize("folder", ["docs", "docs/results", "docs/decisions"])
def test_the_index_of_a_folder_links_every_page(folder):
    index = ROOT / folder / "index.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+\.md)", index.read_text())}
    pages = {*index.parent.glob("*.md"), *index.parent.glob("*/index.md")} - {index}
    assert not {page.name for page in pages - linked}


def test_the_page_of_commands_names_every_command():
    table = PAGES["docs/commands.md"].read_text().partition("\n\nEvery")[0]
    assert set(re.findall(r"`zoo (\w+)`", table)) == set(zoo.list_commands(None))


def test_the_readme_fits_two_screens():
    assert len(PAGES["README.md"].read_text().splitlines()) <= 100


def from_docs(name):
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate():
    return from_docs("generate")


@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- generated" in PAGES[page].read_text()])
def test_generated_parts_are_current(page, generate):
    assert PAGES[page].read_text() == generate.filled(PAGES[page].read_text()), "run: python docs/generate.py"


def test_every_mixer_has_a_current_card():
    pictures = from_docs("pictures")
    for name in names():
        card = ROOT / "docs" / "assets" / "gallery" / f"{name}.svg"
        assert card.read_text() == pictures.card(name), "run: python docs/generate.py"


def test_a_card_shows_which_frames_a_mixer_uses():
    influence = from_docs("pictures").influence
    assert influence("identity").equal(torch.eye(8, dtype=torch.bool))
    assert influence("mamba").equal(torch.ones(8, 8, dtype=torch.bool).tril())
    assert influence("bimamba").all()


def test_typeset_equations_belong_to_mixers(generate):
    assert tomllib.loads(generate.EQUATIONS.read_text()).keys() <= set(names())


def test_a_page_links_the_terms_of_the_glossary_that_it_uses():
    hooks = from_docs("hooks")
    page = types.SimpleNamespace(file=types.SimpleNamespace(src_uri="results/quick.md"))
    assert "[slot](../glossary.md#slot)" in hooks.on_page_markdown("Mixers go into slots.", page)
    assert "[recompute](../glossary.md#recompute)" in hooks.on_page_markdown("Blocks are recomputed.", page)
    assert "glossary" not in hooks.on_page_markdown("Nothing.", page)
    links = hooks.on_page_markdown(" ".join(hooks.terms()), page)
    anchors = re.findall(r"glossary\.md#([\w-]+)", links)
    assert len(anchors) == len(hooks.terms()) >= 20


def test_the_site_shows_equations_as_mathml():
    pytest.importorskip("latex2mathml", reason="only the docs extra installs it")
    content = from_docs("hooks").on_page_content(r'<p>If</p><div class="arithmatex">\[x &lt; 1\]</div>')
    assert content.startswith("<p>If</p><math")
    assert "arithmatex" not in content


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
