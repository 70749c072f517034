"""`zoo train` and `zoo sample`, with the smallest configuration as preset."""

import contextlib
import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from diffusion import presets
from diffusion.training import checkpoint
from diffusion.training.history import history
from diffusion.training.trainer import Trainer
from temporal_zoo import registry
from temporal_zoo._support.record import read
from temporal_zoo.cli.main import zoo

pytest.importorskip("av")
pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def empty_folder(small, tmp_path, monkeypatch):
    """An empty working folder; the preset `tiny` is replaced by a smaller one."""
    monkeypatch.setitem(presets.PRESETS, "tiny", small)
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run_zoo(command, code=0):
    """Runs a command; a traceback or another exit code fails the test."""
    result = CliRunner().invoke(zoo, command.split())
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


def refused(command, *parts, code=2):
    """Runs a command that ends with one message, which contains all `parts`."""
    result = run_zoo(command, code)
    assert result.stderr.count("Error: ") == 1, result.stderr
    message = result.stderr.partition("Error: ")[2]
    for part in parts:
        assert part in message, message
    return message


def digests(folder):
    """Of the pictures.  A record holds the time, and libx264 encodes one file in some thousands otherwise."""
    pictures = [path for path in folder.iterdir() if path.suffix in (".gif", ".png")]
    return {path.name: hashlib.sha1(path.read_bytes()).hexdigest() for path in pictures}


def test_from_an_empty_folder_to_clips(empty_folder):
    first = run_zoo("train --mixer bimamba:state=4").stderr
    assert "training: bimamba:state=4, " in first
    assert " parameters, builtin:mazes (3 videos), 3 frames of 8x8, batch 2, to step 4, in runs/tiny-bimamba" in first
    assert "step 2: held-out loss " in first
    assert "finished: step 4 of 4" in first
    run = empty_folder / "runs" / "tiny-bimamba-state4"
    assert {path.name for path in (run / "samples").iterdir()} == {"0000004.png", "0000004.gif"}
    again = run_zoo("train --mixer bimamba:state=4").stderr
    assert again == "runs/tiny-bimamba-state4 is finished: 4 of 4 steps. To train longer: --steps 8\n"
    on = run_zoo("train --mixer bimamba:state=4 --steps 5").stderr
    assert "resuming at step 4: " in on
    assert "finished: step 5 of 5" in on
    drawn = run_zoo("sample runs/tiny-bimamba-state4 --count 2")
    assert drawn.stdout.startswith("2 clips of 3 frames: runs/tiny-bimamba-state4/clips/sheet.png, ")
    files = {path.name for path in (run / "clips").iterdir()}
    assert files == {"000.mp4", "000.gif", "001.mp4", "001.gif", "all.gif", "sheet.png", "record.jsonl"}


@pytest.mark.parametrize("mixer", ["attn", "flash", "identity", "mamba", "s4d", "bimamba@high+flash@low"])
def test_every_mixer_trains(empty_folder, mixer):
    run_zoo(f"train --mixer {mixer} --steps 1 --out run --set data.frames=2")
    assert checkpoint.load(empty_folder / "run" / "checkpoint.pt")["step"] == 1


def test_options_reach_the_configuration(empty_folder):
    run_zoo(
        "train --mixer identity --data builtin:mazes --steps 1 --seed 3 --out run --set model.width=16 --set batch=1"
    )
    config = json.loads((empty_folder / "run" / "config.json").read_text())
    assert (config["seed"], config["steps"], config["batch"], config["model"]["width"]) == (3, 1, 1, 16)


def test_ctrl_c_stops_and_the_same_command_resumes(empty_folder, monkeypatch):
    plain = Trainer.advance

    def advance(trainer):
        step = plain(trainer)
        if step.step == 1:
            signal.raise_signal(signal.SIGINT)
        return step

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "advance", advance)
        stopped = run_zoo("train --out run", code=130).stderr
    assert "stopped, checkpoint saved; run the command again to resume: step 1 of 4" in stopped
    assert "resuming at step 1" in run_zoo("train --out run").stderr
    run_zoo("train --out whole")
    ends = [checkpoint.load(empty_folder / name / "checkpoint.pt")["network"] for name in ("run", "whole")]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


# What a child process trains, with the preset replaced as above.
CHILD = """
import json, sys
from diffusion import presets
from diffusion.config import TrainConfig
config = TrainConfig.from_dict(json.loads(sys.argv.pop(1)))
presets.PRESETS["tiny"] = lambda: config
from temporal_zoo.cli.main import zoo
from temporal_zoo._support.record import read
zoo(prog_name="zoo")
"""


def start(small, folder, *settings):
    """A child process that trains in `folder`, without end unless `settings` say otherwise."""
    config = json.dumps(small("optimizer.decay=0").to_dict())
    words = [sys.executable, "-c", CHILD, config, "train", "--out", str(folder)]
    words += [word for setting in settings for word in ("--set", setting)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_steps(child, folder, count):
    log, deadline = folder / "log.jsonl", time.monotonic() + 240
    while not (log.exists() and log.read_bytes().count(b'"kind": "step"') >= count):
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_terminated_run_leaves_a_checkpoint_and_its_exit_code(empty_folder, small, name):
    with start(small, empty_folder / "run", "steps=1000000", "save_every=1000000", "test_every=1000000") as child:
        wait_for_steps(child, empty_folder / "run", 2)
        child.send_signal(getattr(signal, name))
        message = child.stderr.read()
    assert child.returncode == 128 + getattr(signal, name)
    assert "stopped, checkpoint saved; run the command again to resume" in message
    assert "Traceback" not in message
    steps = [record["step"] for record in history(empty_folder / "run")]
    assert checkpoint.load(empty_folder / "run" / "checkpoint.pt")["step"] == steps[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_second_process_in_the_folder_is_refused(empty_folder, small):
    with start(small, empty_folder / "run", "steps=1000000") as child:
        wait_for_steps(child, empty_folder / "run", 1)
        assert "another process trains in run; wait for it" in refused("train --out run")
        child.kill()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("mixer", registry.names())
def test_twenty_kills_at_random_moments_change_nothing(empty_folder, small, mixer):
    settings = [f"model.mixer={mixer}", "steps=60", "save_every=3", "test_every=7", "sample_every=20"]
    dice, folder, kills = random.Random(0), empty_folder / "killed", 0
    while kills < 20:
        with start(small, folder, *settings) as child:
            with contextlib.suppress(subprocess.TimeoutExpired):
                # From the first imports to the pictures at the end.
                child.wait(dice.uniform(0.5, 12))
            if child.poll() is not None:
                assert child.returncode == 0, child.stderr.read()
                break
            child.send_signal(dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            child.communicate()
            kills += 1
    for name in ("killed", "whole"):
        with start(small, empty_folder / name, *settings) as child:
            message = child.communicate()[1]
            assert child.returncode == 0, message
    first, second = (
        torch.load(empty_folder / name / "checkpoint.pt", weights_only=True) for name in ("killed", "whole")
    )
    for part in ("network", "average"):
        assert all(torch.equal(value, second[part][key]) for key, value in first[part].items())
    records = [
        [(r["step"], r["loss"], r["test_loss"]) for r in history(empty_folder / name)] for name in ("killed", "whole")
    ]
    assert records[0] == records[1]
    files = [
        {path.relative_to(empty_folder / name) for path in (empty_folder / name).rglob("*")}
        for name in ("killed", "whole")
    ]
    assert files[0] >= files[1]
    assert not [path for path in files[0] if path.name.endswith(".part")]


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_kill_minus_nine_loses_at_most_the_steps_since_the_checkpoint(empty_folder, small):
    config = json.dumps(small("optimizer.decay=0").to_dict())
    words = [sys.executable, "-c", CHILD, config, "train", "--out", "run", "--steps", "100000", "--set", "save_every=2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    log, deadline = empty_folder / "run" / "log.jsonl", time.monotonic() + 240
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as child:
        while not (log.exists() and log.read_bytes().count(b'"kind": "step"') >= 5):
            assert child.poll() is None, child.stderr.read()
            assert time.monotonic() < deadline, "no step within minutes"
            time.sleep(0.05)
        child.kill()
    reached = history(empty_folder / "run")[-1]["step"]
    kept = checkpoint.load(empty_folder / "run" / "checkpoint.pt")["step"]
    assert reached - 2 <= kept <= reached
    output = run_zoo(f"train --out run --steps {kept + 1} --set optimizer.decay=0 --set save_every=2").stderr
    assert f"resuming at step {kept}: " in output
    assert [record["step"] for record in history(empty_folder / "run")] == list(range(1, kept + 2))
    run_zoo(f"train --out whole --steps {kept + 1} --set optimizer.decay=0")
    ends = [checkpoint.load(empty_folder / name / "checkpoint.pt")["average"] for name in ("run", "whole")]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_run_of_another_configuration(empty_folder):
    run_zoo("train --steps 1 --out run")
    message = refused("train --out run --mixer identity --set batch=1", "the run in run was started with another")
    assert "\n  model.mixer: bimamba:state=4 in the checkpoint, identity asked for\n" in message
    assert "\n  batch: 2 in the checkpoint, 1 asked for\n" in message
    assert "another folder with --out" in message


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            "--mixer bimmba",
            ["no mixer is named 'bimmba' (did you mean \"bimamba\"?); choose from attn, "],
        ),
        ("--mixer bimamba:sate=8", ["'bimamba' has no option 'sate' (did you mean \"state\"?); its options are state"]),
        ("--mixer bimamba:state=0", ["must be at least 1"]),
        ("--mixer flash@midd", ['did you mean "mid"']),
        ("--preset tny", ["'tny' is not one of 'tiny', 'demo', 'paper-14.1M'"]),
        ("--set model.widht=8", ["ModelConfig has no option 'widht' (did you mean \"width\"?)"]),
        ("--set nonsense=1", ["TrainConfig has no option 'nonsense'; its options are model, process, data"]),
        ("--set width=8", ["TrainConfig has no option 'width' (did you mean \"model.width\"?)"]),
        ("--set model.width=wide", ["ModelConfig.width cannot be 'wide'; it takes whole number"]),
        ("--set model.slots=midd", ["no slot is named 'midd' (did you mean \"mid\"?)"]),
        ("--set batch=0", ["TrainConfig.batch is 0; it must be at least 1"]),
        ("--set batch=1000000000000", ["TrainConfig.batch is 1000000000000; it must be at most"]),
        ("--set model.width=1000000000000", ["ModelConfig.width is 1000000000000; it must be at most"]),
        ("--set process.steps=1000000000000", ["ProcessConfig.steps is 1000000000000; it must be at most"]),
        ("--set optimizer.beta2=1", ["OptimizerConfig.beta2 is 1; it must be below 1"]),
        ("--set optimizer.lr=inf", ["OptimizerConfig.lr is inf; it must be"]),
        ("--set optimizer.lr=nan", ["OptimizerConfig.lr is nan; it must be"]),
        ("--steps 0", ["--steps"]),
        ("--steps -3", ["--steps"]),
        ("--device cuda:99", ["there is no device 'cuda:99' here; choose from cpu"]),
        ("--device tpu", ["there is no device 'tpu' here"]),
        ("--data nowhere", ["no file or folder nowhere; built-in videos are written builtin:mazes"]),
        ("--data builtin:mzes", ['did you mean "mazes"']),
        ("--start nowhere", ["there is no checkpoint at nowhere"]),
        ("--start builtin:nowhere", ["no checkpoint 'nowhere' ships with the package"]),
        ("--set data.size=10 --set model.multipliers=1,2,4", ["size 10 cannot be halved 2 times"]),
    ],
)
def test_options_that_are_refused(options, parts):
    refused(f"train --out run {options}", *parts)


def test_clips_longer_than_the_videos(tmp_path):
    for number, frames in enumerate((5, 6, 7)):
        np.save(tmp_path / f"{number}.npy", np.zeros((frames, 8, 8, 3), np.uint8))
    refused(f"train --data {tmp_path} --set data.frames=9", "a clip spans 9 frames", f"of {tmp_path} has ")


def test_a_folder_that_cannot_be_made(empty_folder):
    (empty_folder / "file").write_text("in the way")
    refused("train --out file/run", "file/run: Not a directory")
    refused("train --out file", "file")
    run_zoo("train --steps 1 --out run")
    refused("sample run --count 1 --steps 1 --out file/clips", "file/clips")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint(empty_folder, content):
    run_zoo("train --steps 1 --out run")
    (empty_folder / "run" / "checkpoint.pt").write_bytes(content)
    for command in ("train --out run", "sample run", "train --out other --start run"):
        refused(command, "checkpoint.pt is not a checkpoint of zoo train, or is damaged: ")


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_keeps_the_last_checkpoint(empty_folder, monkeypatch):
    run_zoo("train --steps 2 --out run")
    before = (empty_folder / "run" / "checkpoint.pt").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        refused(
            "train --steps 4 --out run",
            "run/checkpoint.pt: No space left on device; free some space, or choose another folder",
        )
    assert (empty_folder / "run" / "checkpoint.pt").read_bytes() == before
    if os.path.exists("/dev/full"):
        (empty_folder / "run" / "log.jsonl").rename("log")
        (empty_folder / "run" / "log.jsonl").symlink_to("/dev/full")
        refused("train --steps 4 --out run", "No space left on device")
        (empty_folder / "log").replace(empty_folder / "run" / "log.jsonl")
    assert "resuming at step 2" in run_zoo("train --steps 4 --out run").stderr


def test_a_loss_that_is_not_finite():
    message = refused(
        "train --out run --set optimizer.lr=1e30 --set optimizer.warmup=0", "training failed at step 2: loss"
    )
    assert "the step updated nothing" in message


@pytest.fixture
def trained(empty_folder):
    run_zoo("train --steps 2 --out run")
    return empty_folder / "run"


def test_samples_are_a_function_of_the_seed(empty_folder, trained):
    run_zoo("sample run --count 3 --steps 4 --out a")
    run_zoo("sample run --count 3 --steps 4 --out b")
    run_zoo("sample run --count 3 --steps 4 --out c --seed 1")
    a, b, c = (digests(empty_folder / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & set(c.values())


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_a_sample_does_not_depend_on_its_batch(trained, sampler):
    from diffusion.sampling.generate import load_network, sample_clips

    network, config, fps = load_network(trained / "checkpoint.pt", torch.device("cpu"))
    how = {"fps": fps, "seed": 0, "sampler": sampler, "num_steps": 4}
    together = sample_clips(network, config, 3, **how)
    alone = [sample_clips(network, config, 1, first=number, **how)[0] for number in range(3)]
    for one, other in zip(together, alone, strict=True):
        assert (one.pixels.int() - other.pixels.int()).abs().max() <= 1
    assert not torch.equal(together[0].pixels, together[1].pixels)
    assert fps == 12.0


def test_neighbours_are_written_beside_the_samples(trained, empty_folder):
    run_zoo("sample run --count 2 --steps 2 --neighbours --out a")
    assert (empty_folder / "a" / "neighbours.png").stat().st_size > 1000


def test_a_finished_run_does_not_change_its_weights(trained, empty_folder):
    whole, weights = (torch.load(trained / name, weights_only=True) for name in ("checkpoint.pt", "weights.pt"))
    assert set(whole) - set(weights) == {"network", "optimizer"}
    assert all(torch.equal(value, whole["average"][name]) for name, value in weights["average"].items())
    assert "1 clips" in run_zoo("sample run/weights.pt --count 1 --steps 2 --out a").stdout
    run_zoo("train --start run/weights.pt --steps 1 --out begun")


def test_sampler_options(trained):
    assert "1 clips of 7 frames" in run_zoo("sample run --count 1 --frames 7 --steps 2").stdout
    assert "3 clips" in run_zoo("sample run/checkpoint.pt --count 3 --batch 2 --sampler ancestral --out a").stdout
    refused("sample run --steps 9", "9 sampling steps are not possible; choose 1 to 8, the number of noise levels")
    refused("sample run --device cuda:99", "there is no device 'cuda:99' here")
    refused("sample run --count 0", "--count")
    refused("sample run --count 1000000000000", "--count")
    refused("sample run --frames 1000000000000", "--frames", "65536")


def test_the_record_of_samples_holds_the_number_of_levels_visited(trained):
    output = run_zoo("sample run --count 1 --steps 2 --out a").stdout
    assert output.endswith("(ancestral, 2 of 8 noise levels)\n")
    (record,) = read(Path("a") / "record.jsonl").of("samples")
    assert (record["levels_visited"], record["levels"], record["sampler"]) == (2, 8, "ancestral")
    assert "state=4:conv=4" in record["config"]["model"]["mixer"]
    assert "the paper visits all 256" in run_zoo("sample --help").stdout.replace("\n ", "")


def test_out_of_memory_names_options_that_need_less(trained, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("diffusion.sampling.generate.sample_clips", full)
    refused("sample run --count 1 --out a", "out of memory", "fewer --frames")
    monkeypatch.setattr("diffusion.training.trainer.Trainer.advance", full)
    refused("train --out run --steps 9 --set optimizer.decay=0.5", "out of memory", "--set batch=1")


def test_other_errors_of_torch_keep_their_traceback(trained, monkeypatch):
    def wrong(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr("diffusion.sampling.generate.sample_clips", wrong)
    result = CliRunner().invoke(zoo, ["sample", "run", "--count", "1", "--out", "a"])
    assert isinstance(result.exception, RuntimeError)


@pytest.mark.parametrize("place", ["nowhere", ".", "builtin:nowhere"])
def test_a_missing_run(place):
    refused(f"sample {place}", "no checkpoint")


def test_names_that_look_like_markup_are_printed_unchanged():
    assert "runs/[red]a" in run_zoo("train --steps 1 --out runs/[red]a").stderr


def test_sampling_checks_optional_packages_first(trained, monkeypatch):
    from temporal_zoo._support import packages

    def absent(name, package=None):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(packages, "import_module", absent)
    monkeypatch.setattr("diffusion.sampling.generate.load_network", lambda *_: pytest.fail("the network was loaded"))
    refused("sample run", "writing mp4 needs av")
