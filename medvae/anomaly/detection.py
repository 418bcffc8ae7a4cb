"""What `detect` gives for one scan: its maps on its own grid, their scores, the files and the picture of them."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from html import escape
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.image import imread

from medvae.io.nifti.file import NiftiFile, described
from medvae.prepare.native import evaluated_ml
from medvae.review.found import FINDINGS
from medvae.review.grey import Grey
from medvae.review.montage import PEAKS, Montage
from medvae.review.scan_page import BRAIN, PSEUDO_HEALTHY, SCAN
from medvae.review.thumbnail import Thumbnail
from medvae.review.worklist import THUMBNAIL
from medvae.run.folder import RESEARCH_USE
from medvae.run.work import BytesFile, JsonFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from medvae.anomaly.base_map import Unit
    from medvae.anomaly.candidates import Candidates
    from medvae.review.montage import Picture
    from medvae.run.work import File
    from medvae.scan import Geometry, Modality, Units

_LINE = 150  # letters of a line over the picture


@dataclass(frozen=True, eq=False)
class NativeMap:
    """One map of one scan on the scan's own grid.

    Attributes:
        name: of the map.
        data: float32 `(X, Y, Z)`, the scan's shape and axis order; higher = less normal, 0 where nothing was evaluated.
        geometry: the scan's shape and affine.
        unit: `z`, `nats` (per model voxel), `a.u.` or `probability`.
        limit: 99.9% of healthy foreground voxels lie below.
    """

    name: str
    data: NDArray[np.float32] = field(repr=False)
    geometry: Geometry
    unit: Unit
    limit: float

    @property
    def affine(self) -> NDArray[np.float64]:
        """4×4, voxel index -> RAS+ mm, that of the scan."""
        return self.geometry.affine


@dataclass(frozen=True)
class Score:
    """How unusual a scan is by one map.

    Attributes:
        score: mean of the highest foreground voxels (the share `detect.top` of them), in the map's unit.
        p: conformal p-value, small = unusual; None where there are no healthy scores.
    """

    score: float
    p: float | None


@dataclass(frozen=True, eq=False)
class Detection:
    """All that `detect` finds in one scan.

    In a notebook it is shown as a picture: the scan, and the scan under its first map, at the first three candidates
    or, without any, where the map is highest.

    Attributes:
        id: of the scan.
        maps: by name, in the order asked for.
        scores: by map name.
        coverage: uint8 `(X, Y, Z)` on the scan's own grid: 1 = voxel was evaluated.
        covered_share: share that was evaluated, 0 to 1: of the template's brain, or of the foreground of a scan that is
            not aligned; None where that is not known.
        status: what z and p rest on: "calibrated, n=25", or "uncalibrated, n=18" (`Reference.status`).
        n: healthy scans behind p and the thresholds.
        warnings: what a reader should know.
        candidates: regions of the first map with more mass than those of healthy scans.
        picture: of the first map.
        with_montage: whether `files` has a picture, too (`detect.montage`).
        with_review: whether `files` has what the pages need besides (`detect.review`).
        modality: of the scan.
        units: of the scan's values, e.g. "HU" or "a.u.".
        source_hash: of the scan (`medvae.scan.scan_hash`), by which a reader's verdicts find it again.
        to_mni: 4×4, the scanner's RAS+ mm -> mm of the template; None for a model that is not aligned.
        dicom: contents of the DICOM objects by name, where they are asked for (`detect.dicom`, `detect.fusion`).
        pseudo_healthy: the scan without what a map takes out of it (`restoration`), float32 `(X, Y, Z)` in the scan's
            units; None if no such map was asked for.
    """

    id: str
    maps: Mapping[str, NativeMap]
    scores: Mapping[str, Score]
    coverage: NDArray[np.uint8]
    covered_share: float | None
    status: str
    n: int
    warnings: tuple[str, ...]
    candidates: Candidates
    picture: Picture
    with_montage: bool
    with_review: bool
    modality: Modality | None
    units: Units
    source_hash: str
    to_mni: NDArray[np.float64] | None = field(repr=False)
    dicom: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    pseudo_healthy: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def first(self) -> NativeMap:
        """The first map, which the picture shows."""
        return next(iter(self.maps.values()))

    @property
    def evaluated_ml(self) -> float:
        """Volume of the evaluated region in the scan, mL."""
        return evaluated_ml(self.coverage, self.first.geometry)

    @property
    def score(self) -> float:
        """The scan's score by the first map."""
        return self.scores[self.first.name].score

    @property
    def p(self) -> float | None:
        """The scan's p-value by the first map; None where there are no healthy scores."""
        return self.scores[self.first.name].p

    def files(self, folder: str = "") -> tuple[File, ...]:
        """What the command writes for this scan, not yet written.

        Args:
            folder: their names begin with it, e.g. "scans/case".
        """
        before = f"{folder}/" if folder else ""
        maps: list[File] = [self._map_file(one, f"{before}{one.name}.nii.gz") for one in self.maps.values()]
        text, geometry = "1 = voxel was evaluated", self.first.geometry
        maps.append(NiftiFile(f"{before}coverage.nii.gz", self.coverage, geometry, description=text))
        text = described(f"candidates of {self.first.name}", self.status, "by number")
        maps.append(NiftiFile(f"{before}candidates.nii.gz", self.candidates.labels, geometry, description=text))
        if self.pseudo_healthy is not None:
            text = described(self.units, "an estimate without what is unusual")
            maps.append(NiftiFile(f"{before}{PSEUDO_HEALTHY}", self.pseudo_healthy, geometry, description=text))
        maps.append(JsonFile(f"{before}{FINDINGS}", self._findings()))
        pictures: list[File] = [self._montage(f"{before}montage.png")] if self.with_montage else []
        pages = self._for_review(before) if self.with_review else ()
        dicom = (BytesFile(f"{before}dicom/{name}", content) for name, content in self.dicom.items())
        return (*maps, *pictures, *pages, *dicom)

    def _findings(self) -> dict[str, Any]:
        """What `findings.json` has: the candidates, and all that a reader of one scan should know."""
        maps = {
            name: {"score": one.score, "p": one.p, "unit": self.maps[name].unit, "limit": self.maps[name].limit}
            for name, one in self.scores.items()
        }
        return {
            "id": self.id,
            "scan_hash": self.source_hash,
            **self.candidates.to_json(status=self.status, unit=self.first.unit),
            "n": self.n,
            "scores": maps,
            "coverage": self.covered_share,
            "evaluated_ml": round(self.evaluated_ml, 2),
            "warnings": list(self.warnings),
            "modality": self.modality,
            "units": self.units,
            "to_mni": None if self.to_mni is None else np.round(self.to_mni, 6).tolist(),
        }

    def _for_review(self, before: str) -> Iterator[File]:
        """The scan in few bits, where the template's brain lies in it, and a small picture."""
        geometry, picture = self.first.geometry, self.picture
        grey = Grey.of(picture.scan, picture.covered, units=self.units)
        text = described(self.units, "rounded for display")
        yield NiftiFile(f"{before}{SCAN}", grey.data, geometry, description=text, scale=grey.scale)
        if picture.outline is not None:
            brain = picture.outline.astype(np.uint8)
            yield NiftiFile(f"{before}{BRAIN}", brain, geometry, description="1 = brain of the template")
        yield Thumbnail(f"{before}{THUMBNAIL}", picture)

    def save(self, folder: Path | str) -> Path:
        """Write the files of the command, e.g. `residual_z.nii.gz`, into a folder; returns the folder.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        for file in self.files():
            file.write(Path(folder))
        return Path(folder)

    def pixels(self) -> NDArray[np.uint8]:
        """The picture, `(rows, columns, 3)` in RGB."""
        png = BytesIO(self._montage("montage.png").png())
        pixels: NDArray[np.uint8] = np.rint(imread(png)[..., :3] * 255).astype(np.uint8)
        return pixels

    def show(self) -> None:
        """Show the picture with matplotlib."""
        from matplotlib import pyplot  # here, because it chooses a display

        image = self.pixels()
        height, width = image.shape[:2]
        axes = pyplot.figure(figsize=(width / 100, height / 100), dpi=100).add_axes((0, 0, 1, 1))
        axes.imshow(image, aspect="auto")  # in axes: a notebook may draw it at another resolution
        axes.set_axis_off()
        pyplot.show()

    def _map_file(self, one: NativeMap, name: str) -> NiftiFile:
        text = described(one.name, one.unit, self.status)
        return NiftiFile(name, one.data, one.geometry, description=text, limits=(0.0, one.limit))

    def _montage(self, name: str) -> Montage:
        return Montage(name, self.picture, title=self._title(), footer=f"{self.status}. {RESEARCH_USE}")

    def _title(self) -> str:
        finding = self.candidates.in_words(self.first.unit, shown=PEAKS)
        score = f"score {self.score:.3g} {self.first.unit} (map {self.first.name}), {self._p_in_words()}"
        warnings = [line for one in self.warnings for line in wrap(f"warning: {one}", _LINE)]
        return "\n".join([*wrap(f"{self.id}: {finding}", _LINE), score, *warnings])

    def _p_in_words(self) -> str:
        if self.p is None:
            return self.status
        basis = self.status.partition(",")[0]
        as_high = round(self.p * (self.n + 1)) - 1  # p = (1 + as high) / (1 + n)
        if as_high < 0 or not np.isclose(self.p, (as_high + 1) / (self.n + 1)):
            return f"p = {self.p:.3f} ({self.status})"
        least = ", the smallest p possible" if as_high == 0 else ""
        return f"p = {self.p:.3f}: {as_high or 'none'} of {self.n} healthy scans scored as high{least} ({basis})"

    def __repr__(self) -> str:
        scores = ", ".join(
            f"{name} {one.score:.3g} {self.maps[name].unit}" + ("" if one.p is None else f" (p = {one.p:.3f})")
            for name, one in self.scores.items()
        )
        return f"Detection({self.id}: {scores}; {self.status})"

    def _repr_html_(self) -> str:
        png = b64encode(self._montage("montage.png").png()).decode()
        return f'<img alt="{escape(self._title(), quote=True)}" src="data:image/png;base64,{png}"/>'
