"""Tables, remarks and the plot agree with the outcomes."""

import io
import re

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from bench.analysis import plot, tables
from bench.analysis.curves import STORED, TIME, growth, panels
from bench.sweep.case import Case, expand
from bench.sweep.outcome import Memory, Outcome, Times
from bench.sweep.results import CaseResult

MIB = 2**20


def outcome(ms, stored, steady=True, growth="T"):
    return Outcome(
        "ok",
        time_ms=Times(0.9 * ms, ms, 1.1 * ms, 5, 2, steady),
        declared={"time": growth, "memory": growth},
        memory=Memory("peak resident set", 0, int(stored)),
        stored_bytes=int(stored),
        backends={"attention": ["reference"]},
    )


@pytest.fixture
def results():
    """identity grows linearly and bimamba quadratically, against their declarations; bimamba has no memory at 64."""
    cases = expand(layers="bimamba,identity", lengths="4,8,16,64", level="mixer", mode="train")
    ends = {
        **{("identity", n): outcome(2 * n, n * MIB, growth="1") for n in (4, 8, 16, 64)},
        **{("bimamba", n): outcome(n**2, n**2 * MIB, steady=n != 8) for n in (4, 8, 16)},
        ("bimamba", 64): Outcome("out_of_memory", "cannot allocate 3 bytes"),
    }
    return [CaseResult(case, ends[case.mixer, case.frames]) for case in cases]


def text(panel):
    console = Console(file=io.StringIO(), width=160)
    for sheet in tables.tables(panel):
        console.print(tables.rich_table(sheet))
    return console.file.getvalue()


def rows(panel, title):
    shown = re.sub(r" ±\S+( %)?", "", text(panel).split(title, 1)[1])
    lines = [line.split() for line in shown.splitlines() if line.strip()]
    return {words[0]: words[1:] for words in reversed(lines)}  # reversed, so that the first table remains


def test_times_exponents_and_declared_growth(results):
    (panel,) = panels(results)
    table = rows(panel, "time of one forward and backward pass (ms)")
    assert table["identity"][:4] == ["8.00", "16.0", "32.0", "128"]
    assert table["identity"][4:] == ["1.00", "1.00", "1.00", "1.00", "1"]


def test_out_of_memory_is_a_cell_of_the_table(results):
    (panel,) = panels(results)
    lines = [line for line in text(panel).splitlines() if line.split()[:1] == ["bimamba"]]
    assert lines[0].count(" ±10 %") == 3
    lines[0] = re.sub(r" ±\S+( %)?", "", lines[0])
    assert lines[0].split() == ["bimamba", "16.0", "64.0", "256", "out", "of", "memory",
                                "2.00", "2.00", "-", "2.00", "T"]  # fmt: skip


def test_the_fit_of_stored_bytes_and_its_quadratic_fraction(results):
    (panel,) = panels(results)
    fitted = text(panel).split("fit a + b L + c L^2")[1]
    lines = {line.split()[0]: line for line in fitted.splitlines() if line.strip()}
    assert lines["bimamba"].split()[1:7] == ["0", "B", "0", "B", "1.00", "MiB"]
    assert lines["bimamba"].count(" 100.0 %") == 4
    assert lines["identity"].split()[1:7] == ["0", "B", "1.00", "MiB", "0", "B"]
    assert lines["identity"].count(" 0.0 %") == 5  # four fractions, and the error of a straight line


def test_remarks_compare_measured_lengths_and_name_the_others(results):
    (panel,) = panels(results)
    sentences = tables.remarks(panel)
    assert "At 16 frames bimamba takes 8.00 times as long as identity." in sentences
    assert "At 16 frames bimamba stores 16.0 times the bytes of identity." in sentences
    assert "bimamba at 64 frames: out of memory: cannot allocate 3 bytes" in sentences
    assert any(line.startswith("bimamba at 8 frames: the median did not settle in 5 rounds") for line in sentences)
    assert any("attention=reference" in line for line in tables.notes(panel))


def test_processor_time_is_shown_if_steps_waited(results):
    assert "processor time" not in text(panels(results)[0])
    busy = Outcome("ok", time_ms=Times(9, 10, 11, 5, 2, True, processor=2))
    (panel,) = panels([CaseResult(result.case, busy) for result in results])
    assert (
        rows(panel, "processor time of one forward and backward pass, all threads, mean (ms)")["bimamba"][0] == "2.00"
    )
    assert any("waited" in line for line in tables.notes(panel))


def test_growth_as_plain_values(results):
    (panel,) = panels(results)
    found = {(row["mixer"], row["metric"]): row for row in growth(panel)}
    assert found["identity", "stored"]["values"]["64"] == 64 * MIB
    assert found["identity", "stored"]["exponents"]["16-64"] == pytest.approx(1)
    assert found["bimamba", "time"]["slope"] == pytest.approx(2)
    assert found["bimamba", "stored"]["quadratic_share"]["16"] == pytest.approx(1)


def test_levels_and_modes_are_not_mixed():
    cases = expand(layers="identity", lengths="4,8")
    found = panels([CaseResult(case, outcome(1, 1)) for case in cases])
    expected = [("mixer", "forward"), ("mixer", "train"), ("model", "forward"), ("model", "train")]
    assert [(p.case.level, p.case.mode) for p in found] == expected
    assert all(p.lengths == [4, 8] for p in found)


def test_a_failed_case_alone_gives_a_table():
    case = Case(mixer="identity", level="mixer", mode="train", frames=4, rows=1, dim=1)
    (panel,) = panels([CaseResult(case, Outcome("failed", "ValueError: no"))])
    assert "failed" in text(panel)


def test_the_plot_has_the_points_and_marks_out_of_memory(results, tmp_path):
    axes = Figure().subplots()
    plot._draw(axes, panels(results), TIME, {"bimamba": ("C0", "o"), "identity": ("C1", "s")})
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(lines["bimamba, T^2.00 (declared T)"].get_xdata()) == [4, 8, 16]
    assert list(lines["identity, T^1.00 (declared 1)"].get_ydata()) == [8, 16, 32, 128]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [list(cross.get_xdata()) for cross in crosses] == [[64]]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_the_plot_is_a_png_even_if_no_bytes_are_stored(results, tmp_path):
    none = [CaseResult(r.case.replace(level="mixer"), outcome(1, 0)) for r in results if r.case.mixer == "identity"]
    for name, some in (("all.png", results), ("zero.png", none)):
        plot.save(panels(some), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    axes = Figure().subplots()
    plot._draw(axes, panels(none), STORED, {"identity": ("C1", "o")})
    assert [line.get_label() for line in axes.lines] == ["identity: nothing"]
