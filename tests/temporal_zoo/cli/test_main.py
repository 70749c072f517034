"""The `zoo` command: help without heavy imports, commands that cannot be loaded, one message per error, exit codes."""

import importlib.metadata
import inspect
import re

import click
import pytest
from click.testing import CliRunner

from temporal_zoo.cli import main as cli
from temporal_zoo.cli.main import Refusal, explain, zoo
from temporal_zoo.config import ConfigError
from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops import BackendError

# Runs zoo, then prints on stderr the heavy packages that it imported.
REPORT_IMPORTS = """
import sys
from temporal_zoo.cli.main import zoo
try:
    zoo(prog_name="zoo")
finally:
    print("HEAVY", *sorted({"torch", "numpy", "matplotlib", "av"} & set(sys.modules)), file=sys.stderr)
"""


def all_commands():
    """The words of every command and subcommand: (), ("list",), ..., ("data",), ("data", "build"), ..."""
    with click.Context(zoo) as ctx:
        yield ()
        for name in zoo.list_commands(ctx):
            yield (name,)
            command = zoo.get_command(ctx, name)
            for inner in command.list_commands(ctx) if isinstance(command, click.Group) else ():
                yield name, inner


@pytest.mark.parametrize("command", list(all_commands()), ids=" ".join)
def test_help_imports_nothing_heavy(zoo_process, command):
    done = zoo_process(*command, "--help", code=REPORT_IMPORTS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: zoo")
    assert done.stderr.splitlines()[-1] == "HEAVY"


def test_a_command_with_heavy_imports_is_detected(zoo_process, third_party):
    site = third_party(
        {"heavy.py": "import click, torch\n@click.command()\ndef heavy():\n    '''Imports torch.'''"},
        "[temporal_zoo.commands]\nheavy = heavy:heavy\n",
    )
    done = zoo_process("heavy", "--help", code=REPORT_IMPORTS, path=site)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("HEAVY numpy torch")


def test_the_help_lists_the_commands_of_the_distribution():
    ours = {point.name for point in importlib.metadata.entry_points(group=cli.GROUP)}
    assert ours >= {"list", "info", "check", "doctor", "train", "sample", "data", "bench"}
    help_text = CliRunner().invoke(zoo, ["--help"]).output
    assert all(f"\n  {name} " in help_text for name in ours)


def test_an_unknown_command_is_an_error_with_the_nearest_name_and_all_names():
    result = CliRunner().invoke(zoo, ["benhc"])
    assert result.exit_code == 2
    message = "unknown command 'benhc' (did you mean \"bench\"?); choose from ablate, bench, check, compare, "
    assert message in result.output


def test_a_command_that_cannot_be_loaded_is_listed_with_the_reason(zoo_process, third_party):
    site = third_party(
        {"broken.py": "import no_such_package", "empty.py": "nothing = 1"},
        "[temporal_zoo.commands]\nbroken = broken:it\nmissing = no_such_module:it\nodd = empty:nothing\n",
    )
    done = zoo_process("--help", path=site)
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    assert "broken (not available: No module named 'no_such_package')" in text
    assert "missing (not available: No module named 'no_such_module')" in text
    assert "odd (not available: empty:nothing is not a click command)" in text
    assert "list Lists all mixers" in text
    done = zoo_process("broken", "--help", "--anything", path=site)
    assert done.returncode == 2
    assert done.stderr == "Error: `zoo broken` is not available: No module named 'no_such_package'\n"


def test_a_command_that_two_packages_define_is_an_error_and_the_others_run(zoo_process, third_party):
    site = third_party({"theirs.py": ""}, "[temporal_zoo.commands]\nlist = theirs:it\n")
    done = zoo_process("list", path=site)
    assert done.returncode == 2
    assert "several packages define this command" in done.stderr
    assert "theirs:it" in done.stderr
    assert zoo_process("info", "--help", path=site).returncode == 0


@pytest.mark.parametrize("name", ["bench", "diffusion"])
def test_another_package_of_our_name_is_an_error_with_both_paths_and_the_causes(zoo_process, third_party, name):
    command = {"bench": "bench", "diffusion": "train"}[name]
    site = third_party({f"{name}/__init__.py": "", f"{name}/cli.py": "import no_such_package"})
    done = zoo_process(command, path=site)
    assert done.returncode == 2
    assert f"Python imports another package named '{name}'" in done.stderr
    assert str(site / name / "__init__.py") in done.stderr
    assert str(cli.ROOT / name / "__init__.py") in done.stderr
    assert all(f"\n  {number}. " in done.stderr for number in (1, 2, 3))
    assert "Traceback" not in done.stderr
    assert zoo_process("--help", path=site).returncode == 0


class ForeignError(ValueError):
    """Stands for an error class of another library."""


ForeignError.__module__ = "numpy"


def raised(error, module="temporal_zoo.module"):
    """Raises the error in a module of this name, and returns it."""
    try:
        exec("raise error", {"__name__": module, "error": error})
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (raised(ConfigError("no option")), "no option"),
        (raised(ConfigError("raised in torch"), "torch.nn"), "raised in torch"),
        (raised(BackendError("cannot run")), "cannot run"),
        (raised(InvalidInput("too short"), "diffusion.clip"), "too short"),
        # Only subclasses of UserError: a zip of unequal lengths in our code is a bug.
        (raised(ValueError("zip() argument 2 is shorter than argument 1"), "diffusion.clip"), None),
        (raised(OSError("no path"), "temporal_zoo._support.record"), None),
        (raised(FileNotFoundError(2, "No such file", "a.mp4"), "shutil"), "a.mp4: No such file"),
        (
            raised(PermissionError(13, "Permission denied", "/out")),
            "/out: Permission denied; choose another folder, or change its permissions",
        ),
        (
            raised(OSError(28, "No space left on device", "/out/a.png"), "matplotlib"),
            "/out/a.png: No space left on device; free some space, or choose another folder",
        ),
        (raised(IsADirectoryError(21, "Is a directory", b"/out")), "/out: Is a directory; this must be a file"),
        (raised(ValueError("a bug"), "torch.nn"), None),
        (raised(ForeignError("a bug"), "torch.nn"), None),
        (raised(BrokenPipeError(32, "Broken pipe")), None),
        (raised(RuntimeError("a bug")), None),
        (raised(ModuleNotFoundError("x", name="no_such_package")), None),
        (click.UsageError("click prints it"), None),
    ],
)
def test_an_error_that_a_user_can_correct_has_a_message_and_a_bug_has_none(error, message):
    assert explain(error) == message


@pytest.mark.parametrize(("module", "command"), [("av", "train"), ("PIL.Image", "train"), ("matplotlib", "bench")])
def test_the_message_about_a_missing_package_has_its_install_command(module, command):
    message = explain(raised(ModuleNotFoundError("x", name=module)))
    assert f'pip install "temporal-zoo[{command}]"' in message


def test_a_refusal_has_exit_code_2_and_no_traceback(monkeypatch):
    def fail(error):
        raise raised(error)

    monkeypatch.setattr(
        cli, "_load", lambda points: click.Command("list", callback=lambda: fail(ConfigError("not so")))
    )
    result = CliRunner().invoke(zoo, ["list"])
    assert (result.exit_code, result.stderr) == (Refusal.exit_code, "Error: not so\n")
    monkeypatch.setattr(cli, "_load", lambda points: click.Command("list", callback=lambda: fail(RuntimeError("bug"))))
    assert isinstance(CliRunner().invoke(zoo, ["list"]).exception, RuntimeError)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "bimanba"], 'did you mean "bimamba"?'),
        (["info", "bimamba:stat=3"], 'did you mean "state"?'),
        (["info", ":"], "names no mixer"),
        (["info"], "Missing argument"),
        (["check", "identity", "bimanba"], 'did you mean "bimamba"?'),
        (["list", "--jsn"], "--json"),
    ],
)
def test_wrong_arguments_give_one_message_and_exit_code_2(arguments, words):
    result = CliRunner().invoke(zoo, arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_an_error_that_click_treats_as_an_interrupt_keeps_its_traceback(monkeypatch):
    for error in (EOFError("a truncated archive"), BrokenPipeError(32, "a worker died")):

        def fail(error=error):
            raise error

        monkeypatch.setattr(cli, "_load", lambda points, fail=fail: click.Command("list", callback=fail))
        result = CliRunner().invoke(zoo, ["list"])
        assert isinstance(result.exception, RuntimeError), result.output
        assert "Aborted" not in result.output


def test_ctrl_c_gives_exit_code_130(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_load", lambda points: click.Command("list", callback=interrupt))
    result = CliRunner().invoke(zoo, ["list"])
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_the_help_shows_every_summary_in_full(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with click.Context(zoo) as ctx:
        groups = [
            [],
            *([name] for name in zoo.list_commands(ctx) if isinstance(zoo.get_command(ctx, name), click.Group)),
        ]
    for group in groups:
        listing = CliRunner().invoke(zoo, [*group, "--help"]).output.partition("Commands:")[2]
        assert listing
        assert all(line.endswith(".") and not line.endswith("...") for line in listing.strip().splitlines()), listing


@pytest.mark.parametrize("command", list(all_commands())[1:], ids=" ".join)
def test_the_help_names_the_exit_codes_that_the_code_of_a_command_raises(command):
    with click.Context(zoo) as ctx:
        found = zoo.get_command(ctx, command[0])
    source = inspect.getsource(inspect.getmodule(found.callback))
    codes = {"1": "Exit(1)", "3": "Exit(UNFINISHED)"}
    raised = {code for code, call in codes.items() if call in source}
    assert set(re.findall(r"Exit code (\d)", found.epilog or "")) == raised
