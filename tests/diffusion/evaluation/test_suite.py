"""Sets of clips, cached features, and one evaluation of all measures."""

import numpy as np
import pytest
import torch

from diffusion.data import DataConfig, DataError
from diffusion.evaluation import EvaluationError, measures
from diffusion.evaluation.clips import Arrays, open_set
from diffusion.evaluation.extractors import open_extractor
from diffusion.evaluation.extractors.torchvision import tensors
from diffusion.evaluation.features import Features, views
from diffusion.evaluation.protocol import PRESETS, EvaluationProtocol, protocol
from diffusion.evaluation.suite import Evaluation

CPU = torch.device("cpu")


def opened(folder, **how):
    return open_set(
        DataConfig(source=str(folder)), **{"split": "all", "count": None, "frames": None, "size": None, "seed": 0} | how
    )


def worked(features, view="whole"):
    (wanted,) = [v for v in views(features.clips.frames, features.protocol, 9) if v.name == view]
    list(features.computed(wanted))
    return features[view]


def evaluated(real, fake, second, extractor, settings=PRESETS["standard"]):
    evaluation = Evaluation(real, fake, second, extractor=extractor, protocol=settings, seed=0)
    steps = list(evaluation.work())
    assert all(0 <= step.done <= step.total for step in steps)
    return {row.measure: row for row in evaluation.rows}, evaluation


@pytest.mark.parametrize(("count", "extrapolated"), [(6, False), (32, True)])
def test_an_evaluation_has_every_measure(cache, videos, means, count, extrapolated):
    sources = [videos(name, seed=seed, count=count) for seed, name in enumerate(("real", "fake", "more"))]
    real, fake, second = (opened(source, frames=9) for source in sources)
    rows, evaluation = evaluated(real, fake, second, means)
    whole = {"Frechet of means", "kernel of means"} | ({"Frechet of means, infinite"} if extrapolated else set())
    assert set(rows) == {*whole, "Frechet of means, static", *measures.CURVES}
    assert any("infinite is not shown: fewer than 32 videos" in text for text in evaluation.warnings) != extrapolated
    whole = rows["Frechet of means"]
    assert whole.mean_term + whole.covariance_term == pytest.approx(whole.estimate.value)
    assert whole.floor.value > 0
    assert 0 < rows["kernel of means"].p_value <= 1
    facts = evaluation.facts()
    assert facts["protocol_digest"] == PRESETS["standard"].digest
    assert {held["count"] for held in facts["sets"].values()} == {count}
    assert facts["interval_method"] == 2
    assert facts["warnings"] == evaluation.warnings


def test_two_samples_on_each_side_are_enough(cache, videos, means):
    rows, _ = evaluated(opened(videos("a", count=2)), opened(videos("b", count=2, seed=1)), None, means)
    assert rows["Frechet of means"].estimate.margin is None
    assert rows["Frechet of means"].floor is None
    assert np.isfinite(rows["Frechet of means"].estimate.value)


def test_a_set_against_itself(cache, videos, means):
    rows, _ = evaluated(opened(videos("a")), opened(videos("a2")), None, means)
    assert abs(rows["Frechet of means"].estimate.value) < 1e-6


def test_the_network_runs_once_on_every_clip(cache, videos, means):
    clips = opened(videos("a"))
    first = worked(Features(clips, means, PRESETS["standard"]))
    again = worked(Features(clips, means, PRESETS["standard"]))
    assert means.seen == clips.count
    np.testing.assert_array_equal(first, again)
    worked(Features(clips, means, PRESETS["paper"]))
    assert means.seen == 2 * clips.count


def test_an_interrupted_extraction_is_resumed(cache, videos, means, monkeypatch):
    monkeypatch.setattr("diffusion.evaluation.features.FRAMES_AT_ONCE", 24)
    monkeypatch.setattr("diffusion.evaluation.features.SAVE_SECONDS", 0)
    clips = opened(videos("a"))
    features = Features(clips, means, PRESETS["standard"])
    steps = features.computed(views(12, PRESETS["standard"], 9)[0])
    while means.seen < 4:
        next(steps)
    next(steps)
    whole = worked(Features(clips, means, PRESETS["standard"]))
    assert means.seen == clips.count
    monkeypatch.setenv("ZOO_CACHE", str(cache / "other"))
    np.testing.assert_allclose(worked(Features(clips, means, PRESETS["standard"])), whole, rtol=1e-5)


def test_a_cache_file_of_other_clips_is_an_error(cache, videos, means):
    one, two = opened(videos("a")), opened(videos("b", seed=1))
    worked(Features(one, means, PRESETS["standard"]))
    (theirs,) = (cache / "features").iterdir()
    worked(Features(two, means, PRESETS["standard"]))
    (ours,) = set((cache / "features").iterdir()) - {theirs}
    ours.write_bytes(theirs.read_bytes())
    with pytest.raises(EvaluationError, match="belong to other pixels"):
        worked(Features(two, means, PRESETS["standard"]))
    ours.write_bytes(b"nonsense")
    with pytest.raises(EvaluationError, match="are damaged"):
        worked(Features(two, means, PRESETS["standard"]))


def test_longer_clips_have_windows():
    named = {view.name: view.frames for view in views(40, PRESETS["standard"], 9)}
    assert named["start"] == tuple(range(16))
    assert named["middle"] == tuple(range(12, 28))
    assert named["end"] == tuple(range(24, 40))
    assert named["static"] == (20,) * 9
    assert [view.name for view in views(16, PRESETS["standard"], 9)] == ["whole", "static"]
    assert [view.name for view in views(40, PRESETS["paper"], 9)] == ["whole"]


def test_the_digest_of_a_protocol_depends_on_its_settings_and_not_on_its_name():
    assert len({preset.digest for preset in PRESETS.values()}) == 3
    assert EvaluationProtocol(name="mine").digest == PRESETS["standard"].digest
    assert EvaluationProtocol(resize="legacy").digest != EvaluationProtocol().digest
    with pytest.raises(EvaluationError, match='did you mean "paper"'):
        protocol("papr")


def test_crops_take_the_videos_in_turn_and_no_window_twice(cache, videos):
    source = videos("a", count=3, frames=12)
    clips = opened(source, frames=10, count=9)
    seen = {clips.read(number).numpy().tobytes() for number in range(9)}
    assert len(seen) == 9
    assert clips.num_videos == 3
    others = opened(source, frames=10, count=3, first=6)
    assert torch.equal(others.read(0), clips.read(6))
    assert not torch.equal(opened(source, frames=10, count=3, seed=1).read(0), clips.read(0))
    with pytest.raises(EvaluationError, match="gives 9 different clips of 10 frames"):
        opened(source, frames=10, count=10)


def test_arrays_of_floats(cache, tmp_path):
    folder = tmp_path / "floats"
    folder.mkdir()
    for number in range(3):
        np.save(folder / f"{number}.npy", np.full((9, 4, 4, 3), number / 2 - 0.5, np.float32))
    clips = opened(folder)
    assert isinstance(clips, Arrays)
    assert (clips.count, clips.frames, clips.size, clips.channels) == (3, 9, 4, 3)
    assert clips.read(0).unique().tolist() == [-0.5]
    bright = tmp_path / "bright"
    bright.mkdir()
    np.save(bright / "0.npy", np.full((9, 4, 4, 3), 0.5, np.float32))
    with pytest.raises(EvaluationError, match=r"they may be in \[0, 1\]"):
        opened(bright)
    np.save(folder / "3.npy", np.full((9, 4, 4, 3), 1.5, np.float32))
    with pytest.raises(EvaluationError, match=r"3\.npy has values from 1\.5 to 1\.5"):
        opened(folder).read(3)
    np.save(folder / "4.npy", np.zeros((8, 4, 4, 3), np.float32))
    with pytest.raises(EvaluationError, match="differ"):
        opened(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 1}, "needs at least 2"),
        ({"frames": 11}, "the frames of the clips differ: 11 in"),
        ({"size": 6}, "the size of the clips differ: 6 in"),
    ],
)
def test_sets_that_cannot_be_compared(cache, videos, means, change, message):
    real, fake = opened(videos("a")), opened(videos("b", **change))
    with pytest.raises(EvaluationError, match=message):
        Evaluation(real, fake, None, extractor=means, protocol=PRESETS["standard"], seed=0)


def test_clips_have_the_stride_of_the_run(cache, videos):
    source = DataConfig(source=str(videos("a")), stride=2)
    clips = open_set(source, split="all", count=2, frames=6, size=None, seed=0)
    every = opened(source.source, count=2)
    assert torch.equal(clips.read(0), every.read(0)[:11:2]) or torch.equal(clips.read(0), every.read(0)[1::2])
    assert open_set(source, split="all", count=2, frames=None, size=None, seed=0).frames == 6


def test_a_built_cache_determines_the_size_of_its_clips(cache, videos, tmp_path):
    from diffusion.data.build import build

    list(build(videos("a"), tmp_path / "built", size=6))
    assert opened(tmp_path / "built").size == 6


def test_short_clips_are_an_error(cache, videos, means):
    clips = opened(videos("a", frames=3))
    with pytest.raises(EvaluationError, match="clips of 3 frames; means needs at least 4"):
        Features(clips, means, PRESETS["standard"])


def test_videos_of_several_lengths_or_sizes(cache, videos):
    mixed = videos("a")
    np.save(mixed / "longer.npy", np.zeros((20, 8, 8, 3), np.uint8))
    with pytest.raises(EvaluationError, match="12 to 20 frames; choose with --frames"):
        opened(mixed)
    assert opened(mixed, frames=12).count == 7
    with pytest.raises(DataError, match="longest video"):
        opened(mixed, frames=30)
    with pytest.raises(EvaluationError, match="enlarging"):
        opened(mixed, frames=12, size=16)
    np.save(mixed / "larger.npy", np.zeros((20, 10, 10, 3), np.uint8))
    with pytest.raises(EvaluationError, match="differ in size"):
        opened(mixed, frames=12)


def test_plain_features_need_no_weights_and_are_not_called_fvd(cache, videos):
    extractor = open_extractor("plain", None, CPU)
    assert not any("FVD" in name for name in extractor.measures)
    clips = torch.randint(256, (3, 9, 3, 8, 8), dtype=torch.uint8)
    found = extractor.features(clips, PRESETS["standard"])
    assert found.shape == (3, 76)
    torch.testing.assert_close(found[1:2], extractor.features(clips[1:2], PRESETS["standard"]))


class Halves(torch.nn.Module):
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.mean((2, 3, 4))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_torchscript_file_is_an_extractor(tmp_path):
    torch.jit.script(Halves()).save(
        tmp_path / "halves.pt", _extra_files={"extractor.json": '{"size": 8, "least_frames": 5}'}
    )
    extractor = open_extractor(f"torchscript:{tmp_path / 'halves.pt'}", None, CPU)
    assert extractor.least_frames == 5
    assert extractor.measures[0] == "Frechet distance of halves"
    clips = torch.randint(256, (2, 5, 3, 8, 8), dtype=torch.uint8)
    theirs = (clips / 127.5 - 1).mean((1, 3, 4))
    torch.testing.assert_close(extractor.features(clips, PRESETS["standard"]), theirs)
    (tmp_path / "broken.pt").write_bytes(b"nonsense")
    with pytest.raises(EvaluationError, match="not a TorchScript file"):
        open_extractor(f"torchscript:{tmp_path / 'broken.pt'}", None, CPU)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize(
    "facts",
    ["nonsense", "[1]", '{"size": 0}', '{"size": NaN}', '{"least_frames": "9"}', '{"size": 1e9}', "[" * 100_000],
)
def test_wrong_facts_in_a_torchscript_file_are_errors(tmp_path, facts):
    torch.jit.script(Halves()).save(tmp_path / "a.pt", _extra_files={"extractor.json": facts})
    with pytest.raises(EvaluationError, match=r"extractor\.json in .*a\.pt"):
        open_extractor(f"torchscript:{tmp_path / 'a.pt'}", None, CPU)


def test_a_file_of_weights_is_not_a_torchscript_file(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    with pytest.raises(EvaluationError, match=r"a\.pt is not a TorchScript file.*torch\.jit\.script"):
        open_extractor(f"torchscript:{tmp_path / 'a.pt'}", None, CPU)


class Own:
    """Something that no reader of weights knows."""


@pytest.mark.parametrize(
    "content",
    [
        lambda: {"a": Own()},
        lambda: torch.nn.Linear(2, 2),
        lambda: [torch.ones(2)],
        lambda: {"epoch": 3, "state_dict": {"a": torch.ones(2)}},
    ],
)
def test_a_file_of_other_objects_is_an_error_with_our_message(tmp_path, content):
    torch.save(content(), tmp_path / "a.pt")
    for path in (tmp_path / "a.pt", tmp_path / "cut.pt"):
        with pytest.raises(EvaluationError) as refusal:
            tensors(path, "r3d_18")
        message = str(refusal.value)
        assert message.startswith(f"{path} does not hold the weights of r3d_18: ")
        assert message.endswith("store a state dict, torch.save(network.state_dict(), FILE)")
        assert "weights_only" not in message
        (tmp_path / "cut.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:100])


def test_features_that_are_not_finite_are_an_error(cache, videos, means, monkeypatch):
    monkeypatch.setattr(means, "features", lambda values, protocol: torch.full((len(values), 3), torch.nan))
    with pytest.raises(EvaluationError, match="not finite"):
        worked(Features(opened(videos("a")), means, PRESETS["standard"]))


def test_several_clips_of_a_video_give_a_warning(cache, videos, means):
    """And the floor is computed between videos."""
    real, fake = opened(videos("real"), frames=9, count=18), opened(videos("fake", seed=1), frames=9)
    second = opened(videos("more", seed=2), frames=9)
    rows, evaluation = evaluated(real, fake, second, means)
    assert len(set(real.videos)) == real.num_videos == 6
    assert any("18 real clips come from 6 videos" in text for text in evaluation.warnings)
    assert rows["Frechet of means"].estimate.margin > 0
    assert rows["Frechet of means"].floor is not None


def test_fewer_clips_than_features_give_a_warning(cache, videos):
    extractor = open_extractor("plain", None, CPU)
    _, evaluation = evaluated(opened(videos("a")), opened(videos("b", seed=1)), None, extractor)
    assert any("covariances of 76 features, and 6 clips span at most 5 dimensions" in t for t in evaluation.warnings)


def test_the_error_for_an_unknown_extractor_lists_the_known_ones():
    with pytest.raises(EvaluationError, match="400 logits of I3D"):
        open_extractor("i4d", None, CPU)
    with pytest.raises(EvaluationError, match="r3d_18"):
        open_extractor("torchvision:r4d", None, CPU)


def test_measures_of_motion_respond_to_their_kind_of_change():
    g = torch.linspace(0, 1, 32)[:, None, None].expand(32, 4, 4)
    jumping = g.clone()
    jumping[1::2] += 0.5
    assert measures.flicker(g) < 1e-6 < 0.1 < measures.flicker(jumping)
    assert measures.change(torch.zeros(8, 4, 4)).sum() == 0
    assert (measures.lags(g).diff() > 0).all()
    assert measures.spectrum(jumping)[-1] > measures.spectrum(g)[-1] + 2
    there_and_back = torch.cat([g[:16], g[:16].flip(0)])
    assert (measures.recurrence(there_and_back) < measures.recurrence(g)).all()


def test_energy_distance_equals_its_equation():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 1
    scaled = real / real.std(0), fake / real.std(0)
    apart = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=-1)
    within = lambda s: apart(s, s).sum() / (len(s) * (len(s) - 1))
    expected = 2 * apart(*scaled).mean() - within(scaled[0]) - within(scaled[1])
    assert measures.Energy(real, fake)(np.arange(5), np.arange(4)) == pytest.approx(expected)
