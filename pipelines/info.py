"""What is in a folder: every scan with its geometry, or the reason why it would be refused. Headers, or all voxels."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from nibabel.orientations import aff2axcodes

from medvae import console, io
from medvae.cohort import find
from medvae.errors import ScanError
from medvae.outcomes import Outcome, Summary, attempt, settled

if TYPE_CHECKING:
    from medvae.scan import ScanInfo, ScanRef, Selection
    from medvae.settings import Settings

_COLUMNS = ("scan", "format", "shape", "mm", "axes", "type", "modality", "status")


@dataclass(frozen=True)
class _Known:
    """What was found out about one scan; the header is None where the scan would be refused."""

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
    look = partial(_look, settings=settings, check=check)
    known = []
    with console.progress(len(cohort.refs) if check else 0, "check") as bar:
        for ref in cohort.refs:
            found = settled(attempt(look, ref), ref, stage="read")
            known.append(_Known(ref, found) if isinstance(found, Outcome) else found)
            if check:
                bar.advance()
    summary = Summary(tuple(one.outcome for one in known))
    if as_json:
        for one in known:
            console.out(json.dumps(_facts(one), ensure_ascii=False, allow_nan=False))
        return summary.exit_code
    console.table([*_COLUMNS, *(["values"] if check else [])], [_cells(one, check=check) for one in known])
    console.out()
    for one in known:
        for warning in one.outcome.warnings:
            console.out(f"warning: {one.ref.id}: {warning}")
    summary.report()
    if cohort.ignored:
        console.out(f"{cohort.ignored} files are no scans and were passed over")
    return summary.exit_code


def _look(ref: ScanRef, *, settings: Settings, check: bool) -> _Known:
    header = io.inspect(ref, settings.read)
    wanted = settings.prepare.modality
    if wanted and header.modality and header.modality != wanted:
        message = f"the scan is {header.modality}, the settings are for {wanted}"
        raise ScanError(message, code="wrong_modality", path=ref.path)
    values, warnings = None, header.warnings
    if check:
        scan = io.read(ref, settings.read)
        values, warnings = (float(scan.data.min()), float(scan.data.max())), scan.warnings
        if ref.mask is not None:
            io.read_mask(ref.mask, scan.geometry, settings.read)
        if ref.label_map is not None:
            io.read_label_map(ref.label_map, scan.geometry, settings.read)
    return _Known(ref, Outcome(ref.id, "ok", stage="read", warnings=warnings), header, values)


def _cells(one: _Known, *, check: bool) -> list[str]:
    status = one.outcome.status if one.outcome.code is None else f"{one.outcome.status} ({one.outcome.code})"
    if one.header is None:
        return [one.ref.id, one.ref.format, "", "", "", "", "", status, *([""] if check else [])]
    geometry = one.header.geometry
    shape, spacing = "×".join(map(str, geometry.shape)), "×".join(f"{mm:.3g}" for mm in geometry.spacing)
    axes, modality = "".join(aff2axcodes(geometry.affine)), one.header.modality or "?"
    values = [] if one.values is None else [f"{one.values[0]:g} to {one.values[1]:g} {one.header.units}"]
    return [one.ref.id, one.ref.format, shape, spacing, axes, one.header.dtype, modality, status, *values]


def _facts(one: _Known) -> dict[str, Any]:
    outcome, ref = asdict(one.outcome), one.ref
    facts = {key: outcome[key] for key in ("id", "status", "code", "message", "hint", "warnings")}
    facts |= {"format": ref.format, "files": len(ref.paths), "label": ref.label, "split": ref.split}
    facts |= {"label_map": ref.label_map is not None, "mask": ref.mask is not None}
    if one.header is not None:
        geometry = one.header.geometry
        facts |= {"shape": geometry.shape, "spacing": geometry.spacing, "affine": geometry.affine.tolist()}
        facts |= {"axes": "".join(aff2axcodes(geometry.affine)), "dtype": one.header.dtype}
        facts |= {"modality": one.header.modality, "units": one.header.units, "values": one.values}
    return facts
