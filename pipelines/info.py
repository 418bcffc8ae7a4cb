"""What is in a folder: every scan with its geometry, or the reason why it would be refused. Headers, or all voxels."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.orientations import aff2axcodes

from medvae import console
from medvae.cohort.find import find
from medvae.errors import ScanError
from medvae.io import reading
from medvae.run.outcomes import Outcome, Summary, attempt, settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medvae.scan import ScanInfo, ScanRef, Selection
    from medvae.settings import Settings

_COLUMNS = ("scan", "format", "shape", "mm", "axes", "type", "modality", "status")
_SHOWN = 4  # grids, splits and labels that are told, the most frequent first


@dataclass(frozen=True)
class _Known:
    """What was found out about one scan; no header where that alone is refused, values where they were read."""

    ref: ScanRef
    outcome: Outcome
    header: ScanInfo | None = None
    values: tuple[float, float] | None = None


def run(selection: Selection, *, settings: Settings, check: bool, as_json: bool) -> int:
    """Print what a selection holds, a line a scan; returns the exit code.

    Args:
        selection: where to look.
        settings: how files are read; a stated `prepare.modality` is compared with the scans'.
        check: read every voxel, masks and label maps included, instead of the headers alone.
        as_json: print JSON, one object a scan, instead of the table.

    Raises:
        InputError: there is no scan among the inputs.
    """
    cohort = find(selection, settings.read)
    known = []
    with console.progress(len(cohort.refs), "check") if check else nullcontext() as bar:
        for ref in cohort.refs:
            known.append(_look(ref, settings=settings, check=check))
            if bar is not None:
                bar.advance()
    summary = Summary(tuple(one.outcome for one in known))
    if as_json:
        for one in known:
            console.out(json.dumps(_facts(one), ensure_ascii=False, allow_nan=False))
        return summary.exit_code
    console.table([*_COLUMNS, *(["values"] if check else [])], [_cells(one, check=check) for one in known])
    console.out()
    _tell_all(known)
    summary.report()
    if cohort.ignored:
        console.out(f"{_plural(cohort.ignored, 'other file')} passed over: neither NIfTI nor DICOM")
    return summary.exit_code


def _look(ref: ScanRef, *, settings: Settings, check: bool) -> _Known:
    """One scan's header; with `check` its voxels, mask and label map, too."""
    header = settled(attempt(partial(reading.inspect, settings=settings.read), ref), ref, stage="read")
    if isinstance(header, Outcome):
        return _Known(ref, header)
    found = settled(attempt(partial(_judge, header=header, settings=settings, check=check), ref), ref, stage="read")
    return _Known(ref, found, header) if isinstance(found, Outcome) else found


def _judge(ref: ScanRef, *, header: ScanInfo, settings: Settings, check: bool) -> _Known:
    """Raises ScanError where a run with these settings could not use the scan."""
    wanted = settings.prepare.modality
    if wanted and header.modality and header.modality != wanted:
        message = f"the scan is {header.modality}, the settings are for {wanted}"
        raise ScanError(message, code="wrong_modality", path=ref.path)
    values, warnings = None, header.warnings
    if check:
        scan = reading.read(ref, settings.read)
        values, warnings = (float(scan.data.min()), float(scan.data.max())), scan.warnings
        if ref.mask is not None:
            reading.read_mask(ref.mask, scan.geometry, settings.read)
        if ref.label_map is not None:
            reading.read_label_map(ref.label_map, scan.geometry, settings.read)
    return _Known(ref, Outcome(ref.id, "ok", stage="read", warnings=warnings), header, values)


def _tell_all(known: Sequence[_Known]) -> None:
    """What the scans have in common."""
    subjects = len({one.ref.subject for one in known})
    console.out(f"{_plural(len(known), 'scan')} of {_plural(subjects, 'subject')}")
    grids = Counter(" at ".join(_grid(one.header)) + " mm" for one in known if one.header is not None)
    for title, found in (
        ("grids", grids),
        ("splits", Counter(one.ref.split for one in known if one.ref.split)),
        ("labels", Counter(one.ref.label for one in known if one.ref.label)),
    ):
        shown = [f"{count} {name}" for name, count in found.most_common(_SHOWN)]
        more = [f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        if shown:
            console.out(f"{title}: {', '.join(shown + more)}")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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


def _cells(one: _Known, *, check: bool) -> list[str]:
    """The row of a scan in the table."""
    status = one.outcome.status if one.outcome.code is None else f"{one.outcome.status} ({one.outcome.code})"
    header, known, values = one.header, [""] * 5, ""
    if header is not None:
        known = [*_grid(header), _axes(header), _type(header), header.modality or "?"]
        values = "" if one.values is None else f"{one.values[0]:g} to {one.values[1]:g} {header.units}"
    return [one.ref.id, one.ref.format, *known, status, *([values] if check else [])]


def _type(header: ScanInfo) -> str:
    """The voxels' type, whatever the order of its bytes."""
    return np.dtype(header.dtype).name


def _facts(one: _Known) -> dict[str, Any]:
    """A scan as one JSON object."""
    outcome, ref = asdict(one.outcome), one.ref
    facts = {key: outcome[key] for key in ("id", "status", "code", "message", "hint", "warnings")}
    facts |= {"format": ref.format, "path": str(ref.path), "files": len(ref.paths), "subject": ref.subject}
    facts |= {"label": ref.label, "split": ref.split}
    facts |= {"label_map": ref.label_map is not None, "mask": ref.mask is not None}
    if one.header is not None:
        geometry = one.header.geometry
        facts |= {"shape": geometry.shape, "spacing": geometry.spacing, "affine": geometry.affine.tolist()}
        facts |= {"axes": "".join(aff2axcodes(geometry.affine)), "dtype": _type(one.header)}
        facts |= {"modality": one.header.modality, "units": one.header.units, "values": one.values}
    return facts
