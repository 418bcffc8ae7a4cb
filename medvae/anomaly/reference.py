"""What healthy looks like to a model: by map, its fitted arrays and leave-one-out scores; and p-values from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.anomaly.extremes import Extremes
from medvae.checkpoint.arrays import ArraySet
from medvae.checkpoint.folds import fold_hashes
from medvae.cohort.names import plural
from medvae.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model

    Arrays = Mapping[str, NDArray[Any]]

NAME = "reference"  # of the set in a checkpoint
ENOUGH = 19  # healthy scans: the smallest p, 1/(n + 1), is then 0.05
_TRAITS = "traits of the scans/"  # no map has such a name
_AGAIN = "calibrate the model again"
_FEW = 5  # subjects: thresholds and p of fewer say little
_OF_MAPS = ("scale", "limit", "options")
_FACTS = ("top", "draws", "n", "calibrated", "model_hash", "preparation_hash")


@dataclass(frozen=True, eq=False)
class MapReference:
    """What one map looks like on healthy scans.

    Attributes:
        arrays: what its `fit` gave.
        scale: what its values are divided by, so that their root mean square over healthy scans is 1; 1 for a map that
            is not standardised.
        scores: sorted leave-one-out scores of the healthy scans, float32 `(n,)`.
        limit: 99.9% of healthy foreground voxels lie below; the range of the colour scale.
        options: that all this was computed with.
        extremes: largest regions and quantiles of the leave-one-out maps, in the order of the scans.
    """

    arrays: Arrays = field(repr=False)
    scale: float
    scores: NDArray[np.float32] = field(repr=False)
    limit: float
    options: Mapping[str, Any]
    extremes: Extremes = field(default_factory=Extremes.empty, repr=False)


@dataclass(frozen=True, eq=False)
class Reference:
    """Maps of healthy scans, and which model and scans they are of.

    Attributes:
        maps: by name.
        training: by map name, what `fit` gave for the training scans; calibration starts from it.
        top: share of the highest voxels that a scan's score is the mean of.
        draws: posterior draws that maps were averaged over.
        n: healthy scans.
        calibrated: whether training had not seen them: the folds' training, where they are training scans.
        model_hash: of the weights.
        preparation_hash: of the preparation.
        folds: hashes of the weights of the folds that mapped training scans; () without cross-fitting.
        cross_fitted: how many of the healthy scans are training scans.
        scan_hashes: of the healthy scans.
        traits: of the healthy scans (`medvae.anomaly.traits`), float32 `(n,)` by name.
        statistics_of: hashes of the scans that mean and spread are of, where the healthy scans only give thresholds,
            scores and p (`medvae.anomaly.site`); () where they give all of it.
    """

    maps: Mapping[str, MapReference]
    training: Mapping[str, Arrays] = field(repr=False)
    top: float
    draws: int
    n: int
    calibrated: bool
    model_hash: str
    preparation_hash: str
    folds: tuple[str, ...] = field(default=(), repr=False)
    cross_fitted: int = 0
    scan_hashes: tuple[str, ...] = field(default=(), repr=False)
    traits: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    statistics_of: tuple[str, ...] = field(default=(), repr=False)

    @property
    def status(self) -> str:
        """What every output says beside a p or z, e.g. "calibrated, n=25"; or "uncalibrated", or "cross-fitted".

        Where mean and spread are of other scans it is "thresholds n=4, mean and spread n=20".
        """
        if self.statistics_of:
            return f"thresholds n={self.n}, mean and spread n={len(self.statistics_of)}"
        kind = "uncalibrated" if not self.calibrated else "cross-fitted" if self.folds else "calibrated"
        return f"{kind}, n={self.n}"

    @property
    def in_words(self) -> str:
        """The status, and where the scans of cross-fitting come from."""
        if self.statistics_of:
            return f"thresholds of {self.n} healthy scans, mean and spread of {len(self.statistics_of)} others"
        if not self.folds:
            return self.status
        new = self.n - self.cross_fitted
        how = f"{self.cross_fitted} healthy scans of its training, by cross-fitting ({len(self.folds)} folds)"
        return f"calibrated on {how}" + (f", and on {new} more" if new else "")

    @property
    def behind(self) -> tuple[str, ...]:
        """Hashes of the scans that mean and spread come from."""
        return self.statistics_of or self.scan_hashes

    @property
    def all_hashes(self) -> frozenset[str]:
        """Hashes of the healthy scans, and of those that mean and spread come from."""
        return frozenset((*self.scan_hashes, *self.behind))

    @property
    def least_in_words(self) -> str:
        """The smallest p that this many healthy scans allow."""
        return f"the smallest possible p of a scan is {1 / (self.n + 1):.3f}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning where the subjects behind the thresholds are very few."""
        people = {int(number) for one in self.maps.values() for number in one.extremes.subjects}
        if not self.calibrated or len(people) >= _FEW:
            return ()
        what = f"thresholds and p rest on {plural(len(people), 'healthy subject')}"
        return (f"few_healthy: {what}; with fewer than {_FEW} they say little",)

    @property
    def hash(self) -> str:
        """SHA-256 of all that is in it."""
        return self.to_set().hash

    def p_value(self, name: str, score: float) -> float | None:
        """Conformal p of a scan's score: (1 + #{healthy ≥ score}) / (n + 1); None for a map without healthy scores.

        Valid for exchangeable scans that neither training nor the reference has seen (Vovk et al. 2005; Bates et al.,
        Ann. Stat. 2023). It is never below 1/(n + 1).
        """
        if name not in self.maps or not len(self.maps[name].scores):
            return None
        healthy = self.maps[name].scores
        return float((1 + (healthy >= score).sum()) / (len(healthy) + 1))

    def to_set(self) -> ArraySet:
        """As a checkpoint keeps it; arrays that calibration has left as they were are stored once."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, trained in self.training.items():
            arrays |= {f"{name}/training/{key}": values for key, values in trained.items()}
        for name, one in self.maps.items():
            arrays[f"{name}/scores"] = one.scores
            arrays[f"{name}/masses"] = one.extremes.masses
            arrays[f"{name}/quantiles"] = one.extremes.quantiles
            arrays[f"{name}/subjects"] = one.extremes.subjects
            if one.arrays is not self.training.get(name):
                arrays |= {f"{name}/healthy/{key}": values for key, values in one.arrays.items()}
        arrays |= {f"{_TRAITS}{name}": values for name, values in self.traits.items()}
        facts = {key: getattr(self, key) for key in _FACTS} | {"scan_hashes": list(self.scan_hashes)}
        facts |= (
            {"folds": list(self.folds), "cross_fitted": self.cross_fitted} if self.folds or self.cross_fitted else {}
        )
        facts |= {"statistics_of": list(self.statistics_of)} if self.statistics_of else {}
        facts["maps"] = {name: {key: getattr(one, key) for key in _OF_MAPS} for name, one in self.maps.items()}
        facts["trained"] = sorted(self.training)
        facts["as_trained"] = sorted(name for name, one in self.maps.items() if one.arrays is self.training.get(name))
        return ArraySet(arrays, facts, self.status)

    @classmethod
    def from_set(cls, kept: ArraySet) -> Reference:
        """What `to_set` gave.

        Raises:
            LookupError, TypeError: it is something else.
        """
        facts = kept.facts
        training = {name: _below(f"{name}/training/", kept) for name in facts["trained"]}
        fitted = {
            name: training[name] if name in facts["as_trained"] else _below(f"{name}/healthy/", kept)
            for name in facts["maps"]
        }
        maps = {
            name: MapReference(
                fitted[name],
                scores=kept.arrays[f"{name}/scores"],
                extremes=_extremes(name, kept),
                **{key: one[key] for key in _OF_MAPS},
            )
            for name, one in facts["maps"].items()
        }
        more = {key: facts[key] for key in _FACTS}
        more |= {"folds": tuple(facts.get("folds", ())), "cross_fitted": facts.get("cross_fitted", 0)}
        more["statistics_of"] = tuple(facts.get("statistics_of", ()))
        return cls(maps, training, scan_hashes=tuple(facts["scan_hashes"]), traits=_below(_TRAITS, kept), **more)


def _extremes(name: str, kept: ArraySet) -> Extremes:
    """The extremes of a map; in a set made before subjects were kept, each scan counts as its own."""
    masses, quantiles = kept.arrays[f"{name}/masses"], kept.arrays[f"{name}/quantiles"]
    subjects = kept.arrays.get(f"{name}/subjects", np.arange(len(masses), dtype=np.int32))
    return Extremes(masses, quantiles, subjects)


def _below(prefix: str, kept: ArraySet) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in kept.arrays.items() if name.startswith(prefix)}


def reference_of(model: Model) -> Reference:
    """The Reference of a model.

    Raises:
        ModelError: it has none, or that of another model or preparation.
    """
    if NAME not in model.sets:
        raise ModelError("the model has no Reference", path=model.path, hint="calibrate the model")
    try:
        reference = Reference.from_set(model.sets[NAME])
    except (LookupError, TypeError) as problem:
        message = f"the Reference cannot be read ({type(problem).__name__}: {problem})"
        raise ModelError(message, path=model.path, hint=_AGAIN) from problem
    if (reference.model_hash, reference.preparation_hash) != (model.hash, model.preparation.hash):
        raise ModelError("the Reference belongs to another model or another preparation", path=model.path, hint=_AGAIN)
    if reference.folds not in ((), fold_hashes(model)):
        raise ModelError("the Reference was made with folds that are not the model's", path=model.path, hint=_AGAIN)
    return reference


def with_reference(model: Model, reference: Reference) -> Model:
    """The same model with another Reference."""
    return model.with_set(NAME, reference.to_set())
