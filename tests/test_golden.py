"""Names, defaults, state dicts and keys on which users' files depend; they change only by a deliberate edit.

A difference here means that users' files have another meaning now, or are not found.  If that is intended, add a
migration (`diffusion/training/migrations.py`), a line to `diffusion.model.mixer_text.SILENT` or to
`diffusion.ablations.cache_key.ADDED_FIELDS`; then write the golden files again, and read the difference:

    python -P tests/test_golden.py && git diff tests/golden
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from diffusion.ablations import catalogue
from diffusion.ablations.trial import Trial
from diffusion.model.backbones import build_network
from diffusion.model.mixer_text import FLAVOURS, SILENT
from diffusion.presets import PRESETS, preset
from temporal_zoo import build, get, names
from temporal_zoo.config import describe, hints

FOLDER = Path(__file__).parent / "golden"
DIM = 24
# One preset for each kind of network; a digest compares the others.
SHOWN = ("tiny", "paper-14.1M", "paper-14.5M", "paper-56.9M")


def shapes(module):
    return {name: "x".join(map(str, tensor.shape)) for name, tensor in module.state_dict().items()}


def mixers():
    """Options and state dicts of every mixer, with its defaults and with each example of its options."""
    found = {}
    for name in names():
        config = get(name).mixer.Config
        with torch.device("meta"):
            states = {
                spec: shapes(build(spec, DIM)) for spec in (name, *(f"{name}:{text}" for text in config.examples))
            }
        options = {option: [kind, default] for option, kind, default, _ in describe(config)}
        found[name] = {"options": options, "flavours": config.flavours, "states": states}
    return found


def presets():
    """Configuration and state dict of every preset."""
    found = {}
    for name in PRESETS:
        config = preset(name)
        with torch.device("meta"):
            state = shapes(build_network(config.model))
        digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
        found[name] = {"config": config.to_dict(), "tensors": len(state), "state_digest": digest}
        found[name] |= {"state": state} if name in SHOWN else {}
    return found


def ablations():
    """Paths of the first seed of all cells of all ablations, before the budget changes widths and steps."""
    found = {}
    for name in catalogue.names():
        for scale_name in ("toy", "paper"):
            scale = catalogue.get(name, scale_name).scale
            model = scale.base.train.model.replace(size=scale.base.train.data.size)
            base = scale.base.replace(train=scale.base.train.replace(model=model))
            for cell in scale.cells:
                recipe = base.override(cell.changes)
                trial = Trial(dict(cell.values), 0, cell.reference, recipe, scale.held_out, {})
                found[f"{name}, {scale_name}: {trial.name}"] = trial.file
    return found


GOLDEN = {"mixers": mixers, "presets": presets, "ablations": ablations}


@pytest.mark.parametrize("name", GOLDEN)
def test_names_defaults_state_dicts_and_keys_have_not_changed(name):
    golden = json.loads((FOLDER / f"{name}.json").read_text())
    now = json.loads(json.dumps(GOLDEN[name]()))
    differences = list(_differences(golden, now))
    assert not differences, f"{__doc__}\n" + "\n".join(differences[:20])


def test_a_difference_is_found():
    golden = json.loads((FOLDER / "mixers.json").read_text())
    golden["attn"]["options"]["heads"][1] = "9"
    del golden["attn"]["states"]["attn"]
    found = list(_differences(golden, json.loads((FOLDER / "mixers.json").read_text())))
    assert found[0] == "attn/options/heads: was ['whole number', '9'], is ['whole number', '8']"
    assert found[1].startswith("attn/states/attn: was None, is {")


def test_published_results_are_found_under_their_keys():
    results = json.loads((Path(__file__).parent.parent / "docs/results/bidirectional/results.json").read_text())
    golden = json.loads((FOLDER / "ablations.json").read_text())
    folders = {result["contact_sheet"].partition("/")[0] for result in results["results"] if result["seed"] == 0}
    assert folders == {
        place.partition("/")[0] for cell, place in golden.items() if cell.startswith("bidirectional, toy")
    }


def test_every_option_has_a_value_for_files_that_leave_it_out():
    for name in names():
        config = get(name).mixer.Config
        if get(name).home.startswith("temporal_zoo."):
            assert set(SILENT[name]) == set(hints(config)), f"add the new option of {name} to SILENT"
            assert set(FLAVOURS.get(name, {})) <= set(config.flavours)


def _differences(golden, now, path=""):
    if isinstance(golden, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*golden, *now]):
            yield from _differences(golden.get(key), now.get(key), f"{path}/{key}" if path else key)
        if golden.keys() == now.keys() and list(golden) != list(now):
            yield f"{path}: another order"
    elif golden != now:
        yield f"{path}: was {golden}, is {now}"


if __name__ == "__main__":
    for name, collect in GOLDEN.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(collect(), indent=1) + "\n")
