"""A run's folder: what it holds, how it ends, what may change when it goes on."""

import json
import logging
import signal
import threading

import pytest
import torch

from diffusion import checkpoint
from diffusion.data import DataError
from diffusion.history import history
from diffusion.run import Run
from diffusion.train import Trainer
from temporal_zoo.config import ConfigError
from temporal_zoo.record import Session, read

CPU = torch.device("cpu")


def finish(config, folder):
    run = Run(config, folder, CPU)
    return run, list(run.steps())


def test_a_folder_tells_the_whole_run(small, tmp_path):
    pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    config = small("sample_every=3")
    run, steps = finish(config, tmp_path / "run")
    assert run.finished
    assert not run.continued
    assert [(step.step, test_loss is not None) for step, test_loss in steps] == [
        (1, False), (2, True), (3, False), (4, True),
    ]  # fmt: skip
    files = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    pictures = {f"samples/{step:07d}.{kind}" for step in (3, 4) for kind in ("png", "gif")}
    assert files == {"checkpoint.pt", "weights.pt", "config.json", "log.jsonl", "loss.png", *pictures}
    assert type(config).from_dict(json.loads((tmp_path / "run" / "config.json").read_text())) == run.config
    reading = read(tmp_path / "run" / "log.jsonl")
    assert [record["step"] for record in reading.of("step")] == [1, 2, 3, 4]
    last = reading.of("step")[-1]
    assert last["loss"] == steps[-1][0].loss
    assert last["test_loss"] == steps[-1][1]
    assert set(last["bodies"]) == {"attention", "causal_conv", "selective_scan"}
    assert last["environment"] in reading.environments


def test_a_finished_run_goes_on_with_more_steps(small, tmp_path):
    finish(small("steps=2", "optimizer.decay=0"), tmp_path)
    again = Run(small("steps=2", "optimizer.decay=0"), tmp_path, CPU)
    assert again.finished
    assert list(again.steps()) == []
    run, steps = finish(small("steps=4", "optimizer.decay=0", "save_every=1", "test_every=9"), tmp_path)
    assert run.continued
    assert [step.step for step, _ in steps] == [3, 4]
    whole = Trainer(small("optimizer.decay=0"), CPU)
    list(whole.steps())
    assert all(
        torch.equal(value, whole.network.state_dict()[name]) for name, value in run.trainer.network.state_dict().items()
    )


def test_what_may_differ_and_what_may_not(small, tmp_path):
    finish(small("steps=1"), tmp_path / "run")
    moved = f"data.cache={tmp_path / 'elsewhere'}"
    Run(small("steps=3", "save_every=7", "sample_every=5", "test_every=6", moved), tmp_path / "run", CPU)
    with pytest.raises(ConfigError) as caught:
        Run(small("batch=4", "model.mixer=identity", "optimizer.lr=0.5"), tmp_path / "run", CPU)
    assert str(caught.value).splitlines() == [
        f"the run in {tmp_path / 'run'} was started with another configuration:",
        "  model.mixer: bimamba:state=4 in the checkpoint, identity asked for",
        "  optimizer.lr: 0.001 in the checkpoint, 0.5 asked for",
        "  batch: 2 in the checkpoint, 4 asked for",
        "use the same one, or another folder with --out",
    ]


def test_a_checkpoint_without_a_younger_field_has_its_default(small, tmp_path):
    finish(small("steps=1"), tmp_path)
    state = checkpoint.load(tmp_path / "checkpoint.pt")
    del state["format"], state["config"]["model"]["spatial"]
    checkpoint.save(tmp_path / "checkpoint.pt", state)
    assert Run(small(), tmp_path, CPU).continued
    with pytest.raises(ConfigError, match=r"model\.spatial: everywhere in the checkpoint, none asked for"):
        Run(small("model.spatial=none"), tmp_path, CPU)


def test_a_misspelt_mixer_leaves_no_folder(small, tmp_path):
    with pytest.raises(ValueError, match="did you mean"):
        Run(small("model.mixer=bimmba"), tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def interrupt_after(monkeypatch):
    """Sends Ctrl-C to this process during the given steps, after the update."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    def at(*steps, times=1):
        plain = Trainer.advance

        def advance(trainer):
            step = plain(trainer)
            for _ in range(times if step.step in steps else 0):
                signal.raise_signal(signal.SIGINT)
            return step

        monkeypatch.setattr(Trainer, "advance", advance)

    yield at
    signal.signal(signal.SIGINT, usual)


def test_ctrl_c_ends_a_run_after_its_step_with_a_checkpoint(small, tmp_path, interrupt_after):
    interrupt_after(1, 3)
    config = small("save_every=100", "test_every=100", "sample_every=100")
    before = signal.getsignal(signal.SIGINT)
    for reached in ([1], [2, 3], [4]):
        run, steps = finish(config, tmp_path)
        assert [step.step for step, _ in steps] == reached
        assert checkpoint.load(tmp_path / "checkpoint.pt")["step"] == reached[-1]
        assert run.finished == (reached == [4])
        assert signal.getsignal(signal.SIGINT) is before
    assert [record["step"] for record in history(tmp_path)] == [1, 2, 3, 4]


def test_ctrl_c_between_two_steps_costs_one_more_step_and_nothing_else(small, tmp_path):
    run = Run(small("save_every=100"), tmp_path, CPU)
    steps = run.steps()
    next(steps)
    signal.raise_signal(signal.SIGINT)
    assert [step.step for step, _ in steps] == [2]
    assert checkpoint.load(tmp_path / "checkpoint.pt")["step"] == 2


def test_a_second_ctrl_c_ends_it_at_once(small, tmp_path, interrupt_after):
    interrupt_after(3, times=2)
    with pytest.raises(KeyboardInterrupt):
        finish(small(), tmp_path)
    assert checkpoint.load(tmp_path / "checkpoint.pt")["step"] == 2
    assert [record["step"] for record in history(tmp_path)] == [1, 2]


def test_a_run_in_another_thread(small, tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(finish(small("steps=1"), tmp_path)))
    thread.start()
    thread.join()
    assert done[0][0].finished


def test_history_forgets_what_was_lost_in_a_crash(tmp_path):
    session = Session(tmp_path / "log.jsonl", {"id": "e"})
    for number in (1, 2, 3, 4):
        session.write("step", {"step": number, "loss": 0.0})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"schema": 1, "kind": "st')
    session = Session(tmp_path / "log.jsonl", {"id": "f"})
    session.write("step", {"step": 3, "loss": 1.0})
    assert [(r["step"], r["loss"]) for r in history(tmp_path)] == [(1, 0.0), (2, 0.0), (3, 1.0)]
    session.write("step", {"step": 1, "loss": 2.0})
    assert [(r["step"], r["loss"]) for r in history(tmp_path)] == [(1, 2.0)]


def test_without_a_checkpoint_a_folder_takes_another_run(small, tmp_path):
    finish(small(), tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    finish(small("steps=2", "batch=1"), tmp_path)
    assert [record["clips_seen"] for record in history(tmp_path)] == [1, 2]


def test_training_goes_on_without_packages_for_pictures(small, tmp_path, monkeypatch, caplog):
    def need(module, purpose):
        raise DataError(f"{purpose} needs matplotlib: pip install it")

    monkeypatch.setattr("diffusion.data.readers.need", need)
    with caplog.at_level(logging.WARNING, "temporal_zoo.run"):
        run, _ = finish(small("steps=2", "sample_every=1"), tmp_path)
    assert run.finished
    assert "no pictures: drawing samples and loss curves needs matplotlib" in caplog.text
    assert not (tmp_path / "samples").exists()


def test_two_processes_do_not_train_in_one_folder(small, tmp_path):
    first, second = (Run(small(), tmp_path / "run", CPU) for _ in range(2))
    steps = first.steps()
    next(steps)
    with pytest.raises(ConfigError, match=r"another process trains in .*run; wait for it"):
        next(second.steps())
    steps.close()
    assert next(second.steps())


def test_what_cannot_begin_leaves_no_folder(small, tmp_path):
    with pytest.raises(DataError):
        Run(small(f"data.source={tmp_path / 'nowhere'}"), tmp_path / "run", CPU)
    assert list(tmp_path.iterdir()) == []
