"""What `evaluate augment` reads: a run of `augment`, and real scans on the same grid; and whose scans they are."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from medvae.cohort import tables
from medvae.cohort.find import find
from medvae.cohort.names import both_forms, digest
from medvae.cohort.rows import COLUMNS
from medvae.errors import InputError, ScanError
from medvae.evaluation.image_set import ImageSet
from medvae.prepare.load import ReadAndPrepare
from medvae.prepare.preparation import Preparation
from medvae.run.work import Progress, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.cohort.find import Wanted
    from medvae.scan import ScanRef
    from medvae.settings import ReadSettings

log = logging.getLogger(__name__)
OVERLAP = "subjects_overlap"  # stable code of the error


@dataclass(frozen=True)
class SyntheticRun:
    """A finished run of `augment`.

    Attributes:
        out: its folder.
        record: `run.json`.
        refs: the samples, as `labels.csv` lists them.
        sources: ids of the training scans that they are derived from.
        trained: ids of the training scans that `audit.csv` lists.
    """

    out: Path
    record: dict[str, Any] = field(repr=False)
    refs: tuple[ScanRef, ...] = field(repr=False)
    sources: frozenset[str] = field(repr=False)
    trained: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def read(cls, out: Path) -> SyntheticRun:
        """The run in a folder, whatever its layout.

        Raises:
            InputError: there is no finished run of `augment`, or it has no sample.
        """
        try:
            record = json.loads((out / "run.json").read_text("utf-8"))
            if record["command"] != "augment":
                raise LookupError
        except (OSError, ValueError, LookupError, TypeError):
            hint = "pass the output folder of augment"
            raise InputError("no finished run of augment", path=out, hint=hint) from None
        listed = out / "labels.csv"
        if not listed.is_file():
            raise InputError("the run has no labels.csv", path=out, hint="run augment again")
        refs = tuple(ref for ref in find(listed) if ref.conditions.get("synthetic") == "yes")
        if not refs:
            raise InputError("no synthetic scan in the run", path=listed, hint="run augment with a larger count")
        return cls(out, record, refs, _sources(listed), _trained(out / "audit.csv"))

    @property
    def known(self) -> frozenset[str]:
        """Ids of all training scans that the run names."""
        return self.sources | self.trained

    def label_maps(self, written: NDArray[np.int16]) -> NDArray[np.int16]:
        """Label maps with the values of the model's, from those of the samples' files: nnU-Net numbers them anew."""
        found = written.copy()
        for value, known in self.record.get("label_values", {}).items():  # older runs do not say: none is changed
            found[written == int(value)] = known
        return found

    def check_model(self, model: Model | None) -> None:
        """Refuse another model than the samples are of: their grid, and whose scans they depend on, would be wrong.

        Raises:
            InputError: it has other weights.
        """
        wanted = self.record.get("identity", {}).get("model", "")
        if model is not None and wanted and model.hash != wanted:
            message = f"the samples are of the model {wanted[:12]}, not of {model.hash[:12]}"
            raise InputError(message, path=self.out, hint="pass the model of this run as model=")

    def preparation(self, model: Model | None) -> Preparation:
        """How real scans were brought onto the grid of the samples.

        Raises:
            InputError: the run is of an older version and does not say.
        """
        if model is not None:
            return model.preparation
        if "prepare" not in self.record:
            hint = "pass model=, or repeat augment with this version"
            raise InputError("run.json has no preparation", path=self.out, hint=hint)
        return Preparation.from_json(self.record["prepare"])

    @property
    def screened(self) -> dict[str, Any]:
        """What the copy screen of the run found."""
        names = ("samples", "copies", "copies_among_real", "derived_from_one_subject", "derived_from_training_scans")
        return {name: self.record.get(name) for name in names}


@dataclass(frozen=True)
class Reader:
    """Reads and prepares real scans, and samples, which lie on the grid already.

    Attributes:
        preparation: of real scans.
        read: how files are read.
        on_progress: called after each scan.
    """

    preparation: Preparation
    read: ReadSettings
    on_progress: Callable[[Progress], None] = ignore

    def real(self, what: Wanted | Iterable[Wanted], stage: str) -> ImageSet:
        """Real scans of folders or lists; what cannot be read is left out, with a warning in the log."""
        return self._scans(find(what, self.read).refs, self.preparation, stage)

    def samples(self, run: SyntheticRun) -> ImageSet:
        """The samples of a run: they lie on the grid of the preparation, and are not registered once more."""
        on_grid = self.preparation.settings.model_copy(update={"align": "none", "centre": "image"})
        scans = self._scans(run.refs, Preparation(on_grid), "synthetic scans")
        return scans if scans.label_maps is None else replace(scans, label_maps=run.label_maps(scans.label_maps))

    def _scans(self, refs: Sequence[ScanRef], preparation: Preparation, stage: str) -> ImageSet:
        load = ReadAndPrepare(self.read, preparation)
        found, classes = [], []
        for number, ref in enumerate(refs):
            self.on_progress(Progress(stage, number, len(refs)))
            try:
                found.append(load(ref).prepared)
                classes.append(ref.label)
            except ScanError as problem:
                log.warning("%s is left out (%s): %s", ref.id, problem.code, problem)
        self.on_progress(Progress(stage, len(refs), len(refs)))
        if not found:
            hint = "see the warnings, or look at the scans with `medvae info`"
            raise InputError(f"none of the {stage} can be used", hint=hint)
        return ImageSet.from_prepared(found, classes=classes)


def check_apart(training: ImageSet, held_out: ImageSet, run: SyntheticRun, *, model: Model | None) -> None:
    """Refuse held-out scans that anything was trained on: by subject, by voxels, and by the ids that the run names.

    An id that a named training scan has, too, says nothing: two folders may have files of one name.

    Raises:
        InputError: `subjects_overlap`.
    """
    subjects, hashes = set(training.subjects), set(training.hashes)
    others = run.known - set(training.ids)
    if model is not None:
        subjects |= set(model.latents.subjects)
        hashes |= set(model.latents.hashes)
    people = both_forms(*subjects)
    rows = zip(held_out.ids, held_out.subjects, held_out.hashes, strict=True)
    shared = [one for one, who, mark in rows if both_forms(who) & people or mark in hashes or one in others]
    if shared:
        more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
        message = f"held-out scans of subjects that are trained on: {shared[0]}{more}"
        hint = (
            "leave them out of holdout=, or swap real= and holdout= where they are the wrong way round;"
            " where names only look alike, name lists with a column `subject`"
        )
        raise InputError(message, code=OVERLAP, hint=hint)


def not_in(training: ImageSet, run: SyntheticRun, *, model: Model | None) -> int:
    """How many scans the samples depend on that are not among the real training scans.

    Samples then carry information that real scans alone do not have, and a gain is not due to them. Decoded samples
    have no sources, but depend on all training scans; without the model, `audit.csv` lists these.
    """
    if model is not None:
        return len(set(model.latents.hashes) - set(training.hashes))
    return len(run.known - {*training.ids, *map(digest, training.ids)})  # a model trained with hash_ids knows hashes


def _sources(listed: Path) -> frozenset[str]:
    """The training scans in `labels.csv` that samples are derived from: as text, so that 007 stays 007."""
    rows = tables.parse(tables.read_text(listed), listed, ours=COLUMNS).rows
    said = (row.get("sources", "") for row in rows if row.get("synthetic") == "yes")
    return frozenset(one for each in said for one in each.split(";") if one)


def _trained(audit: Path) -> frozenset[str]:
    """The training scans of `audit.csv`; none where it cannot be read."""
    try:
        with audit.open(encoding="utf-8", newline="") as file:
            return frozenset(row["id"] for row in csv.DictReader(file) if row.get("kind") == "real")
    except (OSError, ValueError, LookupError):
        return frozenset()
