"""What is in a folder: every scan with its geometry, or the reason why it would be rejected. Headers, or all voxels."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.orientations import aff2axcodes

from medvae.cohort.find import find
from medvae.cohort.names import plural
from medvae.errors import ScanError
from medvae.io import reading
from medvae.run.outcomes import Outcome, Summary, as_outcome, attempt
from medvae.run.work import Progress, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from medvae.cohort.find import Cohort, Wanted
    from medvae.cohort.names import Origin
    from medvae.scan import ScanInfo, ScanRef
    from medvae.settings import Settings

_COLUMNS = ("scan", "format", "shape", "mm", "axes", "type", "modality", "status")
_SHOWN = 4  # grids, splits, labels and words of a condition, the most frequent first


@dataclass(frozen=True)
class Entry:
    """What was found out about one scan.

    Attributes:
        ref: the scan.
        origin: how its subject is known, see `Cohort.origins`.
        outcome: "ok", or why a run could not use it.
        header: what its headers say; None where they alone are refused.
        values: smallest and largest value, where all voxels were read.
        modality: of its header or list, or of the settings.
        folder: where its files lie, below the input.
    """

    ref: ScanRef
    origin: Origin
    outcome: Outcome
    header: ScanInfo | None = None
    values: tuple[float, float] | None = None
    modality: str = ""
    folder: str = ""


@dataclass(frozen=True)
class Report:
    """What a selection holds; nothing has been printed.

    Attributes:
        entries: one per scan, in the order of the cohort.
        ignored: how many files are not scans.
    """

    entries: tuple[Entry, ...]
    ignored: int

    @property
    def summary(self) -> Summary:
        """The outcomes."""
        return Summary(tuple(entry.outcome for entry in self.entries))

    @property
    def exit_code(self) -> int:
        """0 all ok or skipped, 1 some rejected, 2 nothing usable."""
        return self.summary.exit_code

    @property
    def columns(self) -> tuple[str, ...]:
        """Titles of the table; DICOM, whose ids are hashes, has its folder and description."""
        own = ("folder", "description") if self._has_dicom else ()
        return (*_COLUMNS, *(["values"] if self._has_values else []), *own)

    @property
    def rows(self) -> list[list[str]]:
        """The table, one row per scan."""
        return [_cells(entry, values=self._has_values, own=self._has_dicom) for entry in self.entries]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The same as plain data that JSON can hold, one record per scan."""
        return [_record(entry) for entry in self.entries]

    @property
    def lines(self) -> list[str]:
        """The text for a person below the table: what the scans have in common, and what is wrong with some."""
        refs = [entry.ref for entry in self.entries]
        subjects = len({ref.subject for ref in refs})
        lines = [f"{plural(len(refs), 'scan')} of {plural(subjects, 'subject')}"]
        headers = [entry.header for entry in self.entries if entry.header is not None]
        lines += _most("grids", (" at ".join(_grid(header)) + " mm" for header in headers))
        lines += _most("splits", (ref.split for ref in refs if ref.split))
        lines += _most("labels", (ref.label for ref in refs if ref.label))
        conditions = [_condition(name, refs) for name in sorted({name for ref in refs for name in ref.conditions})]
        lines += [f"conditions: {', '.join(conditions)}"] if conditions else []
        lines += self.summary.lines()
        others = f"skipped {plural(self.ignored, 'other file')}, in no format that medvae reads"
        return [*lines, *([others] if self.ignored else [])]

    @property
    def _has_dicom(self) -> bool:
        return any(entry.ref.format == "dicom" for entry in self.entries)

    @property
    def _has_values(self) -> bool:
        return any(entry.values is not None for entry in self.entries)


def run(
    what: Wanted | Iterable[Wanted],
    *,
    settings: Settings,
    check: bool = False,
    on_progress: Callable[[Progress], None] = ignore,
) -> Report:
    """Look at every scan of a selection.

    Args:
        what: where to look, as for `medvae.find`.
        settings: how files are read; a stated `prepare.modality` is compared with the scans'.
        check: read every voxel, masks and label maps included, instead of the headers alone.
        on_progress: is told how many scans were checked.

    Raises:
        InputError: there is no scan among the inputs.
    """
    cohort = find(what, settings.read)
    entries = []
    for done, entry in enumerate(_looks(cohort, settings, check=check), start=1):
        entries.append(entry)
        if check:
            on_progress(Progress("check", done, len(cohort)))
    return Report(tuple(entries), cohort.ignored)


def _looks(cohort: Cohort, settings: Settings, *, check: bool) -> Iterator[Entry]:
    """Each scan's header; with `check` its voxels, mask and label map, too."""
    shared = _shared(cohort)
    for ref, origin in zip(cohort, cohort.origins, strict=True):
        folder = os.path.relpath(ref.path.parent, shared)
        header = as_outcome(attempt(partial(reading.inspect, settings=settings.read), ref), ref, stage="read")
        if isinstance(header, Outcome):
            yield Entry(ref, origin, header, folder=folder)
            continue
        examine = partial(_examine, header=header, settings=settings, check=check)
        found = as_outcome(attempt(examine, ref), ref, stage="read")
        outcome, values = (found, None) if isinstance(found, Outcome) else found
        yield Entry(ref, origin, outcome, header, values, _modality(header, settings), folder)


def _shared(cohort: Cohort) -> Path:
    """The folder that all scans lie below, and that is not one scan's own."""
    parents = {Path(os.path.abspath(ref.path.parent)) for ref in cohort}
    shared = Path(os.path.commonpath(parents))
    return shared.parent if shared in parents else shared


def _examine(
    ref: ScanRef, *, header: ScanInfo, settings: Settings, check: bool
) -> tuple[Outcome, tuple[float, float] | None]:
    """Raises ScanError where a run with these settings could not use the scan."""
    wanted = settings.prepare.modality
    if wanted and header.modality and header.modality != wanted:
        message = f"the scan is {header.modality}, the settings are for {wanted}"
        raise ScanError(message, code="wrong_modality", path=ref.path)
    values, warnings = None, header.warnings
    if check:
        known = ref if header.modality else replace(ref, modality=wanted)  # doubts about a CT's values need it
        scan = reading.read(known, settings.read)
        values, warnings = (float(scan.data.min()), float(scan.data.max())), scan.warnings
        if ref.mask is not None:
            reading.read_foreground(ref.mask, scan.geometry, settings.read)
        if ref.label_map is not None:
            reading.read_label_map(ref.label_map, scan.geometry, settings.read)
    return Outcome(ref.id, "ok", stage="read", warnings=warnings), values


def _modality(header: ScanInfo, settings: Settings) -> str:
    """The modality of the scan, or else of the settings: a NIfTI file does not say what it is."""
    stated = settings.prepare.modality
    return header.modality or (f"{stated} (settings)" if stated else "?")


# ------------------------------------------------------------------------------------------------------------ texts


def _most(title: str, found: Iterable[str]) -> list[str]:
    """One line with the most frequent of them; none where there is nothing."""
    count = Counter(found)
    shown = [f"{n} {name}" for name, n in count.most_common(_SHOWN)]
    more = [f"{len(count) - _SHOWN} more"] if len(count) > _SHOWN else []
    return [f"{title}: {', '.join(shown + more)}"] if shown else []


def _condition(name: str, refs: Iterable[ScanRef]) -> str:
    """A column with its range or its most frequent words, and how many scans have none."""
    there = list(refs)
    values = [ref.conditions[name] for ref in there if name in ref.conditions]
    numbers = [value for value in values if not isinstance(value, str)]
    words = Counter(str(value) for value in values).most_common(_SHOWN)
    what = f"{min(numbers):g} to {max(numbers):g}" if len(numbers) == len(values) else "/".join(w for w, _ in words)
    missing = f", missing in {len(there) - len(values)}" if len(values) < len(there) else ""
    return f"{name} ({what}{missing})"


def _grid(header: ScanInfo) -> tuple[str, str]:
    """Voxels and their size in mm, each along the three axes."""
    geometry = header.geometry
    return "×".join(map(str, geometry.shape)), "×".join(f"{mm:.3g}" for mm in geometry.spacing)


def _axes(header: ScanInfo) -> str:
    """Where the array's axes point to, as R or L, A or P, S or I; how oblique they are, from 1° on."""
    directions = header.geometry.affine[:3, :3] / header.geometry.spacing
    degrees = float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0), -1, 1))).max())
    letters = "".join(aff2axcodes(header.geometry.affine))
    return letters if degrees < 1 else f"{letters} {degrees:.0f}°"


def _cells(entry: Entry, *, values: bool, own: bool) -> list[str]:
    """The row of a scan in the table."""
    outcome, header = entry.outcome, entry.header
    status = outcome.status if outcome.code is None else f"{outcome.status} ({outcome.code})"
    known, described, span = [""] * 5, "", ""
    if header is not None:
        known, described = [*_grid(header), _axes(header), _type(header), entry.modality], header.description
        span = "" if entry.values is None else f"{entry.values[0]:g} to {entry.values[1]:g} {header.units}"
    place = [entry.folder if entry.ref.format == "dicom" else "", described] if own else []
    return [entry.ref.id, entry.ref.format, *known, status, *([span] if values else []), *place]


def _type(header: ScanInfo) -> str:
    """The voxels' type, whatever the order of its bytes."""
    return np.dtype(header.dtype).name


def _record(entry: Entry) -> dict[str, Any]:
    """A scan as plain data."""
    outcome, ref = asdict(entry.outcome), entry.ref
    facts = {key: outcome[key] for key in ("id", "status", "code", "message", "hint", "warnings")}
    facts |= {"format": ref.format, "path": str(ref.path), "files": len(ref.paths)}
    facts |= {"subject": ref.subject, "subject_from": entry.origin, "label": ref.label, "split": ref.split}
    facts |= {"label_map": ref.label_map is not None, "mask": ref.mask is not None, "conditions": dict(ref.conditions)}
    if entry.header is not None:
        geometry = entry.header.geometry
        facts |= {"shape": geometry.shape, "spacing": geometry.spacing, "affine": geometry.affine.tolist()}
        facts |= {"axes": "".join(aff2axcodes(geometry.affine)), "dtype": _type(entry.header)}
        facts |= {"modality": entry.header.modality, "units": entry.header.units, "values": entry.values}
        facts |= {"description": entry.header.description, "folder": entry.folder}
    return facts
