"""The same scan twice in one cohort: packed and unpacked (`T1.nii`, `T1.nii.gz`), or DICOM and the NIfTI made from it.

Names and headers choose the pairs, and only their voxels are then compared. Scans that merely look alike stay two.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from medvae.cohort.names import plural
from medvae.errors import ScanError
from medvae.io import reading
from medvae.io.same_voxels import turned_onto

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.cohort.names import Candidate
    from medvae.scan import Geometry, ScanRef
    from medvae.settings import ReadSettings

log = logging.getLogger(__name__)

_COPY = re.compile(  # what file managers and browsers add to a name
    r"^(copy( \(?\d+\)?)? of )+|( ?\(\d+\)|[ _-]+copy( \d+)?)+$", re.IGNORECASE
)
_SAME_VALUES = 2e-4  # largest difference, of the range: a converter may store MR or PET with another slope
_COMPARED = 200_000  # voxels


def without(
    found: Sequence[Candidate], settings: ReadSettings, *, said: Sequence[tuple[object, ...]]
) -> list[Candidate]:
    """The candidates without those that hold the same scan as another one; a warning names both.

    Of a DICOM series and the file made from it the series stays, as the subject that a BIDS name gives the file: the
    other sessions of that person have such names, too.

    Args:
        found: with the subjects that BIDS names give.
        settings: how files are read.
        said: what lists say of each. Rows that say different things of the two are left alone.
    """
    gone: set[int] = set()
    told: list[str] = []
    rows = {id(one): row for one, row in zip(found, said, strict=True)}
    bids: dict[int, Candidate] = {}
    for one, other in (*_by_name(found), *_by_place(found, settings)):
        if {id(one), id(other)} & gone or rows[id(one)] != rows[id(other)]:
            continue
        if _is_same(one.ref, other.ref, settings):
            told.append(f"{_shown(one.ref)} and {_shown(other.ref)}")
            gone.add(id(other))
            if other.origin == "bids" and one.origin not in ("bids", "list"):
                bids[id(one)] = other
    if told:
        more = f" (and {plural(len(told) - 1, 'more pair')})" if len(told) > 1 else ""
        log.warning("%s are the same scan: only the first is used%s", told[0], more)
        log.debug("the same scans: %s", "; ".join(told))
    kept = [one for one in found if id(one) not in gone]
    return [_as_subject_of(bids[id(one)], one) if id(one) in bids else one for one in kept]


def _as_subject_of(named: Candidate, one: Candidate) -> Candidate:
    """A candidate with the subject and the conditions of another one."""
    ref = replace(one.ref, subject=named.ref.subject, subject_given=True, conditions=named.ref.conditions)
    return replace(one, ref=ref, origin=named.origin)


def _by_name(found: Iterable[Candidate]) -> Iterator[tuple[Candidate, Candidate]]:
    """Pairs of files of one folder whose names differ only in how they are packed, or by the mark of a copy."""
    groups: dict[tuple[Path, str], list[Candidate]] = defaultdict(list)
    for one in found:
        if one.ref.format != "dicom":
            groups[one.ref.path.parent, _COPY.sub("", one.label).lower()].append(one)
    for members in groups.values():
        first, *others = sorted(members, key=lambda one: (len(one.label), one.ref.path.name))
        yield from ((first, other) for other in others)


def _by_place(found: Sequence[Candidate], settings: ReadSettings) -> Iterator[tuple[Candidate, Candidate]]:
    """Pairs of a DICOM series and a file of another format whose voxels lie at the same places."""
    series = [one for one in found if one.ref.format == "dicom"]
    if not series or len(series) == len(found):
        return
    places = {id(one): _geometry(one.ref, settings) for one in found}
    for other in found:
        if other.ref.format == "dicom":
            continue
        for one in series:
            there, here = places[id(other)], places[id(one)]
            if there is not None and here is not None and _at_same_places(there, here):
                yield one, other


def _geometry(ref: ScanRef, settings: ReadSettings) -> Geometry | None:
    try:
        return reading.inspect(ref, settings).geometry
    except ScanError:  # said again when it is read
        return None


def _is_same(one: ScanRef, other: ScanRef, settings: ReadSettings) -> bool:
    """Whether two scans have the same values at the same places, whatever the order of their axes."""
    try:
        first, second = reading.read(one, settings), reading.read(other, settings)
    except ScanError:
        return False
    turned = turned_onto(second.data, second.geometry, first.geometry)
    return turned is not None and _same_values(first.data, turned)


def _at_same_places(one: Geometry, other: Geometry) -> bool:
    return turned_onto(np.broadcast_to(np.float32(0), one.shape), one, other) is not None


def _same_values(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether the values are equal, or one a multiple of the other, as after a conversion."""
    step = one.size // _COMPARED + 1
    x, y = (values.ravel()[::step].astype(np.float64) for values in (one, other))
    if np.array_equal(x, y):
        return True
    slope, offset = np.polyfit(x, y, 1)
    return bool(slope > 0 and np.abs(slope * x + offset - y).max() <= _SAME_VALUES * np.ptp(y))


def _shown(ref: ScanRef) -> str:
    if ref.format == "dicom":
        return f"the {len(ref.paths)} DICOM files in {ref.path.parent.name}"
    return "/".join(ref.path.parts[-2:])
