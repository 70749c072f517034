"""`zoo convert` for layers: the file that it writes, and the messages about missing values."""

import pickle
import sys

import pytest
import torch
from click.testing import CliRunner

from temporal_zoo import build
from temporal_zoo.cli.main import zoo
from temporal_zoo.convert.mamba_ssm import to_mamba_ssm
from temporal_zoo.convert.vim import to_vim


def run(*words):
    return CliRunner().invoke(zoo, ["convert", *(str(word) for word in words)])


@pytest.fixture
def vim(tmp_path):
    """A layer of Vim inside of a checkpoint with two state dicts."""
    mixer = build("bimamba:flavour=vim", 16)
    layer = {f"layers.0.mixer.{name}": tensor for name, tensor in to_vim(mixer.state_dict()).items()}
    torch.save({"model": layer, "ema": layer, "epoch": 3}, tmp_path / "vim.pth")
    return tmp_path / "vim.pth", mixer


def test_a_converted_layer_loads_and_computes_the_same(vim, tmp_path):
    file, mixer = vim
    out = tmp_path / "mixer.pt"
    sets = ("--set", "merge=mean", "--set", "prefix=layers.0.mixer.")
    done = run(file, "--from", "vim", "--key", "ema", *sets, "--out", out)
    assert done.exit_code == 0, done.output
    saved = torch.load(out, weights_only=True)
    again = build(saved["spec"], saved["dim"])
    again.load_state_dict(saved["state"])
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(again(x), mixer(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "holds model, ema; choose one with --key"),
        (("--key", "emma"), "no state dict 'emma' (did you mean \"ema\"?)"),
        (("--key", "ema"), "the file does not say merge; give --set merge=..."),
        (("--key", "ema", "--set", "merge=mean"), "choose a layer with prefix= one of 'layers.0.mixer.'"),
        (("--key", "ema", "--set", "heads=3"), "this conversion has no 'heads'"),
        (("--key", "ema", "--set", "merge"), "write --set NAME=VALUE"),
    ],
)
def test_a_message_names_what_is_missing(vim, tmp_path, words, message):
    done = run(vim[0], "--from", "vim", *words, "--out", tmp_path / "mixer.pt")
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "mixer.pt").exists()


@pytest.mark.parametrize(
    ("source", "sets", "message"),
    [
        ("lucidrains", ("heads=many", "relative_bias=none"), "heads is 'many'; it must be a whole number above zero"),
        ("lucidrains", ("heads=0", "relative_bias=none"), "heads is '0'; it must be a whole number above zero"),
        ("lucidrains", ("heads=-2", "relative_bias=none"), "heads is '-2'"),
        ("lucidrains", ("heads=2", "relative_bias=table"), "no tensor 'table'"),
        ("mamba_ssm", ("prefix=8",), "there is no in_proj.weight"),
        ("vim", ("merge=9",), "merge is '9'; choose mean"),
    ],
)
def test_a_value_of_another_kind_is_one_message(tmp_path, source, sets, message):
    torch.save({"to_qkv.weight": torch.zeros(12, 8), "to_out.weight": torch.zeros(8, 4)}, tmp_path / "layer.pt")
    words = [word for each in sets for word in ("--set", each)]
    done = run(tmp_path / "layer.pt", "--from", source, *words, "--out", tmp_path / "mixer.pt")
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.output.split())


@pytest.mark.parametrize("name", ["cut.pt", "text.pt", "cut.safetensors"])
def test_a_damaged_file_is_one_message(tmp_path, name):
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors")
    torch.save({"weight": torch.zeros(50)}, tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / name).write_bytes(b"no weights" if name == "text.pt" else content[:200])
    done = run(tmp_path / name, "--from", "mamba_ssm", "--out", tmp_path / "mixer.pt")
    assert done.exit_code == 2, done.output


def test_safetensors_that_is_not_installed_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    (tmp_path / "layer.safetensors").write_bytes(b"")
    done = run(tmp_path / "layer.safetensors", "--from", "mamba_ssm", "--out", tmp_path / "mixer.pt")
    assert done.exit_code == 2, done.output
    assert 'pip install "temporal-zoo[convert]"' in done.output


def test_a_file_with_code_in_it_is_refused(tmp_path):
    torch.save({"state": torch.nn.Linear(2, 2)}, tmp_path / "whole.pt")
    done = run(tmp_path / "whole.pt", "--from", "mamba_ssm", "--out", tmp_path / "mixer.pt")
    assert "reading it could run code of its author" in done.output
    (tmp_path / "other.pt").write_bytes(pickle.dumps([1], protocol=2))
    assert run(tmp_path / "other.pt", "--from", "mamba_ssm", "--out", tmp_path / "mixer.pt").exit_code == 2


def test_safetensors_are_read_if_the_package_is_installed(tmp_path):
    torch_files = pytest.importorskip("safetensors.torch")
    mixer = build("mamba:flavour=literal", 16)
    torch_files.save_file(to_mamba_ssm(mixer.state_dict()), tmp_path / "layer.safetensors")
    done = run(tmp_path / "layer.safetensors", "--from", "mamba_ssm", "--out", tmp_path / "mixer.pt")
    assert done.exit_code == 0, done.output
