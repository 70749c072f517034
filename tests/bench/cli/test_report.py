"""`zoo report`: the page, its pictures, and one environment of a record."""

import base64
import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from bench.sweep.outcome import Outcome
from temporal_zoo.cli.main import zoo


def report(*arguments):
    return CliRunner().invoke(zoo, ["report", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path, results_of, write_record, linear_and_quadratic):
    attn = {"attn": lambda n: Outcome("out_of_memory", "<too> much")}
    return write_record(tmp_path / "a", results_of(linear_and_quadratic | attn))


def test_a_page_loads_no_other_file(folder):
    done = report(folder)
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


def test_a_page_begins_with_the_map(folder):
    report(folder)
    page = (folder / "report.html").read_text()
    assert page.index('class="map"') < page.index('<span class="less3">▼ 0.12</span>') < page.index("<p>A processor")
    assert page.count("<body>") == 1


def test_a_report_is_of_one_environment(folder, results_of, write_record, timed):
    write_record(folder, results_of({"identity": lambda n: timed(7.0)}), id="9999")
    assert {row["mixer"] for row in json.loads(report(folder, "--json").stdout)} == {"identity"}
    rows = json.loads(report(folder, "--json", "--environment", "1234").stdout)
    assert {row["mixer"] for row in rows} == {"bimamba", "flash"}
    assert "12 measurements of other environments" in report(folder).stderr
    wrong = report(folder, "--environment", "77")
    assert (wrong.exit_code, "no environment that begins with '77'; it has 1234abcd, 9999" in wrong.stderr) == (2, True)


def test_an_ambiguous_environment_is_refused(folder, results_of, write_record, timed):
    write_record(folder, results_of({"identity": lambda n: timed(7.0)}), id="1299")
    assert "several environments that begin with '12'" in report(folder, "--environment", "12").stderr


def test_the_later_measurement_of_a_case_replaces_the_earlier_one(folder, results_of, write_record, timed):
    write_record(folder, results_of({"bimamba": lambda n: timed(1.0)}))
    rows = json.loads(report(folder, "--json").stdout)
    (time,) = [row for row in rows if (row["mixer"], row["metric"]) == ("bimamba", "time")]
    assert set(time["values"].values()) == {1.0}


def test_a_folder_without_a_record_gives_one_message(tmp_path):
    done = report(tmp_path)
    assert done.exit_code == 2
    assert "has no records.jsonl" in done.stderr


def test_reports_and_comparisons_need_no_torch(folder):
    code = "import sys; from bench.cli.compare import compare; from bench.cli.report import report; "
    code += "compare([sys.argv[1]] * 2, standalone_mode=False); "
    code += "report([sys.argv[1]], standalone_mode=False); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_report_as_json_is_json_even_if_the_machine_was_busy(folder):
    path = folder / "records.jsonl"
    lines = [json.loads(line) | {"busy_percent_before": 90.0} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = report(folder, "--json")
    assert json.loads(done.stdout)
    assert "Other programs used the processors before 12 of 12 processes." in done.stderr
