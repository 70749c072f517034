"""Every random choice about a clip is a pure function of (seed, purpose, global clip number).

It does not depend on rank, worker, batch size or mixer.  A resumed run therefore continues with the same draws, and two
mixers that are trained with one seed get the same clips, crops, noise levels and noise.
"""

import hashlib

import torch


def generator(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """A CPU generator for one purpose ("window", "noise", "backbone", ...) and one clip number."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
