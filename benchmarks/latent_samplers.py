"""Samplers of codes on a known law: what they add to N training codes, and whether they copy them.

    python benchmarks/latent_samplers.py [--repeats 8] [--seed 0]

Codes of 16 dimensions and N = 50 or 200 scans, whose posteriors are narrow (SD 0.2). Training and held-out codes are
drawn from the law, less the variance of the posteriors, so that draws of the posteriors follow the law. Laws: N(0, I);
and two modes 4 apart in one direction, of SD 0.5 in it and 1 in the others. N draws of each sampler are compared with N
held-out draws of the law: `near` is the share that is nearer to a training code than 95% of new codes are, `between`
that within 1 of the middle of the two modes, `variance` is relative to that of the law, `seconds` are those of one
core to fit. `geometry` is not a sampler of medvae: it is measured here only.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np

from medvae.checkpoint.kept import Latents
from medvae.evaluation.copying import Points, authenticity, nearest_distance
from medvae.evaluation.fidelity import distances, prdc
from medvae.settings import configure
from medvae.synthesis.samplers._span import fit_span

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.synthesis.draws import FittedSampler
    from medvae.synthesis.samplers._span import Span

    Array = NDArray[np.float64]
    Law = Callable[[int, float, np.random.Generator], Array]

SIZE, NOISE, NEIGHBOURS = 16, 0.2, 5
SAMPLERS = ("density", "flow", "jitter", "interpolate")
COLUMNS = ("precision", "recall", "density", "coverage", "near", "authentic", "between", "variance", "seconds")
CHAIN, LEAPFROG, FLOOR = 100, 10, 0.01  # steps of the geometry's chain, of each of them, and λ


def main() -> None:
    """Print a table for each law and number of scans."""
    parser = argparse.ArgumentParser(description="samplers of codes on a known law")
    parser.add_argument("--repeats", type=int, default=8, help="training sets")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name, law in {"Gaussian": gaussian, "two modes": modes}.items():
        for n in (50, 200):
            print(f"\n{name}, N = {n}\n\n| sampler | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
            found = [_measured(law, n, np.random.default_rng([options.seed, n, i])) for i in range(options.repeats)]
            for sampler in found[0]:
                means = np.mean([one[sampler] for one in found], axis=0)
                print(f"| `{sampler}` | {' | '.join(f'{value:.2f}' for value in means)} |", flush=True)


def gaussian(count: int, taken: float, rng: np.random.Generator) -> Array:
    """N(0, (1 − taken) I), `(count, 16)`."""
    return rng.normal(0, (1 - taken) ** 0.5, (count, SIZE))


def modes(count: int, taken: float, rng: np.random.Generator) -> Array:
    """Two modes at ±2 in the first direction, `(count, 16)`; `taken` is left out of every variance."""
    points = gaussian(count, taken, rng)
    points[:, 0] = 2 * rng.choice([-1, 1], count) + np.sqrt(0.25 - taken) * rng.standard_normal(count)
    return points


def _measured(law: Law, n: int, rng: np.random.Generator) -> dict[str, list[float]]:
    """Row of each sampler, for one training set."""
    training, real = law(n, NOISE**2, rng), law(n, 0, rng)
    latents = _latents(training)
    rows = {"new scans": _row(law(n, 0, rng), real, training, 0.0)}
    for name in SAMPLERS:
        start = time.process_time()
        module, settings = configure("samplers", name, {})
        fitted: FittedSampler = module.fit(cast("Model", SimpleNamespace(latents=latents)), settings)
        seconds = time.process_time() - start
        draws = np.stack([fitted.draw(None, rng, {}, 0).z for _ in range(n)])  # type: ignore[union-attr]
        rows[name] = _row(draws.astype(np.float64), real, training, seconds)
    for k, wide in ((SIZE, True), (SIZE, False), (2, True), (2, False)):
        name = f"geometry, {k} directions, {'largest' if wide else 'median'} T"
        rows[name] = _row(_geometry(latents, k, rng, wide=wide), real, training, 0.0)
    return rows


def _latents(codes: Array) -> Latents:
    names = [f"scan-{i}" for i in range(len(codes))]
    log_variance = np.full(codes.shape, 2 * np.log(NOISE), np.float32)
    return Latents(codes.astype(np.float32), log_variance, names, names, [None] * len(codes), names)


def _row(draws: Array, real: Array, training: Array, seconds: float) -> list[float]:
    found = prdc(distances(real, real), distances(draws, draws), distances(real, draws), k=NEIGHBOURS)
    limit = np.quantile(nearest_distance(real, training), 0.05)
    near = (nearest_distance(draws, training) < limit).mean()
    authentic = authenticity(draws, Points(training, [str(i) for i in range(len(training))]))
    between, variance = (np.abs(draws[:, 0]) < 1).mean(), draws.var(axis=0).mean() / real.var(axis=0).mean()
    shares = found.precision, found.recall, found.density, found.coverage, near, authentic, between, variance
    return [*(float(value) for value in shares), seconds]


# ------------------------------------------------------------------------------------------------------- geometry


@dataclass(frozen=True, eq=False)
class Metric:
    """G⁻¹(z) = Σᵢ Σᵢ exp(−‖z − cᵢ‖²/T²) + λI over whitened codes, with diagonal Σᵢ, the posterior variances.

    Chadebec et al., TPAMI 2022, with posteriors in place of a learned Σᵢ.

    Attributes:
        centres: c, `(n, k)`.
        variances: of Σ, `(n, k)`.
        width: T.
    """

    centres: Array = field(repr=False)
    variances: Array = field(repr=False)
    width: float

    def target(self, z: Array) -> tuple[Array, Array]:
        """log √det G⁻¹ `(m,)` and its gradient `(m, k)` at points `(m, k)`."""
        weights = np.exp(-np.square(distances(z, self.centres)) / self.width**2)
        inverse = weights @ self.variances + FLOOR
        pull = weights * ((1 / inverse) @ self.variances.T) / self.width**2
        return np.log(inverse).sum(axis=1) / 2, pull @ self.centres - z * pull.sum(axis=1, keepdims=True)

    def chains(self, z: Array, rng: np.random.Generator) -> Array:
        """Ends of Hamiltonian chains from `z` `(m, k)`; a step is accepted with exp(min(0, H₀ − H))."""
        step = 0.1 * self.width / np.sqrt(z.shape[1])
        value, slope = self.target(z)
        for _ in range(CHAIN):
            momentum = rng.standard_normal(z.shape)
            before = np.square(momentum).sum(axis=1) / 2 - value
            there, new, gradient = z, value, slope
            for _ in range(LEAPFROG):
                momentum = momentum + step / 2 * gradient
                there = there + step * momentum
                new, gradient = self.target(there)
                momentum = momentum + step / 2 * gradient
            after = np.square(momentum).sum(axis=1) / 2 - new
            taken = rng.random(len(z)) < np.exp(np.minimum(0, before - after))
            value = np.where(taken, new, value)
            z, slope = (np.where(taken[:, None], a, b) for a, b in ((there, z), (gradient, slope)))
        return z


def _geometry(latents: Latents, k: int, rng: np.random.Generator, *, wide: bool) -> Array:
    """Draws of the geometry in the leading k directions, T the largest or median distance to the nearest other code."""
    n = len(latents.ids)
    span = fit_span(latents, sampler="geometry", spread=1, most=k)
    metric = _metric(span, latents, wide=wide)
    points = metric.chains(metric.centres[rng.integers(n, size=n)], rng).astype(np.float32)
    return np.stack([span.draw(None, point, rng).z for point in points]).astype(np.float64)


def _metric(span: Span, latents: Latents, *, wide: bool) -> Metric:
    everyone = np.arange(len(latents.ids))
    centres = span.points(latents, everyone, scale=span.seen).astype(np.float64)
    variances = np.square(span.noise(latents, everyone, scale=span.seen)).astype(np.float64)
    apart = distances(centres, centres) + np.diag(np.full(len(centres), np.inf))
    return Metric(centres, variances, float(np.quantile(apart.min(axis=1), 1.0 if wide else 0.5)))


if __name__ == "__main__":
    main()
