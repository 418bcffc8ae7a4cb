"""Scans on one grid, as arrays: what synthetic scans are compared on, and what a small network is trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from medvae.errors import ModelError
from medvae.synthesis.decoding import conditions_of, decode, finish, rows_of_training
from medvae.synthesis.synthetic import SampleJob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared
    from medvae.synthesis.generate import Sample


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Prepared scans of one grid.

    Attributes:
        ids: of the scans.
        subjects: who was scanned.
        classes: of each scan, or None.
        hashes: `scan_hash` of each scan; "" where it was never a file.
        images: float16 `(n, 1, X, Y, Z)`, prepared intensities, background outside the masks.
        masks: bool, the same shape: the foreground.
        label_maps: int16, the same shape; None where not all scans have one.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    classes: tuple[str | None, ...]
    hashes: tuple[str, ...]
    images: NDArray[np.float16] = field(repr=False)
    masks: NDArray[np.bool_] = field(repr=False)
    label_maps: NDArray[np.int16] | None = field(repr=False)

    @classmethod
    def from_prepared(cls, scans: Sequence[Prepared], *, classes: Sequence[str | None]) -> Self:
        """The set of scans that were read and prepared."""
        maps = [one.label_map for one in scans if one.label_map is not None]
        return cls(
            tuple(one.id for one in scans),
            tuple(one.subject for one in scans),
            tuple(classes),
            tuple(one.source_hash for one in scans),
            np.stack([one.image.astype(np.float16) for one in scans]),
            np.stack([one.mask for one in scans]),
            np.stack(maps) if len(maps) == len(scans) else None,
        )

    @classmethod
    def from_samples(cls, samples: Sequence[Sample]) -> Self:
        """The set of synthetic scans that were not written; each is a subject of its own."""
        maps = [one.label_map for one in samples if one.label_map is not None]
        ids = tuple(SampleJob(one.index).id for one in samples)
        return cls(
            ids,
            ids,
            tuple(one.label for one in samples),
            ("",) * len(ids),
            np.stack([one.image.astype(np.float16) for one in samples]),
            np.stack([one.mask for one in samples]),
            np.stack(maps) if len(maps) == len(samples) else None,
        )

    @classmethod
    def from_reconstructions(cls, model: Model) -> Self:
        """The training scans that a model keeps, decoded at their posterior means, with their own label maps.

        Raises:
            ModelError: it keeps none.
        """
        latents, kept = model.latents, model.training
        if not kept.ids:
            raise ModelError("the model keeps no training scans to reconstruct", hint="leave out model=")
        rows = rows_of_training(model)
        decoded = (decode(model, latents.mean[row], conditions_of(model, row)) for row in rows)
        images = [finish(one, mask, model).astype(np.float16) for one, mask in zip(decoded, kept.masks, strict=True)]
        return cls(
            tuple(kept.ids),
            tuple(latents.subjects[row] for row in rows),
            tuple(latents.labels[row] for row in rows),
            ("",) * len(rows),
            np.stack(images),
            kept.masks,
            kept.label_maps,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: ArrayLike) -> Self:
        """The scans in these rows, in this order."""
        at = [int(row) for row in np.asarray(rows, np.intp)]
        ids, subjects, hashes = (tuple(of[row] for row in at) for of in (self.ids, self.subjects, self.hashes))
        classes = tuple(self.classes[row] for row in at)
        maps = None if self.label_maps is None else self.label_maps[at]
        return type(self)(ids, subjects, classes, hashes, self.images[at], self.masks[at], maps)

    @property
    def label_values(self) -> tuple[int, ...]:
        """All values of the label maps and 0, ascending; empty without label maps."""
        if self.label_maps is None:
            return ()
        return tuple(sorted({0, *(int(value) for value in np.unique(self.label_maps))}))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that occur, sorted; empty where a scan has none."""
        known = [one for one in self.classes if one is not None]
        return tuple(sorted(set(known))) if len(known) == len(self) else ()
