"""Layouts: a new one is a file in `diffusion/data/layouts/`, and every command finds its videos."""

import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from diffusion.data import DataConfig, DataError, layouts, open_clips, open_source
from diffusion.data.layouts import layout_of, search
from temporal_zoo._support.record import read
from temporal_zoo.cli.main import zoo

# The example of the page: a file that lists the videos and their splits.
PAGE = Path(__file__).parents[3] / "docs/data.md"
TOY = PAGE.read_text().partition("```python\n")[2].partition("```")[0]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Adds a layout in one file."""
    folder = tmp_path / "layouts"
    folder.mkdir()
    (folder / "toy.py").write_text(TOY)
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(folder)])
    yield
    sys.modules.pop("diffusion.data.layouts.toy", None)


@pytest.fixture
def source(cache, tmp_path, monkeypatch, videos):
    """Six listed videos, of which two are for testing, and one that is not listed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    folder = videos("listed", count=7)
    lines = [f"{number:02d}.npy {'test' if number > 3 else 'train'}" for number in range(6)]
    (folder / "videos.txt").write_text("\n".join(lines))
    return folder


def run(*words):
    result = CliRunner().invoke(zoo, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def test_a_new_layout_is_tried_before_the_general_ones(source, toy):
    assert layouts.names() == ["toy", "train_test", "folder", "file"]
    assert layout_of(source).__name__.endswith(".toy")
    assert layout_of(source / "00.npy").__name__.endswith(".file")
    assert [file.name for file in search(source).files][:3] == ["test/04.npy", "test/05.npy", "train/00.npy"]


def test_without_the_file_the_folder_has_another_layout(source):
    assert search(source).layout.startswith("folder: A folder of videos")
    assert len(search(source).files) == 7


def test_inspect_names_a_new_layout_and_its_splits(source, toy):
    out = run("data", "inspect", source, "--size", 8).stdout
    facts = dict(re.findall(r"^ +(\S+(?: \S+)*)  +(\S.*?) *$", out, re.MULTILINE))
    assert facts["layout"] == "toy: A file videos.txt that lists the videos and their splits."
    assert facts["splits"] == "4 train, 2 test"


def test_training_reads_a_new_layout(source, toy, tmp_path):
    small = ("model.mixer=identity", "model.width=8", "model.size=8", "data.frames=3", "data.size=8", "process.steps=8")
    settings = [word for assignment in (*small, "batch=2") for word in ("--set", assignment)]
    run("train", "--data", source, "--steps", 1, "--out", tmp_path / "run", *settings)
    (start,) = read(tmp_path / "run/log.jsonl").of("start")
    assert list(start["videos"]) == [f"train/{number:02d}.npy" for number in range(4)]


def test_evaluation_takes_the_test_split_of_a_new_layout(source, toy, videos):
    fake = videos("fake", seed=1)
    out = run("evaluate", fake, "--real", source, "--extractor", "plain").stdout
    assert f"against {source}: 2 clips of 2 videos" in out
    assert "reference test" in out


def test_a_built_cache_has_the_splits_of_its_layout(source, toy, tmp_path):
    run("data", "build", source, "--size", 8, "--out", tmp_path / "built")
    source.rename(tmp_path / "elsewhere")
    built = open_source(str(tmp_path / "built"))
    assert (built.decoded_size, built.files, built.has_splits) == (8, [], True)
    config = DataConfig(source=str(tmp_path / "built"), size=8, frames=3)
    assert open_clips(config, split="test").videos.names == ["test/04.npy", "test/05.npy"]


@pytest.mark.parametrize("name", ["builtin:mazes", "builtin:doom"])
def test_built_in_sources_have_splits(name):
    assert open_source(name).has_splits


@pytest.mark.parametrize("name", layouts.names())
def test_every_layout_has_a_description_of_one_line(name):
    module = layouts.import_module(f"diffusion.data.layouts.{name}")
    assert module.__doc__.partition("\n")[0].endswith(".")
    assert callable(module.matches)
    assert callable(module.search)


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match=r"no file or folder .*gone; built-in videos are written builtin:mazes"):
        layout_of(tmp_path / "gone")
