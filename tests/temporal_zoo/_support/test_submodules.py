"""Lists of a package's files."""

import sys

import diffusion.probes.tasks
from temporal_zoo._support import submodules

PACKAGE = diffusion.probes.tasks.__name__


def test_names_are_sorted_and_without_shared_parts():
    found = submodules.names(PACKAGE)
    assert found == sorted(found)
    assert "kalman" in found
    assert not [name for name in found if name.startswith("_")]


def test_a_summary_is_the_first_line_of_the_docstring_and_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text('"""The first line.\n\nMore."""\n1 / 0\n')
    monkeypatch.setattr(sys.modules[PACKAGE], "__path__", [str(tmp_path)])
    assert submodules.names(PACKAGE) == ["broken"]
    assert submodules.summary(PACKAGE, "broken") == "The first line."
