"""The environment: plain, complete, the same twice, and honest about the code that runs."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from temporal_zoo import environment as module
from temporal_zoo.environment import code, digest, environment


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small git checkout that the module takes for its own."""
    for name in module.OURS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"# {name}\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    module._source_digest.cache_clear()
    yield tmp_path
    module._source_digest.cache_clear()


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_it_is_plain_and_the_same_twice():
    first = environment()
    assert json.loads(json.dumps(first)) == first == environment()
    assert first["id"] == digest({name: value for name, value in first.items() if name != "id"})


def test_it_tells_machine_software_and_threads():
    told = environment()
    assert told["machine"]["usable_cores"] >= 1
    assert told["machine"]["memory_bytes"] > 2**28
    assert told["software"]["torch"] == torch.__version__
    assert told["threads"]["torch"] == torch.get_num_threads()
    assert len(told["devices"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_the_id_changes_with_what_can_change_a_result(monkeypatch):
    before = environment()["id"]
    monkeypatch.setenv("ZOO_BACKEND", "attention=reference")
    assert environment()["id"] != before


def test_a_digest_names_a_value_in_any_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest(None)) == 16


def test_a_clean_checkout_tells_its_commit(checkout):
    assert code()["commit"] == git(checkout, "rev-parse", "HEAD")
    assert code()["dirty"] is False


@pytest.mark.parametrize("change", ["changed", "new"])
def test_changed_and_new_files_make_it_dirty(checkout, change):
    before = code()["sources"]
    (checkout / "bench" / ("__init__.py" if change == "changed" else "case.py")).write_text("x = 1\n")
    module._source_digest.cache_clear()
    assert code()["dirty"] is True
    assert code()["sources"] != before


def test_files_that_change_no_result_do_not_make_it_dirty(checkout):
    (checkout / "notes.md").write_text("nothing")
    assert code()["dirty"] is False


def test_a_moved_file_changes_the_digest_of_the_sources(checkout):
    before = code()["sources"]
    (checkout / "bench" / "__init__.py").rename(checkout / "bench" / "case.py")
    module._source_digest.cache_clear()
    assert code()["sources"] != before


def test_somebody_elses_checkout_is_not_ours(checkout):
    git(checkout, "rm", "-r", "-q", "--cached", "temporal_zoo")
    git(checkout, "commit", "-q", "-m", "they ignore their virtual environment")
    assert (code()["commit"], code()["dirty"]) == (None, None)


def test_without_git_the_sources_still_name_the_code(checkout, monkeypatch):
    expected = code()["sources"]
    shutil.rmtree(checkout / ".git")
    assert (code()["commit"], code()["sources"]) == (None, expected)
    monkeypatch.setenv("PATH", str(checkout))
    assert code()["commit"] is None


def test_a_memory_limit_is_read_and_no_limit_is_none(monkeypatch):
    limits = {"/sys/fs/cgroup/memory.max": "1073741824\n"}
    monkeypatch.setattr(module, "_text", lambda path: limits.get(path, ""))
    assert module._memory_limit_bytes() == 2**30
    limits["/sys/fs/cgroup/memory.max"] = "max\n"
    assert module._memory_limit_bytes() is None
    limits["/sys/fs/cgroup/memory/memory.limit_in_bytes"] = "9223372036854771712\n"
    assert module._memory_limit_bytes() is None


def test_our_folders_are_the_packages():
    assert all((Path(module.ROOT) / name / "__init__.py").exists() for name in module.OURS)
