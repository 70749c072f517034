"""The Frechet distance at infinitely many clips: an interval between a bound from above and a bound from below.

With fewer clips than features, the bias of the distance is not proportional to 1/N, and the error of an extrapolation
can be several times its statistical error.  It depends on the tail of the spectrum, which few clips do not show.
Two estimates have errors of opposite sign:

* From above.  The mean of d(N) decreases with N (Jensen's inequality).  In every spectrum that was tried, its slope in
  1/N is larger for smaller 1/N.  So the line through N/2 and N meets 1/N = 0 at or above the true value:
  2 d(N) - mean d(N/2).
* From below.  For every spectrum and every orthonormal basis v_1 ... v_f,

      d2 >= |m1 - m2|^2 + sum_k (s_1k - s_2k)^2,     s_ik^2 = v_k' S_i v_k

  and one basis gives equality: the eigenvectors of  S1^-1/2 (S1^1/2 S2 S1^1/2)^1/2 S1^-1/2  (Fuchs and Caves, 1995,
  arXiv quant-ph/9604001, for density matrices).  The basis is computed from one half of the clips, with covariances
  shrunk towards a multiple of the identity, and applied to the other half, so that it does not fit the noise there.
  The delta method, with variances between groups, removes the 1/N biases of |m1 - m2|^2 and of s_1k s_2k.

The interval extends from the lower bound minus the half-width of d(N) to the upper bound plus this half-width.
docs/results/fvd-interval.md reports how often it contains the true value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusion.evaluation.uncertainty import Estimate, Resampled, split_in_two

# Records contain this number, and values of different methods are not compared.  Records without it have method 1:
# 2 d(N) - mean d(N/2) with the half-width of d(N).
METHOD = 2
LEAST_VIDEOS = 32  # on each side; intervals were tested with this number and more
_SPLITS = 2
_SHRINKAGE = 0.3


def at_infinity(
    real: np.ndarray,
    fake: np.ndarray,
    real_groups: np.ndarray,
    fake_groups: np.ndarray,
    sampled: Resampled,
    rng: np.random.Generator,
) -> Estimate | None:
    """Estimates the distance for infinitely many clips: the middle of its interval, and half of its width.

    Args:
        real, fake: (n, f) features.
        real_groups, fake_groups: see `resampled`.
        sampled: the distance of these clips and of halves of them.

    Returns:
        The estimate, or None with fewer than `LEAST_VIDEOS` groups on a side.
    """
    if sampled.margin is None or any(len(np.unique(groups)) < LEAST_VIDEOS for groups in (real_groups, fake_groups)):
        return None
    below = lower_bound(real, fake, real_groups, fake_groups, rng)
    low, high = sorted((below, sampled.first_order))
    return Estimate((low + high) / 2, (high - low) / 2 + sampled.margin)


def lower_bound(
    real: np.ndarray, fake: np.ndarray, real_groups: np.ndarray, fake_groups: np.ndarray, rng: np.random.Generator
) -> float:
    """A number whose expected value is not above the distance for infinitely many clips."""
    real, fake = (np.asarray(side, np.float64) for side in (real, fake))
    covariance_terms = []
    for _ in range(_SPLITS):
        some, others = zip(split_in_two(real_groups, rng), split_in_two(fake_groups, rng), strict=True)
        for (fit_real, fit_fake), (use_real, use_fake) in ((some, others), (others, some)):
            basis = _best_basis(real[fit_real], fake[fit_fake])
            first = _Moments.of(real[use_real] @ basis, real_groups[use_real])
            second = _Moments.of(fake[use_fake] @ basis, fake_groups[use_fake])
            covariance_terms.append(_gap_of_spreads(first, second))
    gap = real.mean(0) - fake.mean(0)
    bias = sum(_Moments.of(x, g).mean_variance.sum() for x, g in ((real, real_groups), (fake, fake_groups)))
    return float(gap @ gap - bias + np.mean(covariance_terms))


@dataclass(frozen=True)
class _Moments:
    """For each feature its variance, and the variances of the estimates of its mean and of its variance; (f,) each."""

    variance: np.ndarray
    mean_variance: np.ndarray
    variance_variance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, groups: np.ndarray) -> _Moments:
        residuals = features - features.mean(0)
        squares = np.square(residuals)
        mean_variance = _variance_of_mean(residuals, groups)
        # The mean of squares is below the variance by the variance of the mean; for independent samples this is N - 1.
        variance = squares.mean(0) + mean_variance
        return cls(variance, mean_variance, _variance_of_mean(squares - squares.mean(0), groups))


def _variance_of_mean(residuals: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(f,): the variance of the mean over samples; different groups are independent."""
    _, inverse = np.unique(groups, return_inverse=True)
    sums = np.zeros((inverse.max() + 1, residuals.shape[1]))
    np.add.at(sums, inverse, residuals)
    return np.square(sums).sum(0) * (len(sums) / (len(sums) - 1)) / len(residuals) ** 2


def _gap_of_spreads(first: _Moments, second: _Moments) -> float:
    """sum_k (s_1k - s_2k)^2 without its first-order bias: the root of a variance v is too small by var(v) / 8 v^2."""
    one, two = (side.variance_variance / (8 * side.variance.clip(1e-150) ** 2) for side in (first, second))
    products = np.sqrt(first.variance * second.variance) * (1 + one + two)
    return float((first.variance + second.variance - 2 * products).sum())


def _best_basis(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """(f, f): columns are the basis in which the standard deviations of two Gaussians differ most."""
    values, vectors = np.linalg.eigh(_shrunk(real))
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse = (vectors / np.sqrt(values)) @ vectors.T
    values, vectors = np.linalg.eigh(root @ _shrunk(fake) @ root)
    product = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return np.linalg.eigh(inverse @ product @ inverse)[1]


def _shrunk(features: np.ndarray) -> np.ndarray:
    covariance = np.atleast_2d(np.cov(features, rowvar=False))
    width = len(covariance)
    level = max(np.trace(covariance) / width, 1e-12)  # above zero, also if all clips are equal
    return (1 - _SHRINKAGE) * covariance + _SHRINKAGE * level * np.eye(width)
