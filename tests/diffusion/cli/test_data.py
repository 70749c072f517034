"""`zoo data`: run as a user runs it, on tiny inputs."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from diffusion.data import DataConfig
from diffusion.data.cache import default_folder, why_stale
from temporal_zoo.cli.main import zoo

pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path):
    """Twelve small videos of 20 to 31 frames, and a broken one."""
    folder = tmp_path / "my videos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(12):
        np.save(folder / f"{index}.npy", rng.integers(0, 256, (20 + index, 12, 16, 3), dtype=np.uint8))
    (folder / "broken.mp4").write_bytes(b"not a video")
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(zoo, ["data", *map(str, words)])


def test_inspect_reports_the_videos_and_the_training_command(source):
    result = run("inspect", source, "--size", 8)
    assert result.exit_code == 0, result.output
    facts = dict(re.findall(r"^ +(\S+(?: \S+)*)  +(\S.*?) *$", result.stdout, re.MULTILINE))
    assert facts["files"].startswith("13, ")
    assert facts["videos"] == "12"
    assert facts["frames"] == "20 to 31, median 26"
    assert facts["height x width"] == "12 x 16, 3 channels (12)"
    assert facts["long enough"] == "12 for 16 frames, 0 for 64 frames, 0 for 256 frames"
    assert "broken.mp4" in result.stdout
    assert f"zoo train --set 'data.source={source}' --set data.size=8" in result.stdout


def test_inspect_of_many_files_decodes_some(source, monkeypatch):
    monkeypatch.setattr("diffusion.data.inspect.SAMPLE", 4)
    result = run("inspect", source)
    assert "videos of the 4 files decoded" in result.stdout


def test_build_then_inspect_then_preview_of_the_cache(source, tmp_path):
    built = run("build", source, "--size", 8, "--out", tmp_path / "out")
    assert built.exit_code == 0, built.output
    assert built.stdout == f"{tmp_path / 'out'}\n"
    assert "1 cannot be decoded" in built.stderr
    assert "broken.mp4" in (tmp_path / "out/bad_files.txt").read_text()
    assert "8 x 8, 3 channels (12)" in run("inspect", tmp_path / "out").stdout
    shown = run("preview", tmp_path / "out", "--size", 8, "--count", 3, "--out", tmp_path / "look")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.split() == [str(tmp_path / "look.png"), str(tmp_path / "look.gif")]
    with Image.open(tmp_path / "look.gif") as picture:
        assert picture.n_frames == 16


def test_build_without_out_is_found_by_training(source, cache):
    folder = run("build", source, "--size", 8).stdout.strip()
    assert folder.startswith(str(cache))
    assert folder == str(default_folder(source, DataConfig(size=8)))
    assert why_stale(source, Path(folder), 8) is None


def test_preview_of_the_built_in_mazes(tmp_path):
    result = run("preview", "builtin:mazes", "--frames", 4, "--size", 8, "--count", 1, "--out", tmp_path / "look")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "look.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("inspect", "nowhere"), "no file or folder nowhere"),
        (("build", "nowhere"), "no file or folder nowhere"),
        (("preview", "nowhere"), "no file or folder nowhere"),
        (("preview", "builtin:maze"), 'did you mean "mazes"'),
        (("inspect", "builtin:mazes"), "has no files"),
        (("preview", "builtin:mazes", "--size", "1"), "size is 1; it must be at least 4"),
        (("preview", "builtin:mazes", "--split", "both"), "--split"),
        (("preview", "builtin:mazes", "--count", "0"), "--count"),
    ],
)
def test_errors_of_users_are_one_message_and_exit_code_2(words, message):
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_strict_names_the_first_bad_file(source, tmp_path):
    result = run("build", source, "--strict", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "broken.mp4" in result.stderr


def test_inspect_of_a_source_with_only_bad_files(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"")
    result = run("inspect", tmp_path)
    assert result.exit_code == 2
    assert "a.gif: the file is empty" in result.stdout


@pytest.mark.parametrize("words", [[], ["inspect"], ["build"], ["preview"]])
def test_help_imports_no_torch(words):
    code = (
        "import sys; from diffusion.cli.data import data\n"
        f"try: data({[*words, '--help']!r})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'av', 'PIL', 'numpy'} & set(sys.modules), 'heavy imports'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
