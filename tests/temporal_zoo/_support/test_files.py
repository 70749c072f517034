"""The cache folder."""

import pytest

from temporal_zoo._support.files import cache_folder
from temporal_zoo.errors import InvalidInput


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ZOO_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "home" / ".cache" / "temporal_zoo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "temporal_zoo"
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"


@pytest.mark.parametrize("name", ["ZOO_CACHE", "XDG_CACHE_HOME"])
def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "~/kept")
    assert tmp_path / "home" / "kept" in (cache_folder(), cache_folder().parent)


def test_a_home_that_does_not_exist_is_a_message(monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", "~no-such-user-here/kept")
    with pytest.raises(InvalidInput, match="ZOO_CACHE"):
        cache_folder()
