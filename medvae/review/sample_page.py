"""The page of one synthetic scan, made from the files that `augment` wrote for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from medvae.io.files import atomic, write_text
from medvae.io.formats import nifti
from medvae.review.filling import base64_text, filled, json_text
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

FOLDER = "review"
_BITS = 8  # labels with an outline of their own; more of them share colours
_READ = ReadSettings()


@dataclass(frozen=True)
class SamplePage:
    """An HTML page to be written, after all files of its synthetic scan, and the small picture for the worklist.

    Attributes:
        id: of the scan.
        scores: its numbers by name, as the manifest has them.
        facts: its words by name; `image` and `label_map` are its files.
        warnings: what a user of it should know.
    """

    id: str
    scores: Mapping[str, float | None] = field(repr=False)
    facts: Mapping[str, str | None] = field(repr=False)
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, name: str, row: Result | Outcome) -> Self:
        """Of a scan that was generated now, or of one in the manifest."""
        return cls(name, row.scores, row.facts, row.warnings)

    @property
    def name(self) -> str:
        """Path of the page below the output folder."""
        return f"{FOLDER}/scans/{self.id}.html"

    @property
    def thumbnail(self) -> str:
        """Path of its picture for the worklist below the output folder."""
        return f"{FOLDER}/scans/{self.id}.png"

    @property
    def nearest(self) -> str:
        """Path of the real scan that is shown beside it, where one was written (`augment.review_real`)."""
        return nearest_place(self.id)

    def image(self, folder: Path) -> Path | None:
        """Its file; None where it is not there, or a path in the data leads out of the folder."""
        return _inside(folder, self.facts.get("image"))

    def write(self, folder: Path) -> None:
        """Write both below `folder`, atomically.

        Raises:
            ScanError: a file cannot be read, or is not there.
        """
        page, picture = _page(folder, self)
        write_text(folder / self.name, page)
        with atomic(folder / self.thumbnail) as partial:
            partial.write_bytes(picture)


def nearest_place(name: str) -> str:
    """Where the real scan beside the synthetic scan with this id lies, below the output folder."""
    return f"{FOLDER}/nearest/{name}.nii.gz"


def _inside(folder: Path, name: str | None) -> Path | None:
    pure = PurePosixPath(name or "..")
    return None if pure.is_absolute() or ".." in pure.parts or not (folder / pure).is_file() else folder / pure


def _page(folder: Path, page: SamplePage) -> tuple[str, bytes]:
    """The text of a page, and its small picture."""
    image = folder / str(page.facts["image"])
    values, geometry = nifti.read_values(image, _READ)
    inside = values > values.min()  # background is the lowest value: 0, or air
    frame, units = Frame.around(inside, geometry), page.facts.get("units") or ""
    grey = Grey.of(frame.cut(values), frame.cut(inside), units="HU" if units == "HU" else "a.u.")
    window = (0.0, 1.0) if units == "binary" else grey.window(frame.cut(inside))
    data, marks = {"volume_scan": grey.letters(frame.geometry, description="synthetic; for display only")}, {}
    if (labels := _inside(folder, page.facts.get("label_map"))) is not None:
        data["volume_marks"], marks = _labels(labels, frame)
    nearest = folder / page.nearest
    if nearest.is_file():
        data["volume_nearest"], shown = _real(nearest, frame)
    picture = _picture(grey, frame, frame.cut(inside), window)
    facts = {
        **_known(page),
        "key": key_of(image.read_bytes()),
        "units": units,
        "scan": {"step": grey.scale[0], "window": window},
        "nearest": shown if nearest.is_file() else None,
        "grid": {
            "shape": frame.geometry.shape,
            "affine": frame.geometry.affine.tolist(),
            "to_file": frame.to_file.tolist(),
        },
        "marks": marks,
    }
    return filled("sample.html", {"facts": json_text(facts), **data, "montage": base64_text(picture)}), picture


def _known(page: SamplePage) -> dict[str, Any]:
    """What the run knows of the scan."""
    return {
        "id": page.id,
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


def _picture(grey: Grey, frame: Frame, inside: NDArray[np.bool_], window: tuple[float, float]) -> bytes:
    low, high = window
    return three_planes((grey.values - low) / (high - low), inside, spacing=frame.geometry.spacing)
