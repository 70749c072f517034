"""Every mixer that the registry knows, with its defaults and with each of its examples, keeps the whole contract."""

import pytest

from temporal_zoo import build, get, names
from temporal_zoo.contract import CHECKS

SPECS = [
    ":".join(filter(None, (name, example))) for name in names() for example in ("", *get(name).mixer.Config.examples)
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("check", CHECKS)
def test_mixer_keeps_the_contract(check, spec):
    CHECKS[check](lambda: build(spec, 8))
