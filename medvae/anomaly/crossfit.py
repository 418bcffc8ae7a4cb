"""Calibration by cross-fitting: each training scan is mapped by the fold that has not seen it, others by the model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from medvae.anomaly.calibrate import reference_from
from medvae.anomaly.inference import infer
from medvae.checkpoint.lesion_codes import LESION_CODES, lesion_codes
from medvae.prepare.preparation import Prepared
from medvae.run.work import Progress, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from medvae.anomaly.calibrate import PreparedScans
    from medvae.anomaly.inference import Inference
    from medvae.anomaly.reference import Reference
    from medvae.checkpoint.folds import FoldModel
    from medvae.checkpoint.model import Model
    from medvae.settings import DetectSettings


def cross_fitted(
    model: Model,
    folds: Sequence[FoldModel],
    scans: PreparedScans,
    *,
    new: PreparedScans = (),
    names: Sequence[str] | None = None,
    detect: DetectSettings | None = None,
    on_progress: Callable[[Progress], None] = ignore,
) -> Reference:
    """The Reference of a model from its own training scans, and from further ones.

    Args:
        model: with its Reference of the training scans.
        folds: each with its own; together they leave out every training scan once.
        scans: healthy training scans of the model.
        new: healthy scans that no training has seen.
        names: of the maps; as `make_reference` has them if None.
        detect: options of the maps, draws, and what makes a score; the model's settings if None.
        on_progress: called after each scan of each pass.

    Raises:
        LookupError: a scan that no fold has left out.
        SettingsError: as `make_reference`.
    """
    detect = detect or model.settings.detect
    found = ByFolds(model, folds, scans, new=new, draws=detect.draws)
    reference = reference_from(
        model,
        found,
        calibrated=True,
        folds=[one.model for one in folds],
        names=names,
        detect=detect,
        on_progress=on_progress,
    )
    return replace(reference, cross_fitted=len(scans))


@dataclass(frozen=True, eq=False)
class ByFolds:
    """What the folds make of training scans and the model of new ones, anew each time it is asked for.

    Attributes:
        model: for the new scans.
        folds: together they leave out every training scan once.
        scans: training scans, which come first.
        draws: of the posterior.
        new: scans that no training has seen.
    """

    model: Model
    folds: Sequence[FoldModel]
    scans: PreparedScans
    draws: int
    new: PreparedScans = ()

    def __len__(self) -> int:
        return len(self.scans) + len(self.new)

    def __getitem__(self, index: int) -> Inference:
        if index >= len(self.scans):
            return infer(self.model, self.new[index - len(self.scans)], draws=self.draws)
        prepared = self.scans[index]
        fold = self._unseen[prepared.id]
        known = replace(prepared, conditions=fold.conditions.known(prepared.conditions))
        return infer(fold, known, draws=self.draws)

    @cached_property
    def _unseen(self) -> Mapping[str, Model]:
        """By scan, the fold that has not seen it."""
        return {name: fold.model for fold in self.folds for name in fold.held_out}


@dataclass(frozen=True, eq=False)
class KeptScans:
    """Training scans that a checkpoint keeps, as they were prepared; the way back to their own grids is not kept.

    Attributes:
        model: the checkpoint.
        rows: which of the kept scans.
    """

    model: Model = field(repr=False)
    rows: Sequence[int]

    @classmethod
    def without_lesions(cls, model: Model) -> KeptScans:
        """The kept scans in which no lesions were learned."""
        ill = scans_with_lesions(model)
        return cls(model, [row for row, name in enumerate(model.training.ids) if name not in ill])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Prepared:
        """The prepared scan number `index`."""
        kept, latents, grid = self.model.training, self.model.latents, self.model.preparation.grid
        row = self.rows[index]
        place = list(latents.ids).index(kept.ids[row])
        return Prepared(
            id=kept.ids[row],
            subject=latents.subjects[place],
            image=kept.images[row].astype(np.float32),
            mask=kept.masks[row],
            fov=np.ones_like(kept.masks[row]),
            to_input=np.eye(4),
            grid=grid,
            input=grid,
            intensity=kept.intensities[row],
            units=kept.units,
            source_hash=latents.hashes[place],
            conditions=latents.conditions[place] if latents.conditions else {},
        )


def scans_with_lesions(model: Model) -> frozenset[str]:
    """Ids of the training scans that lesions were learned from: they are not healthy."""
    return frozenset(lesion_codes(model).sources if LESION_CODES in model.sets else ())
