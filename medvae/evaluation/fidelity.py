"""How alike two sets of points are: precision, recall, density, coverage, kernel MMD, Fréchet distance.

Points are feature vectors of scans. For two sets of one distribution none of these is perfect: compare each with its
value for two sets of real scans of the same size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prdc:
    """Precision, recall, density and coverage (Naeem et al., ICML 2020), after Kynkäänniemi et al. (NeurIPS 2019).

    Attributes:
        precision: share of samples that lie within the reach of a real scan: its distance to its k-th real neighbour.
        recall: the same with real scans and samples changed over.
        density: how many real scans reach a sample, over k, on average; above 1 for samples that crowd together.
        coverage: share of real scans that have a sample within their reach.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Array, samples: Array, across: Array, *, k: int) -> Prdc:
    """From distances.

    Args:
        real: between real scans, `(N, N)`.
        samples: between samples, `(M, M)`.
        across: from real scans to samples, `(N, M)`.
        k: neighbours, fewer than N and M.
    """
    reach, their_reach = _reach(real, k), _reach(samples, k)
    inside = across < reach[:, None]
    return Prdc(
        precision=float(inside.any(axis=0).mean()),
        recall=float((across < their_reach).any(axis=1).mean()),
        density=float(inside.sum(axis=0).mean() / k),
        coverage=float((across.min(axis=1) < reach).mean()),
    )


def expected_coverage(n: int, m: int, k: int) -> float:
    """Expected coverage of n points by m others of the same distribution: 1 − ∏ᵢ₌₁ᵏ (n − i)/(m + n − i)."""
    steps = np.arange(1, k + 1)
    return float(1 - np.prod((n - steps) / (m + n - steps)))


def polynomial_kernel(x: Array, y: Array, *, total: float) -> Array:
    """(x·y/t + 1)³, `(n, d)` and `(m, d)` -> `(n, m)`: the kernel of KID (Bińkowski et al., ICLR 2018).

    There t is d, for features with a variance near 1 in each dimension; here it is their total variance.
    """
    kernel: Array = (x @ y.T / total + 1) ** 3
    return kernel


def mmd(within: Array, others: Array, across: Array) -> float:
    """Squared maximum mean discrepancy, unbiased: may be negative (Gretton et al., JMLR 2012).

    Args:
        within: kernel between points of one set, `(n, n)`.
        others: of the other, `(m, m)`.
        across: between the sets, `(n, m)`.
    """
    return _off_diagonal(within) + _off_diagonal(others) - 2 * float(across.mean())


def mmd_p(kernel: Array, first: int, *, count: int = 500, seed: int = 0) -> float:
    """p of the MMD by permutation: (1 + permutations with at least this much) / (count + 1).

    Args:
        kernel: between all points of both sets, `(n + m, n + m)`, those of the first set first.
        first: n.
        count: permutations.
        seed: of the permutations.
    """
    rng = np.random.default_rng(seed)
    seen = _of_order(kernel, np.arange(len(kernel)), first)
    others = [_of_order(kernel, rng.permutation(len(kernel)), first) for _ in range(count)]
    return float((1 + sum(one >= seen for one in others)) / (count + 1))


def frechet(x: Array, y: Array) -> float:
    """‖m₁ − m₂‖² + tr(S₁ + S₂ − 2(S₁S₂)^½) of Gaussians fitted to `(n, d)` and `(m, d)` (Heusel et al., NeurIPS 2017).

    The trace of the root is that of (S₁^½ S₂ S₁^½)^½, which is symmetric. Its bias falls with n and grows with d.
    """
    one, two = (np.atleast_2d(np.cov(points, rowvar=False)) for points in (x, y))
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ two @ root), 0)).sum()
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(one) + np.trace(two) - 2 * shared)


def distances(x: Array, y: Array) -> Array:
    """Euclidean, `(n, d)` and `(m, d)` -> `(n, m)`; by differences, so that a copy has distance 0."""
    found: Array = cdist(x, y)
    return found


def _reach(within: Array, k: int) -> Array:
    """Distance to the k-th neighbour, itself not counted, `(n,)`."""
    others = np.array(within)
    np.fill_diagonal(others, np.inf)
    reach: Array = np.partition(others, k - 1, axis=1)[:, k - 1]
    return reach


def _off_diagonal(kernel: Array) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _of_order(kernel: Array, order: NDArray[np.intp], first: int) -> float:
    one, two = order[:first], order[first:]
    return mmd(kernel[np.ix_(one, one)], kernel[np.ix_(two, two)], kernel[np.ix_(one, two)])
