"""The page of an ablation, from invented results."""

import base64
import io
import re
from dataclasses import replace

import pytest
from PIL import Image

from diffusion.ablations import figures
from diffusion.ablations.ablation import Contrast
from diffusion.ablations.comparison import cells
from diffusion.ablations.page import write_page
from diffusion.ablations.result import Result

MIXERS = {"bimamba": 0.5, "attn": 0.6, "flash": 0.55, "identity": 1.0}
CONTRAST = Contrast("mixer", "bimamba", "flash")


def invented(seeds=3):
    """Four mixers at two lengths."""
    return [
        Result(
            {"mixer": mixer, "frames": str(frames)},
            seed,
            mixer == "identity",
            {"held_out": loss + 0.01 * seed, "fvd": 100 * loss + seed},
            [(0, 2.0), (10, 1.5), (20, loss + 0.01 * seed)],
            {"parameters": 1000.0, "stored_bytes": frames * 2.0**20, "step_s": 0.1 * frames},
            f"{mixer}-{frames}.png" if seed == 0 and mixer != "attn" else None,
        )
        for mixer, loss in MIXERS.items()
        for frames in (16, 64)
        for seed in range(seeds)
    ]


def written(folder, results, failures=None, contrasts=(CONTRAST,)):
    path = write_page(
        folder, name="invented", question="Is <this> a question?", scale="toy",
        command="zoo ablate invented --scale toy",
        environment={"id": "e5f6"}, results=results, failures=failures or {}, contrasts=contrasts,
        settings={"steps": 20}, apart=["frames"],
    )  # fmt: skip
    return path.read_text()


def pictures(page):
    return [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    for result in invented(1):
        if result.contact_sheet:
            Image.new("RGB", (8, 8), (200, 0, 0)).save(folder / result.contact_sheet)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return written(folder, invented(), {"attn, frames 256, seed 0": "out of <memory>"})


def test_every_cell_and_failure_is_there(page):
    for mixer in MIXERS:
        for frames in (16, 64):
            assert f"<td>{mixer}, frames {frames}</td>" in page
    assert "attn, frames 256, seed 0" in page
    assert "out of &lt;memory&gt;" in page
    assert "Is &lt;this&gt; a question?" in page


def test_the_verdict_with_its_interval_comes_before_any_table(page):
    verdict = "mixer bimamba lowers the held-out loss by 8."
    assert 0 < page.index(verdict) < page.index("<table>")
    assert "95 % interval, 3 seeds x 2 pairs of cells" in page
    assert "mixer bimamba lowers the FVD by" in page


def test_the_page_loads_no_file_and_has_the_command(page):
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "zoo ablate invented --scale toy" in page
    assert "&quot;steps&quot;: 20" in page
    assert "e5f6" in page


def test_figures_and_contact_sheets_are_inside_and_figures_beside_it(page, folder):
    embedded = pictures(page)
    beside = [(folder / f"{name}.png").read_bytes() for name in ("quality", "curves", "differences")]
    sheets = [(folder / f"{mixer}-{frames}.png").read_bytes() for mixer in ("bimamba", "flash", "identity")
              for frames in (16, 64)]  # fmt: skip
    assert embedded == beside + sheets
    assert all(Image.open(io.BytesIO(picture)).size[0] > 500 for picture in beside)


def test_one_seed_has_no_interval_and_a_missing_contact_sheet_is_reported(tmp_path):
    page = written(tmp_path, invented(1))
    assert "One seed gives no interval, so nothing is shown." in page
    assert "±" not in page.split("<tbody>")[1].split("</tbody>")[0]
    assert "bimamba-16.png is missing" in page


def test_the_page_says_that_there_is_no_result(tmp_path):
    page = written(tmp_path, [], {"attn, seed 0": "out of memory"})
    assert "There is no result yet." in page
    assert "<td>attn, seed 0</td>" in page
    assert not pictures(page)


def test_quality_is_drawn_against_bytes_with_fused_and_unfused_attention_marked():
    figure = figures.quality(cells(invented()))
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {"bimamba", "attn (unfused attention)", "flash (fused attention)", "identity (no mixing)"}
    axes = next(axes for axes in figure.axes if axes.get_ylabel() == "held-out loss")
    assert axes.get_xscale() == "log"
    line = next(bars[0] for bars in axes.containers if bars.get_label() == "bimamba")
    # Joined along frames.
    assert list(line.get_xdata()) == [16 * 2**20, 64 * 2**20]
    assert line.get_ydata() == pytest.approx([0.51, 0.51])
    assert [axes.get_xlabel() for axes in figure.axes[-2:]] == [
        "stored for backward, one clip (beside points: frames)", "seconds per training step (beside points: frames)",
    ]  # fmt: skip


@pytest.mark.parametrize("seconds", [0.03, 0.047, 0.1])
def test_an_axis_of_one_cost_has_a_width(seconds):
    """Cells that share a training have one cost; some values raised a warning, which is an error here."""
    all_cells = cells([replace(result, costs={"step_s": seconds}) for result in invented(1)])
    figure = figures.quality(all_cells)
    figures.png(figure)
    low, high = figure.axes[-1].get_xlim()
    assert low < 0.9 * seconds
    assert high > 1.1 * seconds


def test_a_forest_has_a_mark_for_every_difference_at_its_value():
    all_cells = cells(invented())
    figure = figures.forest(all_cells, [CONTRAST], ["frames"])
    declared = figure.axes[0]
    assert [text.get_text() for text in declared.get_yticklabels()] == [
        "mixer bimamba  −  mixer flash", "bimamba, frames 16  −  flash, frames 16",
        "bimamba, frames 64  −  flash, frames 64",
    ]  # fmt: skip
    expected = 100 * sum((0.5 + 0.01 * seed) / (0.55 + 0.01 * seed) - 1 for seed in range(3)) / 3
    assert [float(bars[0].get_xdata()[0]) for bars in declared.containers] == pytest.approx([expected] * 3)


def test_curves_have_a_column_for_each_task():
    figure = figures.curves(cells(invented()), ["frames"])
    assert [axes.get_title() for axes in figure.axes[:2]] == ["frames 16", "frames 64"]
    below = next(line for line in figure.axes[2].lines if line.get_label() == "bimamba")
    assert list(below.get_xdata()) == [0, 10, 20]
    expected = 100 * sum((0.5 + 0.01 * seed) / (1 + 0.01 * seed) - 1 for seed in range(3)) / 3
    assert list(below.get_ydata()) == pytest.approx([0, 0, expected])


def test_results_of_different_versions_have_a_warning(tmp_path):
    results = invented(1)
    assert "Different versions" not in written(tmp_path, results)
    results[0] = replace(results[0], sources="0123abcd")
    assert f"({len(results) - 1} by unknown, 1 by 0123abcd)" in written(tmp_path, results)
