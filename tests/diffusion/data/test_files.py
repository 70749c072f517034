"""Listing the files of a source: an unusable entry is named and the others are used; pipes are never opened."""

import errno
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from diffusion.data import DataConfig, DataError, open_clips
from diffusion.data.files import is_animation
from diffusion.data.layouts import search
from diffusion.data.names import natural, printable
from temporal_zoo.cli.main import zoo

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need rights there")
needs_bytes = pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")


def video(path: Path, frames: int = 20, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(seed).integers(0, 256, (frames, 8, 8, 3), dtype=np.uint8))
    return path


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def source(tmp_path) -> Path:
    for index in range(3):
        video(tmp_path / f"set/{index}.npy", seed=index)
    return tmp_path / "set"


@pytest.fixture
def config(source, tmp_path) -> DataConfig:
    return DataConfig(source=str(source), size=8, frames=4, cache=str(tmp_path / "cache"))


def zoo_data(*words: object, **how) -> Result:
    return CliRunner().invoke(zoo, ["data", *map(str, words)], **how)


def names(source: Path) -> list[str]:
    return [file.name for file in search(source).files]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def sock(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


ODD = {
    "a link to nothing": lambda path: path.symlink_to("gone.mp4"),
    "a link that leads back to itself": lambda path: path.symlink_to(path.name),
    "a pipe and not a file": pipe,
    "a socket and not a file": sock,
    "a link to a folder that holds it": lambda path: path.symlink_to(".."),
    "a link to a folder that is in the set already": lambda path: path.symlink_to("deep"),
    "the file is empty": lambda path: path.touch(),
    "a device and not a file": lambda path: path.symlink_to("/dev/zero"),
}


@needs_links
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the socket, which is not closed
@pytest.mark.parametrize("reason", ODD)
@pytest.mark.parametrize("name", ["9.mp4", "9.npy"])
def test_an_unusable_entry_is_named_and_the_others_are_used(source, config, tmp_path, caplog, reason, name):
    video(source / "deep/3.npy")
    ODD[reason](source / name)
    assert open_clips(config, split="all").videos.names == ["0.npy", "1.npy", "2.npy", "deep/3.npy"]
    (listed,) = Path(config.cache).rglob("bad_files.txt")
    (line,) = listed.read_text().splitlines()
    assert line.startswith(f"{source / name}: {reason}")
    assert line in caplog.text
    built = zoo_data("build", source, "--size", 8, "--out", tmp_path / "out")
    assert built.exit_code == 0
    assert "1 cannot be decoded" in built.stderr
    assert line in built.stderr
    assert line in zoo_data("inspect", source).stdout
    strict = zoo_data("build", source, "--size", 8, "--strict", "--out", tmp_path / "strict")
    assert strict.exit_code == 2
    assert f"{name}: {reason}" in strict.stderr


@needs_links
def test_pipes_among_pictures_are_never_opened(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for number in (0, 2):
        (tmp_path / "v").mkdir(exist_ok=True)
        image.new("RGB", (8, 8)).save(tmp_path / f"v/{number}.png")
    pipe(tmp_path / "v/1.png")
    found = search(tmp_path)
    assert [file.name for file in found.files] == ["v"]
    assert found.problems == [f"{tmp_path / 'v/1.png'}: a pipe and not a file; it is not opened"]
    config = DataConfig(source=str(tmp_path / "v"), size=8, frames=2, cache=str(tmp_path / "cache"))
    assert open_clips(config, split="train").videos.lengths == [2]


@needs_links
@pytest.mark.parametrize("name", ["a.mp4", "meta.json"])
def test_a_pipe_as_a_source_or_where_a_cache_has_a_file(tmp_path, name):
    pipe(tmp_path / name)
    result = zoo_data("inspect", tmp_path / name if name == "a.mp4" else tmp_path)
    assert result.exit_code == 2
    assert name != "a.mp4" or "a pipe and not a file" in result.stderr


@needs_links
def test_links_to_folders_are_followed_once(tmp_path):
    for name in ("a", "b"):
        video(tmp_path / f"store/{name}/0.npy")
    video(tmp_path / "set/z/1.npy")
    (tmp_path / "set/a").symlink_to("../store/a")
    (tmp_path / "set/again").symlink_to("../store/a")
    (tmp_path / "store/a/further").symlink_to("../b")
    (tmp_path / "store/b/back").symlink_to("../a")
    found = search(tmp_path / "set")
    assert [file.name for file in found.files] == ["a/0.npy", "a/further/0.npy", "z/1.npy"]
    assert [line.partition(": ")[0] for line in found.problems] == [
        str(tmp_path / "set/a/further/back"),
        str(tmp_path / "set/again"),
    ]


@needs_links
def test_a_folder_keeps_its_own_name_when_a_link_leads_to_it_too(source):
    video(source / "z/9.npy")
    (source / "a").symlink_to("z")
    assert names(source) == ["0.npy", "1.npy", "2.npy", "z/9.npy"]


@needs_links
def test_a_link_may_lead_to_train_and_test(tmp_path):
    for split in ("train", "test"):
        video(tmp_path / f"store/{split}/0.npy")
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / f"set/{split}").symlink_to(f"../store/{split}")
    assert names(tmp_path / "set") == ["test/0.npy", "train/0.npy"]


@needs_bytes
@pytest.mark.parametrize("name", [b"Stra\xdfe.npy", b"two\nlines.npy", b"bell\x1b[31m.npy", "Straße 〇.npy".encode()])
def test_names_of_any_bytes_are_used_and_printed_on_one_line(source, config, tmp_path, name):
    os.rename(source / "2.npy", os.fsencode(source) + b"/" + name)
    (source / os.fsdecode(b"bad" + name)).touch()
    shown = printable(os.fsdecode(name))
    clips = open_clips(config, split="all")
    assert clips.videos.names == ["0.npy", "1.npy", shown]
    assert len(clips.videos.read(2, slice(0, 20))) == 20
    assert open_clips(config, split="all").videos.names == clips.videos.names
    for words in (("inspect", source), ("build", source, "--size", 8, "--out", tmp_path / "out")):
        result = zoo_data(*words)
        assert result.exit_code == 0, result.output
        assert f"bad{shown}: the file is empty" in result.output
    assert len((tmp_path / "out/bad_files.txt").read_text("utf-8").splitlines()) == 1


@needs_bytes
def test_a_source_whose_own_name_is_not_utf8(source, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    os.rename(source, odd)
    (Path(odd) / "bad.mp4").touch()
    for command in ("inspect", "build"):
        result = zoo_data(command, odd, "--size", 8)
        assert result.exit_code == 0, result.output
        assert r"\xff\xfe" in result.stdout + result.stderr
        assert "bad.mp4: the file is empty" in result.stdout + result.stderr
    video(Path(odd) / "7.npy")
    config = DataConfig(source=odd, size=8, frames=4)
    assert open_clips(config, split="all").num_videos == 4


def test_printed_names():
    assert printable("a/Straße 〇.mp4") == "a/Straße 〇.mp4"
    assert printable(os.fsdecode(b"a\xdf.mp4")) == r"a\xdf.mp4"
    assert printable("a\n\x1b\u2028b") == r"a\n\x1b\u2028b"


def test_numbers_in_names_are_compared_as_numbers():
    assert sorted(["10", "9", "2²3", "x²", "x٣", "x2"], key=natural) == ["2²3", "9", "10", "x2", "x٣", "x²"]


def unreadable(monkeypatch, path: Path) -> None:
    """Takes away the permission to read, also from an administrator."""
    scandir, access = os.scandir, os.access

    def refuse(folder):
        if Path(folder) == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "access", lambda file, mode: Path(file) != path and access(file, mode))


def test_folders_and_files_without_permission_are_named(source, config, monkeypatch):
    video(source / "locked/3.npy")
    for path, reason in ((source / "locked", "Permission denied"), (source / "1.npy", "no permission to read it")):
        with monkeypatch.context() as here:
            unreadable(here, path)
            assert f"{path}: {reason}" in search(source).problems
            before = open_clips(config, split="all").num_videos
        assert open_clips(config, split="all").num_videos == before + 1  # noticed when it may be read again


def test_a_file_that_is_deleted_before_it_is_read_is_named(source, config, caplog):
    found = search(source)
    (source / "1.npy").unlink()
    monkey = pytest.MonkeyPatch()
    with monkey.context() as here:
        here.setattr("diffusion.data.build.search", lambda source: found)
        assert open_clips(config, split="all").num_videos == 2
    assert f"{source / '1.npy'}: No such file or directory" in caplog.text


def test_other_files_are_counted_and_not_named(source):
    for name in (".DS_Store", ".hidden.mp4", "Thumbs.db", "notes.txt", "more.txt", "LICENSE", ".git/x.mp4"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).touch()
    found = search(source)
    assert (len(found.files), found.problems) == (3, [])
    assert dict(found.others) == {"hidden": 3, ".db": 1, ".txt": 2, "no extension": 1}
    assert "7 (3 hidden, 2 .txt, 1 no extension, 1 .db)" in zoo_data("inspect", source).stdout
    built = zoo_data("build", source, "--size", 8, "--out", source.parent / "out")
    assert "not videos: 7 (3 hidden, 2 .txt" in built.stderr


def test_pictures_and_actions_beside_videos_are_counted(tmp_path):
    for name in ("a.mp4", "a.npz", "a.jpg", "b.npy"):
        (tmp_path / name).touch()
    found = search(tmp_path)
    assert [file.name for file in found.files] == ["a.mp4", "b.npy"]
    assert dict(found.others) == {".npz": 1, ".jpg": 1}


@needs_links
def test_a_source_without_a_usable_file_is_an_error_with_the_first_reasons(tmp_path):
    (tmp_path / "a.mp4").symlink_to("gone")
    with pytest.raises(DataError, match=r"holds no videos; .*a\.mp4: a link to nothing"):
        search(tmp_path)
    (tmp_path / "b.mp4").touch()
    result = zoo_data("build", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "a.mp4: a link to nothing" in result.stderr
    assert "b.mp4: the file is empty" in result.stderr


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + bytes(5000), b"RIFF" + bytes(40)]
)
def test_a_file_with_a_damaged_header_is_not_an_animation(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert not is_animation(tmp_path / "a.png")


@pytest.mark.parametrize("size", [0, -1, 3, 4097, 10**12])
@pytest.mark.parametrize("command", ["inspect", "build", "preview"])
def test_impossible_sizes_are_errors_before_files_are_read(source, command, size):
    result = zoo_data(command, source, f"--size={size}")
    assert result.exit_code == 2
    assert f"size is {size}; it must be at " in result.stderr
    assert "npy" not in result.stderr
