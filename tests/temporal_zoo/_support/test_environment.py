"""The environment of a measurement: plain values, reproducible, with the version of the code."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from temporal_zoo._support import environment as module
from temporal_zoo._support.environment import code, digest, environment


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small git checkout in place of ours."""
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


def test_it_holds_plain_values_and_is_equal_twice():
    first = environment()
    assert json.loads(json.dumps(first)) == first == environment()
    assert first["id"] == digest({name: value for name, value in first.items() if name != "id"})


def test_it_has_machine_software_threads_and_devices():
    facts = environment()
    assert facts["machine"]["usable_cores"] >= 1
    assert facts["machine"]["memory_bytes"] > 2**28
    assert facts["software"]["torch"] == torch.__version__
    assert facts["threads"]["torch"] == torch.get_num_threads()
    assert len(facts["devices"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_the_id_changes_with_a_setting_that_can_change_a_result(monkeypatch):
    before = environment()["id"]
    monkeypatch.setenv("ZOO_BACKEND", "attention=reference")
    assert environment()["id"] != before


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest(None)) == 16


def test_a_clean_checkout_has_its_commit(checkout):
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


def test_a_checkout_of_another_project_gives_no_commit(checkout):
    git(checkout, "rm", "-r", "-q", "--cached", "temporal_zoo")
    git(checkout, "commit", "-q", "-m", "without our package")
    assert (code()["commit"], code()["dirty"]) == (None, None)


def test_without_git_the_code_has_the_digest_of_the_sources(checkout, monkeypatch):
    expected = code()["sources"]
    shutil.rmtree(checkout / ".git")
    assert (code()["commit"], code()["sources"]) == (None, expected)
    monkeypatch.setenv("PATH", str(checkout))
    assert code()["commit"] is None


KINDS = (
    "temporal_zoo/ops/kernel.h",
    "temporal_zoo/ops/kernel.cpp",
    "temporal_zoo/ops/kernel.cu",
    "bench/deep/er/case.py",
    "bench/analysis/page.css",
    "diffusion/presets.json",
    "diffusion/checkpoints/x/checkpoint.pt",
    "diffusion/data/maze/00000.mp4",
)


@pytest.mark.parametrize("name", KINDS)
def test_one_byte_of_any_kind_of_file_changes_the_digest(checkout, name):
    path = checkout / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"one\0two")
    module._source_digest.cache_clear()
    before = code()["sources"]
    path.write_bytes(b"one\0twO")
    module._source_digest.cache_clear()
    assert code()["sources"] != before


def test_the_digest_depends_on_the_ends_of_files(checkout):
    digests = set()
    for first, second in ((b"ab", b"c"), (b"a", b"bc"), (b"", b"abc")):
        (checkout / "bench" / "x.bin").write_bytes(first)
        (checkout / "bench" / "y.bin").write_bytes(second)
        module._source_digest.cache_clear()
        digests.add(code()["sources"])
    assert len(digests) == 3


@pytest.mark.parametrize("name", ["bench/__pycache__/case.cpython-311.pyc", "bench/.case.py.swp", "bench/.idea/x.xml"])
def test_files_of_python_and_editors_do_not_change_the_digest(checkout, name):
    before = code()["sources"]
    path = checkout / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"anything")
    (checkout / "bench" / "link.py").symlink_to("nowhere")
    module._source_digest.cache_clear()
    assert code()["sources"] == before


@pytest.mark.skipif(not (module.ROOT / ".git").exists(), reason="needs a checkout")
def test_the_digest_covers_every_tracked_file_of_the_packages():
    tracked = git(module.ROOT, "ls-files", *module.OURS).splitlines()
    missed = [name for name in tracked if not module._can_change_a_result(module.ROOT / name)]
    assert not missed


def test_the_compiler_is_recorded_with_its_flags(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    if environment()["compiler"]["path"] is None:
        pytest.skip("no compiler here")
    first = environment()
    assert "-O3" in first["compiler"]["flags"]
    monkeypatch.setenv("CXX", f"{first['compiler']['path']} -O1")
    second = environment()
    assert second["compiler"]["flags"][0] == "-O1"
    assert second["id"] != first["id"]
    monkeypatch.setenv("CXX", "/no/such/compiler")
    assert environment()["compiler"]["path"] is None


def test_an_environment_with_a_setting_that_is_not_utf8_has_an_id(monkeypatch):
    monkeypatch.setenv("ZOO_BACKEND", "\udcff")
    assert len(environment()["id"]) == 16


def test_our_folders_are_the_packages():
    assert all((Path(module.ROOT) / name / "__init__.py").exists() for name in module.OURS)
