"""Peers of our backends: packages, sources by path, restated algorithms."""

import hashlib

import pytest
from click.testing import CliRunner

from bench.kernels import peers, subjects, suite
from temporal_zoo.cli.main import zoo
from temporal_zoo.ops import ops

TINY = subjects.SubjectSize(rows=2, frames=5, width=16, state=4)


REFERENCE_SCAN = """
import torch
import package_that_is_not_here.cuda as kernels
from another_one import decorated

@decorated
def fused(x):
    return kernels(x)

def selective_scan_ref(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    assert kernels is None and delta_softplus
    delta = torch.nn.functional.softplus(delta + delta_bias[:, None])
    h, ys = 0, []
    for t in range(u.shape[2]):
        h = torch.exp(delta[:, :, t, None] * A) * h + (delta * u)[:, :, t, None] * B[:, None, :, t]
        ys.append((h * C[:, None, :, t]).sum(-1))
    return torch.stack(ys, -1) + u * D[:, None]
"""


@pytest.mark.parametrize("subject", subjects.SUBJECTS)
def test_restated_and_plain_peers_agree_with_our_reference(without_packages, subject):
    others = [each for each in suite.implementations(subject, None) if each.role in ("restated", "plain")]
    plain = ("causal_conv", "attention", "linear_attention", "ridge_attention")
    assert {each.role for each in others} >= ({"plain"} if subject in plain else {"restated"})
    for each in others:
        outcome = suite.gate(each, TINY)
        assert outcome["outcome"] == "ok", (each.name, outcome)
        assert outcome["error"] < 5e-5


def test_the_row_of_a_missing_package_says_how_to_install_it(without_packages):
    missing = [each for each in suite.implementations("selective_scan", None) if each.run is None]
    assert [each.name for each in missing] == [
        "mamba.py pscan",
        "Transformers, slow path",
        "Transformers, use_mambapy",
    ]
    found = suite.gate(missing[0], TINY)
    assert found["outcome"] == "missing"
    assert found["reason"] == "mambapy is not installed: pip install --upgrade mambapy"


def test_a_source_is_loaded_by_path_and_named_by_digest(tmp_path, without_packages):
    path = tmp_path / "selective_scan_interface.py"
    path.write_text(REFERENCE_SCAN)
    digest = hashlib.sha256(REFERENCE_SCAN.encode()).hexdigest()
    assert peers.check(tmp_path) == {path.name: digest}
    reference = suite.implementations("selective_scan", tmp_path)[len(ops()["selective_scan"].backends)]
    assert (reference.name, reference.role) == ("mamba_ssm selective_scan_ref", "source")
    assert digest in reference.origin
    assert suite.gate(reference, TINY)["outcome"] == "ok"
    (vim,) = peers.of("bimamba", tmp_path)
    assert vim.role == "restated"
    assert digest in vim.origin
    assert suite.gate(vim, TINY)["outcome"] == "ok"


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "contains no peer; copy one or more of"), ("x = 1", "does not define"), ("def", "cannot parse")],
)
def test_a_folder_without_peers_is_refused_before_the_first_measurement(tmp_path, text, said):
    folder = tmp_path / "peers"
    folder.mkdir()
    if text is not None:
        (folder / "s4d.py").write_text(text)
    arguments = ["bench", "--suite", "kernels", "--peers", str(folder), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(zoo, arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert not (tmp_path / "out").exists()
