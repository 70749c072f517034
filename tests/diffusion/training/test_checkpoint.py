"""Checkpoint files: complete or not written, found by name, refused with a reason."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion.training import checkpoint
from diffusion.training.checkpoint import CheckpointError, fill, find, load, save
from diffusion.training.resume import differences


def test_load_returns_the_saved_content(tmp_path):
    path = tmp_path / "new" / "checkpoint.pt"
    content = {"step": 3, "config": {"a": [1, None]}, "network": {"w": torch.arange(3.0)}}
    save(path, content)
    back = load(path)
    assert back["step"] == 3
    assert back["config"] == {"a": [1, None]}
    assert torch.equal(back["network"]["w"], torch.arange(3.0))
    assert [other.name for other in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save(path, {"step": 1})

    def torn(content, file):
        file.write(b"half of a check")
        raise RuntimeError("inline_container.cc: unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="perhaps the disk is full") as caught:
        save(path, {"step": 2})
    assert caught.value.filename == str(path)
    assert load(path)["step"] == 1
    assert [other.name for other in tmp_path.iterdir()] == ["checkpoint.pt"]


LIMITED = """
import resource, sys, torch
from pathlib import Path
from diffusion.training.checkpoint import save
save(Path(sys.argv[1]), {"step": 1, "weights": torch.zeros(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save(Path(sys.argv[1]), {"step": 2, "weights": torch.zeros(1_000_000)})
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_write_beyond_the_size_limit_leaves_the_old_file(tmp_path):
    path = tmp_path / "checkpoint.pt"
    done = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("OSError", "DataError")), done.stdout
    assert load(path)["step"] == 1
    assert [other.name for other in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_find(tmp_path, monkeypatch):
    save(tmp_path / "run" / "checkpoint.pt", {})
    assert find(tmp_path / "run") == find(str(tmp_path / "run" / "checkpoint.pt")) == tmp_path / "run" / "checkpoint.pt"
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    assert find("builtin:run") == tmp_path / "run" / "checkpoint.pt"
    with pytest.raises(CheckpointError, match=r"no checkpoint 'rnu' ships .*did you mean \"run\"\?\); choose from run"):
        find("builtin:rnu")
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="choose from none"):
        find("builtin:run")


def test_the_message_for_a_folder_without_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        find(tmp_path)
    assert str(caught.value) == f"there is no checkpoint at {tmp_path / 'checkpoint.pt'}"
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        find(tmp_path / "nowhere")


class Foreign:
    """A class that no checkpoint of ours holds."""


@pytest.mark.parametrize("content", ["empty", "text", "torn", "class", "format", "list"])
def test_files_that_are_not_checkpoints_are_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    save(path, {"weights": torch.zeros(1000)})
    if content in ("empty", "text"):
        path.write_bytes(b"" if content == "empty" else b"not a checkpoint")
    elif content == "torn":
        path.write_bytes(path.read_bytes()[:2000])
    else:
        torch.save({"class": {"format": 1, "it": Foreign()}, "format": {"format": 99}, "list": [1]}[content], path)
    expected = "has format" if content in ("format", "list") else "is not a checkpoint of zoo train, or is damaged: "
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path} {expected}")
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused_with_the_differences():
    path = Path("there.pt")
    weights = torch.nn.Linear(3, 4).state_dict()
    found = differences({"width": 2, "same": 1}, {"width": 3, "same": 1})
    with pytest.raises(CheckpointError) as caught:
        fill(torch.nn.Linear(2, 4), weights, path, found)
    lines = "the weights in there.pt are those of another network:\n  width: 3 in the checkpoint, 2 asked for"
    assert str(caught.value) == lines
    with pytest.raises(CheckpointError, match="network:\n  size mismatch for weight"):
        fill(torch.nn.Linear(2, 4), weights, path, {})
    with pytest.raises(CheckpointError, match="network:\n  Missing key"):
        fill(torch.nn.Linear(3, 4), {}, path, {})
