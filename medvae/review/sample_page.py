"""The page of one synthetic scan, made from the files that `augment` wrote for it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from medvae.io.files import write_text
from medvae.io.formats import nifti
from medvae.io.nifti.header import read_header
from medvae.review.filling import FOLDER, base64_text, filled, json_text
from medvae.review.frame import Frame
from medvae.review.grey import Grey
from medvae.review.planes import three_planes
from medvae.review.verdicts import key_of
from medvae.run.record import RESEARCH_USE
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medvae.run.outcomes import Outcome
    from medvae.run.work import Result

_BITS = 8  # labels with an outline of their own; more of them share colours
_READ = ReadSettings()
_HEAD = 200_000  # letters at the begin of a page that its picture lies in
_PICTURE = re.compile(r'id="montage">([A-Za-z0-9+/=]+)<')


@dataclass(frozen=True)
class SamplePage:
    """An HTML page to be written, after all files of its synthetic scan.

    Attributes:
        id: of the scan.
        scores: its numbers by name, as the manifest has them.
        facts: its words by name; `image` and `label_map` are its files.
        warnings: what a user of it should know.
        values: `(X, Y, Z)`, its voxels where they are still in memory as they lie in its file; else they are read.
    """

    id: str
    scores: Mapping[str, float | None] = field(repr=False)
    facts: Mapping[str, str | None] = field(repr=False)
    warnings: tuple[str, ...]
    values: NDArray[np.float32] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, name: str, row: Result | Outcome, *, values: NDArray[np.float32] | None = None) -> Self:
        """The page of a scan that was generated now, or of one in the manifest."""
        return cls(name, row.scores, row.facts, row.warnings, values)

    @property
    def name(self) -> str:
        """Path of the page below the output folder."""
        return f"{FOLDER}/scans/{self.id}.html"

    @property
    def nearest(self) -> str:
        """Path of the real scan that is shown beside it, where one was written (`augment.review_real`)."""
        return nearest_place(self.id)

    def image(self, folder: Path) -> Path | None:
        """Its file; None where it is not there, or a path in the data leads out of the folder."""
        return _inside(folder, self.facts.get("image"))

    def write(self, folder: Path) -> None:
        """Write it below `folder`, atomically.

        Raises:
            ScanError: a file cannot be read, or is not there.
        """
        write_text(folder / self.name, _page(folder, self))

    def picture(self, folder: Path) -> str:
        """The PNG that its page begins with, as base64; "" without a page."""
        try:
            with open(folder / self.name, encoding="utf-8") as file:
                found = _PICTURE.search(file.read(_HEAD))
        except OSError:
            return ""
        return found[1] if found else ""


def nearest_place(name: str) -> str:
    """Where the real scan beside the synthetic scan with this id lies, below the output folder."""
    return f"{FOLDER}/nearest/{name}.nii.gz"


def _inside(folder: Path, name: str | None) -> Path | None:
    pure = PurePosixPath(name or "..")
    return None if pure.is_absolute() or ".." in pure.parts or not (folder / pure).is_file() else folder / pure


def _page(folder: Path, page: SamplePage) -> str:
    image = folder / str(page.facts["image"])
    frame, grey, window = _shown(image, page)
    black, white = ((value - grey.scale[1]) / grey.scale[0] for value in window)
    picture = three_planes(grey.data, spacing=frame.geometry.spacing, limits=(black, white))
    data = {"montage": base64_text(picture)}  # first, where the worklist looks for it
    facts: dict[str, Any] = {"marks": {}, "nearest": None, "scan": {"step": grey.scale[0], "window": window}}
    if (labels := _inside(folder, page.facts.get("label_map"))) is not None:
        data["volume_marks"], facts["marks"] = _labels(labels, frame)
    if (folder / page.nearest).is_file():
        data["volume_nearest"], facts["nearest"] = _real(folder / page.nearest, frame)
    data["volume_scan"] = grey.letters(frame.geometry, description="synthetic; for display only")
    affine, to_file = (one.tolist() for one in (frame.geometry.affine, frame.to_file))
    facts["grid"] = {"shape": frame.geometry.shape, "affine": affine, "to_file": to_file}
    facts |= {**_known(page), "key": key_of(image.read_bytes())}
    return filled("sample.html", {**data, "facts": json_text(facts)})


def _shown(image: Path, page: SamplePage) -> tuple[Frame, Grey, tuple[float, float]]:
    """The part of a scan that is shown, in few bits, and the values shown as black and white."""
    if page.values is None:
        values, geometry = nifti.read_values(image, _READ)
    else:
        values, geometry = page.values, read_header(image, _READ).geometry
    inside = values > values.min()  # background is the lowest value: 0, or air
    frame, units = Frame.around(inside, geometry), page.facts.get("units")
    covered = frame.cut(inside)
    grey = Grey.of(frame.cut(values), covered, units="HU" if units == "HU" else "a.u.")
    return frame, grey, (0.0, 1.0) if units == "binary" else grey.window(covered)


def _known(page: SamplePage) -> dict[str, Any]:
    """What the run knows of the scan."""
    return {
        "id": page.id,
        "units": page.facts.get("units") or "",
        "notice": RESEARCH_USE,
        "warnings": list(page.warnings),
        "scores": {name: _number(value) for name, value in page.scores.items()},
        "facts": dict(page.facts),
    }


def _number(value: float | None) -> float | None:
    """What JSON has no number for is not known."""
    return value if value is not None and math.isfinite(value) else None


def _labels(path: Path, frame: Frame) -> tuple[str, dict[str, int]]:
    """A label map as outlines: the volume, and the bit of each value, the same for a value in all scans of a set."""
    values = frame.cut(nifti.read_values(path, _READ)[0]).astype(np.int64)
    bits = np.where(values > 0, np.left_shift(1, (values - 1) % _BITS), 0).astype(np.uint8)
    each = {str(value): 1 << (value - 1) % _BITS for value in np.unique(values).tolist() if value > 0}
    return Grey(bits, (1.0, 0.0)).letters(frame.geometry, description="outlines"), each


def _real(path: Path, frame: Frame) -> tuple[str, dict[str, Any]]:
    """The nearest real scan on the same grid, and how it is shown."""
    values = frame.cut(nifti.read_values(path, _READ)[0])
    inside = values > values.min()
    grey = Grey.of(values, inside, units="a.u.")
    text = grey.letters(frame.geometry, description="real scan; for display only")
    return text, {"window": grey.window(inside)}
