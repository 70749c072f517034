"""The registry: mixers are found by file, by entry point and by decorator; clashes and near misses are told."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import torch

import temporal_zoo
from temporal_zoo import Mixer, build, get, names, register, registry
from temporal_zoo.registry import UnknownMixer

FACTS = {"summary": "a test", "paper": "none", "time": "1", "memory": "1"}


class Toy(Mixer):
    """y = 2 x."""

    causal = True
    order_blind = True

    def mix(self, x, lengths):
        return 2 * x


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registry._plugins.cache_clear()
    yield
    registry._plugins.cache_clear()


@pytest.fixture
def plug_in(monkeypatch):
    """Pretends that packages are installed which ship these entry points (name, value)."""

    def install(*points):
        found = [EntryPoint(name, value, registry.GROUP) for name, value in points]
        monkeypatch.setattr(registry, "entry_points", lambda group: found if group == registry.GROUP else [])
        registry._plugins.cache_clear()

    return install


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that registers a mixer under a name, importable as `name` of the file."""

    def write(path, name, before=""):
        file = tmp_path / f"{path}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            f"{before}\n"
            "from temporal_zoo import Mixer, register\n"
            f"@register({name!r}, summary='s', paper='p', time='T', memory='T')\n"
            "class Shipped(Mixer):\n"
            "    causal = order_blind = True\n"
            "    def mix(self, x, lengths):\n"
            "        return x\n"
        )

    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        if name.startswith("toyzoo"):
            del sys.modules[name]


def test_names_are_the_files_and_nothing_private():
    assert names() == sorted(names())
    assert {"identity", "bimamba"} <= set(names())
    assert not [name for name in names() if name.startswith("_")]


def test_names_import_neither_mixers_nor_torch():
    code = (
        "import sys, temporal_zoo; temporal_zoo.names();"
        "print([name for name in sys.modules if 'mixers' in name or name == 'torch'])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_every_entry_is_complete():
    for name in names():
        entry = get(name)
        assert entry.name == name
        assert issubclass(entry.mixer, Mixer)
        assert entry.summary
        assert entry.paper
        assert entry.mixer.__doc__ != Mixer.__doc__


def test_the_public_names_are_there_and_others_are_not():
    for name in temporal_zoo.__all__:
        assert getattr(temporal_zoo, name) is not None
    assert dir(temporal_zoo) == temporal_zoo.__all__
    with pytest.raises(AttributeError, match=r"no 'biuld'; its public names are .*build"):
        _ = temporal_zoo.biuld


def test_a_decorated_class_is_a_mixer_at_once():
    register("toy", **FACTS)(Toy)
    assert "toy" in names()
    assert torch.equal(build("toy", dim=3)(torch.ones(1, 2, 3)), torch.full((1, 2, 3), 2.0))


def test_registering_again_is_no_clash_but_another_class_is():
    register("toy", **FACTS)(Toy)
    register("toy", **FACTS)(Toy)  # a notebook cell run twice
    other = type("Other", (Toy,), {})
    with pytest.raises(ValueError, match=r"two mixers are named 'toy': .*\.Toy and .*\.Other"):
        register("toy", **FACTS)(other)


def test_the_name_of_a_file_is_taken_also_before_the_file_is_imported(monkeypatch):
    monkeypatch.setattr(registry, "_entries", {})
    with pytest.raises(ValueError, match=r"two mixers are named 'identity': temporal_zoo\.mixers\.identity and"):
        register("identity", **FACTS)(Toy)


@pytest.mark.parametrize("name", ["", "Toy", "my_toy", "a:b", "a,b", "a=b", "a@b", "a+b", "a b", "2toys", "-toy"])
def test_names_that_a_spec_could_not_hold_are_refused(name):
    with pytest.raises(ValueError, match="cannot name a mixer"):
        register(name, **FACTS)(Toy)


def test_a_growth_that_the_bench_cannot_read_is_refused():
    with pytest.raises(ValueError, match=r"'T\*\*2'.*T\^2"):
        register("toy", **FACTS | {"time": "T**2"})(Toy)


def test_unknown_mixers_get_the_nearest_name_and_the_list():
    with pytest.raises(UnknownMixer) as refusal:
        get("bimanba")
    assert 'did you mean "bimamba"?' in str(refusal.value)
    assert ", ".join(names()) in str(refusal.value)


@pytest.mark.parametrize("dim", [0, -1, 2.0, "8", None])
def test_a_width_that_is_none_is_refused(dim):
    with pytest.raises(ValueError, match="dim is"):
        build("identity", dim)


def test_a_plug_in_is_found_without_being_imported(plug_in, module):
    module("toyzoo_a", "hydra")
    plug_in(("hydra", "toyzoo_a"))
    assert "hydra" in names()
    assert "toyzoo_a" not in sys.modules
    assert build("hydra", 4)(torch.ones(1, 1, 4)).shape == (1, 1, 4)
    assert get("hydra").home == "toyzoo_a.Shipped"


def test_a_plug_in_may_name_a_package_that_gathers_its_mixers(plug_in, module, tmp_path):
    module("toyzoo_package/inner", "hydra")
    (tmp_path / "toyzoo_package" / "__init__.py").write_text("from toyzoo_package.inner import Shipped\n")
    plug_in(("hydra", "toyzoo_package:Shipped"))
    assert get("hydra").home == "toyzoo_package.inner.Shipped"


def test_two_plug_ins_of_one_name_are_told_apart(plug_in):
    plug_in(("hydra", "toyzoo_a"), ("hydra", "toyzoo_b"))
    with pytest.raises(ValueError, match="two packages ship a mixer named 'hydra': toyzoo_a and toyzoo_b"):
        names()


def test_a_plug_in_cannot_take_the_name_of_a_file(plug_in, monkeypatch):
    monkeypatch.setattr(registry, "_entries", {})
    plug_in(("identity", "toyzoo_a"))
    with pytest.raises(
        ValueError, match=r"two mixers are named 'identity': temporal_zoo\.mixers\.identity and toyzoo_a"
    ):
        get("identity")


def test_a_plug_in_that_registers_another_name_is_told(plug_in, module):
    module("toyzoo_c", "other")
    plug_in(("hydra", "toyzoo_c"))
    with pytest.raises(ValueError, match="toyzoo_c registers no mixer named 'hydra'"):
        get("hydra")


@pytest.mark.parametrize("before", ["import no_such_package", "from torch import no_such_name"])
def test_a_plug_in_that_cannot_be_imported_says_whose_fault_it_is(plug_in, module, before):
    module("toyzoo_d", "hydra", before)
    plug_in(("hydra", "toyzoo_d"))
    with pytest.raises(ValueError, match=r"the mixer 'hydra' cannot be loaded from toyzoo_d: .*no_such"):
        get("hydra")
