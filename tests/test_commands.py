"""Every command of `zoo` with a full or closed standard output, without writable files, and without a home folder.

The commands run with tiny inputs.  Two servers import torch and the packages once and fork a process for each command:
one server has the usual environment, the other has no home folder and an ASCII terminal.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from temporal_zoo import build
from temporal_zoo.cli.main import GROUP

pytest.importorskip("av")
pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and fills /dev/full")

SMALL = "model.width=8 model.multipliers=1,2 model.blocks=1 model.groups=2 model.heads=1 model.stem=3 model.slots=mid "
SMALL += "data.frames=3 batch=1 test_clips=1 data.cache={room}/cache"
SETTINGS = [word for setting in SMALL.split() for word in ("--set", setting)]


class Case:
    """A command: its words, its usual exit code, what it writes, and whether it needs a home folder."""

    def __init__(self, words, *more, code=0, writes=None, home=False):
        self.words, self.code, self.writes, self.home = [*words.split(), *more], code, writes, home


CASES = [
    Case("--help"),
    Case("list"),
    Case("list --json"),
    Case("info bimamba"),
    Case("check identity"),
    Case("doctor --help"),
    Case("train --preset tiny --steps 1 --data {videos} --mixer identity", *SETTINGS, writes="runs"),
    Case("convert {layer} --from mamba_ssm --out converted/mixer.pt", writes="converted"),
    Case("sample builtin:doom --count 1 --steps 1 --frames 1", writes="clips"),
    Case("data inspect {videos}"),
    Case("data build {videos} --size 8 --out decoded", writes="decoded"),
    Case("data build {videos} --size 8", writes="cache", home=True),
    Case("data preview {room}/decoded --frames 2 --size 8 --count 1 --out pictures/preview", writes="pictures"),
    Case("evaluate {videos} --real {videos} --extractor plain --frames 9 --count 2", writes="cache", home=True),
    Case("weights i3d", code=2),
    Case("probe --list"),
    Case("probe copy --mixers identity --seeds 1 --steps 1 --sequences 2", writes="runs"),
    Case("ablate --list"),
    Case("bench --dry-run"),
    Case("bench --layers identity --lengths 2 --level mixer --mode forward --repetitions 1", writes="runs"),
    Case("plan --layers identity --lengths 2 --checkpointing none --preset tiny --size 8", writes="runs"),
    Case("reproduce --help"),
    Case("report {record} --out pages", writes="pages"),
    Case("compare {record} {record}"),
]

SERVER = """
import concurrent.futures, ctypes, gc, json, os, pty, resource, signal, sys, tempfile, threading, traceback
folder, conditions, cases = json.loads(sys.argv[1])
if "no home" in conditions:
    import pwd
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")
    pwd.getpwuid = unknown
import av, matplotlib.figure, numpy, PIL.Image, rich.progress, torch
import bench.cli.bench, bench.plan.plan, bench.analysis.page, bench.cli.report, bench.cli.compare, bench.sweep.runner
import diffusion.training.run, diffusion.sampling.generate
import diffusion.training.curves, diffusion.evaluation.suite, diffusion.evaluation.report, diffusion.probes.experiment
import diffusion.probes.page, temporal_zoo.cli.catalogue
import temporal_zoo.contract, bench.sweep.run_case, bench.sweep.machine, bench.sweep.subprocess, bench.plan.pool
import bench.sweep.machine_load
from temporal_zoo.cli.main import zoo

# Subprocesses would import all of this again, so their work runs here.
def examine(cases, expected=None):
    found = bench.sweep.machine.examine(cases, expected)
    return found.environment, found.devices
bench.sweep.subprocess.examine = examine
bench.sweep.subprocess.Workers.measure = lambda self, case, **_: bench.sweep.run_case.run_case(case, budget_s=0.01)
bench.plan.pool.planners = lambda: concurrent.futures.ThreadPoolExecutor(1)
bench.sweep.machine_load._SAMPLE_S = 0.001

# The first call of each takes seconds.
temporal_zoo.cli.catalogue.mixer("bimamba")
gpu, setup = bench.plan.devices.device("a100-40gb"), bench.plan.plan.Setup(mixer="identity", preset="tiny", size=8)
plans = bench.plan.plan.plans_of(gpu, [2], setup)
bench.plan.plan.plans_of = lambda *_: plans
doom = diffusion.training.checkpoint.find("builtin:doom")
network, config, fps = diffusion.sampling.generate.load_network(doom, torch.device("cpu"))
diffusion.sampling.generate.sample_clips(network, config, 1, fps=fps, num_steps=1, frames=1)

def drop_capabilities():
    # Root can write everywhere; without its capabilities the permissions of files apply to it.
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())

def child(condition, words, out, err):
    os.dup2(err, 2)
    if condition == "full output":
        out = os.open("/dev/full", os.O_WRONLY)
    elif condition == "closed pipe":
        reading, out = os.pipe()
        os.close(reading)
    elif condition == "tiny terminal":
        os.environ |= {"TERM": "dumb", "COLUMNS": "1", "LINES": "1"}
    elif condition == "full disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    elif condition == "read-only folder":
        os.chmod(".", 0o500)
        drop_capabilities()
    os.dup2(out, 1)
    signal.alarm(100)
    sys.argv = ["zoo", *words]
    try:
        zoo(words, prog_name="zoo")
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    # Ends like Python, but does not spend a second on freeing torch.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            os.write(2, f"Exception ignored: {error}".encode())
            code = 120
    os._exit(code)

def drained(descriptor, into):
    try:
        while part := os.read(descriptor, 1 << 16):
            into.append(part)
    except OSError:  # the process closed its end of the terminal
        pass

gc.freeze()
answers = []
for number, (condition, words) in enumerate(cases):
    here = tempfile.mkdtemp(dir=folder)
    os.environ["ZOO_CACHE"] = os.path.join(here, "cache")
    if "no home" in conditions:
        del os.environ["ZOO_CACHE"]
    (out_reader, out), (err_reader, err) = os.pipe() if condition != "tiny terminal" else pty.openpty(), os.pipe()
    sys.stdout.flush()
    if not (pid := os.fork()):
        os.chdir(here)
        child(condition, words, out, err)
    os.close(out)
    os.close(err)
    output, messages = [], []
    threads = [threading.Thread(target=drained, args=pair) for pair in ((out_reader, output), (err_reader, messages))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    answers.append([code, b"".join(output).decode("latin1"), b"".join(messages).decode("utf-8", "replace")])
    os.close(out_reader)
    os.close(err_reader)
sys.stdout.write(json.dumps(answers))
sys.stdout.flush()
"""

USUAL = ("usual", "full output", "closed pipe", "full disk", "read-only folder", "tiny terminal")
BARE = "no home, ASCII"


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """(condition, number of the case) -> exit code, standard output and standard error."""
    room = tmp_path_factory.mktemp("room")
    paths = {"room": str(room), "videos": str(_videos(room / "videos")), "record": str(_record(room / "record"))}
    paths["layer"] = str(_layer(room / "layer.pt"))
    words = [[word.format(**paths) for word in case.words] for case in CASES]
    _decode(paths)
    jobs = {
        "usual": [(condition, number) for condition in USUAL for number in range(len(CASES))],
        BARE: [(BARE, number) for number in range(len(CASES))],
    }
    known = {name: value for name, value in os.environ.items() if not name.startswith(("ZOO_", "COLUMNS", "LINES"))}
    known |= {"OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(room), "LANG": "C.UTF-8"}
    bare = {name: value for name, value in known.items() if not name.startswith(("HOME", "XDG_", "LANG", "LC_", "MPL"))}
    bare |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    running = {}
    for name, environment in (("usual", known), (BARE, bare)):
        commands = [(condition, words[number]) for condition, number in jobs[name]]
        argument = json.dumps([str(room), "no home" if name == BARE else "", commands])
        command = [sys.executable, "-c", SERVER, argument]
        running[name] = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=room
        )
    results = {}
    for name, process in running.items():
        output, messages = process.communicate(timeout=900)
        assert process.returncode == 0, messages.decode(errors="replace")[-2000:]
        results |= dict(zip(jobs[name], json.loads(output), strict=True))
    return results


def _videos(folder):
    from diffusion.clip import Clip
    from diffusion.sampling.video import save_mp4

    for number in range(2):
        pixels = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8)
        save_mp4(folder / f"{number}.mp4", Clip(pixels, fps=8), scale=1)
    return folder


def _layer(path):
    from temporal_zoo.convert.mamba_ssm import to_mamba_ssm

    torch.save(to_mamba_ssm(build("mamba:flavour=literal", 8).state_dict()), path)
    return path


def _decode(paths):
    from diffusion.data.build import build

    list(build(Path(paths["videos"]), Path(paths["room"]) / "decoded", size=8))


def _record(folder):
    from bench.sweep.case import expand
    from bench.sweep.outcome import Outcome, Times
    from temporal_zoo._support.environment import environment
    from temporal_zoo._support.record import Session

    session = Session(folder / "records.jsonl", environment())
    for case in expand(layers="bimamba,flash", lengths="16,64", level="mixer", mode="train"):
        outcome = Outcome("ok", time_ms=Times(1, 2, 3, 9, 2, True), stored_bytes=case.frames)
        session.write("measurement", {"case": case.to_dict()} | outcome.to_dict())
    return folder


def cases_in(condition, answers):
    """Every case with its usual output, and its exit code, output and messages in a condition."""
    for number, case in enumerate(CASES):
        yield case, answers["usual", number][1], answers[condition, number]


def no_traceback(message):
    return not any(words in message for words in ("Traceback", "Exception ignored", "UnicodeEncodeError"))


def as_usual(case, code):
    """Whether the exit code is the usual one.

    `zoo check` runs torch.compile, which may fail without temporary files, and in an ASCII locale, in which torch
    cannot read some of its own files.  Then a check fails, and the exit code is 1.
    """
    return code == case.code or (case.words[0] == "check" and code == 1)


def one_message(messages):
    return messages.count("Error: ") == 1 and no_traceback(messages)


def test_every_command_has_a_case():
    ours = {point.name for point in importlib.metadata.entry_points(group=GROUP)
            if point.module.partition(".")[0] in ("temporal_zoo", "diffusion", "bench")}  # fmt: skip
    assert ours - {case.words[0] for case in CASES} == set()


def check(condition, answers, fault):
    """Fails with a list of all cases that are wrong."""
    wrong = []
    for case, usual, (code, output, messages) in cases_in(condition, answers):
        if why := (None if no_traceback(messages) else "a traceback") or fault(case, usual, code, output, messages):
            wrong.append(
                f"zoo {' '.join(case.words)[:60]}: {why}; exit code {code}\n{output[-300:]}\n{messages[-600:]}"
            )
    assert not wrong, "\n".join(wrong)


def test_a_command_has_its_usual_exit_code(answers):
    check("usual", answers, lambda case, _, code, *__: code != case.code and f"expected {case.code}")


def test_a_full_standard_output_is_an_error(answers):
    def fault(case, usual, code, output, messages):
        if not usual:
            return code != case.code and "it writes nothing to standard output"
        return (
            not (code == 2 and one_message(messages) and "standard output: No space left" in messages) and "no message"
        )

    check("full output", answers, fault)


def test_a_closed_pipe_ends_a_command_without_a_message(answers):
    def fault(case, usual, code, output, messages):
        return (code != (141 if usual else case.code) or ("Error" in messages and case.code == 0)) and "a message"

    check("closed pipe", answers, fault)


@pytest.mark.parametrize(
    ("condition", "reasons"),
    [("full disk", ("File too large",)), ("read-only folder", ("Permission denied",))],
)
def test_a_file_that_cannot_be_written_is_an_error_with_its_name(answers, condition, reasons):
    def fault(case, usual, code, output, messages):
        if case.writes is None:
            return not as_usual(case, code) and "it writes no files"
        named = case.writes in messages and any(reason in messages for reason in reasons)
        return not (code == 2 and one_message(messages) and named) and "the file is not named"

    check(condition, answers, fault)


def test_commands_work_on_a_dumb_terminal_of_one_column(answers):
    check("tiny terminal", answers, lambda case, _, code, *__: code != case.code and f"expected {case.code}")


def test_commands_work_without_a_home_folder_and_on_an_ascii_terminal(answers):
    def fault(case, usual, code, output, messages):
        if case.home:
            return not (code == 2 and one_message(messages) and "ZOO_CACHE" in messages) and "ZOO_CACHE is not named"
        return not as_usual(case, code) and f"expected {case.code}"

    check(BARE, answers, fault)


def test_the_check_can_fail(answers):
    with pytest.raises(AssertionError, match="a fault"):
        check("usual", answers, lambda *_: "a fault")
    assert not no_traceback("Traceback (most recent call last)")
