"""What is done with this project, each in an environment of its own: `nox -s demo`, `nox -s tests`, ...

Everything but the matrix is installed in the versions of constraints.txt.  Words behind `--` are handed on:
`nox -s tests -- -k scan`.
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
# Not all pairs, but each Python and the versions of torch that people have; each torch brings its own Triton.
MATRIX = [("3.13", "2.8"), ("3.12", "2.11"), ("3.11", "2.13"), ("3.12", "newest")]
# The table of the matrix: a head, and one row for each run.
ENDED = [["python", "torch", "triton", "numpy", "tests", "failures", "errors", "skipped"]]


def install(session: nox.Session, *wanted: str) -> None:
    """Installs in the versions that constraints.txt names."""
    session.install("-c", "constraints.txt", *wanted)


@nox.session
def demo(session: nox.Session) -> None:
    """Goes on training a shipped model on recorded walks, draws clips, measures two mixers: pictures in out/demo."""
    install(session, ".[all]")
    # -P: what was installed runs, and not the folder of the same name here.
    session.run("python", "-P", "-m", "diffusion.demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests that need no GPU, two at a time."""
    install(session, ".[test]")
    session.run("pytest", "--numprocesses=2", "--dist=worksteal", *session.posargs)


@nox.session
def sanitize(session: nox.Session) -> None:
    """The C++ backends under the address and undefined-behaviour sanitizers: lengths, padding, 10,000 random shapes."""
    install(session, ".[test]")
    folder = Path(session.create_tmp()).absolute()
    # A compiler of its own, so that the package needs no setting for it.  Its options come last and win.
    compiler = folder / "sanitizing-g++"
    compiler.write_text(
        "#!/bin/sh\nunset LD_PRELOAD\n"
        'exec g++ "$@" -O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all\n'
    )
    compiler.chmod(0o700)
    runtimes = [
        session.run("g++", f"-print-file-name={library}", external=True, silent=True).strip()
        for library in ("libasan.so", "libstdc++.so")  # the first wraps what the second throws
    ]
    env = {
        "CXX": str(compiler),
        "ZOO_CACHE": str(folder / "cache"),
        # The program is Python, which is built without it; Python and torch keep memory until the end.
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
        "OMP_NUM_THREADS": "1",
    }
    words = ("pytest", "-x", "--capture=sys", "--durations=5")
    padding = "(lengths or padding or zero_rows) and not triton and not planted"
    tests = ("tests/temporal_zoo/test_contract.py", "tests/temporal_zoo/ops")
    session.run(*words, "-k", padding, *tests, *session.posargs, env=env)
    session.run(*words, "-m", "sanitize", "tests/temporal_zoo/ops/test_random_shapes.py", *session.posargs, env=env)


@nox.session
@nox.parametrize(("python", "torch"), MATRIX, ids=[f"torch-{torch}" for _, torch in MATRIX])
def matrix(session: nox.Session, torch: str) -> None:
    """The library's tests with other versions of Python, torch and its Triton: a few GB each, no GPU.

    One of them: `nox -s "matrix(torch-2.11)"`.  Each installs what pip finds today, without constraints.txt.
    """
    session.install(".[test]", "torch" if torch == "newest" else f"torch=={torch}.*")
    software = "from temporal_zoo._support import environment as e; import json; print(json.dumps(e.environment()))"
    facts = json.loads(session.run("python", "-P", "-c", software, silent=True).splitlines()[-1])["software"]
    report = Path(session.create_tmp()) / "report.xml"
    try:
        wanted = session.posargs or ["tests/temporal_zoo"]
        session.run("pytest", "--numprocesses=2", "--dist=worksteal", f"--junitxml={report}", *wanted)
    finally:
        counts = ElementTree.parse(report).getroot()[0].attrib if report.exists() else {}
        ENDED.append([str(facts.get(name) or counts.get(name, "-")) for name in ENDED[0]])
        lines = ["  ".join(f"{cell:12}" for cell in row).rstrip() for row in ENDED]
        session.log("\n".join(["versions, and how their tests ended:", *lines]))


@nox.session
def lint(session: nox.Session) -> None:
    """Rules and format of the code."""
    install(session, "ruff")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Types of the three packages, and of the public names as a user of `temporal_zoo` sees them."""
    install(session, ".[test]")
    session.run("mypy", *session.posargs)
    session.run("mypy", "--strict", "--follow-imports=silent", "tests/typing/public_api.py")


@nox.session
def speed(session: nox.Session) -> None:
    """Speed of every mixer on small shapes, on an otherwise idle machine, as ratios to a saved run.

    `-- --benchmark-save=baseline` saves the one that later runs are compared with; without one, it is the last.
    """
    install(session, ".[test]")
    named = any(word.startswith("--benchmark-save") for word in session.posargs)
    keep = [f"--benchmark-storage=file://./{SPEED}", *([] if named else ["--benchmark-autosave"])]
    session.run("pytest", "-m", "speed", *keep, *session.posargs)
    session.run("python", "-P", "-m", "bench.kernels.baselines", SPEED)


@nox.session
def kernels(session: nox.Session) -> None:
    """Every backend of every op against its peers, on an otherwise idle machine; `-- --out docs/results` keeps them."""
    install(session, ".[bench]", "mambapy", "transformers")
    session.run("zoo", "bench", "--suite", "kernels", *session.posargs)


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """What only a GPU can tell, with the torch and the kernels of the active environment: `-- --minutes 8`.

    Run it again to continue; `-- --rehearse --device cpu` needs no GPU.
    """
    # Exit code 3: its minutes are over, and there is more to do.
    session.run("python", "-m", "bench.gpu", "quarter", *session.posargs, success_codes=[0, 3])


@nox.session
def docs(session: nox.Session) -> None:
    """Builds the documentation site in site/."""
    install(session, *EXTRAS["docs"])
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """The wheel in dist/: what is in it, and that its commands answer where torch is not installed."""
    session.run("python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", "dist", ".")
    built = max(Path("dist").glob("temporal_zoo-*.whl"), key=lambda path: path.stat().st_mtime)
    with zipfile.ZipFile(built) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    strays = {top for top in tops - PACKAGES if not top.endswith(".dist-info")}
    if strays or not tops >= PACKAGES:
        session.error(f"{built} holds {', '.join(sorted(tops))}; it should hold {', '.join(sorted(PACKAGES))}")
    install(session, "click", "rich")
    session.install("--no-deps", "--force-reinstall", str(built))
    commands = "train sample data evaluate weights probe bench report compare plan reproduce list info check doctor"
    for command in commands.split():
        session.run("zoo", command, "--help", silent=True)
    session.log(f"{built} is sound: {built.stat().st_size / 2**20:.1f} MiB")
