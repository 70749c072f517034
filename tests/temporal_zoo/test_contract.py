"""Every registered mixer passes all checks of the contract, with its defaults and with each of its examples."""

import pytest

from temporal_zoo import build, get, names
from temporal_zoo.contract import CHECKS

SPECS = [
    ":".join(filter(None, (name, example))) for name in names() for example in ("", *get(name).mixer.Config.examples)
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("check", CHECKS)
def test_a_mixer_passes_a_check(check, spec):
    CHECKS[check](lambda: build(spec, 8))
