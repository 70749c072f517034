"""`zoo probe`: the list, wrong input, tables and pages."""

import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from diffusion.probes import experiment
from diffusion.probes.tasks import get, names, summary
from temporal_zoo import registry
from temporal_zoo.cli.main import zoo


def zoo_probe(*words):
    return CliRunner().invoke(zoo, ["probe", *words])


@pytest.mark.parametrize("name", names())
def test_every_probe_runs_from_the_command_line(name, tmp_path):
    pytest.importorskip("matplotlib")
    words = (name, "--mixers", "identity", "--seeds", "2", "--steps", "2", "--sequences", "4", "--out", str(tmp_path))
    result = zoo_probe(*words)
    assert result.exit_code == 0, result.output
    assert "control" in result.output
    page = (tmp_path / "page.html").read_text()
    assert "best of the past" in page
    assert "data:image/png;base64," in page
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    again = zoo_probe(*words)
    assert "2 of 2 trainings are on record" in again.output


def test_several_difficulties_and_noises_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    result = zoo_probe("kalman", "--mixers", "identity", "--seeds", "1", "--steps", "1", "--sequences", "2",
                       "--difficulty", "all", "--noise", "0.5,2", "--out", str(tmp_path))  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.output.count("correlation 0.97") == 2


def test_the_list_names_every_probe_with_its_summary():
    result = zoo_probe("--list")
    assert result.exit_code == 0
    for name in names():
        assert name in result.output
        assert summary(name)
        assert get(name).question.endswith("?")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "NAME is missing"),
        (("kalmann",), "did you mean"),
        (("kalman", "--noise", "3"), "choose from 0.5, 1, 2"),
        (("kalman", "--difficulty", "hard"), "correlation cannot be 'hard'"),
        (("kalman", "--mixers", "mumba"), "no mixer is named 'mumba'"),
        (("kalman", "--mixers", ""), "names no mixer"),
        (("kalman", "--seeds", "0"), "--seeds"),
    ],
)
def test_bad_input_gets_one_message(words, message):
    result = zoo_probe(*words)
    assert result.exit_code == 2
    assert message in result.output


def test_help_imports_no_torch():
    code = "import sys; from diffusion.cli.probe import probe; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_all_selects_every_mixer(monkeypatch):
    from diffusion.cli.probe import _specs

    assert _specs("all") == registry.names()
    assert _specs("mamba,mamba:state=16,bimamba:state=8") == ["mamba", "bimamba:state=8"]


def test_a_signal_stops_the_command_after_a_step_and_it_resumes(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    words = [
        "kalman",
        "--mixers",
        "identity",
        "--seeds",
        "2",
        "--steps",
        "2",
        "--sequences",
        "4",
        "--out",
        str(tmp_path),
    ]

    def run(trial):
        for progress in original(trial):
            if trial.seed == 1:
                signal.raise_signal(signal.SIGTERM)
            yield progress

    original = experiment.run
    monkeypatch.setattr(experiment, "run", run)
    stopped = zoo_probe(*words)
    assert stopped.exit_code == 128 + signal.SIGTERM
    assert "stopped after 1 of 2 trainings; run the same command again to resume" in stopped.output
    monkeypatch.undo()
    resumed = zoo_probe(*words)
    assert resumed.exit_code == 0, resumed.output
    assert "1 of 2 trainings are on record" in resumed.output
