"""What is shipped: one wheel with exactly three packages, everything in them, and entry points that lead somewhere."""

import importlib.util
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"temporal_zoo", "diffusion", "bench"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    return zipfile.ZipFile(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


def test_the_wheel_holds_exactly_the_three_packages(wheel):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    info = {name for name in tops if name.endswith(".dist-info")}
    assert tops - info == PACKAGES
    assert len(info) == 1


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    shipped = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert shipped == {name for name in wheel.namelist() if name.partition("/")[0] in PACKAGES}


def test_the_wheel_holds_licence_and_entry_points(wheel):
    names = wheel.namelist()
    assert [name for name in names if name.endswith("/licenses/LICENSE")]
    (points,) = [wheel.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert "zoo = temporal_zoo.cli.main:zoo" in points
    assert "[temporal_zoo.commands]" in points


@pytest.mark.parametrize("value", PROJECT["entry-points"]["temporal_zoo.commands"].values())
def test_every_entry_point_leads_to_a_module(value):
    assert importlib.util.find_spec(value.partition(":")[0]) is not None


def test_what_needs_a_compiler_is_in_no_extra_for_users():
    extras = PROJECT["optional-dependencies"]
    plain = " ".join([*PROJECT["dependencies"], *extras["train"], *extras["bench"], *extras["all"]])
    for name in ("mamba", "causal-conv1d", "flash-attn", "xformers", "torchvision"):
        assert name not in plain


def test_every_optional_package_can_be_had_by_an_extra():
    from temporal_zoo._support.packages import OPTIONAL

    for package in OPTIONAL:
        wanted = PROJECT["optional-dependencies"][package.extra]
        assert any(line.lower().startswith(package.distribution) for line in wanted), package


def test_the_version_is_one():
    import temporal_zoo

    assert temporal_zoo.__version__ == PROJECT["version"]


def test_no_package_below_tests():
    # A tests/bench/__init__.py would shadow the real bench.
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_our_packages_carry_the_mark():
    for name in PACKAGES - {"temporal_zoo"}:
        assert importlib.import_module(name).TEMPORAL_ZOO is True
