"""Whether a sample could be a scan: its values, size, labels and ELBO against the range of the training scans.

A sample that could not be one is drawn again. Ranges are wide on purpose: few scans do not show all there is. That a
sample has less contrast than a scan is not judged here, for every decoder's mean has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from medvae.checkpoint.lesion_codes import LESION_CODES, lesion_codes
from medvae.prepare.grid import box_around
from medvae.synthesis import likely
from medvae.synthesis.decoding import is_binary
from medvae.synthesis.pieces import CRUMBS, share_of_largest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.kept import TrainingScans
    from medvae.checkpoint.model import Model
    from medvae.synthesis.generate import Sample

BEYOND = 1.5  # volumes may lie beyond those of the training scans by this factor
VALUES_BEYOND = 0.5  # values by this share of the mean 5-95% range of a scan
_EVERYTHING = (-np.inf, np.inf)

Range = tuple[float, float]


@dataclass(frozen=True)
class Fault:
    """One reason to reject a draw.

    Attributes:
        kind: "non_finite", "empty", "values", "volume", "pieces", "label", "elbo" or "near_copy".
        text: what was found, and what is allowed.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class LabelRange:
    """What is known of one value of the label maps.

    Attributes:
        volume: mL, over the training scans that have it, with the margin.
        always: every training scan has it.
        largest_piece: the smallest share of its volume that may be in one piece.
    """

    volume: Range
    always: bool
    largest_piece: float


@dataclass(frozen=True)
class Plausible:
    """Ranges of the training scans that a model keeps, margins included; unlimited where it keeps none.

    Attributes:
        values: of the 5% and 95% quantiles in the foreground, prepared intensities.
        median: of the median in the foreground.
        volume: of the foreground (of the shape, for binary shapes), mL.
        largest_piece: the smallest share of a binary shape that may be in one piece; 0 for scans that are none.
        labels: by value of the label maps, background excepted; empty where the model keeps none.
        voxel_ml: volume of a voxel of the model's grid, mL.
        binary: scans are binary shapes.
        model: explains decoded samples.
    """

    values: Range
    median: Range
    volume: Range
    largest_piece: float
    labels: dict[int, LabelRange] = field(repr=False)
    voxel_ml: float
    binary: bool
    model: Model = field(repr=False)

    def faults(self, sample: Sample) -> tuple[Fault, ...]:
        """All that speaks against a sample; empty where nothing does."""
        image, inside = sample.image, _tissue(sample.image, sample.mask, binary=self.binary)
        if not np.isfinite(image).all():
            return (Fault("non_finite", "NaN or infinite voxels"),)
        if not inside.any() or np.ptp(image) == 0:
            return (Fault("empty", "no foreground, or one value everywhere"),)
        found = [
            *self._values(image[sample.mask]),
            *_outside("volume", "foreground mL", _ml(inside, self), self.volume),
        ]
        if self.binary:
            found += _outside("pieces", "largest piece", share_of_largest(inside[0]), (self.largest_piece, 1.0))
        if sample.label_map is not None and self.labels:
            found += self._labels(sample.label_map)
        return tuple(found or self._unlikely(sample))

    @cached_property
    def highest(self) -> float:
        """The highest −ELBO per voxel of a decoded sample, nats; measured when it is first needed."""
        return likely.highest(self.model)

    def _unlikely(self, sample: Sample) -> Iterator[Fault]:
        """Asked last, as a network is evaluated; not of altered scans, which need not be what the model has seen."""
        if sample.z is not None and not sample.changed:
            found = likely.negative_elbo(self.model, sample.image, sample.mask, sample.conditions)
            yield from _outside("elbo", "-ELBO per voxel", found, (-np.inf, self.highest))

    def _values(self, values: NDArray[np.float32]) -> Iterator[Fault]:
        p5, p50, p95 = (float(one) for one in np.percentile(values, (5, 50, 95)))
        yield from _outside("values", "5% quantile", p5, self.values)
        yield from _outside("values", "median", p50, self.median)
        yield from _outside("values", "95% quantile", p95, self.values)

    def _labels(self, label_map: NDArray[np.int16]) -> Iterator[Fault]:
        volumes = {value: count * self.voxel_ml for value, count in _counts(label_map).items()}
        if unknown := sorted(volumes.keys() - self.labels.keys()):
            yield Fault("label", f"labels {unknown}, which no training scan has")
        for value, known in self.labels.items():
            if value not in volumes:
                if known.always:
                    yield Fault("label", f"label {value} is missing")
                continue
            yield from _outside("label", f"label {value} mL", volumes[value], known.volume)
            largest = _largest_piece(label_map, value)
            yield from _outside("label", f"label {value} largest piece", largest, (known.largest_piece, 1.0))


def fit(model: Model) -> Plausible:
    """Measure the training scans that the model keeps."""
    training, binary = model.training, is_binary(model)
    voxel_ml = float(abs(np.linalg.det(model.preparation.grid.affine[:3, :3]))) / 1000
    if not training.ids:
        return Plausible(_EVERYTHING, _EVERYTHING, _EVERYTHING, 0.0, {}, voxel_ml, binary, model)
    pairs = list(zip(training.images, training.masks, strict=True))
    volumes = [int(_tissue(image, mask, binary=binary).sum()) * voxel_ml for image, mask in pairs]
    values, median = (_EVERYTHING, _EVERYTHING) if binary else _value_ranges(training)
    largest = min(share_of_largest(image[0] > 0.5) for image, _ in pairs) - CRUMBS if binary else 0.0
    labels = _label_ranges(training, voxel_ml) | _lesion_ranges(model)
    return Plausible(values, median, _wider(volumes), largest, labels, voxel_ml, binary, model)


def _value_ranges(training: TrainingScans) -> tuple[Range, Range]:
    pairs = zip(training.images, training.masks, strict=True)
    quantiles = np.stack([np.percentile(image[mask].astype(np.float32), (5, 50, 95)) for image, mask in pairs])
    margin = VALUES_BEYOND * float((quantiles[:, 2] - quantiles[:, 0]).mean())
    low, high = quantiles.min(axis=0) - margin, quantiles.max(axis=0) + margin
    return (float(low[0]), float(high[2])), (float(low[1]), float(high[1]))


def _label_ranges(training: TrainingScans, voxel_ml: float) -> dict[int, LabelRange]:
    if training.label_maps is None:
        return {}
    counts = [_counts(one) for one in training.label_maps]
    ranges = {}
    for value in sorted({value for one in counts for value in one}):
        having = [row for row, one in enumerate(counts) if value in one]
        largest = min(_largest_piece(training.label_maps[row], value) for row in having)
        volume = _wider([counts[row][value] * voxel_ml for row in having])
        ranges[value] = LabelRange(volume, len(having) == len(counts), largest - CRUMBS)
    return ranges


def _lesion_ranges(model: Model) -> dict[int, LabelRange]:
    """Lesions are many or one, small or large, and no scan has to have one: their labels may be anything."""
    if LESION_CODES not in model.sets:
        return {}
    codes = lesion_codes(model)
    return dict.fromkeys(codes.labels or (codes.value,), LabelRange(_EVERYTHING, always=False, largest_piece=0.0))


def _tissue(image: NDArray[np.floating], mask: NDArray[np.bool_], *, binary: bool) -> NDArray[np.bool_]:
    """The foreground, or the shape; bool `(1, X, Y, Z)`."""
    return np.asarray(mask & (image > 0.5)) if binary else mask


def _ml(inside: NDArray[np.bool_], of: Plausible) -> float:
    return int(inside.sum()) * of.voxel_ml


def _counts(label_map: NDArray[np.int16]) -> dict[int, int]:
    """Voxels of each value but 0."""
    values, counts = np.unique(label_map, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True) if value != 0}


def _largest_piece(label_map: NDArray[np.int16], value: int) -> float:
    """The share of a label's voxels that are in its largest connected piece."""
    inside = (label_map == value)[0]
    return share_of_largest(inside[box_around(inside)])


def _wider(volumes: Sequence[float]) -> Range:
    return min(volumes) / BEYOND, max(volumes) * BEYOND


def _outside(kind: str, what: str, value: float, allowed: Range) -> Iterator[Fault]:
    low, high = allowed
    if not low <= value <= high:
        yield Fault(kind, f"{what} {value:.3g}, allowed {low:.3g} to {high:.3g}")
