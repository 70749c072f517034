"""The training loop: exact resumption, equal inputs for all mixers, failures."""

import math

import numpy as np
import pytest
import torch

from diffusion.data import DataError
from diffusion.training import step as training_step
from diffusion.training import trainer as train
from diffusion.training.checkpoint import CheckpointError, save
from diffusion.training.ema import MovingAverage
from diffusion.training.trainer import Trainer, TrainingFailed, learning_rate

CPU = torch.device("cpu")


def flat(value, prefix=""):
    """Every tensor and number in nested state, by its path."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {prefix: value}
    return {path: leaf for key, inner in items for path, leaf in flat(inner, f"{prefix}/{key}").items()}


def same(first, second):
    first, second = flat(first), flat(second)
    assert first.keys() == second.keys()
    for path, value in first.items():
        equal = torch.equal(value, second[path]) if isinstance(value, torch.Tensor) else value == second[path]
        assert equal, path


@pytest.mark.parametrize("changes", [
    (),
    ("process.draw=stratified", "process.levels=frame", "data.flip=yes"),
    ("precision=bf16", "model.checkpointing=blocks", "optimizer.ema_warmup=yes"),
])  # fmt: skip
def test_four_steps_equal_two_a_resumption_and_two(small, tmp_path, changes):
    config = small(*changes)
    whole = Trainer(config, CPU)
    steps = list(whole.steps())
    first = Trainer(config, CPU)
    halves = [first.advance(), first.advance()]
    save(tmp_path / "checkpoint.pt", first.state())
    torch.manual_seed(99)
    torch.rand(5)
    second = Trainer(config, CPU, train.checkpoint.load(tmp_path / "checkpoint.pt"))
    halves += list(second.steps())
    same(second.state(), whole.state())
    assert any("exp_avg_sq" in path for path in flat(whole.state()))
    exact = ("step", "clips_seen", "loss", "lr", "gradient_norm")
    assert [[getattr(s, name) for name in exact] for s in halves] == [
        [getattr(s, name) for name in exact] for s in steps
    ]
    assert second.test_loss() == whole.test_loss()
    assert [step.clips_seen for step in steps] == [2, 4, 6, 8]
    assert whole.finished


def test_another_seed_is_another_run(small):
    assert Trainer(small("seed=1"), CPU).advance().loss != Trainer(small(), CPU).advance().loss


def test_mixers_see_the_same_clips_levels_and_noise(small, monkeypatch):
    seen = []
    plain = training_step.loss

    def spy(network, process, *drawn):
        seen.append(drawn)
        return plain(network, process, *drawn)

    monkeypatch.setattr(training_step, "loss", spy)
    for mixer in ("bimamba", "identity", "flash:heads=2"):
        trainer = Trainer(small(f"model.mixer={mixer}", "steps=2"), CPU)
        list(trainer.steps())
        trainer.test_loss()
    runs = [seen[i : i + 4] for i in range(0, 12, 4)]  # two steps, and three held-out clips in batches of two
    for other in runs[1:]:
        for ours, theirs in zip(runs[0], other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))
    first, second = runs[0][:2]
    assert not any(torch.equal(a, b) for a, b in zip(first[:2], second[:2], strict=True))


def test_a_run_learns(small):
    trainer = Trainer(small("steps=25", "optimizer.lr=1e-2", "data.videos=1", "process.prediction=x0"), CPU)
    before = trainer.test_loss()
    list(trainer.steps())
    assert trainer.test_loss() < 0.7 * before


def test_the_network_takes_its_shape_from_the_data(small):
    trainer = Trainer(small("model.size=32", "model.channels=7"), CPU)
    assert (trainer.config.model.size, trainer.config.model.channels) == (8, 3)


def test_a_loss_that_is_not_finite_stops_the_run_before_the_update(small):
    trainer = Trainer(small(), CPU)
    trainer.advance()
    with torch.no_grad():
        trainer.network.to_out.weight.fill_(torch.nan)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    with pytest.raises(TrainingFailed) as caught:
        trainer.advance()
    message = str(caught.value)
    assert message.startswith("training failed at step 2: loss nan, gradient norm nan; the step updated nothing")
    assert "below 0.001 (--set optimizer.lr=...)" in message
    assert trainer.step == 1
    for name, value in trainer.network.state_dict().items():
        torch.testing.assert_close(value, before[name], equal_nan=True, rtol=0, atol=0)


def test_learning_rate(small):
    def curve(*changes):
        config = small("optimizer.lr=1", *changes)
        return [learning_rate(config, step) for step in range(config.steps)]

    assert curve("steps=4", "optimizer.warmup=0", "optimizer.decay=0") == [1, 1, 1, 1]
    assert curve("steps=6", "optimizer.warmup=4", "optimizer.decay=0") == [0.25, 0.5, 0.75, 1, 1, 1]
    assert curve("steps=8", "optimizer.warmup=0", "optimizer.decay=0.5") == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert curve("steps=4", "optimizer.warmup=2", "optimizer.decay=1") == [0.5, 0.75, 0.5, 0.25]


def test_weight_decay_skips_the_parameters_that_the_network_names(small):
    trainer = Trainer(small("optimizer.weight_decay=0.5"), CPU)
    decayed, skipped = trainer.optimizer.param_groups
    assert (decayed["weight_decay"], skipped["weight_decay"]) == (0.5, 0.0)
    names = {id(p): name for name, p in trainer.network.named_parameters()}
    assert {names[id(p)] for p in skipped["params"]} == trainer.network.no_decay()
    assert len(decayed["params"]) + len(skipped["params"]) == len(names)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_clipped(small, precision):
    trainer = Trainer(small("optimizer.clip=0.01", f"precision={precision}"), CPU)
    step = trainer.advance()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in trainer.network.parameters()))
    assert step.gradient_norm > 0.01
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_moving_average():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    plain = MovingAverage(network, decay=0.9, warmup=False)
    warm = MovingAverage(network, decay=0.9, warmup=True)
    torch.nn.init.ones_(network.weight)
    for average in (plain, warm):
        for _ in range(2):
            average.update_parameters(network)
    assert plain.module.weight.item() == pytest.approx(1 - 0.9**2)
    assert warm.module.weight.item() == pytest.approx(1 - 2 / 11 * 3 / 12)
    assert not plain.module.weight.requires_grad
    assert not plain.module.training
    warm.set_updates(10**6 - 1)
    warm.update_parameters(network)
    assert warm.module.weight.item() == pytest.approx(1 - 2 / 11 * 3 / 12 * 0.9)


def test_a_run_starts_from_a_checkpoint_s_averaged_weights(small, tmp_path):
    source = Trainer(small(), CPU)
    list(source.steps())
    save(tmp_path / "checkpoint.pt", source.state())
    config = small(f"start={tmp_path}", "model.checkpointing=mixers")
    trainer = Trainer(config, CPU)
    same(trainer.network.state_dict(), source.average.module.state_dict())
    same(trainer.average.module.state_dict(), source.average.module.state_dict())
    assert trainer.step == 0
    trainer.advance()
    state = trainer.state()
    (tmp_path / "checkpoint.pt").unlink()
    assert Trainer(config, CPU, state).step == 1  # a continued run needs its start no more


def test_a_start_from_another_network_is_refused(small, tmp_path):
    save(tmp_path / "checkpoint.pt", Trainer(small(), CPU).state())
    with pytest.raises(
        CheckpointError, match=r"another network:\n  model\.width: 8 in the checkpoint, 16 asked for"
    ) as caught:
        Trainer(small(f"start={tmp_path}", "model.width=16"), CPU)
    assert str(tmp_path / "checkpoint.pt") in str(caught.value)


def test_without_held_out_clips_there_is_no_held_out_loss(small):
    trainer = Trainer(small("data.test_share=0"), CPU)
    trainer.advance()
    assert trainer.test_loss() is None


def test_clips_longer_than_the_videos_are_refused_before_training(small, tmp_path):
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", np.zeros((5 + number, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"a clip spans 9 frames .* has [56];"):
        Trainer(small(f"data.source={tmp_path}", "data.frames=9"), CPU)


def test_padded_clips_train(small, tmp_path):
    dice = np.random.default_rng(0)
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", dice.integers(0, 255, (1 + number, 8, 8, 3), np.uint8))
    config = small(f"data.source={tmp_path}", "data.short=pad", "data.frames=4", "batch=4")
    assert all(math.isfinite(step.loss) for step in Trainer(config, CPU).steps())


def test_the_average_follows_the_weights_from_the_first_step(small):
    trainer = Trainer(small("optimizer.ema=0.99", "optimizer.ema_warmup=yes"), CPU)
    start = trainer.network.to_out.weight.detach().clone()
    trainer.advance()
    now = trainer.network.to_out.weight.detach()
    assert not torch.equal(now, start)
    torch.testing.assert_close(trainer.average.module.to_out.weight, start.lerp(now, 1 - 2 / 11))
