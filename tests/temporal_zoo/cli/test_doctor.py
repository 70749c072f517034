"""The doctor: packages that are missing, broken, unusable or deadly, backends that fail, a report that survives all."""

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from temporal_zoo._support.packages import OPTIONAL, TRIED, Package, install_command, not_tried
from temporal_zoo.cli import examine as doctor
from temporal_zoo.cli.examine import examine
from temporal_zoo.cli.main import zoo
from temporal_zoo.ops import agreement, ops

CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.fixture(scope="module")
def report():
    """The true report of this machine."""
    return examine()


def test_torch_and_every_backend_are_well(report):
    assert "error" not in report["environment"]
    assert [row["failure"] for row in report["backends"] if row["failure"]] == []


def test_every_package_is_there_with_a_reason_unless_it_works(report):
    assert [row["package"] for row in report["packages"]] == [package.module for package in OPTIONAL]
    for row in report["packages"]:
        assert row["state"] in ("works", "missing", "broken", "unusable")
        assert (row["reason"] is None) == (row["state"] == "works")


def test_every_backend_is_there_and_those_that_run_agree_with_the_reference(report):
    assert {(row["op"], row["backend"]) for row in report["backends"]} == {
        (name, backend) for name, op in ops().items() for backend in op.backends
    }
    for row in report["backends"]:
        assert row["runs"] is (row["reasons"] == []) is bool(row["agrees"]), row
    for name in ops():
        taken = [
            row["backend"] for row in report["backends"] if row["op"] == name and row["device"] == "cpu" and row["auto"]
        ]
        assert len(taken) == 1


def test_a_backend_that_computes_something_else_is_found(monkeypatch):
    import temporal_zoo.ops.causal_conv.torch as backend

    run = backend.run
    monkeypatch.setattr(backend, "run", lambda *args, **kwargs: [1.01 * y for y in run(*args, **kwargs)])
    found = agreement.try_backend("causal_conv", "torch", "cpu")
    assert found["agrees"] is False
    assert 0.005 < found["error"] < 0.02


def toy(module, **facts):
    return Package(module=module, distribution=module, purpose="a test", extra="train", **facts)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Toy packages in all states."""
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
def test_packages_are_told_apart(site, monkeypatch, package, state, reason, fix):
    if "sleep" in package.probe:
        monkeypatch.setattr(doctor, "SECONDS_PER_PROBE", 1)
    row = doctor._package(package, [], False, "2.13.0")
    assert row["state"] == state
    assert row["reason"] is None if reason is None else reason in row["reason"]
    assert row["fix"] is None if fix is None else fix in row["fix"]


def test_a_package_none_of_whose_backends_runs_is_unusable(site):
    backend = {"op": "attention", "backend": "fast", "package": "toy_fine", "runs": False, "reasons": ["float16 only"]}
    row = doctor._package(toy("toy_fine"), [backend], False, "2.13.0")
    assert (row["state"], row["reason"]) == ("unusable", "float16 only")
    row = doctor._package(toy("toy_fine"), [backend, backend | {"backend": "other", "runs": True}], False, "2.13.0")
    assert (row["state"], row["backends"]) == ("works", ["attention/other"])


# Stands in for the loop over true backends: the second one kills its process, the third raises, the fourth disagrees.
DEADLY = f"""
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
        print("some package talks")
        print(json.dumps({{"result": answer}}), flush=True)
"""


def test_a_backend_that_kills_its_process_does_not_kill_the_report(monkeypatch):
    monkeypatch.setattr(doctor, "_TRIALS", DEADLY)
    rows = {row["backend"]: row for row in doctor._backends()}
    assert {name: row["failure"] for name, row in rows.items()} == {
        "first": None,
        "crash": "crashed (SIGSEGV)",
        "raises": "RuntimeError: out of registers",
        "wrong": "differs from the reference by 5.0e-01",
        "reference": None,
    }
    assert [name for name, row in rows.items() if row["auto"]] == ["first"]


def test_ops_that_cannot_be_imported_are_one_row(monkeypatch):
    monkeypatch.setattr(doctor, "_TRIALS", "import no_such_module")
    (row,) = doctor._backends()
    assert row["failure"] == "ModuleNotFoundError: No module named 'no_such_module'"


def test_a_torch_that_cannot_be_imported_is_told_and_the_machine_still_is(monkeypatch):
    monkeypatch.setattr(doctor, "_ENVIRONMENT", "raise OSError('libtorch.so: no such file')")
    told = doctor._environment()
    assert told["error"] == "OSError: libtorch.so: no such file"
    assert told["machine"]["cores"] >= 1


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
def test_versions_that_were_never_tried_are_named(report, monkeypatch, software, lines):
    found = not_tried(software)
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True))
    monkeypatch.setattr(doctor, "examine", lambda: report | {"not_tried": found})
    text = CliRunner().invoke(zoo, ["doctor"]).stdout
    assert [line for line in text.splitlines() if line.startswith("not tried")] == [f"not tried: {x}" for x in found]


def test_what_is_promised_was_tried():
    """The bounds and classifiers of pyproject.toml begin where the tried versions do."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    named = {line.rpartition(" :: ")[2] for line in project["classifiers"] if "Python" in line}
    assert named == set(TRIED["python"])
    assert project["requires-python"] == f">={TRIED['python'][0]}"
    assert f"torch>={TRIED['torch'][0]}" in project["dependencies"]
    assert any(line.startswith(f"triton>={TRIED['triton'][0]};") for line in project["optional-dependencies"]["test"])


def test_children_look_for_modules_where_this_process_does(site):
    assert doctor._python("import toy_fine", 30).stdout == "hello\n"


@pytest.mark.parametrize(("strict", "broken", "code"), [(False, True, 0), (True, True, 1), (True, False, 0)])
def test_strict_ends_with_one_only_when_something_is_broken(report, monkeypatch, strict, broken, code):
    told = report | {"broken": ["flash_attn: undefined symbol"] if broken else []}
    monkeypatch.setattr(doctor, "examine", lambda: told)
    result = CliRunner().invoke(zoo, ["doctor", *(["--strict"] if strict else [])])
    assert result.exit_code == code
    assert ("broken: flash_attn: undefined symbol" in result.stdout) is broken
    assert ("Nothing is broken." in result.stdout) is not broken


def test_the_report_reads_as_tables_and_as_json(report, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda: report)
    text = CliRunner().invoke(zoo, ["doctor"]).stdout
    for row in report["packages"] + report["backends"]:
        assert row.get("package") is None or row["package"] in text
        assert row.get("backend") is None or row["backend"] in text
    assert json.loads(CliRunner().invoke(zoo, ["doctor", "--json"]).stdout) == report


def test_a_report_without_torch_can_be_shown(report, monkeypatch):
    lame = {"machine": report["environment"]["machine"], "code": report["environment"]["code"], "error": "OSError: x"}
    monkeypatch.setattr(doctor, "examine", lambda: report | {"environment": lame, "broken": ["torch: OSError: x"]})
    assert "cannot be used: OSError: x" in CliRunner().invoke(zoo, ["doctor"]).stdout


@pytest.mark.parametrize(
    ("module", "facts", "command"),
    [
        ("av", {}, 'pip install "temporal-zoo[train]"'),
        (
            "torchvision",
            {"torch_version": "2.13.0+cpu"},
            'torchvision==0.28.*" --index-url "the CPU index that the site of PyTorch names"',
        ),
        ("torchvision", {"torch_version": "2.13.0", "cuda": True}, 'pip install --no-deps "torchvision==0.28.*"'),
        ("flash_attn", {}, 'pip install --no-build-isolation "temporal-zoo[flash]"'),
        ("mamba_ssm", {}, "MAMBA_KEEP_CUDA_BUILD=TRUE"),
    ],
)
def test_install_commands_keep_the_installed_torch(module, facts, command):
    package = next(package for package in OPTIONAL if package.module == module)
    assert command in install_command(package, **facts)
