"""A run's folder: its files, how a run ends, and what may change when it resumes."""

import json
import logging
import os
import shutil
import signal
import threading

import numpy as np
import pytest
import torch

from diffusion.data import DataError
from diffusion.training import checkpoint
from diffusion.training.history import history
from diffusion.training.run import Run
from diffusion.training.trainer import Trainer
from temporal_zoo._support.packages import MissingPackage
from temporal_zoo._support.record import Session, read
from temporal_zoo.config import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def no_pictures(monkeypatch):
    """Runs end at once, without drawing."""
    monkeypatch.setattr(Run, "_draw", lambda run, step: False)


def finish(config, folder):
    run = Run(config, folder, CPU)
    return run, list(run.steps())


def test_a_folder_holds_the_files_of_the_run(small, tmp_path):
    pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    config = small("sample_every=3")
    run, steps = finish(config, tmp_path / "run")
    assert run.finished
    assert not run.resumed
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
    assert set(last["backends"]) == {"attention", "causal_conv", "selective_scan"}
    assert last["environment"] in reading.environments


def test_a_finished_run_resumes_with_more_steps(small, tmp_path):
    finish(small("steps=2", "optimizer.decay=0"), tmp_path)
    again = Run(small("steps=2", "optimizer.decay=0"), tmp_path, CPU)
    assert again.finished
    assert list(again.steps()) == []
    run, steps = finish(small("steps=4", "optimizer.decay=0", "save_every=1", "test_every=9"), tmp_path)
    assert run.resumed
    assert [step.step for step, _ in steps] == [3, 4]
    whole = Trainer(small("optimizer.decay=0"), CPU)
    list(whole.steps())
    assert all(
        torch.equal(value, whole.network.state_dict()[name]) for name, value in run.trainer.network.state_dict().items()
    )


def test_which_fields_may_differ(small, tmp_path):
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


def test_a_field_that_a_checkpoint_lacks_has_its_default(small, tmp_path):
    finish(small("steps=1"), tmp_path)
    state = checkpoint.load(tmp_path / "checkpoint.pt")
    del state["format"], state["config"]["model"]["spatial"]
    checkpoint.save(tmp_path / "checkpoint.pt", state)
    assert Run(small(), tmp_path, CPU).resumed
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


def test_history_leaves_out_steps_that_a_crash_lost(tmp_path):
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


def test_a_folder_without_a_checkpoint_accepts_another_configuration(small, tmp_path):
    finish(small(), tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    finish(small("steps=2", "batch=1"), tmp_path)
    assert [record["clips_seen"] for record in history(tmp_path)] == [1, 2]


def test_training_continues_without_packages_for_pictures(small, tmp_path, monkeypatch, caplog):
    def need(module, purpose):
        raise MissingPackage(f"{purpose} needs matplotlib: pip install it")

    monkeypatch.setattr("temporal_zoo._support.packages.need", need)
    with caplog.at_level(logging.WARNING, "temporal_zoo.run"):
        run, _ = finish(small("steps=2", "sample_every=1"), tmp_path)
    assert run.finished
    assert "no pictures: drawing samples and loss curves needs matplotlib" in caplog.text
    assert not (tmp_path / "samples").exists()


def test_the_lock_is_taken_before_anything_is_read(small, tmp_path, no_pictures):
    first = Run(small(), tmp_path, CPU)
    steps = first.steps()
    next(steps)
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    for _ in range(2):  # the refused one leaves the lock as it is
        with pytest.raises(ConfigError, match=r"another process trains in .*; wait for it"):
            Run(small(), tmp_path, CPU)
    list(steps)
    assert Run(small(), tmp_path, CPU).finished


@pytest.mark.parametrize("end", ["close", "close its steps", "finish", "forget"])
def test_a_run_that_ended_releases_its_folder(small, tmp_path, end, no_pictures):
    run = Run(small("steps=2"), tmp_path, CPU)
    steps = run.steps()
    next(steps)
    if end == "close":
        run.close()
    elif end == "close its steps":
        steps.close()
    elif end == "finish":
        list(steps)
    else:
        del run, steps
    Run(small("steps=2"), tmp_path, CPU)


def test_a_run_that_cannot_start_releases_its_folder(small, tmp_path, no_pictures):
    finish(small("steps=1"), tmp_path)
    with pytest.raises(ConfigError) as caught:
        Run(small("batch=7"), tmp_path, CPU)
    assert Run(small(), tmp_path, CPU).resumed
    assert "batch" in str(caught.value)


def test_a_run_that_cannot_start_leaves_no_folder(small, tmp_path):
    with pytest.raises(DataError):
        Run(small(f"data.source={tmp_path / 'nowhere'}"), tmp_path / "run", CPU)
    assert list(tmp_path.iterdir()) == []


def test_the_reason_is_shown_when_the_new_folder_holds_decoded_videos(small, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    config = small(f"data.cache={folder / 'cache'}", "data.frames=3")

    def fails(*_, **__):
        (folder / "cache").mkdir()
        (folder / "cache" / "meta.json").write_text("{}")
        raise DataError("the reason")

    with monkeypatch.context() as patched:
        patched.setattr("diffusion.training.trainer.open_clips", fails)
        with pytest.raises(DataError, match="the reason"):
            Run(config, folder, CPU)
    # What was decoded is no obstacle to the same command.
    assert not Run(config, folder, CPU).resumed


FOREIGN = {
    "config.json": '{"mine": 1}',
    "a list": "[1]",
    "no JSON": "{",
    "notes.txt": "mine",
    ".hidden": "mine",
    "checkpoint.json": "{}",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_that_is_not_a_run_does_not_change(small, tmp_path, name):
    path = tmp_path / (name if "." in name else "config.json")
    path.write_text(FOREIGN[name])
    (tmp_path / ".checkpoint.pt-00000000.part").write_text("mine, too")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"is not empty and holds no training run, but .*another folder"):
        Run(small(), tmp_path, CPU)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_a_new_folder_may_hold_files_of_the_caller(small, tmp_path):
    (tmp_path / "stderr.txt").touch()
    assert not Run(small(), tmp_path, CPU, beside=["stderr.txt"]).resumed


def test_unfinished_files_of_killed_processes_are_removed(small, tmp_path, no_pictures):
    finish(small("steps=1"), tmp_path)
    parts = [tmp_path / ".checkpoint.pt-0011aabb.part", tmp_path / "samples" / ".0000002.gif-00000000.part"]
    others = [tmp_path / ".mine.part", tmp_path / "clips" / ".000.mp4-00000000.part", tmp_path / "x-00000000.part"]
    for path in (*parts, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    Run(small(), tmp_path, CPU)
    assert not any(path.exists() for path in parts)
    assert all(path.exists() for path in others)


@pytest.mark.parametrize(
    "lost", ["weights.pt", "loss.png", "samples/0000004.gif", "samples/0000004.png", "config.json"]
)
def test_a_finished_run_completes_its_files(small, tmp_path, lost):
    pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    finish(small(), tmp_path)
    before = (tmp_path / lost).read_bytes()
    (tmp_path / lost).unlink()
    run, steps = finish(small(), tmp_path)
    assert steps == []
    if lost.endswith((".gif", ".png", ".json")):
        assert (tmp_path / lost).read_bytes() == before
    else:
        assert checkpoint.load(tmp_path / lost, checkpoint.WEIGHTS)["step"] == 4
    assert run.complete() == []


def test_weights_of_a_shorter_training_are_replaced(small, tmp_path, no_pictures):
    finish(small("steps=2", "optimizer.decay=0"), tmp_path)
    short = (tmp_path / "weights.pt").read_bytes()
    finish(small("steps=4", "optimizer.decay=0"), tmp_path)
    for old in (short, b"damaged"):
        (tmp_path / "weights.pt").write_bytes(old)
        assert Run(small("steps=4", "optimizer.decay=0"), tmp_path, CPU).complete() == ["weights.pt"]
        assert checkpoint.load(tmp_path / "weights.pt")["step"] == 4


def test_a_resumed_run_reports_changes(small, tmp_path, no_pictures):
    finish(small("steps=1"), tmp_path)
    assert Run(small("steps=1"), tmp_path, CPU).changed == []
    start = {"device": "cuda", "videos": {"old.mp4": "f00"}}
    Session(tmp_path / "log.jsonl", {"id": "other", "software": {"torch": "1.0"}, "code": {"sources": "f00"}}).write(
        "start", start
    )
    lines = Run(small("steps=3"), tmp_path, CPU).changed
    assert lines[0] == "steps: 1 before, 3 now"
    assert f"torch: 1.0 before, {torch.__version__} now" in lines
    assert any(line.startswith("digest of our source files: f00 before, ") for line in lines)
    assert "device: cuda before, cpu now" in lines
    assert "data: 1 removed: old.mp4" in lines  # mazes are rendered from the configuration
    assert not any("\n" in line for line in lines)


def test_a_resumed_run_reports_changed_videos(small, tmp_path, no_pictures):
    videos, config = (
        tmp_path / "videos",
        small("data.test_share=0", f"data.cache={tmp_path / 'cache'}", f"data.source={tmp_path / 'videos'}"),
    )
    videos.mkdir()
    for name in ("a.npy", "b.npy"):
        np.save(videos / name, np.zeros((5, 8, 8, 3), np.uint8))
    finish(config, tmp_path / "run")
    np.save(videos / "a.npy", np.full((5, 8, 8, 3), 9, np.uint8))
    os.utime(videos / "a.npy", (1, 1))
    (videos / "b.npy").rename(videos / "c.npy")
    assert Run(config, tmp_path / "run", CPU).changed == ["data: 1 added: c.npy; 1 removed: b.npy; 1 changed: a.npy"]


def test_a_run_without_a_start_record_resumes_without_reporting_changes(small, tmp_path, no_pictures):
    finish(small("steps=1"), tmp_path)
    for log in (b"", b"damaged\n"):
        (tmp_path / "log.jsonl").write_bytes(log)
        assert Run(small("steps=1"), tmp_path, CPU).changed == []
    (tmp_path / "log.jsonl").unlink()
    assert Run(small("steps=1"), tmp_path, CPU).changed == []


def test_weights_alone_cannot_be_resumed(small, tmp_path, no_pictures):
    finish(small("steps=1"), tmp_path)
    shutil.copy(tmp_path / "weights.pt", tmp_path / "checkpoint.pt")
    with pytest.raises(checkpoint.CheckpointError) as caught:
        Run(small(), tmp_path, CPU)
    assert str(caught.value).startswith(f"{tmp_path / 'checkpoint.pt'} is not a complete checkpoint: it lacks network")
    assert "zoo sample and --start can use it" in str(caught.value)


def _damage(part, value):
    def damaged(state):
        return state | {part: value(state) if callable(value) else value}

    return damaged


DAMAGES = {
    "no average": lambda state: {key: value for key, value in state.items() if key != "average"},
    "step as text": _damage("step", "4"),
    "step below zero": _damage("step", -1),
    "frame rate": _damage("fps", float("nan")),
    "a list for a network": _damage("network", [1]),
    "numbers for tensors": _damage("network", {"stem.weight": 1}),
    "another network": _damage("network", lambda state: dict(list(state["network"].items())[1:])),
    "other shapes": _damage("average", lambda state: {k: v.flatten()[:1] for k, v in state["average"].items()}),
    "no optimizer": _damage("optimizer", {}),
    "an optimizer without state": _damage("optimizer", lambda state: state["optimizer"] | {"state": {}}),
    "another optimizer": _damage(
        "optimizer", lambda state: state["optimizer"] | {"param_groups": state["optimizer"]["param_groups"][:1]}
    ),
    "moments of another shape": _damage(
        "optimizer",
        lambda state: (
            state["optimizer"]
            | {"state": {k: v | {"exp_avg": torch.zeros(1)} for k, v in state["optimizer"]["state"].items()}}
        ),
    ),
    "no configuration": _damage("config", None),
    "an unknown field": _damage("config", lambda state: state["config"] | {"stepz": 3}),
    "an unknown mixer": _damage("config", lambda state: state["config"] | {"model": {"mixer": "bimmba"}}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_messages_for_damaged_checkpoints_name_the_path(small, tmp_path, damage, no_pictures):
    finish(small("steps=1"), tmp_path)
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, DAMAGES[damage](checkpoint.load(path)))
    with pytest.raises(checkpoint.CheckpointError) as caught:
        Run(small(), tmp_path, CPU)
    assert str(path) in str(caught.value)


STOPPING = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.mark.parametrize("name", STOPPING)
def test_signals_end_a_run_with_a_checkpoint(small, tmp_path, monkeypatch, name, no_pictures):
    number = getattr(signal, name)
    usual = signal.signal(number, signal.SIG_DFL if name != "SIGINT" else signal.default_int_handler)
    plain = Trainer.advance

    def advance(trainer):
        step = plain(trainer)
        if step.step == 1:
            signal.raise_signal(number)
        return step

    monkeypatch.setattr(Trainer, "advance", advance)
    try:
        run, steps = finish(small("save_every=100"), tmp_path)
        assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    finally:
        signal.signal(number, usual)
    assert ([step.step for step, _ in steps], run.stopped_by) == ([1], number)
    assert checkpoint.load(tmp_path / "checkpoint.pt")["step"] == 1
