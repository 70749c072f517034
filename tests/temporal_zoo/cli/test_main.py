"""The `zoo` command, mostly by running it: light, honest about what it cannot load, one message per error."""

import importlib.metadata
import json

import click
import pytest
from click.testing import CliRunner

from temporal_zoo import names
from temporal_zoo._support import terminal
from temporal_zoo._support.files import naming, write_text, written_whole
from temporal_zoo._support.options import FiniteNumber
from temporal_zoo.cli import main as cli
from temporal_zoo.cli.main import Refusal, explain, zoo
from temporal_zoo.config import ConfigError
from temporal_zoo.errors import InvalidInput
from temporal_zoo.ops import BackendError

# Runs zoo, then names on stderr the heavy packages that it imported.
WEIGHED = """
import sys
from temporal_zoo.cli.main import zoo
try:
    zoo(prog_name="zoo")
finally:
    print("HEAVY", *sorted({"torch", "numpy", "matplotlib", "av"} & set(sys.modules)), file=sys.stderr)
"""


def all_helps():
    """(), ("list",), ..., ("data",), ("data", "build"), ...: all that can be asked for help."""
    with click.Context(zoo) as ctx:
        yield ()
        for name in zoo.list_commands(ctx):
            yield (name,)
            command = zoo.get_command(ctx, name)
            for inner in command.list_commands(ctx) if isinstance(command, click.Group) else ():
                yield name, inner


@pytest.mark.parametrize("command", list(all_helps()), ids=" ".join)
def test_help_imports_nothing_heavy(zoo_process, command):
    done = zoo_process(*command, "--help", code=WEIGHED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: zoo")
    assert done.stderr.splitlines()[-1] == "HEAVY"


def test_that_check_can_fail(zoo_process, third_party):
    site = third_party(
        {"heavy.py": "import click, torch\n@click.command()\ndef heavy():\n    '''Weighs much.'''"},
        "[temporal_zoo.commands]\nheavy = heavy:heavy\n",
    )
    done = zoo_process("heavy", "--help", code=WEIGHED, path=site)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("HEAVY numpy torch")


def test_the_commands_are_those_of_the_distribution():
    ours = {point.name for point in importlib.metadata.entry_points(group=cli.GROUP)}
    assert ours >= {"list", "info", "check", "doctor", "train", "sample", "data", "bench"}
    help_text = CliRunner().invoke(zoo, ["--help"]).output
    assert all(f"\n  {name} " in help_text for name in ours)


def test_an_unknown_command_gets_the_nearest_and_the_list():
    result = CliRunner().invoke(zoo, ["benhc"])
    assert result.exit_code == 2
    told = "there is no command 'benhc' (did you mean \"bench\"?); there are ablate, bench, check, compare, "
    assert told in result.output


def test_a_command_that_cannot_be_loaded_is_listed_with_the_reason(zoo_process, third_party):
    site = third_party(
        {"broken.py": "import no_such_package", "empty.py": "nothing = 1"},
        "[temporal_zoo.commands]\nbroken = broken:it\nmissing = no_such_module:it\nodd = empty:nothing\n",
    )
    done = zoo_process("--help", path=site)
    assert done.returncode == 0
    told = " ".join(done.stdout.split())
    assert "broken (not available: No module named 'no_such_package')" in told
    assert "missing (not available: No module named 'no_such_module')" in told
    assert "odd (not available: empty:nothing is no click command)" in told
    assert "list List all mixers" in told
    asked = zoo_process("broken", "--help", "--anything", path=site)
    assert asked.returncode == 2
    assert asked.stderr == "Error: `zoo broken` is not available: No module named 'no_such_package'\n"


def test_two_packages_with_one_command_clash_and_only_that_command_does(zoo_process, third_party):
    site = third_party({"theirs.py": ""}, "[temporal_zoo.commands]\nlist = theirs:it\n")
    done = zoo_process("list", path=site)
    assert done.returncode == 2
    assert "several packages ship this command" in done.stderr
    assert "theirs:it" in done.stderr
    assert zoo_process("info", "--help", path=site).returncode == 0


@pytest.mark.parametrize("name", ["bench", "diffusion"])
def test_another_package_of_our_name_is_told_with_both_paths_and_the_reasons(zoo_process, third_party, name):
    command = {"bench": "bench", "diffusion": "train"}[name]
    site = third_party({f"{name}/__init__.py": "", f"{name}/cli.py": "import no_such_package"})
    done = zoo_process(command, path=site)
    assert done.returncode == 2
    assert f"another package named '{name}' was found first" in done.stderr
    assert str(site / name / "__init__.py") in done.stderr
    assert str(cli.ROOT / name / "__init__.py") in done.stderr
    assert all(f"\n  {number}. " in done.stderr for number in (1, 2, 3))
    assert "Traceback" not in done.stderr
    assert zoo_process("--help", path=site).returncode == 0


class Elsewhere(ValueError):
    """Pretends to be raised by another library."""


Elsewhere.__module__ = "numpy"


def raised(error, module="temporal_zoo.somewhere"):
    """The error after it was raised by code in a module of that name."""
    try:
        exec("raise error", {"__name__": module, "error": error})
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (raised(ConfigError("no option")), "no option"),
        (raised(ConfigError("raised far away"), "torch.nn"), "raised far away"),
        (raised(BackendError("cannot run")), "cannot run"),
        (raised(InvalidInput("too short"), "diffusion.clip"), "too short"),
        # Only errors of our root class: a zip of unequal lengths inside our own code is a bug.
        (raised(ValueError("zip() argument 2 is shorter than argument 1"), "diffusion.clip"), None),
        (raised(OSError("no path"), "temporal_zoo._support.record"), None),
        (raised(FileNotFoundError(2, "No such file", "a.mp4"), "shutil"), "a.mp4: No such file"),
        (
            raised(PermissionError(13, "Permission denied", "/out")),
            "/out: Permission denied; choose another place, or change its permissions",
        ),
        (
            raised(OSError(28, "No space left on device", "/out/a.png"), "matplotlib"),
            "/out/a.png: No space left on device; free some space, or choose another folder",
        ),
        (raised(IsADirectoryError(21, "Is a directory", b"/out")), "/out: Is a directory; a file is needed here"),
        (raised(ValueError("a bug"), "torch.nn"), None),
        (raised(Elsewhere("a bug"), "torch.nn"), None),
        (raised(BrokenPipeError(32, "Broken pipe")), None),
        (raised(RuntimeError("a bug")), None),
        (raised(ModuleNotFoundError("x", name="no_such_package")), None),
        (click.UsageError("click tells it itself"), None),
    ],
)
def test_errors_that_a_user_can_mend_become_a_message_and_bugs_do_not(error, message):
    assert explain(error) == message


@pytest.mark.parametrize(("module", "command"), [("av", "train"), ("PIL.Image", "train"), ("matplotlib", "bench")])
def test_a_missing_extra_gets_the_command_that_installs_it(module, command):
    message = explain(raised(ModuleNotFoundError("x", name=module)))
    assert f'pip install "temporal-zoo[{command}]"' in message


def test_a_refusal_has_exit_code_two_and_no_traceback(monkeypatch):
    def fail(error):
        raise raised(error)

    monkeypatch.setattr(cli, "_load", lambda points: click.Command("list", callback=lambda: fail(ConfigError("no so"))))
    result = CliRunner().invoke(zoo, ["list"])
    assert (result.exit_code, result.stderr) == (Refusal.exit_code, "Error: no so\n")
    monkeypatch.setattr(cli, "_load", lambda points: click.Command("list", callback=lambda: fail(RuntimeError("bug"))))
    assert isinstance(CliRunner().invoke(zoo, ["list"]).exception, RuntimeError)


def test_list_shows_every_mixer_and_json_the_same_rows():
    table = CliRunner().invoke(zoo, ["list"])
    rows = json.loads(CliRunner().invoke(zoo, ["list", "--json"]).stdout)
    assert table.exit_code == 0
    assert [row["name"] for row in rows] == names()
    for row in rows:
        assert f"  {row['name']} " in table.stdout
        assert {"summary", "time", "memory", "causal", "paper", "parameters"} <= row.keys()


def test_list_shows_a_broken_plug_in_beside_the_others(monkeypatch):
    monkeypatch.setattr("temporal_zoo.cli.catalogue.names", lambda: ["identity", "no-such-mixer"])
    table = CliRunner().invoke(zoo, ["list"])
    assert table.exit_code == 0
    assert "passes frames through" in table.stdout
    assert "cannot be loaded: UnknownMixer" in table.stdout


def test_info_tells_equation_options_sizes_and_backends():
    result = CliRunner().invoke(zoo, ["info", "bimamba:state=8"])
    facts = json.loads(CliRunner().invoke(zoo, ["info", "bimamba:state=8", "--json"]).stdout)
    assert result.exit_code == 0
    for words in ("y = out_proj(", "2403.07711", "36,928", "selective_scan: ", "bimamba:state=8:conv=2", "expand"):
        assert words in result.stdout
    assert facts["parameters"] == 36928
    assert (facts["spec"], facts["causal"], facts["passes"]) == ("bimamba:state=8", False, [False, True])
    assert set(facts["backends"]["cpu"]) == {"selective_scan", "causal_conv"}
    state = next(option for option in facts["options"] if option["name"] == "state")
    assert (state["default"], state["value"], state["type"]) == ("16", "8", "whole number")


def test_the_default_has_the_size_of_the_paper():
    assert json.loads(CliRunner().invoke(zoo, ["info", "bimamba", "--json"]).stdout)["parameters"] == 43072


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
def test_bad_questions_get_one_message_and_exit_code_two(arguments, words):
    result = CliRunner().invoke(zoo, arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_check_passes_a_good_mixer():
    result = CliRunner().invoke(zoo, ["check", "identity"])
    assert result.exit_code == 0, result.output
    assert "identity: " in result.stdout
    assert "checks passed" in result.stdout


def test_check_explains_what_fails_and_ends_with_one(monkeypatch):
    from temporal_zoo import Mixer, register, registry

    monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    @register("leaky", summary="s", paper="p", time="T", memory="T")
    class Leaky(Mixer):
        causal = True

        def mix(self, x, lengths):
            return x + x.mean(1, keepdim=True)

    @register("unbuilt", summary="s", paper="p", time="T", memory="T")
    class Unbuilt(Mixer):
        causal = True

        def __init__(self, dim, config, shared=None):
            raise ZeroDivisionError("no width fits")

        def mix(self, x, lengths):
            return x

    result = CliRunner().invoke(zoo, ["check", "leaky", "unbuilt"])
    assert result.exit_code == 1
    assert "causality: declared causal, but" in result.stdout
    assert "unbuilt: cannot be built" in result.stdout
    assert "ZeroDivisionError: no width fits" in result.stdout
    assert "Traceback" not in result.output


def test_check_runs_examples_too_but_not_beside_options():
    from temporal_zoo import get
    from temporal_zoo.cli import catalogue

    examples = get("bimamba").mixer.Config.examples
    assert catalogue.specs("bimamba") == ["bimamba", *(f"bimamba:{example}" for example in examples)]
    assert catalogue.specs("bimamba:state=3") == ["bimamba:state=3"]


def test_an_error_that_click_would_take_for_a_user_who_left_keeps_its_traceback(monkeypatch):
    for error in (EOFError("a truncated archive"), BrokenPipeError(32, "a worker died")):

        def fail(error=error):
            raise error

        monkeypatch.setattr(cli, "_load", lambda points, fail=fail: click.Command("list", callback=fail))
        result = CliRunner().invoke(zoo, ["list"])
        assert isinstance(result.exception, RuntimeError), result.output
        assert "Aborted" not in result.output


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("2 × 3 ± 1 — ≥", "ascii", b"2 x 3 +- 1 - >="),
        ("é", "ascii", b"\\xe9"),
        ("é", "utf-8", "é".encode()),
        ("a\udcffb", "utf-8", b"a\xffb"),
        ("\ud800", "utf-8", b"\\ud800"),
    ],
)
def test_every_text_can_be_printed(text, encoding, shown):
    terminal.prepare()
    assert text.encode(encoding, "temporal_zoo.plain") == shown


def test_errors_of_files_name_them(tmp_path):
    with pytest.raises(OSError, match="encoder error -2") as caught, naming(tmp_path / "a.png"):
        raise OSError("encoder error -2 when writing image file")
    assert explain(caught.value).startswith(f"{tmp_path / 'a.png'}: encoder error -2 when writing image file; ")
    with pytest.raises(FileNotFoundError) as caught, naming(tmp_path / "a.png"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")
    (tmp_path / "folder").mkdir()
    for error, place in (("Is a directory", "folder"), ("File exists", "a.txt/below")):
        write_text(tmp_path / "a.txt", "old")
        with pytest.raises(OSError, match=error) as caught:
            write_text(tmp_path / place, "new")
        assert explain(caught.value).startswith(str(tmp_path / place.partition("/")[0]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "folder"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "é\udcff")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "é".encode() + b"\\udcff"
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "new" / "a.txt") as file:
        file.write(b"half" * (1 // 0))
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == ["é".encode() + b"\\udcff"]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "soon", "0.5", "11"])
def test_a_finite_number_is_one(value):
    command = click.Command("it", params=[click.Option(["--limit"], type=FiniteNumber(min=1, max=10))])
    result = CliRunner().invoke(command, ["--limit", value])
    assert (result.exit_code, result.stderr.count("Error: ")) == (2, 1)
    assert "--limit" in result.stderr
    assert CliRunner().invoke(command, ["--limit", "2.5"]).exit_code == 0
