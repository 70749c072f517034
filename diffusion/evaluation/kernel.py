"""Kernel distance of features: the unbiased squared maximum mean discrepancy with a cubic polynomial kernel.

    k(x, y) = (x'y / f + 1)^3,   KVD = mean k(x, x') + mean k(y, y') - 2 mean k(x, y),   pairs of different samples

(arXiv 1801.01401, eq. 3 and 4; for videos as in arXiv 2204.03638.)  It is unbiased at any number of samples, so it can
be negative.  A permutation test gives its p-value.  Letters: n samples, f features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

PERMUTATIONS = 999
_BLOCK = 64  # labellings per block


@dataclass(frozen=True, eq=False)
class Kernel:
    """The kernel of all pairs of two sets of features; gives the distance of any two subsets.

    real, fake: (n, f), at least 2 samples each.
    """

    real: np.ndarray
    fake: np.ndarray

    @cached_property
    def matrix(self) -> np.ndarray:
        """(n, n) float64 over both sets; the diagonal is zero."""
        both = np.concatenate([self.real, self.fake]).astype(np.float64)
        matrix = both @ both.T
        matrix /= both.shape[1]
        matrix += 1
        matrix **= 3
        np.fill_diagonal(matrix, 0)
        return matrix

    @cached_property
    def value(self) -> float:
        """KVD of the two sets."""
        real = np.arange(len(self.real) + len(self.fake)) < len(self.real)
        return float(self.between(real[None], ~real[None])[0])

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(m,) KVD of m pairs of disjoint subsets, given as (m, n) booleans over both sets."""
        values = []
        for start in range(0, len(first), _BLOCK):
            a, b = (side[start : start + _BLOCK].astype(np.float64) for side in (first, second))
            to_a, to_b = a @ self.matrix, b @ self.matrix
            count_a, count_b = a.sum(1), b.sum(1)
            within_a = (to_a * a).sum(1) / (count_a * (count_a - 1))
            within_b = (to_b * b).sum(1) / (count_b * (count_b - 1))
            values.append(within_a + within_b - 2 * (to_a * b).sum(1) / (count_a * count_b))
        return np.concatenate([np.empty(0), *values])

    def subset(self, first: np.ndarray, second: np.ndarray) -> float:
        """KVD of two disjoint subsets, given as indices over the real and then the fake samples."""
        chosen = np.zeros((2, 1, len(self.matrix)), bool)
        chosen[0, 0, first] = chosen[1, 0, second] = True
        return float(self.between(*chosen)[0])

    def p_value(self, rng: np.random.Generator, groups: np.ndarray) -> float:
        """The fraction of random labellings, including the true one, whose KVD is at least as large.

        Args:
            groups: an integer for each of the real and then the fake samples; the samples of a group have equal
                integers and get one label.  The number of samples with the first label is as near to the number of real
                samples as groups allow.  A labelling that leaves fewer than 2 samples on a side counts as larger.
        """
        _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        ranks = rng.permuted(np.tile(np.arange(len(sizes)), (PERMUTATIONS, 1)), axis=1)
        counts = sizes[np.argsort(ranks, axis=1)].cumsum(1)[:, :-1]
        usable = (counts >= 2) & (counts <= len(inverse) - 2)
        num_groups = 1 + np.where(usable, np.abs(counts - len(self.real)), np.inf).argmin(1)
        labelled = (ranks < num_groups[:, None])[usable.any(1)][:, inverse]
        smaller = int((self.between(labelled, ~labelled) < self.value).sum())
        return (1 + PERMUTATIONS - smaller) / (1 + PERMUTATIONS)
