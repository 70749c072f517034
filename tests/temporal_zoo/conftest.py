"""Other people's packages, pretended: a folder that looks like site-packages with one distribution in it."""

import os
import subprocess
import sys
from textwrap import dedent

import pytest


@pytest.fixture
def third_party(tmp_path):
    """Writes modules and the entry points of a distribution; returns the folder to put on PYTHONPATH."""

    def write(modules, entry_points="", name="theirs"):
        folder = tmp_path / "site"
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(dedent(entry_points))
        for path, source in modules.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(dedent(source))
        return folder

    return write


@pytest.fixture
def zoo_process(tmp_path):
    """Runs `zoo` in a fresh process and an empty folder; `path` comes first where Python looks for modules."""

    def run(*arguments, path=None, code="from temporal_zoo.cli.main import zoo; zoo(prog_name='zoo')"):
        empty = tmp_path / "empty"
        empty.mkdir(exist_ok=True)
        known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        paths = [str(path)] if path else []
        # A checkout that is not installed is importable only because the tests run in it.
        paths += [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=empty,
            env=known | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            timeout=900,
        )

    return run
