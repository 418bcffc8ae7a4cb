"""The few directions in which codes of training scans differ most: where a non-Gaussian distribution can be learned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from medvae.synthesis.samplers._density import fit_density

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.checkpoint.kept import Latents
    from medvae.synthesis.draws import LatentDraw
    from medvae.synthesis.samplers._density import Density

_EXPLAINED = 0.9  # of the variance of the posterior means within classes


@dataclass(frozen=True, eq=False)
class Span:
    """The leading principal components u₁…u_k of the posterior means within classes, and the Gaussian around them.

    A point y of the span belongs to the code whose part in the span is m_c + Σⱼ yⱼ sⱼ uⱼ. sⱼ² = (1−ρ)λⱼ + ρ·tr S/D +
    vⱼ is the variance that `Density` gives the direction, with λⱼ the variance of the posterior means in it and vⱼ that
    of the posteriors: if y is N(0, I), the codes are those of `Density`, where the covariance is pooled over classes.

    Attributes:
        density: Gaussian of all directions.
        basis: u, `(k, D)`, orthonormal.
        seen: √(λ + v), the standard deviation of posterior samples of the training scans, `(k,)`.
        drawn: s, `(k,)`.
    """

    density: Density = field(repr=False)
    basis: NDArray[np.float32] = field(repr=False)
    seen: NDArray[np.float32]
    drawn: NDArray[np.float32]

    def points(self, latents: Latents, rows: NDArray[np.intp], *, scale: NDArray[np.float32]) -> NDArray[np.float32]:
        """Posterior means minus the mean of their class, over `scale` `(k,)`, `(m, k)`."""
        codes = latents.mean[rows].reshape(len(rows), -1)
        means = np.stack([self.density.means[latents.labels[row]] for row in rows])
        return np.asarray((codes - means) @ self.basis.T / scale, np.float32)

    def noise(self, latents: Latents, rows: NDArray[np.intp], *, scale: NDArray[np.float32]) -> NDArray[np.float32]:
        """Posterior standard deviations in each direction over `scale` `(k,)`, `(m, k)`; correlations are left out."""
        variance = np.exp(latents.log_variance[rows]).reshape(len(rows), -1)
        return np.asarray(np.sqrt(variance @ np.square(self.basis).T) / scale, np.float32)

    def leading(self, count: int) -> Span:
        """The span of the first components."""
        return replace(self, basis=self.basis[:count], seen=self.seen[:count], drawn=self.drawn[:count])

    def draw(self, label: str | None, point: NDArray[np.float32], generator: np.random.Generator) -> LatentDraw:
        """The code of a point `(k,)`; in all other directions it is a draw of the Gaussian."""
        gaussian = self.density.code(label, generator)
        middle = self.density.means[label]
        step = (gaussian.z.ravel() - middle) / np.float32(self.density.spread)
        step += (self.drawn * point - self.basis @ step) @ self.basis
        z = middle + np.float32(self.density.spread) * step
        return replace(gaussian, z=z.reshape(self.density.shape).astype(np.float32))


def fit_span(latents: Latents, *, sampler: str, spread: float, most: int) -> Span:
    """Fit the Gaussian and find the components that explain 90% of the variance within classes.

    The components come from the n×n matrix of scalar products: O(n²D).

    Args:
        latents: of the training scans.
        sampler: whom an error is about.
        spread: factor on the standard deviation.
        most: components, at most.

    Raises:
        ModelError: too few training scans.
    """
    density = fit_density(latents, sampler=sampler, shrinkage=None, spread=spread)
    deviations = density.deviations
    free = len(deviations) - len(density.rows)
    values, vectors = np.linalg.eigh(deviations.astype(np.float64) @ deviations.T.astype(np.float64))
    values, vectors = np.maximum(values[::-1][:free], 0), vectors[:, ::-1][:, :free]
    found = values > 1e-9 * max(float(values[0]), 1e-12)
    enough = int(np.searchsorted(np.cumsum(values), _EXPLAINED * values.sum())) + 1
    k = min(most, enough, int(found.sum()))
    basis = ((vectors[:, :k] / np.sqrt(values[:k])).T @ deviations).astype(np.float32)
    between, within = values[:k] / free, np.square(basis) @ density.variance
    shrunk = (1 - density.shrinkage) * between + density.shrinkage * density.isotropic
    seen, drawn = np.sqrt(between + within), np.sqrt(shrunk + within)
    return Span(density, basis, seen.astype(np.float32), drawn.astype(np.float32))


def part(latents: Latents, rows: NDArray[np.intp]) -> Latents:
    """Some of the training scans."""
    chosen = [int(row) for row in rows]
    columns = {
        name: [getattr(latents, name)[row] for row in chosen] for name in ("ids", "subjects", "labels", "hashes")
    }
    return replace(latents, mean=latents.mean[rows], log_variance=latents.log_variance[rows], conditions=(), **columns)
