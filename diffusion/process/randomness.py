"""Every random choice about a clip is a pure function of (seed, purpose, global clip number).

It never depends on rank, worker, batch size or mixer.  Hence a resumed run continues with the very same draws, and two
mixers trained with one seed see the same clips, crops, noise levels and noise.
"""

import hashlib

import torch


def generator(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """A CPU generator for one purpose ("window", "noise", "backbone", ...) and one clip number."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
