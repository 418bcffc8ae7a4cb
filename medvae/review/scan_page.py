"""The page of one scan, made from the files that `detect` wrote for it: it shows what they hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from medvae.io.files import write_text
from medvae.io.formats import nifti
from medvae.io.reading import read_mask
from medvae.review.filling import FOLDER, base64_text, filled, json_text
from medvae.review.found import Found
from medvae.review.frame import Frame
from medvae.review.grey import Grey
from medvae.review.montage import COLOURS, TOP
from medvae.run.record import RESEARCH_USE
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.scan import Geometry

SCAN, BRAIN = "scan.nii.gz", "template_brain.nii.gz"
PSEUDO_HEALTHY = "pseudo_healthy.nii.gz"
_STEPS = 16  # quantisation steps from 0 to the healthy limit
_MIDDLE = 128  # what stands for 0 in one byte
_MOST = 32000  # the largest number of steps in two bytes
_MARKS = {"brain": 1, "truth": 2, "candidates": 4}  # bits
_READ = ReadSettings()


@dataclass(frozen=True)
class ScanPage:
    """An HTML page to be written, after all files of its scan.

    Attributes:
        id: of the scan: the name of its folder in `scans/`.
        truth: the mask of its lesions, on its grid, where it is known.
        maps: by name, those that are still in memory as they lie in their files, float32 `(X, Y, Z)`; others are read.
    """

    id: str
    truth: Path | None = None
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Path below the output folder."""
        return f"{FOLDER}/scans/{self.id}.html"

    def write(self, folder: Path) -> None:
        """Write it below `folder`, atomically, from what lies in `folder`/scans/<id>.

        Raises:
            ScanError: a file is missing or damaged, or the truth does not lie on the scan's grid.
        """
        write_text(folder / self.name, _page(folder / "scans" / self.id, self))


@dataclass(frozen=True, eq=False)
class _Shown:
    """What a page shows of one scan, in its frame.

    Attributes:
        grey: the scan.
        covered: bool, what was evaluated.
        maps: by name, float32, as in their files.
        marks: uint8, the bits of `_MARKS`.
        pseudo_healthy: the scan without what a map takes out of it, in the steps of `grey`; None if there is none.
    """

    frame: Frame
    grey: Grey
    covered: NDArray[np.bool_] = field(repr=False)
    maps: Mapping[str, NDArray[np.float32]] = field(repr=False)
    marks: NDArray[np.uint8] = field(repr=False)
    pseudo_healthy: Grey | None = None

    @classmethod
    def read(cls, folder: Path, page: ScanPage, *, names: Iterable[str]) -> Self:
        """From the folder of a scan."""
        covered, geometry = nifti.read_values(folder / "coverage.nii.gz", _READ)
        marks = _marks(folder, page.truth, geometry)
        frame = Frame.around((covered > 0) | (marks & ~np.uint8(_MARKS["brain"]) > 0), geometry)
        values = {}
        for name in names:
            known = page.maps.get(name)
            known = nifti.read_values(folder / f"{name}.nii.gz", _READ)[0] if known is None else known
            values[name] = frame.cut(known)
        stored, scale = nifti.read_stored(folder / SCAN, _READ)
        grey = Grey(frame.cut(stored), scale)
        file = folder / PSEUDO_HEALTHY
        other = grey.like(frame.cut(nifti.read_values(file, _READ)[0])) if file.is_file() else None
        return cls(frame, grey, frame.cut(covered) > 0, values, frame.cut(marks), other)


def _marks(folder: Path, truth: Path | None, geometry: Geometry) -> NDArray[np.uint8]:
    """Regions whose outlines are drawn, on the scan's own grid."""
    labels, _ = nifti.read_values(folder / "candidates.nii.gz", _READ)
    marks = np.where(labels > 0, _MARKS["candidates"], 0).astype(np.uint8)
    if (folder / BRAIN).is_file():
        marks |= np.where(nifti.read_values(folder / BRAIN, _READ)[0] > 0, np.uint8(_MARKS["brain"]), np.uint8(0))
    if truth is not None:
        marks |= np.where(read_mask(truth, geometry, _READ), np.uint8(_MARKS["truth"]), np.uint8(0))
    return marks


def _page(folder: Path, page: ScanPage) -> str:
    kept = Found.read(folder)
    found = kept.tree
    shown = _Shown.read(folder, page, names=found["scores"])
    maps, data = [], _volumes(shown)
    for number, (name, one) in enumerate(found["scores"].items()):
        grey = quantised(shown.maps[name], one["limit"])
        data[f"volume_{number}"] = grey.letters(
            shown.frame.geometry, description=f"{name}, steps of {grey.scale[0]:.3g} {one['unit']}"
        )
        above = _share_above(shown.maps[name], shown.covered, one["limit"])
        maps.append({"name": name, **one, "step": grey.scale[0], "above": above})
    montage = folder / "montage.png"
    if montage.is_file():
        data["montage"] = base64_text(montage.read_bytes())
    facts = _facts(found, shown, maps, key=kept.key, truth=page.truth)
    return filled("scan.html", {"facts": json_text(facts), **data})


def _volumes(shown: _Shown) -> dict[str, str]:
    """The scan and the regions that are outlined, as the page holds them."""
    marks = Grey(shown.marks, (1.0, 0.0))
    volumes = {
        "volume_scan": shown.grey.letters(shown.frame.geometry, description="for display only"),
        "volume_marks": marks.letters(shown.frame.geometry, description="outlines"),
    }
    if shown.pseudo_healthy is not None:
        steps = shown.pseudo_healthy.less(shown.grey)  # fewer letters: the noise of the scan is there once
        volumes["volume_pseudo_healthy"] = steps.letters(
            shown.frame.geometry, description="an estimate, less the scan; for display only"
        )
    return volumes


def _facts(
    found: Mapping[str, Any], shown: _Shown, maps: list[dict[str, Any]], *, key: str, truth: Path | None
) -> dict[str, Any]:
    """What the page's script is told: numbers and words, no voxels."""
    grid = {"shape": shown.frame.geometry.shape, "affine": shown.frame.geometry.affine.tolist()}
    bits = {name: bit for name, bit in _MARKS.items() if bool((shown.marks & bit).any())}  # no key to what is not there
    return {
        **found,
        "key": key,
        "notice": RESEARCH_USE,
        "maps": maps,
        "scan": {"step": shown.grey.scale[0], "window": shown.grey.window(shown.covered)},
        "pseudo_healthy": shown.pseudo_healthy is not None,
        "peak": _peak(shown, found["map"]),
        "grid": {**grid, "to_file": shown.frame.to_file.tolist()},
        "marks": {**bits, **({} if truth is None else {"truth": _MARKS["truth"]})},
        "colours": {
            "table": np.rint(COLOURS(np.arange(COLOURS.N))[:, :3] * 255).astype(int).tolist(),
            "top": TOP,
        },
    }


def _share_above(values: NDArray[np.float32], covered: NDArray[np.bool_], limit: float) -> float:
    """Share of the evaluated voxels that 99.9% of healthy voxels lie below: 0.001 on average in healthy scans."""
    return float((values[covered] > limit).mean()) if covered.any() else 0.0


def _peak(shown: _Shown, name: str) -> list[float]:
    """RAS+ mm of the highest voxel that was evaluated: where the cross-hair begins in a scan without candidates."""
    heat = np.where(shown.covered, shown.maps[name], -np.inf) if shown.covered.any() else shown.maps[name]
    at = np.unravel_index(int(heat.argmax()), heat.shape)
    peak: list[float] = shown.frame.geometry.to_world(at).tolist()
    return peak


def quantised(values: NDArray[np.float32], limit: float) -> Grey:
    """A map in whole steps, the same step in all scans of a run: a 16th of the healthy limit.

    One byte holds eight limits, two hold two thousand; only a map that exceeds them gets a larger step.

    Args:
        values: of the map.
        limit: 99.9% of healthy voxels lie below.
    """
    highest = max(float(values.max()), -float(values.min()))
    step = float(np.float32(max(limit / _STEPS, highest / _MOST, 1e-9)))  # as the header holds it
    codes = values / np.float32(step)
    np.rint(codes, out=codes)
    if highest / step < _MIDDLE - 1:
        return Grey((codes + _MIDDLE).astype(np.uint8), (step, -_MIDDLE * step))
    return Grey(codes.astype(np.int16), (step, 0.0))
