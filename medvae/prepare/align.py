"""Alignment of a head scan to the MNI152 template: rigid, then affine, by mutual information (SimpleITK).

The result is judged by geometry, not by health: a diseased brain is aligned like a healthy one. Receive fields are
divided out. A whole head is aligned roughly, stripped roughly with the template's brain, and aligned again as a brain.
One thread and full sampling of coarse images: the same scan gives the same matrix to the bit. Coordinates stay RAS+;
ITK only sees axes and origins and does not care what they are called.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from medvae.errors import ScanError
from medvae.prepare import template
from medvae.prepare.grid import nearest_ras, resample, resample_labels
from medvae.prepare.likeness import likeness, overlap
from medvae.prepare.pieces import largest_piece
from medvae.scan import Geometry

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from medvae.scan import Scan

# Median local correlation with the template (`likeness`), by benchmarks/alignment.py and on real scans: T1 heads of
# seven scanners, whole and stripped, have 0.54 to 0.79, with strokes of 5 to 371 mL, displaced tissue, thick slices or
# low contrast 0.63 to 0.76, FLAIR 0.46 and more; heads that are upside down or face backwards 0.31 to 0.40, noise,
# balls, a hand and a chest at most 0.17.
SURE, LEAST = 0.5, 0.25
DOUBTFUL = "doubtful_alignment"  # a warning begins with it, or an error has it as code
_LEAST_OVERLAP = 0.5
_SCALES = (0.7, 1.4)  # singular values an adult or child head can need
_BETTER = 0.05  # by which another way up has to be more like the template
_HUNT_MM, _COARSE_MM, _FINE_MM = 8.0, 6.0, 4.0
_FIELD_MM = 20.0  # a receive field is smoother than this
_BRAIN_BELOW_TOP_MM = 75.0  # centre of the brain below the top of the head
_KEPT = 2  # of the rigid tries, how many are followed up


@dataclass(frozen=True)
class Alignment:
    """Template to scan.

    Attributes:
        matrix: 4×4, template RAS+ mm -> scan RAS+ mm.
        likeness: median local correlation with the template, −1 to 1.
        overlap: Dice coefficient of a stripped brain with the template's; None for a whole head.
    """

    matrix: NDArray[np.float64]
    likeness: float
    overlap: float | None

    @property
    def doubt(self) -> str | None:
        """A warning with the figures, where a person should look at the alignment; else None."""
        if self.likeness >= SURE:
            return None
        over = "" if self.overlap is None else f", overlap with its brain {self.overlap:.2f}"
        return f"{DOUBTFUL}: local r = {self.likeness:.2f} with the template (usually {SURE} or more){over}"


@dataclass(frozen=True, eq=False)
class _Volume:
    """Values `(X, Y, Z)` that lie somewhere; the background is 0."""

    data: NDArray[np.float32]
    geometry: Geometry

    def at(self, mm: float) -> _Volume:
        """Along its own directions nearest to R, A, S, in voxels of `mm` where they are smaller."""
        turn = nearest_ras(self.geometry)
        step = np.maximum(mm / (np.array(self.geometry.spacing) @ np.abs(turn[:3, :3])), 1.0)
        lengths = np.array(self.geometry.shape) @ np.abs(turn[:3, :3])
        x, y, z = (int(np.ceil(n / s)) for n, s in zip(lengths, step, strict=True))
        matrix = turn @ np.diag([*step, 1.0])
        affine = self.geometry.affine @ matrix
        return _Volume(resample(self.data, matrix, (x, y, z)), Geometry((x, y, z), affine))

    def itk(self) -> sitk.Image:
        """For SimpleITK."""
        image = sitk.GetImageFromArray(self.data.T)
        image.SetSpacing(self.geometry.spacing)
        image.SetOrigin(self.geometry.affine[:3, 3].tolist())
        image.SetDirection((self.geometry.affine[:3, :3] / np.array(self.geometry.spacing)).ravel().tolist())
        return image


def align_to_template(scan: Scan, mask: NDArray[np.bool_] | None) -> Alignment:
    """Align the template to a scan.

    Args:
        scan: a stripped brain or a whole head.
        mask: brain on the scan's grid; None for a whole head, where only what the template's brain covers counts.

    Raises:
        ScanError: `blank`; `registration_failed`: nothing like the template, not the size of a head, or a head that
            lies as its header does not say.
    """
    fine = _Volume(_readied(scan.data, mask), scan.geometry).at(_FINE_MM)
    if min(fine.at(_HUNT_MM).geometry.shape) < 4:
        x, y, z = np.array(scan.geometry.shape) * scan.geometry.spacing
        raise _failed(f"too few slices, or too small for a head ({x:.0f} x {y:.0f} x {z:.0f} mm)")
    level = _levelled(fine, fine.data > 0.2 * fine.data[fine.data > 0].mean())
    if mask is not None:
        found = _refine(level, _rough(fine, level, _starts_of_brain(fine), whole=False))
    else:
        found = _rough(fine, level, _starts_of_head(fine), whole=True)
        for _ in range(2):  # the second time with the brain that the first one found
            found = _refine(_stripped(fine, _matrix(found)), found)
    matrix = _matrix(found)
    over = None if mask is None else overlap(mask, scan.geometry, matrix)
    return _checked(Alignment(matrix, likeness(fine.data, fine.geometry, matrix), over), fine, level)


def _readied(data: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Without the extremes, the background at 0 and nothing below it."""
    inside = data if mask is None else data[mask]
    low, high = np.percentile(inside, (0.5, 99.5)).astype(np.float32)
    if high <= low:
        raise ScanError(f"nearly all of the foreground is {high:g}", code="blank")
    if mask is not None:
        low = min(low, np.float32(0))
    shifted = np.clip(data - low, 0, high - low)
    return shifted if mask is None else np.where(mask, shifted, np.float32(0))


def _checked(found: Alignment, fine: _Volume, level: _Volume) -> Alignment:
    """The alignment, if it is one: like the template, of a head's size, over its brain, the right way up."""
    if found.likeness < LEAST:
        opposite = " (dark and bright are swapped, as in T2 or inverted images)" if found.likeness <= -LEAST else ""
        raise _failed(
            f"nothing like the template was found: local r = {found.likeness:.2f}{opposite}, at least {LEAST} is needed"
        )
    scales = np.linalg.svd(found.matrix[:3, :3], compute_uv=False)
    if scales.min() < _SCALES[0] or scales.max() > _SCALES[1]:
        raise _failed(
            f"the head has {scales.min():.2f} to {scales.max():.2f} times the size of the adult template "
            f"(allowed: {_SCALES[0]} to {_SCALES[1]})"
        )
    if found.overlap is not None and found.overlap < _LEAST_OVERLAP:
        raise _failed(
            f"the foreground overlaps the template's brain by {found.overlap:.2f}, at least {_LEAST_OVERLAP} is needed"
        )
    if found.likeness < SURE:
        _refuse_other_ways(found, fine, level)
    return found


def _refuse_other_ways(given: Alignment, fine: _Volume, level: _Volume) -> None:
    """Raise where the head is more like the template when it is turned: then its header is wrong."""
    for way, start in _other_ways(given.matrix):
        found, _ = _register(level.at(_COARSE_MM).itk(), _COARSE_MM, _affine(start), step=0.5, whole=True)
        other = likeness(fine.data, fine.geometry, _matrix(sitk.AffineTransform(found)))
        if other > given.likeness + _BETTER:
            raise _failed(
                f"by its header the head is {way}: local r = {given.likeness:.2f} with the template, "
                f"{other:.2f} if turned"
            )


def _other_ways(matrix: NDArray[np.float64]) -> list[tuple[str, NDArray[np.float64]]]:
    """In words, and as a 4×4 to start from: the head level but turned, with the place and the size that were found.

    Left and right are alike and cannot be told apart.
    """
    flips = {"upside down": (1, 1, -1), "facing backwards": (1, -1, 1), "upside down and facing backwards": (1, -1, -1)}
    turns = [(way, np.diag(np.array(signs, np.float64))) for way, signs in flips.items()]
    x, y, z = np.eye(3)
    turns += [("turned by 90 degrees", np.stack(rows)) for rows in ((x, -z, y), (x, z, -y), (z, y, -x), (-y, x, z))]
    centre = _brain_centre()
    size = np.cbrt(abs(np.linalg.det(matrix[:3, :3])))
    starts = []
    for way, turn in turns:
        start = np.eye(4)
        start[:3, :3] = size * turn
        start[:3, 3] = matrix[:3, :3] @ centre + matrix[:3, 3] - size * turn @ centre
        starts.append((way, start))
    return starts


def _failed(message: str) -> ScanError:
    return ScanError(message, code="registration_failed")


# ---------------------------------------------------------------------------------------------------------- search


def _rough(plain: _Volume, level: _Volume, starts: list[sitk.Transform], *, whole: bool) -> sitk.AffineTransform:
    """The best of several starts, in the plain image (scalp and fat guide it) and the levelled one (they do not)."""
    found = []
    for volume in (plain, level):
        hunt, coarse = volume.at(_HUNT_MM).itk(), volume.at(_COARSE_MM).itk()
        tries = [_register(hunt, _HUNT_MM, start, step=4.0, whole=whole, iterations=30) for start in starts]
        for rigid, _ in sorted(tries, key=lambda one: one[1])[:_KEPT]:
            rigid, _ = _register(coarse, _COARSE_MM, sitk.Euler3DTransform(rigid), step=1.0, whole=whole)
            rigid = sitk.Euler3DTransform(rigid)
            affine = sitk.AffineTransform(3)
            affine.SetMatrix(rigid.GetMatrix())
            affine.SetCenter(rigid.GetCenter())
            affine.SetTranslation(rigid.GetTranslation())
            affine, _ = _register(coarse, _COARSE_MM, affine, step=0.5, whole=whole)
            found.append(sitk.AffineTransform(affine))
    return max(found, key=lambda affine: likeness(plain.data, plain.geometry, _matrix(affine)))


def _refine(brain: _Volume, affine: sitk.AffineTransform) -> sitk.AffineTransform:
    for mm, step in ((_COARSE_MM, 0.5), (_FINE_MM, 0.25)):
        affine = sitk.AffineTransform(_register(brain.at(mm).itk(), mm, affine, step=step, whole=False)[0])
    return affine


def _register(
    moving: sitk.Image, mm: float, start: sitk.Transform, *, step: float, whole: bool, iterations: int = 60
) -> tuple[sitk.Transform, float]:
    """Optimise one transform from one start; returns it and the metric (lower is better)."""
    data, brain = _template(mm)
    # around a stripped brain the edge informs; in a whole head what lies outside the template's brain is skull
    region = brain if whole else ndimage.binary_dilation(brain, iterations=max(1, round(8 / mm)))
    method = sitk.ImageRegistrationMethod()
    method.SetGlobalDefaultNumberOfThreads(1)
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetMetricFixedMask(_Volume(region.astype(np.float32), template.wide_grid(mm)).itk())
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=step, minStep=step / 50, numberOfIterations=iterations, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=False)
    try:
        found = method.Execute(_Volume(data, template.wide_grid(mm)).itk(), moving)
    except RuntimeError as error:  # no overlap, or one value in it: this start leads nowhere
        if "MattesMutualInformation" not in str(error):
            raise
        return start, np.inf
    return found.GetNthTransform(0) if isinstance(found, sitk.CompositeTransform) else found, method.GetMetricValue()


def _starts_of_brain(volume: _Volume) -> list[sitk.Transform]:
    """Centre of mass on centre of mass, level and pitched."""
    centre = volume.geometry.to_world(np.argwhere(volume.data > 0).mean(axis=0))
    return [_start(centre, pitch) for pitch in (-0.3, 0.0, 0.3)]


def _starts_of_head(volume: _Volume) -> list[sitk.Transform]:
    """The brain is looked for below the top of the head: neck and face make a centre of mass useless."""
    head = _largest(volume.data > 0.4 * volume.data[volume.data > 0].mean())
    world = volume.geometry.to_world(np.argwhere(head))
    top = np.percentile(world[:, 2], 99.8)
    crown = world[world[:, 2] > top - 1.6 * _BRAIN_BELOW_TOP_MM]
    centre = np.array([*np.median(crown[:, :2], axis=0), top - _BRAIN_BELOW_TOP_MM])
    shifts = [np.array([0.0, dy, dz]) for dy in (-15.0, 10.0) for dz in (-20.0, 0.0, 20.0)]
    return [_start(centre + shift, pitch) for shift in shifts for pitch in (-0.35, 0.0, 0.35)]


def _start(centre: NDArray[np.float64], pitch: float) -> sitk.Transform:
    transform = sitk.Euler3DTransform()
    transform.SetCenter(_brain_centre().tolist())
    transform.SetTranslation((centre - _brain_centre()).tolist())
    transform.SetRotation(pitch, 0.0, 0.0)
    return transform


# --------------------------------------------------------------------------------------------------------- volumes


def _stripped(volume: _Volume, matrix: NDArray[np.float64]) -> _Volume:
    """The brain of a whole head, roughly: bright and connected, within 12 mm of the template's brain, levelled."""
    _, brain = _template(_FINE_MM)
    to_template = np.linalg.inv(template.wide_grid(_FINE_MM).affine) @ np.linalg.inv(matrix) @ volume.geometry.affine
    wide = ndimage.binary_dilation(brain, iterations=round(12 / _FINE_MM))
    within, near = (resample_labels(one, to_template, volume.geometry.shape) > 0 for one in (brain, wide))
    if not within.any():
        raise _failed("the scan does not overlap the template")
    level = _levelled(volume, within)
    tissue = near & (level.data > 0.6)
    tissue = ndimage.binary_fill_holes(ndimage.binary_dilation(_largest(tissue)) & tissue)
    return _Volume(np.where(tissue, level.data, np.float32(0)), volume.geometry)


def _levelled(volume: _Volume, where: NDArray[np.bool_]) -> _Volume:
    """The receive field divided out: 1 is the local mean of `where`; capped at 2, so that fat does not stand out."""
    field = _local_mean(volume.data, where, sigma=_FIELD_MM / np.array(volume.geometry.spacing))
    return _Volume(np.minimum(volume.data / np.maximum(field, np.float32(1e-6)), 2).astype(np.float32), volume.geometry)


def _local_mean(data: NDArray[np.float32], where: NDArray[np.bool_], *, sigma: ArrayLike) -> NDArray[np.float32]:
    """Gaussian mean over `where` only; far from it, its overall mean."""
    weight = where.astype(np.float32)
    far = np.float32(0.02)
    total = ndimage.gaussian_filter(data * weight, sigma, truncate=3.0) + far * data[where].mean()
    mean: NDArray[np.float32] = total / (ndimage.gaussian_filter(weight, sigma, truncate=3.0) + far)
    return mean


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest part after an erosion, which cuts thin bridges; all of it where nothing is left."""
    inner = ndimage.binary_erosion(mask)
    return largest_piece(inner) if inner.any() else mask


@cache
def _brain_centre() -> NDArray[np.float64]:
    """RAS+ mm of the centre of mass of the template's brain."""
    return template.wide_grid(_HUNT_MM).to_world(np.argwhere(_template(_HUNT_MM)[1]).mean(axis=0))


def _template(mm: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    return template.on_grid(template.wide_grid(mm))


def _affine(matrix: NDArray[np.float64]) -> sitk.AffineTransform:
    """The 4×4 y = A x + t as an affine transform."""
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(matrix[:3, :3].ravel().tolist())
    affine.SetTranslation(matrix[:3, 3].tolist())
    return affine


def _matrix(transform: sitk.AffineTransform) -> NDArray[np.float64]:
    """y = A (x − c) + c + t as a 4×4."""
    linear = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(transform.GetTranslation()) + centre - linear @ centre
    return matrix
