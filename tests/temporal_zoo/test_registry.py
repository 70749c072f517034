"""The registry finds mixers by file, by entry point and by decorator, and reports clashes and wrong names."""

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest
import torch

import temporal_zoo
from temporal_zoo import Mixer, MixerSpec, StatefulMixer, build, get, names, register, registry
from temporal_zoo.config import ConfigError, option
from temporal_zoo.errors import InvalidInput, warn_renamed
from temporal_zoo.registry import UnknownMixer

FACTS = {"summary": "a test", "paper": "none", "time": "1", "memory": "1"}


class Toy(Mixer):
    """y = 2 x."""

    causal = True
    order_blind = True

    def mix(self, x, lengths):
        return 2 * x


class Delay(Mixer):
    """A mixer that had other names: y[t] = factor x[t - frames]."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        frames: int = option(1, "delay in frames", least=0)
        factor: float = option(1.0, "gain")
        renamed: ClassVar[dict[str, str]] = {"lag": "frames", "gain": "factor"}

    causal = True

    def mix(self, x, lengths):
        return self.config.factor * torch.nn.functional.pad(x, (0, 0, self.config.frames, 0))[:, : x.shape[1]]


@pytest.fixture
def delay():
    """Registers `Delay`, formerly named "echo" and "lagged"."""
    register("delay", **FACTS, formerly=("echo", "lagged"))(Delay)
    warn_renamed.cache_clear()


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """Removes what a test registers; it imports our mixers first, because a module registers its mixer only once."""
    for name in registry._files():
        get(name)
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registry._plugins.cache_clear()
    yield
    registry._plugins.cache_clear()


@pytest.fixture
def plug_in(monkeypatch):
    """Simulates installed packages with these entry points (name, value)."""

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


def test_names_are_those_of_the_files_that_are_not_private():
    assert names() == sorted(names())
    assert {"identity", "bimamba"} <= set(names())
    assert not [name for name in names() if name.startswith("_")]


def test_names_import_neither_mixers_nor_torch():
    code = (
        "import sys, temporal_zoo; temporal_zoo.names();"
        "print([name for name in sys.modules if 'mixers' in name or name == 'torch'])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_names_are_listed_by_pattern_without_imports(monkeypatch):
    monkeypatch.setattr(registry, "get", None)
    assert names("*mamba*") == ["bimamba", "mamba"]
    assert names("s4d", "mam*") == ["mamba", "s4d"]
    assert names("no-such-*") == []


def test_filters_agree_with_the_mixers_of_that_name_and_build_none(monkeypatch):
    # A list, because other tests may have registered mixers of their own.
    ours = registry._files()
    mixers = {name: build(name, 8) for name in ours}
    monkeypatch.setattr(registry, "build", None)
    monkeypatch.setattr(torch.nn.Module, "__init__", None)
    for value in (True, False):
        assert names(*ours, causal=value) == [name for name in ours if mixers[name].causal is value]
        stateful = [name for name in ours if isinstance(mixers[name], StatefulMixer) and mixers[name].passes]
        assert names(*ours, stateful=value) == [name for name in ours if (name in stateful) is value]
    assert names("*mamba*", causal=False, stateful=True) == ["bimamba"]


def test_every_entry_is_complete():
    for name in names():
        entry = get(name)
        assert entry.name == name
        assert issubclass(entry.mixer, Mixer)
        assert entry.summary
        assert entry.paper
        assert entry.mixer.__doc__ != Mixer.__doc__


def test_only_the_public_names_are_attributes_of_the_package():
    for name in temporal_zoo.__all__:
        assert getattr(temporal_zoo, name) is not None
    assert dir(temporal_zoo) == temporal_zoo.__all__
    assert sorted(name for public in temporal_zoo._MODULES.values() for name in public) == temporal_zoo.__all__
    with pytest.raises(AttributeError, match=r"no 'biuld'; its public names are .*build"):
        _ = temporal_zoo.biuld


def test_a_decorated_class_can_be_built_immediately():
    register("toy", **FACTS)(Toy)
    assert "toy" in names()
    assert torch.equal(build("toy", dim=3)(torch.ones(1, 2, 3)), torch.full((1, 2, 3), 2.0))


def test_registering_again_is_no_clash_but_another_class_is():
    register("toy", **FACTS)(Toy)
    register("toy", **FACTS)(Toy)  # a notebook cell run twice
    other = type("Other", (Toy,), {})
    with pytest.raises(ValueError, match=r"two mixers are named 'toy': .*\.Toy and .*\.Other"):
        register("toy", **FACTS)(other)


def test_the_name_of_a_file_is_reserved_before_the_file_is_imported(monkeypatch):
    monkeypatch.setattr(registry, "_entries", {})
    with pytest.raises(ValueError, match=r"two mixers are named 'identity': temporal_zoo\.mixers\.identity and"):
        register("identity", **FACTS)(Toy)


@pytest.mark.parametrize("name", ["", "Toy", "my_toy", "a:b", "a,b", "a=b", "a@b", "a+b", "a b", "2toys", "-toy"])
def test_names_that_a_spec_cannot_contain_are_refused(name):
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
def test_a_width_that_is_not_a_positive_integer_is_refused(dim):
    with pytest.raises(ValueError, match="dim is"):
        build("identity", dim)


def test_a_plug_in_is_found_without_being_imported(plug_in, module):
    module("toyzoo_a", "hydra")
    plug_in(("hydra", "toyzoo_a"))
    assert "hydra" in names()
    assert "toyzoo_a" not in sys.modules
    assert build("hydra", 4)(torch.ones(1, 1, 4)).shape == (1, 1, 4)
    assert get("hydra").home == "toyzoo_a.Shipped"


def test_a_plug_in_may_name_a_package_that_imports_its_mixers(plug_in, module, tmp_path):
    module("toyzoo_package/inner", "hydra")
    (tmp_path / "toyzoo_package" / "__init__.py").write_text("from toyzoo_package.inner import Shipped\n")
    plug_in(("hydra", "toyzoo_package:Shipped"))
    assert get("hydra").home == "toyzoo_package.inner.Shipped"


def test_two_plug_ins_with_the_same_name_are_refused(plug_in):
    plug_in(("hydra", "toyzoo_a"), ("hydra", "toyzoo_b"))
    with pytest.raises(ValueError, match="two packages ship a mixer named 'hydra': toyzoo_a and toyzoo_b"):
        names()


def test_a_plug_in_cannot_have_the_name_of_a_file(plug_in, monkeypatch):
    monkeypatch.setattr(registry, "_entries", {})
    plug_in(("identity", "toyzoo_a"))
    with pytest.raises(
        ValueError, match=r"two mixers are named 'identity': temporal_zoo\.mixers\.identity and toyzoo_a"
    ):
        get("identity")


def test_a_plug_in_that_registers_another_name_is_refused(plug_in, module):
    module("toyzoo_c", "other")
    plug_in(("hydra", "toyzoo_c"))
    with pytest.raises(ValueError, match="toyzoo_c registers no mixer named 'hydra'"):
        get("hydra")


@pytest.mark.parametrize("before", ["import no_such_package", "from torch import no_such_name"])
def test_the_error_names_the_plug_in_that_cannot_be_imported(plug_in, module, before):
    module("toyzoo_d", "hydra", before)
    plug_in(("hydra", "toyzoo_d"))
    with pytest.raises(ValueError, match=r"the mixer 'hydra' cannot be loaded from toyzoo_d: .*no_such"):
        get("hydra")


def test_options_are_keywords_that_override_the_text():
    assert build("bimamba", 8, state=3, merge="mean").config == MixerSpec.parse("bimamba:state=3:merge=mean").config()
    assert build("bimamba:state=5:conv=2", dim=8, state=3).config == MixerSpec.parse("bimamba:state=3:conv=2").config()
    assert build(MixerSpec.parse("bimamba:state=5"), 8, state=3).config.state == 3
    assert (
        build("bimamba", 8, flavour="vim", merge="sum").config
        == MixerSpec.parse("bimamba:flavour=vim:merge=sum").config()
    )
    # Valid together, and not one without the other.
    assert build("s4d:merge=concat:glu=no", 8, mlp=12).config.mlp == 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stat": 3}, ["no option 'stat'", 'did you mean "state"', "conv", "zoo info bimamba"]),
        ({"state": "3"}, ["BiMamba.Config.state", "'3'", "whole number"]),
        ({"state": 0}, ["BiMamba.Config.state", "at least 1"]),
        ({"flavour": "vin"}, ["no flavour 'vin'", 'did you mean "vim"']),
        ({"flavour": 3}, ["no flavour 3", "paper, vim"]),
    ],
)
def test_wrong_keywords_are_refused(options, words):
    with pytest.raises(ConfigError) as refusal:
        build("bimamba", 8, **options)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("name", registry._files())
def test_parameters_are_created_on_the_device(name):
    def on_meta(module, key, tensor):
        assert tensor is None or tensor.is_meta, f"{key} takes memory"

    hooks = torch.nn.modules.module
    with (
        hooks.register_module_parameter_registration_hook(on_meta),
        hooks.register_module_buffer_registration_hook(on_meta),
    ):
        mixer = build(name, 8, device="meta", dtype=torch.bfloat16)
    assert all(parameter.is_meta and parameter.dtype == torch.bfloat16 for parameter in mixer.parameters())


@pytest.mark.parametrize("name", registry._files())
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_dtype_gives_the_same_mixer_as_a_conversion(name, dtype):
    torch.manual_seed(3)
    mixer = build(name, 8, device="cpu", dtype=dtype)
    torch.manual_seed(3)
    expected = build(name, 8).to(dtype)
    for (key, one), other in zip(mixer.named_parameters(), expected.parameters(), strict=True):
        assert one.dtype == dtype, key
        assert torch.equal(one, other), key


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"device": 2.5}, "device is 2.5"),
        ({"dtype": torch.int64}, "dtype is torch.int64"),
        ({"dtype": "float32"}, "dtype is 'float32'"),
    ],
)
def test_wrong_devices_and_dtypes_are_refused(arguments, words):
    with pytest.raises(InvalidInput, match=words):
        build("mamba", 8, **arguments)


@pytest.mark.parametrize("word", registry.RESERVED)
def test_options_cannot_have_the_names_of_arguments_of_build(word):
    config = type("Config", (Mixer.Config,), {word: option(1, "a number"), "__annotations__": {word: "int"}})
    clash = type("Clash", (Toy,), {"Config": dataclass(frozen=True, kw_only=True)(config)})
    with pytest.raises(InvalidInput, match=f"an option '{word}', which is an argument of build"):
        register("toy", **FACTS)(clash)


def warned(recwarn):
    """The messages of the warnings, which point at this file."""
    assert {(warning.category, warning.filename) for warning in recwarn} == {(DeprecationWarning, __file__)}
    return [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize("former", ["echo", "lagged"])
def test_a_former_name_builds_the_mixer_with_one_warning_that_says_the_present_name(delay, former, recwarn):
    mixer = build(f"{former}:frames=2", 4)
    assert MixerSpec.parse(f"{former}:frames=2").canonical() == MixerSpec.parse("delay:frames=2")
    assert warned(recwarn) == [f"mixer '{former}' is now called 'delay'"]
    assert type(mixer) is Delay
    assert str(mixer.spec) == "delay:frames=2:factor=1.0"
    assert former not in names()


def test_a_former_option_is_read_with_one_warning_that_says_the_present_name(delay, recwarn):
    by_text, by_keyword = build("delay:lag=2", 4), build("delay", 4, lag=2)
    by_file = Delay.Config.from_dict({"lag": 2, "factor": 1.0})
    by_assignment = Delay.Config().override(["lag=2"])
    assert warned(recwarn) == ["option 'lag' of Delay.Config is now called 'frames'"]
    assert by_text.config == by_keyword.config == by_file == by_assignment == Delay.Config(frames=2)


def test_each_former_word_is_reported(delay, recwarn):
    build("echo:lag=2:gain=3", 4)
    assert warned(recwarn) == [
        "mixer 'echo' is now called 'delay'",
        "option 'lag' of Delay.Config is now called 'frames'",
        "option 'gain' of Delay.Config is now called 'factor'",
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_former_and_a_present_name_of_one_option_are_refused(delay):
    with pytest.raises(ConfigError, match="gets 'frames' twice"):
        build("delay:lag=2:frames=3", 4)
    with pytest.raises(ConfigError, match="gets 'frames' twice"):
        Delay.Config.from_dict({"lag": 2, "frames": 3})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_keyword_overrides_the_text_under_either_name(delay):
    assert build("delay:lag=2", 4, frames=3).config.frames == 3
    assert build("delay:frames=2", 4, lag=3).config.frames == 3


def test_an_unknown_name_is_refused_also_when_a_plug_in_is_broken(plug_in, module):
    module("toyzoo_e", "hydra", "raise RuntimeError('broken')")
    plug_in(("hydra", "toyzoo_e"))
    with pytest.raises(UnknownMixer, match="no mixer is named 'no-such-name'"):
        get("no-such-name")
