"""A machine without the packages of peers."""

import pytest

from bench.kernels import peers

PACKAGES = ("mambapy", "transformers")


@pytest.fixture
def without_packages(monkeypatch):
    real = peers.import_module

    def absent(name):
        if name.partition(".")[0] in PACKAGES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name)

    monkeypatch.setattr(peers, "import_module", absent)
