"""Whole writes, OSErrors that name their file, and the cache folder."""

import pytest

from temporal_zoo._support.files import cache_folder, naming, write_text, written_whole
from temporal_zoo.cli.main import explain
from temporal_zoo.errors import InvalidInput


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ZOO_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def test_environment_variables_choose_the_cache_folder(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "home" / ".cache" / "temporal_zoo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "temporal_zoo"
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"


@pytest.mark.parametrize("name", ["ZOO_CACHE", "XDG_CACHE_HOME"])
def test_a_tilde_means_the_home_folder(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "~/cache")
    assert tmp_path / "home" / "cache" in (cache_folder(), cache_folder().parent)


def test_a_home_folder_that_does_not_exist_is_an_error(monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", "~no-such-user-here/cache")
    with pytest.raises(InvalidInput, match="ZOO_CACHE"):
        cache_folder()


def test_an_os_error_names_its_file(tmp_path):
    with pytest.raises(OSError, match="encoder error -2") as caught, naming(tmp_path / "a.png"):
        raise OSError("encoder error -2 when writing image file")
    assert explain(caught.value).startswith(f"{tmp_path / 'a.png'}: encoder error -2 when writing image file; ")
    with pytest.raises(FileNotFoundError) as caught, naming(tmp_path / "a.png"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")
    (tmp_path / "folder").mkdir()
    for error, name in (("Is a directory", "folder"), ("File exists", "a.txt/below")):
        write_text(tmp_path / "a.txt", "old")
        with pytest.raises(OSError, match=error) as caught:
            write_text(tmp_path / name, "new")
        assert explain(caught.value).startswith(str(tmp_path / name.partition("/")[0]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "folder"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "é\udcff")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "é".encode() + b"\\udcff"
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "new" / "a.txt") as file:
        file.write(b"half" * (1 // 0))
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == ["é".encode() + b"\\udcff"]
