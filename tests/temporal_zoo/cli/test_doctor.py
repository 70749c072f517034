"""`zoo doctor`: packages that are missing, broken, unusable or crash, and backends that fail."""

import json

import pytest
from click.testing import CliRunner

from temporal_zoo._support.packages import OPTIONAL, Package, not_tried
from temporal_zoo.cli import doctor_report
from temporal_zoo.cli.doctor_report import build_report
from temporal_zoo.cli.main import zoo
from temporal_zoo.ops import agreement, ops

CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.fixture(scope="module")
def report():
    """The report of this machine."""
    return build_report()


def test_torch_and_every_backend_work(report):
    assert "error" not in report["environment"]
    assert [row["failure"] for row in report["backends"] if row["failure"]] == []


def test_every_package_has_a_row_with_a_reason_unless_it_works(report):
    assert [row["package"] for row in report["packages"]] == [package.module for package in OPTIONAL]
    for row in report["packages"]:
        assert row["state"] in ("works", "missing", "broken", "unusable")
        assert (row["reason"] is None) == (row["state"] == "works")


def test_every_backend_has_a_row_and_agrees_with_the_reference_if_it_runs(report):
    assert {(row["op"], row["backend"]) for row in report["backends"]} == {
        (name, backend) for name, op in ops().items() for backend in op.backends
    }
    for row in report["backends"]:
        assert row["runs"] is (row["reasons"] == []) is bool(row["agrees"]), row
    for name in ops():
        defaults = [
            row["backend"] for row in report["backends"] if row["op"] == name and row["device"] == "cpu" and row["auto"]
        ]
        assert len(defaults) == 1


def test_a_backend_with_wrong_results_does_not_agree(monkeypatch):
    import temporal_zoo.ops.causal_conv.torch as backend

    run = backend.run
    monkeypatch.setattr(backend, "run", lambda *args, **kwargs: [1.01 * y for y in run(*args, **kwargs)])
    result = agreement.try_backend("causal_conv", "torch", "cpu")
    assert result["agrees"] is False
    assert 0.005 < result["error"] < 0.02


def toy(module, **facts):
    return Package(module=module, distribution=module, purpose="a test", extra="train", **facts)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Small packages in all states."""
    for name, source in {
        "toy_fine": "print('hello')",
        "toy_link": "raise ImportError('undefined symbol: c10')",
        "toy_part": "import no_such_part",
        "toy_crash": CRASH,
        "toy_leave": "raise SystemExit('no GPU')",
    }.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("package", "state", "reason", "fix"),
    [
        (toy("toy_fine"), "works", None, None),
        (toy("no_such_package"), "missing", "not installed", 'pip install "temporal-zoo[train]"'),
        (toy("toy_link"), "broken", "ImportError: undefined symbol: c10", "pip install --force-reinstall"),
        (toy("toy_part"), "broken", "ModuleNotFoundError: No module named 'no_such_part'", "--force-reinstall"),
        (toy("toy_crash"), "broken", "crashed (SIGSEGV)", "--force-reinstall"),
        (toy("toy_leave"), "broken", "SystemExit: no GPU", "--force-reinstall"),
        (toy("toy_fine", probe="1 / 0"), "unusable", "ZeroDivisionError: division by zero", None),
        (toy("toy_fine", probe="import time; time.sleep(60)"), "broken", "no answer within 1 s", "--force-reinstall"),
        (toy("no_such_package", needs_cuda=True), "missing", "not installed; it needs a CUDA device", None),
    ],
)
def test_the_state_of_a_package_has_a_reason_and_a_fix(site, monkeypatch, package, state, reason, fix):
    if "sleep" in package.probe:
        monkeypatch.setattr(doctor_report, "SECONDS_PER_PROBE", 1)
    row = doctor_report._package(package, [], False, "2.13.0")
    assert row["state"] == state
    assert row["reason"] is None if reason is None else reason in row["reason"]
    assert row["fix"] is None if fix is None else fix in row["fix"]


def test_a_package_without_a_backend_that_runs_is_unusable(site):
    backend = {"op": "attention", "backend": "fast", "package": "toy_fine", "runs": False, "reasons": ["float16 only"]}
    row = doctor_report._package(toy("toy_fine"), [backend], False, "2.13.0")
    assert (row["state"], row["reason"]) == ("unusable", "float16 only")
    row = doctor_report._package(
        toy("toy_fine"), [backend, backend | {"backend": "other", "runs": True}], False, "2.13.0"
    )
    assert (row["state"], row["backends"]) == ("works", ["attention/other"])


# Replaces the loop over the backends: the second one crashes, the third raises an error, the fourth disagrees.
CRASHING_TRIALS = f"""
import json, os, signal
answer = {{"dtype": "float32", "padded": True, "reasons": [], "error": 0.0, "agrees": True, "package": None}}
for backend in ("first", "crash", "raises", "wrong", "reference"):
    key = ("toy", backend, "cpu")
    if list(key) in skip:
        continue
    print(json.dumps({{"key": key}}), flush=True)
    if backend == "crash":
        {CRASH}
    elif backend == "raises":
        print(json.dumps({{"failure": "RuntimeError: out of registers"}}), flush=True)
    elif backend == "wrong":
        print(json.dumps({{"result": answer | {{"error": 0.5, "agrees": False}}}}), flush=True)
    else:
        print("a package prints a line")
        print(json.dumps({{"result": answer}}), flush=True)
"""


def test_the_report_continues_after_a_backend_that_crashes(monkeypatch):
    monkeypatch.setattr(doctor_report, "_TRIALS", CRASHING_TRIALS)
    rows = {row["backend"]: row for row in doctor_report._backends()}
    assert {name: row["failure"] for name, row in rows.items()} == {
        "first": None,
        "crash": "crashed (SIGSEGV)",
        "raises": "RuntimeError: out of registers",
        "wrong": "differs from the reference by 5.0e-01",
        "reference": None,
    }
    assert [name for name, row in rows.items() if row["auto"]] == ["first"]


def test_ops_that_cannot_be_imported_give_one_row(monkeypatch):
    monkeypatch.setattr(doctor_report, "_TRIALS", "import no_such_module")
    (row,) = doctor_report._backends()
    assert row["failure"] == "ModuleNotFoundError: No module named 'no_such_module'"


def test_without_torch_the_report_has_the_error_and_the_machine(monkeypatch):
    monkeypatch.setattr(doctor_report, "_ENVIRONMENT", "raise OSError('libtorch.so: no such file')")
    facts = doctor_report._environment()
    assert facts["error"] == "OSError: libtorch.so: no such file"
    assert facts["machine"]["cores"] >= 1


@pytest.mark.parametrize(
    ("software", "lines"),
    [
        ({"python": "3.12.1", "torch": "2.11.0+cu130", "triton": "3.6.0", "numpy": "99.0"}, []),
        ({"python": "3.12.1", "torch": "2.13.0+cpu", "triton": None}, []),
        ({"python": "3.13.0", "torch": "2.1.0"}, ["torch 2.1.0 (tried: 2.8, "]),
        ({"python": "3.110.0", "torch": "2.80.0a0+git1", "triton": "4.0"}, ["python 3.110", "torch 2.80", "triton 4"]),
        ({}, []),
    ],
)
def test_versions_without_a_test_run_are_named(report, monkeypatch, software, lines):
    names = not_tried(software)
    assert len(names) == len(lines)
    assert all(line.startswith(start) for line, start in zip(names, lines, strict=True))
    monkeypatch.setattr(doctor_report, "build_report", lambda: report | {"not_tried": names})
    text = CliRunner().invoke(zoo, ["doctor"]).stdout
    assert [line for line in text.splitlines() if line.startswith("not tried")] == [f"not tried: {x}" for x in names]


def test_a_subprocess_has_the_module_search_path_of_this_process(site):
    assert doctor_report._python("import toy_fine", 30).stdout == "hello\n"


@pytest.mark.parametrize(("strict", "broken", "code"), [(False, True, 0), (True, True, 1), (True, False, 0)])
def test_only_strict_gives_exit_code_1_when_something_is_broken(report, monkeypatch, strict, broken, code):
    broken_report = report | {"broken": ["flash_attn: undefined symbol"] if broken else []}
    monkeypatch.setattr(doctor_report, "build_report", lambda: broken_report)
    result = CliRunner().invoke(zoo, ["doctor", *(["--strict"] if strict else [])])
    assert result.exit_code == code
    assert ("broken: flash_attn: undefined symbol" in result.stdout) is broken
    assert ("Nothing is broken." in result.stdout) is not broken


def test_the_tables_and_the_json_show_every_row(report, monkeypatch):
    monkeypatch.setattr(doctor_report, "build_report", lambda: report)
    text = CliRunner().invoke(zoo, ["doctor"]).stdout
    for row in report["packages"] + report["backends"]:
        assert row.get("package") is None or row["package"] in text
        assert row.get("backend") is None or row["backend"] in text
    assert json.loads(CliRunner().invoke(zoo, ["doctor", "--json"]).stdout) == report


def test_the_command_prints_a_report_without_torch(report, monkeypatch):
    facts = {"machine": report["environment"]["machine"], "code": report["environment"]["code"], "error": "OSError: x"}
    monkeypatch.setattr(
        doctor_report, "build_report", lambda: report | {"environment": facts, "broken": ["torch: OSError: x"]}
    )
    assert "cannot be used: OSError: x" in CliRunner().invoke(zoo, ["doctor"]).stdout
