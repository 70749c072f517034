"""`zoo bench`, run like a user runs it."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from temporal_zoo._support.record import read
from temporal_zoo.cli.main import zoo


def bench(*arguments):
    if "--suite" in arguments:
        arguments = [word for word in arguments if word not in ("--layers", "identity")]
    return CliRunner().invoke(zoo, ["bench", *map(str, arguments)])


@pytest.fixture
def out(tmp_path, in_this_process):
    return tmp_path / "results"


def test_help_answers_without_torch():
    code = "import sys; from temporal_zoo.cli.main import zoo; zoo(['bench', '--help'], standalone_mode=False)"
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"--lengths" in done.stdout


def test_a_dry_run_prints_the_cases_and_measures_nothing(out):
    done = bench("--layers", "attn,bimamba", "--lengths", "16,64,256", "--out", out, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "mixer train bimamba 64 frames" in done.stdout
    assert done.stdout.endswith("24 cases\n")
    assert not out.exists()
    assert len(json.loads(bench("--dry-run", "--json").stdout)) == 24


def test_a_sweep_prints_tables_and_writes_a_record_and_a_plot(out):
    options = ("--level", "mixer", "--rows", 2, "--dim", 8, "--out", out)
    done = bench("--layers", "identity,bimamba", "--lengths", "4,8,16", *options)
    assert done.exit_code == 0, done.output
    assert "stored for backward, counted exactly (MiB)" in done.stdout
    assert "c L^2 fraction" in done.stdout
    assert "declared" in done.stdout
    assert "records.jsonl" in done.stderr
    assert "growth.png" in done.stderr
    assert (out / "growth.png").exists()
    measured = read(out / "records.jsonl").of("measurement")
    assert [(m["case"]["mixer"], m["case"]["frames"]) for m in measured[:3]] == [("identity", n) for n in (4, 8, 16)]
    assert all(m["outcome"] == "ok" and m["time_ms"]["rounds"] >= 1 and m["threads"] >= 1 for m in measured)
    (environment,) = read(out / "records.jsonl").environments
    assert {m["environment"] for m in measured} == {environment}


def test_both_levels_as_json_and_a_second_sweep_that_appends(out):
    options = ("--layers", "identity", "--lengths", "1,2,3", "--mode", "forward", "--out", out)
    done = bench(*options, "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert [result["case"]["level"] for result in printed["results"]] == ["mixer"] * 3 + ["model"] * 3
    assert {row["metric"] for row in printed["growth"]} == {"time", "processor", "peak"}
    bench(*options, "--level", "mixer", "--again")
    assert len(read(out / "records.jsonl").of("measurement")) == 9 * 5


def test_a_failed_mixer_gives_a_row_and_exit_code_one(out, planted):
    def broken(self, x):
        raise ValueError("no such frame")

    planted(broken)
    done = bench("--layers", "planted,identity", "--lengths", "4", "--level", "mixer", "--out", out)
    assert done.exit_code == 1
    assert "planted at 4 frames: failed: ValueError: no such frame" in done.stdout
    ends = [m["outcome"] for m in read(out / "records.jsonl").of("measurement")]
    assert ends == ["failed", "ok", "failed", "ok", *["ok"] * 8]


def test_out_of_memory_gives_a_row_and_exit_code_zero(out, planted):
    def greedy(self, x):
        if x.shape[1] == 8:
            raise MemoryError
        return x * self.weight

    planted(greedy)
    done = bench("--layers", "planted", "--lengths", "4,8", "--level", "mixer", "--mode", "train", "--out", out)
    assert done.exit_code == 0, done.output
    assert "out of memory" in done.stdout
    assert [m["outcome"] for m in read(out / "records.jsonl").of("measurement")] == ["ok", "out_of_memory", *["ok"] * 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lengths", "0"), "0 frames cannot be measured"),
        (("--lengths", "16,-1"), "-1 frames cannot be measured"),
        (("--lengths", "1000000000000"), "1000000000000 frames are too many"),
        (("--lengths", "9" * 5000), "is not a number of frames"),
        (("--rows", 10**12), "rows x frames x width are"),
        (("--dim", 10**12), "rows x frames x width are"),
        (("--total", 10**15, "--lengths", "1"), "rows x frames x width are"),
        (("--limit", "nan"), "nan is not a finite number"),
        (("--limit", "inf"), "'--limit'"),
        (("--minutes", "inf"), "inf is not a finite number"),
        (("--minutes", "-1"), "'--minutes'"),
        (("--repetitions", 10**12), "'--repetitions'"),
        (("--lengths", "soon"), "'soon' is not a number of frames"),
        (("--layers", "bimanba"), 'did you mean "bimamba"'),
        (("--device", "cuda:7"), "there is no device 'cuda:7'"),
        (("--device", "toaster"), "unknown device 'toaster'"),
        (("--backend", "selective_scan=fast"), "selective_scan has no backend 'fast'"),
        (("--backend", "scan=torch"), "no op is named 'scan'"),
        (("--backend", "torch"), "write op=backend"),
        (("--rows", "0"), "--rows"),
        (("--dtype", "int8"), "unknown precision int8"),
        (("--mode", "sample", "--level", "mixer"), "has no sampling step"),
        (("--total", "64", "--rows", "4"), "use one of --rows"),
        (("--suite", "quick", "--rows", "4"), "its cases are fixed"),
        (("--minutes", "2"), "no case can start in 2 minutes"),
        (("--expect-device", "A100"), "but 'A100' was expected"),
    ],
)
def test_bad_input_gives_one_message_and_exit_code_two(out, arguments, message):
    done = bench("--layers", "identity", "--out", out, *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert not out.exists()


def test_a_time_limit_before_the_first_case_gives_exit_code_three(out, monkeypatch):
    monkeypatch.setattr("bench.sweep.runner.Runner._too_late", lambda self: True)
    done = bench("--layers", "identity", "--lengths", "4", "--level", "mixer", "--minutes", "6", "--out", out)
    assert (done.exit_code, done.stdout) == (3, ""), done.output
    assert "10 processes are still to run.  Run the same command again to resume." in done.stderr


def test_a_folder_that_cannot_be_written_is_reported_before_any_measurement(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = bench("--layers", "identity", "--lengths", "4", "--out", tmp_path / "file" / "results")
    assert done.exit_code == 2, done.output
    assert str(tmp_path / "file") in done.stderr
    assert "cases on" not in done.stderr


def test_profile_writes_a_trace_of_every_case(out):
    options = ("--layers", "identity", "--level", "mixer", "--mode", "train", "--profile", "--out", out)
    done = bench("--lengths", "4", *options)
    assert done.exit_code == 0, done.output
    (trace,) = (out / "traces").iterdir()
    assert trace.name.startswith("mixer-train-identity-4-")
    assert json.loads(trace.read_text())["traceEvents"]
    measured = read(out / "records.jsonl").of("measurement")
    assert [m["trace"] for m in measured] == [trace.name, *[None] * 4]


def test_every_measurement_has_the_load_of_the_machine(out):
    bench("--layers", "identity", "--lengths", "4", "--level", "mixer", "--out", out)
    measured = read(out / "records.jsonl").of("measurement")
    assert all(m["load_before"] >= 0 and 0 <= m["busy_percent_before"] <= 100 for m in measured)
