"""Saved runs of the speed tests are compared as ratios."""

import json

import pytest
from click.testing import CliRunner

from bench.kernels.baselines import baselines, pair


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "Linux-CPython-3.11-64bit"
    folder.mkdir()

    def save(name, median, peak):
        stats = {"median": median, "q1": 0.95 * median, "q3": 1.05 * median}
        each = {"name": "test_speed[bimamba]", "stats": stats,
                "extra_info": {"stored_bytes": 100, "peak_bytes": peak}}  # fmt: skip
        (folder / name).write_text(json.dumps({"benchmarks": [each]}))

    save("0001_first.json", 0.004, 100)
    save("0002_baseline.json", 0.002, 100)
    save("0003_other.json", 0.009, 100)
    return folder, save


def test_the_last_run_is_compared_with_the_named_baseline(place):
    folder, save = place
    save("0004_now.json", 0.003, 150)
    assert [path.name for path in pair(folder)] == ["0002_baseline.json", "0004_now.json"]
    done = CliRunner().invoke(baselines, [str(folder.parent)])
    assert done.exit_code == 0, done.output
    row = next(line for line in done.stdout.splitlines() if "test_speed" in line)
    assert row.split() == [
        "test_speed[bimamba]", "3.00", "1.500", "(1.397", "to", "1.610)", "1.000", "1.500", "150", "B", "slower"
    ]  # fmt: skip


def test_without_a_named_baseline_the_previous_run_is_the_baseline(place):
    folder, _ = place
    (folder / "0002_baseline.json").rename(folder / "0002_second.json")
    assert [path.name for path in pair(folder)] == ["0002_second.json", "0003_other.json"]
    for path in list(folder.iterdir())[1:]:
        path.unlink()
    assert pair(folder) is None
    assert "there is only one run" in CliRunner().invoke(baselines, [str(folder.parent)]).stdout
