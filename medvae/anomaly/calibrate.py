"""Making a Reference: the healthy statistics of all maps, and their leave-one-out scores.

Every map is fitted to sums of what its `statistics` gives for each healthy scan; a map that uses another one waits
until that one is fitted. A last pass takes the scans of each subject out of the sums again, maps them against the rest,
and notes score, spread, upper quantiles and largest regions: nobody is ever compared with themselves. Maps that count
how rare the values of others are take a subject's own counts out; those of the rest were made with that subject in
their means and spreads, once.

In cross-fitting scans are mapped by several networks (`medvae.anomaly.crossfit`). What a network's own training scans
were like belongs to that network: a scan that it has left out is not among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from medvae.anomaly.anomaly_map import AnomalyMap, ScanMaps
from medvae.anomaly.base_map import BaseMap, Healthy, MapArrays
from medvae.anomaly.by_subject import BySubject
from medvae.anomaly.configured import configured, usable, with_defaults
from medvae.anomaly.inference import infer
from medvae.anomaly.options import check_maps, check_options, kept_training, training_statistics
from medvae.anomaly.reference import Reference, with_reference
from medvae.anomaly.seen import LIMIT, Seen
from medvae.anomaly.traits import scan_traits
from medvae.run.work import Progress, ignore
from medvae.statistics import Moments

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.anomaly.base_map import Arrays
    from medvae.anomaly.by_subject import Inferences
    from medvae.anomaly.inference import Inference
    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared
    from medvae.settings import DetectSettings

__all__ = [
    "LIMIT",
    "PreparedScans",
    "Seen",
    "Statistics",
    "check_maps",
    "make_reference",
    "reference_from",
    "uncalibrated",
    "with_training",
]


class PreparedScans(Protocol):
    """Prepared scans by number: a list, or files that are read when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Prepared: ...


@dataclass(frozen=True, eq=False)
class _Inferred:
    """What a model makes of prepared scans, anew each time it is asked for: one scan is in memory at a time."""

    model: Model
    scans: PreparedScans
    draws: int

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int, /) -> Inference:
        return infer(self.model, self.scans[index], draws=self.draws)


def make_reference(
    model: Model,
    scans: PreparedScans,
    *,
    calibrated: bool,
    names: Sequence[str] | None = None,
    detect: DetectSettings | None = None,
    on_progress: Callable[[Progress], None] = ignore,
) -> Reference:
    """The Reference of a model from healthy scans.

    Args:
        model: the Reference that it has, if any, gives the statistics of the training scans. While a model is being
            trained it has none, and these scans are the training scans.
        scans: healthy ones, prepared for the model; each is asked for three or four times.
        calibrated: whether training had not seen these scans.
        names: of the maps; if None, all that the model can have, costly ones only where `detect.maps` names them. Maps
            that they use come along.
        detect: options of the maps, draws, and what makes a score; the model's settings if None.
        on_progress: called after each scan of each pass.

    Raises:
        SettingsError: an unknown map or option, or another value of an option that is fixed by training.
    """
    detect = detect or model.settings.detect
    found = _Inferred(model, scans, detect.draws)
    return reference_from(model, found, calibrated=calibrated, names=names, detect=detect, on_progress=on_progress)


def reference_from(
    model: Model,
    inferences: Inferences,
    *,
    calibrated: bool,
    folds: Sequence[Model] = (),
    names: Sequence[str] | None = None,
    detect: DetectSettings | None = None,
    on_progress: Callable[[Progress], None] = ignore,
) -> Reference:
    """`make_reference` of what the model has made of the scans already, with the draws of `detect`.

    Args:
        model: whose Reference it is.
        inferences: of the healthy scans; those that are not the model's are of one of the `folds`.
        calibrated: whether training had not seen these scans; for the scans of a fold, whether the fold had not.
        folds: models that were trained without a part of the scans, each with the statistics of its training scans.
        names: of the maps.
        detect: options of the maps, and what makes a score.
        on_progress: called after each scan of each pass.
    """
    detect = detect or model.settings.detect
    names = usable(model, detect.maps) if names is None else names
    methods = configured(names, detect.options)
    if calibrated:
        check_options(model, detect, names=names)
    before, kept = model.settings.detect, kept_training(model) if calibrated else {}
    training = training_statistics(kept, methods, detect=detect, before=before)
    own = {fold: training_statistics(kept_training(fold), methods, detect=detect, before=before) for fold in folds}
    statistics = Statistics(methods, model.preparation.grid.spacing, training, folds=own)
    steps = BySubject(inferences, (len(statistics.passes()) + 1) * len(inferences), on_progress)
    statistics.fit_to(steps)
    seen = {name: Seen() for name in methods}
    hashes, traits, people = [], [], []
    for scans in steps:
        for inference, left_out in zip(scans, statistics.without_all(scans), strict=True):
            _note(inference, left_out, methods, seen, top=detect.top)
            traits.append(scan_traits(inference))
            hashes.append(inference.prepared.source_hash)
            people.append(inference.prepared.subject)
    seen = {name: one.of(steps.places) for name, one in seen.items()}
    subjects = numbered(people)[steps.places]
    voxel_ml = model.preparation.grid.voxel_volume / 1000
    maps = {
        name: seen[name].reference(
            statistics.arrays[name],
            with_defaults(name, detect.options),
            scale=seen[name].scale if method.STANDARDISED else 1.0,
            subjects=subjects,
            voxel_ml=voxel_ml,
        )
        for name, method in methods.items()
    }
    return Reference(
        maps=maps,
        training=kept if calibrated else {name: one.arrays for name, one in maps.items() if one.arrays},
        top=detect.top,
        draws=detect.draws,
        n=len(inferences),
        calibrated=calibrated,
        model_hash=model.hash,
        preparation_hash=model.preparation.hash,
        folds=tuple(fold.hash for fold in folds),
        scan_hashes=tuple(hashes[place] for place in steps.places),
        traits=by_trait([traits[place] for place in steps.places]),
    )


def numbered(subjects: Sequence[str]) -> NDArray[np.int32]:
    """A number for each subject, by scan."""
    return np.unique(subjects, return_inverse=True)[1].astype(np.int32)


def by_trait(traits: Sequence[Mapping[str, float]]) -> dict[str, NDArray[np.float32]]:
    """Traits of scans, by name."""
    return {name: np.array([one[name] for one in traits], np.float32) for name in (traits[0] if traits else ())}


def _note(
    inference: Inference,
    maps: Mapping[str, MapArrays],
    methods: Mapping[str, BaseMap],
    seen: Mapping[str, Seen],
    *,
    top: float,
) -> None:
    """Note what the maps of a scan against those of all other subjects look like."""
    for name, one in seen.items():
        one.note(AnomalyMap(name, maps[name].map, methods[name].UNIT), inference.foreground, top=top)


def uncalibrated(model: Model, scans: PreparedScans, *, on_progress: Callable[[Progress], None] = ignore) -> Model:
    """A model with its first Reference, from scans that training has seen."""
    return with_reference(model, make_reference(model, scans, calibrated=False, on_progress=on_progress))


def with_training(model: Model, scans: PreparedScans, *, on_progress: Callable[[Progress], None] = ignore) -> Model:
    """A model with the statistics of its training scans and no more: no map of theirs is looked at, as a fold needs."""
    detect = model.settings.detect
    found = _Inferred(model, scans, detect.draws)
    statistics = Statistics(configured(usable(model, detect.maps), detect.options), model.preparation.grid.spacing, {})
    statistics.fit_to(BySubject(found, len(statistics.passes()) * len(found), on_progress))
    reference = Reference(
        maps={},
        training={name: arrays for name, arrays in statistics.arrays.items() if arrays},
        top=detect.top,
        draws=detect.draws,
        n=len(scans),
        calibrated=False,
        model_hash=model.hash,
        preparation_hash=model.preparation.hash,
    )
    return with_reference(model, reference)


class Statistics:
    """What all maps are fitted to: sums over healthy scans, from which one of them can be left out again.

    Args:
        methods: used maps before those that use them.
        spacing: voxel size, mm.
        training: by map name, what `fit` gave for the training scans; empty while they are the healthy scans.
        folds: the same of the training scans of each fold, for the scans that it maps.

    Attributes:
        methods: the maps.
        arrays: what `fit` gave, by map name, so far.
    """

    def __init__(
        self,
        methods: Mapping[str, BaseMap],
        spacing: tuple[float, float, float],
        training: Mapping[str, Arrays],
        *,
        folds: Mapping[Model, Mapping[str, Arrays]] | None = None,
    ) -> None:
        self.methods, self._spacing, self._training, self._folds = methods, spacing, training, folds or {}
        self._kept = {name for name, method in methods.items() if self._keeps(method) and name in training}
        summed = {name for name, method in methods.items() if type(method).statistics is not BaseMap.statistics}
        self._moments: dict[str, dict[str, Moments]] = {name: {} for name in methods if name in summed - self._kept}
        self.arrays: dict[str, Arrays] = {name: training[name] for name in self._kept}
        self.fit([name for name in methods if name not in summed])

    def _keeps(self, method: BaseMap) -> bool:
        """Whether the arrays of a network's training scans stay: codes of several networks cannot be summed."""
        return method.KEEPS_TRAINING or (method.OF_ONE_NETWORK and bool(self._folds))

    def fit_to(self, subjects: Iterable[Sequence[Inference]]) -> None:
        """Fit all maps to the scans of healthy subjects, which are run over once for each of the passes."""
        for names in self.passes():
            for scans in subjects:
                self.add_all(scans, names)
            self.fit(names)

    def passes(self) -> list[list[str]]:
        """Names of the maps that are summed in each pass over the scans: those that they use come before them."""
        place: dict[str, int] = {}
        for name, method in self.methods.items():
            used = [place[one] + (one in self._moments) for one in method.USES]
            place[name] = max(used, default=0)
        numbers = sorted({place[name] for name in self._moments})
        return [[name for name in self._moments if place[name] == number] for number in numbers]

    def add(self, inference: Inference, names: Sequence[str]) -> None:
        """`add_all` of a subject's only scan."""
        self.add_all([inference], names)

    def add_all(self, scans: Sequence[Inference], names: Sequence[str]) -> None:
        """Add the scans of a subject to the sums of some maps; those that they use are fitted already.

        These are fitted to all scans, whether a scan is added or left out; or always to those of the other subjects
        (`USES_LEFT_OUT`).
        """
        rest = self._rest(scans, {one for name in names for one in self._behind(name)})
        for inference in scans:
            for name, arrays in self._added(inference, names, rest).items():
                for key, values in arrays.items():
                    sums = self._moments[name].setdefault(key, Moments.empty(values.shape))
                    sums.add(values, _mask(values, inference))

    def fit(self, names: Sequence[str]) -> None:
        """Fit some maps to their sums over all scans."""
        for name in names:
            self.arrays[name] = self._fitted(name, self._moments.get(name, {}), self._training)

    def without(self, inference: Inference) -> Mapping[str, MapArrays]:
        """By map name, what `fit` gives for the sums over all scans but one that was added, and the map of that one."""
        return next(self.without_all([inference]))

    def without_all(self, scans: Sequence[Inference]) -> Iterator[Mapping[str, MapArrays]]:
        """The same for each scan of a subject, whose scans are left out together: another one is no stranger's."""
        rest = self._rest(scans, self._moments)
        return (ScanMaps(inference, self.methods, arrays=rest).arrays for inference in scans)

    def _rest(self, scans: Sequence[Inference], names: Collection[str]) -> dict[str, Arrays]:
        """What `fit` gives for the sums over the other subjects, for some maps; the arrays of the others stay."""
        rest, trained = self._arrays(scans[0]), self._trained(scans[0])
        for level in self.passes():
            left = {name: dict(self._moments[name]) for name in level if name in names}
            for inference in scans if left else ():
                for name, arrays in self._added(inference, left, rest).items():
                    moments = left[name]
                    left[name] = {key: moments[key].without(one, _mask(one, inference)) for key, one in arrays.items()}
            rest |= {name: self._fitted(name, moments, trained) for name, moments in left.items()}
        return rest

    def _added(self, inference: Inference, names: Iterable[str], rest: Mapping[str, Arrays]) -> dict[str, Arrays]:
        """What is summed of a scan by some maps, with the arrays for its subject where they want these."""
        known, other = (ScanMaps(inference, self.methods, arrays=one) for one in (self._arrays(inference), rest))
        return {
            name: self._of(inference, name, (other if self.methods[name].USES_LEFT_OUT else known).arrays[name].used)
            for name in names
        }

    def _behind(self, name: str) -> set[str]:
        """The maps that a map wants as of the other subjects: those that it uses, and those that these use."""
        return self._below(name) if self.methods[name].USES_LEFT_OUT else set()

    def _below(self, name: str) -> set[str]:
        uses = self.methods[name].USES
        return {*uses, *(one for other in uses for one in self._below(other))}

    def _trained(self, inference: Inference) -> Mapping[str, Arrays]:
        """What `fit` gave for the training scans of the network that maps a scan."""
        return self._folds.get(inference.model, self._training)

    def _arrays(self, inference: Inference) -> dict[str, Arrays]:
        """The arrays so far, those of training scans from the network that maps a scan."""
        own = self._trained(inference)
        return {**self.arrays, **{name: own[name] for name in self._kept}}

    def _of(self, inference: Inference, name: str, used: Mapping[str, MapArrays]) -> Arrays:
        """What a map sums of a scan."""
        method = self.methods[name]
        return method.statistics(inference, MapArrays(method, inference, arrays={}, used=used))

    def _fitted(self, name: str, moments: Mapping[str, Moments], training: Mapping[str, Arrays]) -> Arrays:
        healthy = Healthy(moments, spacing=self._spacing, training=training.get(name))
        return self.methods[name].fit(healthy)


def _mask(values: NDArray[np.generic], inference: Inference) -> NDArray[np.bool_]:
    """Where values count: in the foreground, if they lie on the grid."""
    inside = inference.foreground
    return inside if values.shape[-3:] == inside.shape else np.ones((), bool)
