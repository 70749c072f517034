"""Converted layers compute what the layers of other projects compute, restated here in float64."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from temporal_zoo.convert import (
    ConversionError,
    from_lucidrains,
    from_mamba_ssm,
    from_official,
    from_s4,
    from_vim,
)

_SPEC = spec_from_file_location("theirs", Path(__file__).parents[2] / "theirs.py")
published = module_from_spec(_SPEC)
_SPEC.loader.exec_module(published)
DIM, FRAMES = published.DIM, 7


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def agree(converted, theirs):
    x = torch.randn(2, FRAMES, theirs.dim)
    torch.testing.assert_close(converted.mixer()(x), theirs(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("core", ["s6", "s4d"])
@pytest.mark.parametrize("both", [False, True])
def test_the_official_mamba_layers(both, core):
    theirs = published.OfficialMamba(both, core=core)
    converted = from_official(theirs.state_dict())
    assert converted.spec.name == ("bimamba" if both else "mamba")
    agree(converted, theirs)


@pytest.mark.parametrize(("core", "width", "option"), [("s4d", 3 * DIM, 0), ("s4d", 20, 20), ("s6", 3 * DIM, 3 * DIM)])
@pytest.mark.parametrize("both", [False, True])
def test_the_official_gss_layers(both, core, width, option):
    theirs = published.OfficialGSS(both, core, width)
    converted = from_official(theirs.state_dict())
    assert converted.spec.name == ("bigs" if both else "gss")
    assert converted.spec.config().width == option
    agree(converted, theirs)


@pytest.mark.parametrize("mlp", [0, 12])
@pytest.mark.parametrize("both", [False, True])
def test_the_official_s4d_layers(both, mlp):
    theirs = published.OfficialS4D(both, mlp)
    agree(from_official(theirs.state_dict()), theirs)


@pytest.mark.parametrize("features", [8, 40])
def test_the_official_attention_layer(features):
    table = torch.randn(32, 2)
    theirs = published.TheirAttention(2, features, table)
    converted = from_official(theirs.state_dict(), heads=2, attention="softmax", relative_bias=table)
    assert converted.dropped == ("rotary_emb.freqs",)
    agree(converted, theirs)


@pytest.mark.parametrize("features", [8, 40])
def test_the_official_linear_attention_layer(features):
    theirs = published.TheirLinearAttention(2, features)
    converted = from_official(theirs.state_dict(), heads=2, attention="linear", relative_bias=torch.randn(32, 2))
    assert converted.spec.name == "linattn"
    assert converted.dropped == ("rotary_emb.freqs",)
    agree(converted, theirs)


def test_lucidrains_attention_within_a_network():
    theirs = published.TheirAttention(3, 8)
    network = {f"downs.0.3.fn.fn.fn.{name}": tensor for name, tensor in theirs.state_dict().items()}
    agree(from_lucidrains(network, heads=3, relative_bias=None, prefix="downs.0.3.fn.fn.fn."), theirs)


def test_the_minimal_s4d_layer():
    theirs = published.S4DCore(DIM, 3, glu=True)
    theirs.dim = DIM
    agree(from_s4(theirs.state_dict(), discretisation="zoh"), theirs)
    assert from_s4(theirs.state_dict(), discretisation="bilinear").spec.config().discretisation == "bilinear"


def mamba_state(dim=DIM, state=3, rank=1, conv=4, backward=False):
    """Names and shapes of a layer of mamba_ssm, or of Vim."""
    inner = 2 * dim
    core = {"A_log": (inner, state), "D": (inner,), "x_proj.weight": (rank + 2 * state, inner),
            "dt_proj.weight": (inner, rank), "dt_proj.bias": (inner,), "conv1d.weight": (inner, 1, conv),
            "conv1d.bias": (inner,)}  # fmt: skip
    shapes = {"in_proj.weight": (2 * inner, dim), "out_proj.weight": (dim, inner), **core}
    if backward:
        named = lambda name: "A_b_log" if name == "A_log" else "D_b" if name == "D" else name.replace(".", "_b.", 1)
        shapes |= {named(name): shape for name, shape in core.items()}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def test_mamba_ssm_and_vim_tell_their_options_by_their_shapes():
    assert str(from_mamba_ssm(mamba_state(state=5, conv=3)).spec) == "mamba:state=5:conv=3:projection_bias=no"
    vim = from_vim(mamba_state(backward=True), merge="mean")
    assert vim.spec.config().merge == "mean"
    assert vim.mixer()(torch.randn(2, 5, DIM)).shape == (2, 5, DIM)


def attention_state():
    return published.TheirAttention(2, 8).state_dict()


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda: from_mamba_ssm({}), r"not a layer of mamba_ssm: there is no in_proj\.weight"),
        (
            lambda: from_mamba_ssm({f"layers.0.{name}": t for name, t in mamba_state().items()}),
            r"choose a layer with prefix= one of 'layers\.0\.'",
        ),
        (lambda: from_mamba_ssm(mamba_state(dim=40, rank=4)), r"rank 4; our mixers have rank 5 .* or 3"),
        (lambda: from_mamba_ssm(without(mamba_state(), "D")), r"it lacks core\.D"),
        (lambda: from_mamba_ssm(mamba_state() | {"extra": torch.zeros(1)}), "it has extra, which mamba has no place"),
        (
            lambda: from_mamba_ssm(mamba_state() | {"D": torch.zeros(3)}),
            r"core\.D has the shape \(3,\) and should have \(16,\)",
        ),
        (lambda: from_vim(mamba_state(), merge="mean"), "use from_mamba_ssm"),
        (lambda: from_vim(mamba_state() | {"A_b_log": torch.zeros(16, 3)}, merge="mean"), '"v1" layer of Vim'),
        (lambda: from_vim(mamba_state(backward=True), merge="half"), "choose mean"),
        (lambda: from_official(attention_state(), attention="linear"), "give heads and"),
        (
            lambda: from_official(attention_state(), heads=2),
            r"attention \(softmax or linear\)",
        ),
        (
            lambda: from_official(attention_state(), heads=2, attention="softmax"),
            "give relative_bias, time_rel_pos_bias",
        ),
        (
            lambda: from_official(attention_state(), heads=2, attention="cosine"),
            "unknown attention 'cosine'; choose from softmax, linear",
        ),
        (
            lambda: from_official(attention_state(), heads=3, attention="linear"),
            "16 is not a multiple of 3",
        ),
        (
            lambda: from_official(without(published.OfficialGSS(True, "s4d", 24).state_dict(), "fc_rev1.bias")),
            r"cannot become bigs:state=6: it lacks branch_b\.before\.bias",
        ),
        (lambda: from_official({}), r"there is no s4d\.kernel\.C"),
        (lambda: from_s4({"kernel.inv_dt": torch.zeros(1)}, discretisation="zoh"), "full S4 block"),
        (lambda: from_s4(published.S4DCore(8, 2, True).state_dict(), discretisation="euler"), "choose zoh"),
        (
            lambda: from_lucidrains(attention_state(), heads=2, relative_bias=torch.zeros(2, 32)),
            r"not \(32, 2\)",
        ),
    ],
)
def test_what_cannot_be_converted_is_one_sentence(convert, message):
    with pytest.raises(ConversionError, match=message):
        convert()


def test_buffers_of_a_profiler_are_left_out():
    state = mamba_state() | {"total_ops": torch.zeros(1), "in_proj.total_params": torch.zeros(1)}
    assert set(from_mamba_ssm(state).dropped) == {"total_ops", "in_proj.total_params"}
