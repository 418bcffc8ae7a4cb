"""A synthetic scan as it is given to a user and written to disk, and the set that it belongs to."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.errors import ScanError
from medvae.io.nifti.file import NiftiFile
from medvae.run.record import RESEARCH_USE
from medvae.run.work import JsonFile, Progress, Result, ignore
from medvae.synthesis import copies, provenance
from medvae.synthesis.base_layout import relative
from medvae.synthesis.plausible import Fault
from medvae.synthesis.rows import CONDITION
from medvae.synthesis.to_scan import nearest_file, own_mask, to_scan

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from medvae.run.work import File
    from medvae.scan import Scan
    from medvae.synthesis.base_layout import BaseLayout, Places
    from medvae.synthesis.copies import CopyCheck, CopyScreen
    from medvae.synthesis.draws import ConditionValues
    from medvae.synthesis.generate import Sample, Synthesizer
    from medvae.synthesis.plausible import Plausible

log = logging.getLogger(__name__)
DRAWS = 10  # of one sample, at most: a sampler that is rejected this often has nothing else to offer
COPY = "a near-copy of a training scan"


@dataclass(frozen=True)
class SampleJob:
    """The work of generating one sample.

    Attributes:
        index: number of the sample in its set, from 0.
    """

    index: int

    @property
    def id(self) -> str:
        """Name of the sample and of its files, e.g. "synthetic-00000"."""
        return f"synthetic-{self.index:05d}"

    def fingerprint(self) -> str:
        """A hash of the number alone: no file is read, and everything else is a part of the run's identity."""
        return sha256(f"sample {self.index}".encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Synthetic:
    """One synthetic scan; `medvae.synthesize` generates it.

    Attributes:
        id: name of the sample and of its files, e.g. "synthetic-00000".
        image: `image.data` is float32 `(X, Y, Z)` along R, A, S, in the unit of the training scans (`image.units`);
            `image.geometry` is its grid in RAS+ mm.
        label_map: int16 `(X, Y, Z)` on the same grid; None where the sampler cannot provide one.
        label: its class; None where the training scans have none.
        conditions: what it was decoded with, by column; empty for a model without conditions.
        sources: ids of the training scans that it was derived from; may be empty.
        source_subject: the training subject that it was derived from; None where there is none, or more than one.
        audit: distances to the nearest training scans, and whether it is a near-copy of one.
        faults: what makes it implausible; empty unless `augment.reject=false`.
        record: how it was generated: the contents of its JSON sidecar.
        sample: the same on the model's grid, in prepared intensities, with its latent code.
        layout: how its files are written (`augment.layout`).

    Example:
        >>> sample = next(medvae.synthesize("model", 1))
        >>> sample.id, sample.image.data.shape == sample.image.geometry.shape, sample.audit.copy in (True, False)
        ('synthetic-00000', True, True)
    """

    id: str
    image: Scan
    label_map: NDArray[np.int16] | None = field(repr=False)
    label: str | None
    conditions: ConditionValues
    sources: tuple[str, ...]
    source_subject: str | None
    audit: CopyCheck
    faults: tuple[Fault, ...]
    record: dict[str, Any] = field(repr=False)
    sample: Sample = field(repr=False)
    layout: BaseLayout = field(repr=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user of this sample should know."""
        copy = (COPY,) if self.audit.copy else ()
        return (*copy, *(f"implausible: {one.text}" for one in self.faults if one.kind != "near_copy"))

    def files(self) -> tuple[File, ...]:
        """Its files, as `medvae augment` writes them: image, JSON sidecar, label map and mask if there are any."""
        places, geometry, mask = self.places, self.image.geometry, self.mask
        text = f"synthetic ({self.record['sampler']}), {self.record['units']}"
        image = self.layout.image(self.id, self.image, description=text)
        files: list[File] = [*image, JsonFile(places.sidecar, self.layout.record(self.record))]
        if self.label_map is not None:
            labels = self.layout.labels(self.label_map)
            files.append(NiftiFile(places.label_map, labels, geometry, "synthetic, label map"))
        if mask is not None:
            files.append(NiftiFile(places.mask, mask.astype(np.uint8), geometry, "synthetic, mask"))
        return tuple(files)

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """Its foreground `(X, Y, Z)`, on the grid of the image; None where preparation finds it in the image."""
        return own_mask(self.sample, self.layout.synthesizer.model)

    @property
    def places(self) -> Places:
        """Where its files lie below the folder of its set."""
        return self.layout.places(self.id)

    def save(self, folder: Path | str) -> Path:
        """Write its files below a folder, in the layout of the settings; returns the folder.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        for file in self.files():
            file.write(Path(folder))
        return Path(folder)

    def result(self) -> Result:
        """Its files and its row of the tables, as plain data."""
        facts = {"class": self.label, "subject": self.source_subject or self.id, "sources": ";".join(self.sources)}
        facts |= {"source_subject": self.source_subject, "image": self.places.image}
        facts |= {"sampler": self.record["sampler"], "units": self.image.units}
        facts |= {"label_map": None if self.label_map is None else self.places.label_map}
        facts |= {"mask": None if self.mask is None else self.places.mask}
        facts |= {"shares": ";".join(f"{one:.3g}" for one in provenance.donor_shares(self.sample))}
        facts |= {"rejected": ";".join(one["kind"] for one in self.record["rejected"])}
        scores = {"index": self.sample.index, "draws": self.sample.attempt + 1, **self.audit.scores}
        for name, value in self.conditions.items():
            if isinstance(value, str):
                facts[CONDITION + name] = value
            else:
                scores[CONDITION + name] = value
        return Result(self.files(), scores, {**facts, **self.audit.facts}, self.warnings)

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in self.image.geometry.shape)
        facts = [self.id, f"{shape} {self.image.modality or 'scan'} in {self.image.units}"]
        facts += [] if self.label is None else [f"class {self.label}"]
        facts += [f"{name} {value}" for name, value in self.conditions.items()]
        return f"Synthetic({'; '.join([*facts, *self.warnings])})"


@dataclass(frozen=True, eq=False)
class Accepted:
    """A draw that is taken.

    Attributes:
        sample: the draw.
        faults: what speaks against it; empty unless `augment.reject=false`.
        rejected: why each of the draws before was rejected.
        audit: its comparison with the training scans; None where it was not needed to accept it.
    """

    sample: Sample
    faults: tuple[Fault, ...]
    rejected: tuple[Fault, ...]
    audit: CopyCheck | None


@dataclass(frozen=True, eq=False)
class SyntheticSet:
    """All synthetic scans of one model, settings and seed; each is generated when it is asked for.

    Attributes:
        synthesizer: generates samples on the model's grid.
        plausible: the ranges that they have to lie in.
        layout: how they are written.
        on_progress: called while the copy screen is fitted.
    """

    synthesizer: Synthesizer
    plausible: Plausible
    layout: BaseLayout
    on_progress: Callable[[Progress], None] = ignore

    @cached_property
    def screen(self) -> CopyScreen:
        """Compares samples with the training scans; fitted when it is first needed."""
        synthesizer = self.synthesizer
        return copies.fit(synthesizer.model, copies=synthesizer.copies(), on_progress=self.on_progress)

    def fit_screen_if_needed(self) -> None:
        """Fit the copy screen where samples are accepted by it, as the first one tells; otherwise do nothing."""
        if self.synthesizer.settings.reject:
            first = self.synthesizer.sample(0)
            _ = None if provenance.is_derived(first, self.synthesizer.model) else self.screen

    def scan(self, index: int) -> Synthetic:
        """Scan number `index`, from 0; independent of all others.

        Raises:
            ScanError: `implausible`, where all draws were rejected.
        """
        accepted = self.accepted(index)
        return self._synthetic(accepted, accepted.audit or self._check(accepted.sample))

    def beside(self, one: Synthetic) -> tuple[File, ...]:
        """Its nearest training scan, for its page (`augment.review_real`); nothing where it is unknown."""
        if not self.synthesizer.settings.review_real or one.audit.image is None:
            return ()
        return (nearest_file(one.id, one.sample, self.synthesizer.model, nearest=one.audit.image.id),)

    def accepted(self, index: int) -> Accepted:
        """The first draw of a sample that is not rejected.

        One that is rejected is drawn again, of the same class, as part of the same sample: which draw is taken depends
        on nothing but its number.

        Raises:
            ScanError: `implausible`, where all draws were rejected.
        """
        rejected: list[Fault] = []
        reject = self.synthesizer.settings.reject
        for attempt in range(DRAWS if reject else 1):
            sample = self.synthesizer.sample(index, attempt=attempt)
            faults, audit = self._faults(sample)
            if not faults or not reject:
                return Accepted(sample, faults, tuple(rejected), audit)
            log.info("%s: draw %d rejected: %s", SampleJob(index).id, attempt + 1, _text(faults))
            rejected.append(faults[0])
        message = f"all {DRAWS} draws were rejected; the last one: {_text(faults)}"
        raise ScanError(message, code="implausible")

    def _faults(self, sample: Sample) -> tuple[tuple[Fault, ...], CopyCheck | None]:
        """What is wrong with a draw, and its audit if it was needed.

        A draw that is derived from a single subject, or from donors that are named with their shares, is said to be so,
        and is not a copy.
        """
        faults = self.plausible.faults(sample)
        if faults or provenance.is_derived(sample, self.synthesizer.model):
            return faults, None
        audit = self._check(sample)
        return ((Fault("near_copy", f"near-copy of {audit.copied}"),) if audit.copy else ()), audit

    def _check(self, sample: Sample) -> CopyCheck:
        return self.screen.check(sample.image, sample.mask, sample.z)

    def _synthetic(self, accepted: Accepted, audit: CopyCheck) -> Synthetic:
        sample, model = accepted.sample, self.synthesizer.model
        image, label_map = to_scan(sample, model)
        one = SampleJob(sample.index).id
        return Synthetic(
            id=one,
            image=image,
            label_map=label_map,
            label=sample.label,
            conditions=sample.conditions,
            sources=sample.sources,
            source_subject=provenance.source_subject(sample, model),
            audit=audit,
            faults=accepted.faults,
            record={
                **self._record(one, sample, audit, with_label_map=label_map is not None),
                "rejected": [asdict(fault) for fault in accepted.rejected],
            },
            sample=sample,
            layout=self.layout,
        )

    def _record(self, one: str, sample: Sample, audit: CopyCheck, *, with_label_map: bool) -> dict[str, Any]:
        places = self.layout.places(one)
        beside = relative(places.label_map, Path(places.sidecar).parent)
        label_map = beside if with_label_map else provenance.no_label_maps(self.synthesizer)
        return {
            "id": one,
            "synthetic": True,
            "notice": RESEARCH_USE,
            **provenance.describe(sample, self.synthesizer),
            "label_map": label_map,
            "audit": {**audit.facts, **audit.scores, **self.screen.thresholds},
        }


def _text(faults: tuple[Fault, ...]) -> str:
    return "; ".join(one.text for one in faults)
