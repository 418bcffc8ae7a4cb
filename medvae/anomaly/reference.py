"""What healthy looks like, in numbers: voxelwise mean and spread, sorted healthy scores, p-values. Arrays only.

Prepared intensities and residuals on the model's grid. Where scans are not aligned a voxel is no place, and only the
scores are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from medvae.checkpoint.arrays import ArraySet
from medvae.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model

NAME = "reference"  # of the set in a checkpoint
PRIOR_STRENGTH = 8.0  # how many scans the prior counts for
FLOOR = 0.3  # a voxel's spread is at least this share of the typical one
SMOOTH_MM = 3.0  # variances of neighbours are pooled at this σ: n is small, and spread is smooth


@dataclass(frozen=True, eq=False)
class Normal:
    """Voxelwise normal statistics of healthy scans.

    Attributes:
        mean: float32 `(X, Y, Z)`.
        sd: float32 `(X, Y, Z)`, positive, shrunk and floored; includes the error of the mean.
        n: how many scans.
    """

    mean: NDArray[np.float32] = field(repr=False)
    sd: NDArray[np.float32] = field(repr=False)
    n: int

    def z(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(values − mean) / sd."""
        standard: NDArray[np.float32] = (values - self.mean) / self.sd
        return standard


@dataclass(eq=False)
class Moments:
    """Running sums over masked volumes, from which one of them can be left out again.

    Attributes:
        count: float32 `(X, Y, Z)`, scans with this voxel in their mask.
        total: float64, sum of values.
        square: float64, sum of squared values.
        n: scans added.
    """

    count: NDArray[np.float32] = field(repr=False)
    total: NDArray[np.float64] = field(repr=False)
    square: NDArray[np.float64] = field(repr=False)
    n: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Moments:
        """Sums over nothing."""
        return cls(np.zeros(shape, np.float32), np.zeros(shape), np.zeros(shape))

    def add(self, values: NDArray[np.float32], mask: NDArray[np.bool_], *, sign: int = 1) -> None:
        """Add (or with sign −1 take away) a volume where its mask is True."""
        kept = np.where(mask, values, 0).astype(np.float64)
        self.count += sign * mask
        self.total += sign * kept
        self.square += sign * kept**2
        self.n += sign

    def without(self, values: NDArray[np.float32], mask: NDArray[np.bool_]) -> Moments:
        """The sums as if this volume had not been added."""
        rest = Moments(self.count.copy(), self.total.copy(), self.square.copy(), self.n)
        rest.add(values, mask, sign=-1)
        return rest

    def normal(self, *, spacing: tuple[float, float, float], prior: Normal | None = None) -> Normal:
        """Mean and spread with little noise though n is small.

        Variances are pooled over neighbours (Gaussian σ of `SMOOTH_MM`), shrunk towards a prior and floored:
        σ² ← (n σ² + k σ₀²) / (n + k) and σ ≥ FLOOR·σ̄, k = `PRIOR_STRENGTH`. Without a prior σ₀ is the typical spread
        σ̄. With one (the training scans' own statistics) σ₀ is its pattern at the level of these scans, and the mean is
        shrunk towards its mean likewise. The factor √(1 + 1/n) is the error of the mean (prediction interval of a
        normal).
        """
        n = np.maximum(self.count, 1)
        mean = self.total / n
        variance = np.maximum(self.square - self.total**2 / n, 0) / np.maximum(self.count - 1, 1)
        variance = _pooled(variance, np.maximum(self.count - 1, 0), spacing=spacing)
        seen = self.count >= 2
        typical = float(variance[seen].mean()) if seen.any() else 1.0
        target: Any = typical
        if prior is not None:
            level = typical / float((prior.sd[seen] ** 2).mean()) if seen.any() else 1.0
            target = prior.sd.astype(np.float64) ** 2 * level
            mean = (self.count * mean + PRIOR_STRENGTH * prior.mean) / (self.count + PRIOR_STRENGTH)
        variance = (self.count * variance + PRIOR_STRENGTH * target) / (self.count + PRIOR_STRENGTH)
        known = self.count + (PRIOR_STRENGTH if prior is not None else 0)
        sd = np.sqrt(np.maximum(variance, FLOOR**2 * typical) * (1 + 1 / np.maximum(known, 1)))
        return Normal(mean.astype(np.float32), sd.astype(np.float32), self.n)


def _pooled(
    variance: NDArray[np.float64], weight: NDArray[np.float32], *, spacing: tuple[float, float, float]
) -> NDArray[np.float64]:
    sigma = SMOOTH_MM / np.array(spacing)
    weights = ndimage.gaussian_filter(weight.astype(np.float64), sigma)
    pooled: NDArray[np.float64] = ndimage.gaussian_filter(variance * weight, sigma) / np.maximum(weights, 1e-6)
    return pooled


@dataclass(frozen=True, eq=False)
class Reference:
    """Normative statistics of healthy scans, and what they belong to.

    Attributes:
        image: of prepared training scans, for `atlas`; None where scans are not aligned.
        residual: of the residual that `residual_z` looks at; None where scans are not aligned.
        prior: of the training scans' residuals, towards which `residual` was shrunk; None before calibration.
        scales: by map name, what a map is divided by so that its healthy spread is 1.
        scores: by map name, sorted leave-one-out scores of the healthy scans, float32.
        limits: by map name, the range of the colour scale: 99.9% of healthy foreground voxels lie below.
        options: by map name, the options that scales and scores were made with.
        top: share of the highest voxels that a scan's score is the mean of.
        draws: posterior draws that the maps were averaged over.
        n: healthy scans behind scores and residuals.
        calibrated: whether training had not seen them.
        model_hash: of the weights it was made with.
        preparation_hash: of the preparation.
        scan_hashes: of the healthy scans.
    """

    image: Normal | None
    residual: Normal | None
    prior: Normal | None
    scales: Mapping[str, float]
    scores: Mapping[str, NDArray[np.float32]] = field(repr=False)
    limits: Mapping[str, float]
    options: Mapping[str, Any]
    top: float
    draws: int
    n: int
    calibrated: bool
    model_hash: str
    preparation_hash: str
    scan_hashes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def status(self) -> str:
        """What every output says beside a p or z: "calibrated, n=25", or "uncalibrated, n=18"."""
        return f"{'calibrated' if self.calibrated else 'uncalibrated'}, n={self.n}"

    @property
    def hash(self) -> str:
        """SHA-256 of all that is in it."""
        return self.to_set().hash

    def p_value(self, name: str, score: float) -> float | None:
        """Conformal p of a scan's score: (1 + #{healthy ≥ score}) / (n + 1); None for a map without healthy scores.

        Valid for exchangeable scans that neither training nor the reference has seen (Vovk et al. 2005; Bates et al.,
        Ann. Stat. 2023). It is never below 1/(n + 1).
        """
        healthy = self.scores.get(name)
        if healthy is None or not len(healthy):
            return None
        return float((1 + (healthy >= score).sum()) / (len(healthy) + 1))

    def check(self, *, model_hash: str, preparation_hash: str, path: Path | None = None) -> None:
        """Raise a ModelError where this Reference belongs to another model or preparation."""
        if (self.model_hash, self.preparation_hash) != (model_hash, preparation_hash):
            message = "the Reference belongs to another model or another preparation"
            raise ModelError(message, path=path, hint="run `medvae calibrate` with this model again")

    def to_set(self) -> ArraySet:
        """As a checkpoint keeps it."""
        return ArraySet(self._tensors(), self._facts(), self.status)

    def _tensors(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {f"scores.{name}": values for name, values in self.scores.items()}
        for name in ("image", "residual", "prior"):
            normal: Normal | None = getattr(self, name)
            if normal is not None:
                arrays |= {f"{name}.mean": normal.mean, f"{name}.sd": normal.sd}
        return arrays

    def _facts(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "image_n": None if self.image is None else self.image.n,
            "prior_n": None if self.prior is None else self.prior.n,
            "calibrated": self.calibrated,
            "model_hash": self.model_hash,
            "preparation_hash": self.preparation_hash,
            "scan_hashes": list(self.scan_hashes),
            "scales": dict(self.scales),
            "limits": dict(self.limits),
            "options": dict(self.options),
            "top": self.top,
            "draws": self.draws,
        }

    @classmethod
    def from_set(cls, kept: ArraySet) -> Reference:
        """What `to_set` gave."""
        arrays, facts = kept.arrays, kept.facts
        normals = {
            name: Normal(arrays[f"{name}.mean"], arrays[f"{name}.sd"], facts[key]) if f"{name}.mean" in arrays else None
            for name, key in (("image", "image_n"), ("residual", "n"), ("prior", "prior_n"))
        }
        return cls(
            image=normals["image"],
            residual=normals["residual"],
            prior=normals["prior"],
            scales=facts["scales"],
            scores={name.removeprefix("scores."): a for name, a in arrays.items() if name.startswith("scores.")},
            limits=facts["limits"],
            options=facts["options"],
            top=facts["top"],
            draws=facts["draws"],
            n=facts["n"],
            calibrated=facts["calibrated"],
            model_hash=facts["model_hash"],
            preparation_hash=facts["preparation_hash"],
            scan_hashes=tuple(facts["scan_hashes"]),
        )


def reference_of(model: Model) -> Reference:
    """The Reference of a model.

    Raises:
        ModelError: it has none, or that of another model or preparation.
    """
    if NAME not in model.sets:
        raise ModelError("the model has no Reference", path=model.path, hint="calibrate the model")
    reference = Reference.from_set(model.sets[NAME])
    reference.check(model_hash=model.hash, preparation_hash=model.preparation.hash, path=model.path)
    return reference


def with_reference(model: Model, reference: Reference) -> Model:
    """The same model with another Reference."""
    return model.with_set(NAME, reference.to_set())
