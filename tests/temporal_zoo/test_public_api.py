"""The public names for people, editors and type checkers: `tests/typing/public_api.py` uses all of them."""

import ast
import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import temporal_zoo
from temporal_zoo import registry

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "typing" / "public_api.py"


def test_the_example_runs_and_uses_every_public_name():
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    del registry._entries["scaled"]
    names = {node.id for node in ast.walk(ast.parse(EXAMPLE.read_text())) if isinstance(node, ast.Name)}
    assert set(temporal_zoo.__all__) <= names


def test_type_checkers_see_the_list_of_public_names_and_their_imports():
    tree = ast.parse(Path(temporal_zoo.__file__).read_text())
    (listed,) = (node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__")
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.literal_eval(listed.value) == temporal_zoo.__all__
    assert sorted(alias.name for node in checked.body for alias in node.names) == temporal_zoo.__all__
    assert (Path(temporal_zoo.__file__).parent / "py.typed").exists()


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
@pytest.mark.parametrize("fault", [None, "build(3, dim='four')", "names(causl=True)", "temporal_zoo.biuld"])
def test_mypy_strict_accepts_the_example_and_reports_faults(fault, tmp_path):
    file = EXAMPLE
    if fault:
        file = tmp_path / "faulty.py"
        file.write_text(EXAMPLE.read_text().replace("    mixer = build(", f"    {fault}\n    mixer = build(", 1))
    command = ["mypy", "--strict", "--follow-imports=silent", "--no-error-summary", str(file)]
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode == 0) == (fault is None), done.stdout + done.stderr
    assert all("faulty.py" in line for line in done.stdout.splitlines()), done.stdout
