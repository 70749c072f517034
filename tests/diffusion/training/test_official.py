"""Whole networks of arXiv 2403.07711's code become checkpoints that compute the same."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from diffusion.model.backbones import build_network
from diffusion.presets import preset
from diffusion.process.process import Process
from diffusion.training.official import convert_network
from temporal_zoo.cli.main import zoo
from temporal_zoo.convert import ConversionError

_SPEC = spec_from_file_location("theirs", Path(__file__).parents[2] / "theirs.py")
published = module_from_spec(_SPEC)
_SPEC.loader.exec_module(published)
HEADS, FRAMES, SIZE = 2, 3, 8
LAYERS = {
    "bigs": lambda dim: published.OfficialGSS(True, "s6", 24, dim),
    "gss": lambda dim: published.OfficialGSS(False, "s4d", 3 * dim, dim),
    "attn": lambda dim: published.TheirAttention(HEADS, 40, torch.zeros(32, HEADS), dim),
    "linattn": lambda dim: published.TheirLinearAttention(HEADS, 40, dim=dim),
    "bimamba": lambda dim: published.OfficialMamba(True, dim),
    "mamba": lambda dim: published.OfficialMamba(False, dim),
    "s4d": lambda dim: published.OfficialS4D(True, 0, dim),
}


@pytest.fixture
def network():
    """`network("attn")`: a small one in float64, with nothing at its initial value."""

    def make(layer):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        made = published.OfficialNetwork(LAYERS[layer], 8, (1, 2), HEADS)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if not name.endswith("freqs"):
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return made

    yield make
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("layer", LAYERS)
def test_it_computes_the_same(network, layer):
    theirs = network(layer)
    attention = {"linattn": "linear", "attn": "softmax"}.get(layer)
    config, weights, dropped = convert_network(
        theirs.state_dict(), size=SIZE, frames=FRAMES, steps=8, attention=attention
    )
    ours = build_network(config.model).double()
    ours.load_state_dict(weights)
    x, level = torch.randn(2, 3, FRAMES, SIZE, SIZE), torch.tensor([1, 6])
    found = ours(x.transpose(1, 2), level).transpose(1, 2)
    torch.testing.assert_close(found, theirs(x, level), rtol=0, atol=1e-5)  # our sines are float32
    table = "time_rel_pos_bias.relative_attention_bias.weight"
    assert (table in dropped) == (layer != "attn")
    parameters = sum(p.numel() for n, p in theirs.named_parameters() if n not in dropped)
    assert sum(p.numel() for p in ours.parameters()) == parameters


def test_the_network_with_linear_attention_has_the_parameters_of_the_papers_code():
    model = preset("paper-56.3M").model.replace(mixer="linattn")
    with torch.device("meta"):
        network = build_network(model)
    # The paper's code also counts 16 rotary frequencies, which are constants, and a bias table of 32 x 8, never used.
    assert sum(parameter.numel() for parameter in network.parameters()) == 56_279_827 - 16 - 32 * 8


def trained(theirs, steps=8):
    """What their trainer saves: the process around the network, and the averaged one."""
    inside = {f"denoise_fn.{name}": tensor for name, tensor in theirs.state_dict().items()}
    betas = Process.from_config(convert_network(theirs.state_dict(), size=8, frames=3, steps=steps)[0].process).betas
    return {"step": 7, "model": {}, "ema": inside | {"betas": betas, "denoise_fn.total_ops": torch.zeros(1)}}


def run(*words):
    return CliRunner().invoke(zoo, [str(word) for word in words])


def test_the_command_makes_a_checkpoint_that_can_be_sampled(network, tmp_path):
    file = tmp_path / "model-1.pt"
    torch.save(trained(network("bimamba")), file)
    torch.set_default_dtype(torch.float32)
    out = tmp_path / "checkpoint.pt"
    words = ("convert", file, "--from", "official", "--set", "size=8", "--set", "frames=3", "--out", out)
    refused = run(*words)
    assert refused.exit_code == 2
    assert "--set fps=10" in refused.output
    done = run(*words, "--set", "fps=10")
    assert done.exit_code == 0, done.output
    assert "a network of" in done.output
    for fps in ("nan", "0", "-3", "soon"):
        assert f"fps is '{fps}'" in run(*words, "--set", f"fps={fps}").output
    drawn = run("sample", out, "--count", 1, "--steps", 2, "--out", tmp_path / "clips")
    assert drawn.exit_code == 0, drawn.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"null_cond_emb": torch.zeros(1, 4)}, "text conditions"),
        (lambda s: s | {"surprise.weight": torch.zeros(1)}, "surprise.weight is no parameter"),
        (lambda s: {k: v for k, v in s.items() if k != "mid_block1.res_conv.weight" and "block2.norm" not in k},
         "differs from the one of arXiv 2403.07711 in"),
        (lambda s: s | {"betas": torch.linspace(0.1, 0.2, 8)}, "not the cosine schedule"),
    ],
)  # fmt: skip
def test_another_network_is_refused(network, change, message):
    with pytest.raises(ConversionError, match=message):
        convert_network(change(network("mamba").state_dict()), size=SIZE, frames=FRAMES, steps=8)


def test_the_kind_of_attention_is_asked_for(network):
    with pytest.raises(ConversionError, match=r"give heads and attention \(softmax or linear\)"):
        convert_network(network("attn").state_dict(), size=SIZE, frames=FRAMES, steps=8)


def test_the_number_of_noise_levels_is_asked_for(network):
    with pytest.raises(ConversionError, match="give the number of noise levels"):
        convert_network(network("mamba").state_dict(), size=SIZE, frames=FRAMES)
