"""Files of older versions: they load, keep their meaning, and can be resumed."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion.ablations import cache_key
from diffusion.ablations.ablation import Ablation, Scale, crossed
from diffusion.ablations.grid import build_grid
from diffusion.ablations.recipe import Drawing, Recipe
from diffusion.config import ModelConfig, OptimizerConfig, ProcessConfig, TrainConfig
from diffusion.data.config import DataConfig
from diffusion.model import mixer_text
from diffusion.probes.experiment import recorded
from diffusion.sampling.generate import load_network, sample_clips
from diffusion.training import checkpoint
from diffusion.training.history import history
from diffusion.training.run import Run
from temporal_zoo import config as configuration
from temporal_zoo import get

OLD = Path(__file__).parents[2] / "old" / "84bfd00"
CPU = torch.device("cpu")


@pytest.fixture
def old_run(tmp_path, rendered):
    """A copy of the old run, and the configuration that its user types today."""
    shutil.copytree(OLD / "run", tmp_path / "run")
    content = json.loads((OLD / "run" / "config.json").read_text())
    return tmp_path / "run", TrainConfig.from_dict(content).override([f"data.cache={rendered}"])


def drawn(place):
    network, config, fps = load_network(place, CPU)
    return sample_clips(network, config, 1, fps=fps, seed=3)[0].pixels.numpy()


@pytest.fixture
def other_defaults(monkeypatch):
    """Mixers whose defaults are others than those of the old version."""
    for name, change in (("attn", {"rotary": False}), ("s4d", {"init": "inv", "glu": False}), ("mamba", {"conv": 2}),
                         ("bimamba", {"merge": "mean", "conv": 3}), ("flash", {"relative_bias": True})):  # fmt: skip
        mixer = get(name).mixer
        kinds = configuration.hints(mixer.Config)
        fields = [
            (field.name, kinds[field.name], configuration.option(change.get(field.name, field.default), "doc"))
            for field in dataclasses.fields(mixer.Config)
        ]
        changed = dataclasses.make_dataclass(
            "Config", fields, bases=(mixer.Config,), frozen=True, kw_only=True,
            namespace={"flavours": {"vim": "merge=sum", "paper": "merge=mean"}} if name == "bimamba" else {},
        )  # fmt: skip
        changed.__module__ = mixer.Config.__module__
        monkeypatch.setattr(mixer, "Config", changed)


@pytest.mark.parametrize("name", ["checkpoint.pt", "weights.pt"])
def test_old_weights_give_the_same_clip(name):
    difference = drawn(OLD / "run" / name).astype(int) - np.load(OLD / "sample.npy")
    assert np.abs(difference).max() <= 1


def test_old_weights_give_the_same_clip_when_defaults_have_changed(other_defaults):
    difference = drawn(OLD / "run" / "weights.pt").astype(int) - np.load(OLD / "sample.npy")
    assert np.abs(difference).max() <= 1


def test_new_weights_give_the_same_clip_when_defaults_have_changed(tmp_path, request):
    checkpoint.save(tmp_path / "new.pt", checkpoint.load(OLD / "run" / "weights.pt"))
    before = drawn(tmp_path / "new.pt")
    request.getfixturevalue("other_defaults")
    assert np.array_equal(drawn(tmp_path / "new.pt"), before)


def test_an_old_run_resumes_with_the_losses_of_an_uninterrupted_run(old_run):
    folder, config = old_run
    run = Run(config.override(["steps=4"]), folder, CPU)
    assert run.resumed
    assert any(line.startswith("digest of our source files: ") for line in run.changed)
    losses = [step.loss for step, _ in run.steps()]
    assert losses == pytest.approx(json.loads((OLD / "losses.json").read_text())[2:], rel=1e-5)
    assert [step["step"] for step in history(folder)] == [1, 2, 3, 4]
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert content["format"] == checkpoint.FORMAT
    assert "bimamba:state=2:conv=4:expand=1:dt_rank=dim:" in content["config"]["model"]["mixer"]
    assert {name.rpartition(".")[0] for name in content["network"] if "shared" in name} == {"shared.stem.table"}


def test_an_old_run_does_not_resume_under_other_defaults(old_run, other_defaults):
    folder, config = old_run
    with pytest.raises(configuration.ConfigError, match=r"model\.mixer: attn:.*rotary=yes.* in the checkpoint"):
        Run(config.override(["steps=4"]), folder, CPU)


def test_an_old_finished_run_stays_finished(old_run):
    folder, config = old_run
    run = Run(config, folder, CPU)
    assert run.finished
    assert list(run.steps()) == []


def test_a_run_starts_from_old_weights(old_run, tmp_path):
    _, config = old_run
    begun = Run(config.override([f"start={OLD / 'run' / 'weights.pt'}", "steps=1"]), tmp_path / "begun", CPU)
    theirs = checkpoint.load(OLD / "run" / "weights.pt")["average"]
    assert all(torch.equal(value, theirs[name]) for name, value in begun.trainer.network.state_dict().items())


def grid(folder, *changes):
    """What the old results were made with, laid out by this version."""
    train = TrainConfig(
        model=ModelConfig(
            mixer="identity", slots=("mid",), width=8, multipliers=(1,), blocks=1, groups=2, heads=1, time_width=1,
            stem=1, size=8, spatial="none",
        ),
        process=ProcessConfig(steps=8, prediction="v"), data=DataConfig(frames=3, size=8, videos=3),
        optimizer=OptimizerConfig(lr=1e-3), steps=2, batch=1, save_every=2, sample_every=1000000, test_every=1,
        test_clips=3,
    )  # fmt: skip
    specs = ("bimamba:flavour=paper", "attn:heads=2:features=4", "s4d:state=16")
    cells = crossed({"mixer": {spec: f"train.model.mixer={spec}" for spec in specs}})
    cells += crossed({"mixer": {"identity": ""}}, reference=True)
    scale = Scale(base=Recipe(train=train, drawing=Drawing(count=0)), cells=cells)
    return build_grid(
        Ablation("micro", "Does it run?", (), (), "toy", scale), folder, seeds=1, changes=changes, weights=None,
        device="cpu",
    )  # fmt: skip


def test_old_results_of_an_ablation_are_found(tmp_path):
    shutil.copytree(OLD / "ablation", tmp_path / "ablation")
    found = grid(tmp_path / "ablation")
    assert all(found.is_done(trial) for trial in found.trials)
    assert [result.cell["mixer"] for result in found.results()][-1] == "identity"
    assert not found.jobs()


def test_old_results_are_not_used_for_other_defaults(tmp_path, other_defaults):
    shutil.copytree(OLD / "ablation", tmp_path / "ablation")
    found = grid(tmp_path / "ablation")
    done = {trial.cell["mixer"]: found.is_done(trial) for trial in found.trials}
    assert done == {
        "bimamba:flavour=paper": False, "attn:heads=2:features=4": False, "s4d:state=16": False, "identity": True,
    }  # fmt: skip


def test_a_new_field_with_a_default_does_not_change_keys_of_old_results(tmp_path, monkeypatch):
    shutil.copytree(OLD / "ablation", tmp_path / "ablation")
    plain = ModelConfig.to_dict
    monkeypatch.setattr(ModelConfig, "to_dict", lambda config: plain(config) | {"newer": "as before"})
    assert not any(map(grid(tmp_path / "ablation").is_done, grid(tmp_path / "ablation").trials))
    monkeypatch.setitem(cache_key.ADDED_FIELDS, "model.newer", "as before")
    found = grid(tmp_path / "ablation")
    assert all(map(found.is_done, found.trials))


def test_old_records_of_probes_are_read():
    (environment,) = {
        json.loads(line)["id"]
        for line in (OLD / "probe.jsonl").read_text().splitlines()
        if '"kind": "environment"' in line
    }
    trials = recorded(OLD / "probe.jsonl", environment)
    assert [trial.mixer for trial in trials] == ["bimamba", "attn:heads=2"]


@pytest.mark.parametrize("text", ["bimamba", "attn:rotary=no@mid+s4d:flavour=v1", "mamba:state=8:conv=2"])
def test_texts_of_mixers(text):
    full = mixer_text.explicit(text)
    assert mixer_text.explicit(full) == full == mixer_text.explicit(mixer_text.as_first_meant(text))
    assert mixer_text.explicit(mixer_text.short(full)) == full
    assert mixer_text.key(text) == text
