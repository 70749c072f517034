"""`zoo report` and `zoo compare` on records made by hand: crossings, the page, paired ratios, refusals."""

import base64
import json
import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from bench.analysis import crossover
from bench.analysis.curves import STORED, TIME, Result, panels
from bench.sweep.case import expand
from bench.sweep.outcome import Outcome, Times
from temporal_zoo._support.record import Session
from temporal_zoo.cli.main import zoo

LENGTHS = (16, 64, 256, 1024)
MACHINE = {
    "id": "1234abcd",
    "machine": {"processor": "A processor", "usable_cores": 2, "memory_bytes": 2**34, "system": "Linux"},
    "devices": [], "software": {"torch": "2.13", "cuda": None}, "threads": {"torch": 2},
    "code": {"version": "0.1", "commit": "c" * 40, "dirty": False, "sources": "5"},
}  # fmt: skip


def outcome(ms, stored=1024, spread=0.02):
    times = Times((1 - spread) * ms, ms, (1 + spread) * ms, 9, 2, True)
    return Outcome("ok", time_ms=times, stored_bytes=stored, declared={"time": "T", "memory": "T"})


def results(curves, **options):
    """Results of a bare mixer in training, from mixer -> function of frames that gives an outcome."""
    cases = expand(layers=",".join(curves), lengths="16,64,256,1024", level="mixer", mode="train", **options)
    return [Result(case, curves[case.mixer](case.frames)) for case in cases]


LINEAR_AND_QUADRATIC = {
    "bimamba": lambda n: outcome(4.0 * n, stored=1000 * n),
    "flash": lambda n: outcome(n * n / 32, stored=2000 * n),
}


def sentences(curves):
    (panel,) = panels(results(curves))
    return crossover.sentences(panel)


def test_a_crossing_is_found_where_the_laws_meet():
    (panel,) = panels(results(LINEAR_AND_QUADRATIC))
    bimamba, flash = panel.curves
    ratios = crossover.compare(bimamba, flash, TIME)
    (crossing,) = ratios.crossings
    assert crossing.at == pytest.approx(128)
    assert crossing.falls
    assert ratios.values[1024] == pytest.approx(1 / 8)
    # 2 % of spread in both, whose squares add up.
    assert crossing.low == pytest.approx(128 / math.exp(math.hypot(math.log(0.98), math.log(1.02))))
    assert crossing.high == pytest.approx(128 * math.exp(math.hypot(math.log(0.98), math.log(1.02))))
    assert crossover.compare(bimamba, flash, STORED).crossings == []


def test_crossings_as_sentences():
    assert sentences(LINEAR_AND_QUADRATIC) == [
        "bimamba is faster than flash above L = 128 (124 to 132, by their intervals); "
        "at 1024 frames 0.125 times its time.",
        "bimamba stores less than flash: at every length, L = 16 to 1024; at 1024 frames 0.500 times its bytes.",
    ]
    slow = {"bimamba": lambda n: outcome(9.0 * n), "flash": lambda n: outcome(3.0 * n)}
    assert sentences(slow) == [
        "bimamba is faster than flash: never in range, L = 16 to 1024; at 1024 frames 3.00 times its time.",
        "bimamba and flash store the same from L = 16 to 1024.",
    ]
    alike = {"bimamba": lambda n: outcome(3.05 * n if n > 100 else 2.95 * n), "flash": lambda n: outcome(3.0 * n)}
    assert sentences(alike)[0] == (
        "bimamba and flash take the same time within their intervals, L = 16 to 1024; "
        "at 1024 frames 1.02 times its time."
    )
    reverse = {"bimamba": lambda n: outcome(n * n / 32), "flash": lambda n: outcome(4.0 * n)}
    assert "faster than flash below L = 128" in sentences(reverse)[0]


def test_without_the_yardstick_or_a_second_length_nothing_is_said():
    assert sentences({"bimamba": lambda n: outcome(1), "attn": lambda n: outcome(1)}) == []
    ended = Outcome("out_of_memory", "too much")
    assert sentences({"bimamba": lambda n: outcome(1), "flash": lambda n: outcome(1) if n == 16 else ended}) == []


def test_time_per_row_where_rows_vary_with_frames():
    (panel,) = panels(results({"bimamba": lambda n: outcome(1024.0)}, total=4096))
    (curve,) = panel.curves
    assert curve.points(TIME) == {n: 1024 * n / 4096 for n in LENGTHS}
    assert curve.slope(TIME) == pytest.approx(1)
    assert curve.slope_error(TIME) == pytest.approx(0.02 / (5**0.5 * 2 * 0.6931), rel=1e-3)
    assert panel.title(TIME).endswith("(ms per row)")


def written(folder, found, environment=MACHINE):
    session = Session(folder / "records.jsonl", environment)
    for result in found:
        session.write("measurement", {"case": result.case.to_dict()} | result.outcome.to_dict())
    return folder


def invoke(*arguments):
    return CliRunner().invoke(zoo, list(map(str, arguments)))


@pytest.fixture
def folder(tmp_path):
    found = results(LINEAR_AND_QUADRATIC | {"attn": lambda n: Outcome("out_of_memory", "<too> much")})
    return written(tmp_path / "a", found)


def test_a_report_leaves_a_page_that_loads_nothing(folder):
    done = invoke("report", folder)
    assert done.exit_code == 0, done.output
    assert "bimamba is faster than flash above L = 128" in done.stdout
    page = (folder / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "@import" not in page
    assert "url(" not in page
    assert "bimamba is faster than flash above L = 128" in page
    assert "&lt;too&gt; much" in page
    assert "A processor" in page
    assert "4 out of memory" in page
    (picture,) = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    drawn = base64.b64decode(picture).decode()
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert drawn == (folder / "growth-1.svg").read_text()
    assert (folder / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_is_of_one_environment(folder):
    other = MACHINE | {"id": "9999"}
    written(folder, results({"identity": lambda n: outcome(7.0)}), other)
    told = {row["mixer"] for row in json.loads(invoke("report", folder, "--json").stdout)}
    assert told == {"identity"}
    told = {row["mixer"] for row in json.loads(invoke("report", folder, "--json", "--environment", "1234").stdout)}
    assert told == {"bimamba", "flash"}
    assert "12 measurements of other environments" in invoke("report", folder).stderr
    wrong = invoke("report", folder, "--environment", "77")
    assert (wrong.exit_code, "1234abcd, 9999" in wrong.stderr) == (2, True)


def test_the_later_line_of_a_case_wins(folder):
    written(folder, results({"bimamba": lambda n: outcome(1.0)}))
    rows = json.loads(invoke("report", folder, "--json").stdout)
    (time,) = [row for row in rows if (row["mixer"], row["metric"]) == ("bimamba", "time")]
    assert set(time["values"].values()) == {1.0}


def test_ratios_are_paired_and_have_intervals(folder, tmp_path):
    faster = {
        "bimamba": lambda n: outcome(2.0 * n, stored=500 * n),
        "flash": lambda n: outcome(n * n / 32 * 1.01, stored=2000 * n),
        "identity": lambda n: outcome(1.0),
    }
    other = written(tmp_path / "b", results(faster))
    told = json.loads(invoke("compare", folder, other, "--json").stdout)
    pairs = {(p["case"]["mixer"], p["case"]["frames"]): p for p in told["pairs"]}
    assert {mixer for mixer, _ in pairs} == {"bimamba", "flash"}
    assert pairs["bimamba", 64]["time"]["value"] == pytest.approx(0.5)
    assert pairs["bimamba", 64]["time"]["high"] == pytest.approx(0.5 * 1.02 ** (2**0.5))
    assert pairs["bimamba", 64]["stored"] == pytest.approx(0.5)
    mean = told["time_geometric_mean"]
    assert mean["value"] == pytest.approx((0.5 * 1.01) ** 0.5)
    assert mean["low"] < mean["value"] < mean["high"]
    lines = invoke("compare", folder, other).stdout.splitlines()
    verdicts = {
        line.split()[0]: line.split()[-1] for line in lines if line.strip().startswith(("bimamba 64", "flash 64"))
    }
    assert verdicts["bimamba"] == "faster"
    assert verdicts["flash"] not in ("faster", "slower")


def test_different_machines_are_refused_unless_told(folder, tmp_path):
    elsewhere = MACHINE | {"machine": MACHINE["machine"] | {"processor": "Another"}}
    other = written(tmp_path / "b", results(LINEAR_AND_QUADRATIC), elsewhere)
    done = invoke("compare", folder, other)
    assert done.exit_code == 2
    assert "A processor and Another" in done.stderr
    assert invoke("compare", folder, other, "--other-machine").exit_code == 0


def test_nothing_to_read_gets_one_message(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments in (("report", tmp_path / "empty"), ("compare", folder, tmp_path / "empty")):
        done = invoke(*arguments)
        assert done.exit_code == 2
        assert "holds no records.jsonl" in done.stderr
    apart = written(tmp_path / "b", results({"identity": lambda n: outcome(1.0)}))
    assert "no case in common" in invoke("compare", folder, apart).stderr


def test_reading_records_needs_no_torch(folder):
    code = "import sys; from bench.cli.compare import compare; from bench.cli.report import report; "
    code += "compare([sys.argv[1]] * 2, standalone_mode=False); "
    code += "report([sys.argv[1]], standalone_mode=False); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_report_as_json_is_json(folder):
    assert json.loads(invoke("report", folder, "--json").stdout)
