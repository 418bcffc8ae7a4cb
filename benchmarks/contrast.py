"""Tissue contrast: which scans are flagged as not T1 (`doubtful_contrast`), with their figures.

    python benchmarks/contrast.py [--data FOLDER] [--choose]

By default every real head of the data is prepared as by the preset brain-mri-t1, and its figures are printed. With
`--choose`, on which the limits were chosen, training brains are changed as by other scanners, lesions and tumours,
which must not be flagged, and given simulated contrasts, which must be flagged. A contrast is simulated by new mean
values for fluid, grey and white matter, found by three means, with straight lines between them.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.cluster import KMeans

from medvae.cli import console
from medvae.cohort.find import find
from medvae.errors import ScanError
from medvae.prepare import template
from medvae.prepare.contrast import TissueContrast, tissue_contrast
from medvae.prepare.load import ReadAndPrepare
from medvae.prepare.preparation import Preparation
from medvae.scan import Selection
from medvae.settings import ReadSettings, load_settings
from medvae.simulate.anomalies import add_anomaly
from medvae.simulate.lesions import Kind, implant, shape_on, spread_by_volume
from medvae.simulate.scanners import CHANGES, changed_by_scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from medvae.scan import Geometry, ScanRef
    from medvae.simulate.scanners import Change

    Changed = Callable[[NDArray[np.float32], NDArray[np.bool_], np.random.Generator], NDArray[np.float32]]

DATA = Path(__file__).parents[2] / "shared" / "data"
REAL = ("brains-t1", "brains-t1-rescans", "brains-t1-native", "brains-t1-site2", "ms-lesions", "dicom/mr-anatomical")
STROKES = 3  # the largest shapes
VENTRICLE_MM = 14.0  # of tissue around them that is lost
KINDS: tuple[Kind, ...] = ("dark", "bright")
TISSUES = {  # mean values of fluid, grey and white matter
    "FLAIR": (0, 1, 0.85),
    "FLAIR, weak contrast": (0, 1, 0.94),
    "T2": (1, 0.5, 0.3),
    "T2, weak contrast": (1, 0.4, 0.35),
    "proton density": (0.9, 1, 0.8),
    "proton density, dark fluid": (0.7, 1, 0.85),
    "inverted T1": (1, 0.5, 0),
    "grey as white matter": (0, 1, 1),
    "fluid brightest": (1, 0, 0.5),
}
Values = NDArray[np.float32]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def with_tissues(image: Values, mask: Mask, rng: np.random.Generator, *, means: tuple[float, float, float]) -> Values:
    """A T1 with other mean values of fluid, grey and white matter, and some noise."""
    inside = image[mask]
    found = KMeans(3, init=np.percentile(inside, (4, 40, 85))[:, None], n_init=1).fit(inside[::10, None])
    knots = np.sort(found.cluster_centers_[:, 0])
    low, high = knots[0] - (knots[1] - knots[0]), knots[2] + (knots[2] - knots[1])
    ends = 2 * means[0] - means[1], 2 * means[2] - means[1]
    made = np.interp(image, [low, *knots, high], [ends[0], *means, ends[1]])
    return (made + 0.03 * rng.standard_normal(image.shape)).astype(np.float32)


def weak(image: Values, mask: Mask, rng: np.random.Generator) -> Values:
    """White matter at 30% of its distance from grey matter, and noise."""
    knee = float(np.median(image[mask])) - 0.5
    flatter = np.where(image > knee, knee + 0.3 * (image - knee), image)
    return (flatter + 0.15 * rng.standard_normal(image.shape)).astype(np.float32)


def field(image: Values, mask: Mask, rng: np.random.Generator) -> Values:
    """A receive field of a factor of three from below to above, left as it is."""
    lift = np.exp(np.linspace(0, np.log(3), image.shape[2]))
    return ((image - image[mask].min()) * lift).astype(np.float32)


def noisy(image: Values, mask: Mask, rng: np.random.Generator) -> Values:
    """White noise of 0.6 prepared intensities."""
    return (image + 0.6 * rng.standard_normal(image.shape)).astype(np.float32)


def gamma(image: Values, mask: Mask, rng: np.random.Generator, *, exponent: float) -> Values:
    """A gamma change of intensities."""
    low, high = np.percentile(image[mask], (0.5, 99.5))
    return (np.clip((image - low) / (high - low), 0, 1.3) ** exponent).astype(np.float32)


def wide_ventricles(image: Values, mask: Mask, rng: np.random.Generator, *, where: Mask) -> Values:
    """Fluid in place of the tissue around the ventricles."""
    return np.where(where & mask, np.percentile(image[mask], 2) + 0.2 * rng.standard_normal(image.shape), image)


def around_ventricles(grid: Geometry) -> Mask:
    """Near the fluid inside the brain of the template."""
    grey, white = template.tissues(grid)
    depth = ndimage.distance_transform_edt(template.on_grid(grid)[1], grid.spacing)
    fluid = (1 - grey - white > 0.8) & (depth > 10)
    return np.asarray(ndimage.distance_transform_edt(~fluid, grid.spacing) < VENTRICLE_MM)


def tumour(image: Values, mask: Mask, rng: np.random.Generator, *, spacing: Spacing) -> Values:
    """Core, necrosis and swelling, up to 80 mL."""
    return add_anomaly(image, mask, kind="tumour", spacing=spacing, rng=rng).image


def stroke(image: Values, mask: Mask, rng: np.random.Generator, *, shape: Mask, kind: Kind, spacing: Spacing) -> Values:
    """A lesion of a real shape."""
    return implant(image, shape, foreground=mask, spacing=spacing, kind=kind).image


def scanner(image: Values, mask: Mask, rng: np.random.Generator, *, change: Change, spacing: Spacing) -> Values:
    """Thick slices, weak contrast, a receive field, gamma."""
    return changed_by_scanner(image, mask, change=change, spacing=spacing, rng=rng)


def changes_of_t1(data: Path, grid: Geometry) -> dict[str, Changed]:
    """Changes that must not be flagged, by name."""
    spacing = grid.spacing
    made: dict[str, Changed] = {one: partial(scanner, change=one, spacing=spacing) for one in CHANGES}
    made |= {"white matter at 30%, noise": weak, "receive field, a factor of three": field, "strong noise": noisy}
    made |= {f"gamma {one}": partial(gamma, exponent=one) for one in (0.6, 1.6)}
    made["wide ventricles"] = wide = partial(wide_ventricles, where=around_ventricles(grid))
    made["wide ventricles, white matter at 30%, noise"] = lambda image, mask, rng: weak(
        wide(image, mask, rng), mask, rng
    )
    made["tumour"] = partial(tumour, spacing=spacing)
    paths = sorted((data / "stroke-lesion-masks").glob("*.nii.gz"))
    for path in spread_by_volume(paths, len(paths))[-STROKES:]:
        shape = shape_on(path, grid)
        for kind in KINDS:
            name = f"{kind} stroke, {shape.sum() * grid.voxel_volume / 1000:.0f} mL"
            made[name] = partial(stroke, shape=shape, kind=kind, spacing=spacing)
    return made


# ---------------------------------------------------------------------------------------------- measurement


def figures(image: Values, mask: Mask, grid: Geometry) -> TissueContrast:
    """Of a whole brain, which has some."""
    found = tissue_contrast(image, mask, grid=grid)
    if found is None:
        raise ValueError("too little of a brain")
    return found


def simulated(data: Path, load: ReadAndPrepare, count: int) -> list[list[str]]:
    """One row per change: the range of both figures over the brains, and how many are doubtful."""
    refs = find(Selection((data / "brains-t1" / "split.csv",), split="train"), load.read).refs
    brains = [load(ref).prepared for ref in refs[len(refs) // count - 1 :: len(refs) // count]]
    grid = load.preparation.grid
    changed: dict[str, Changed] = {name: partial(with_tissues, means=one) for name, one in TISSUES.items()}
    rows = []
    for name, change in {**changes_of_t1(data, grid), **changed}.items():
        rng = np.random.default_rng(0)
        found = [figures(change(one.image[0], one.mask[0], rng), one.mask[0], grid) for one in brains]
        grey, fluid = [one.grey for one in found], [np.nan if one.fluid is None else one.fluid for one in found]
        doubtful = f"{sum(one.doubt is not None for one in found)} of {len(found)}"
        rows.append([name, *(f"{min(ones):.2f} to {max(ones):.2f}" for ones in (grey, fluid)), doubtful])
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def real(data: Path, load: ReadAndPrepare) -> Iterator[list[str]]:
    """One row per head, as it is found."""
    for folder in REAL:
        for ref in find(data / folder, load.read):
            yield [folder, ref.id, *_cells(ref, load)]


def _cells(ref: ScanRef, load: ReadAndPrepare) -> list[str]:
    try:
        one = load(ref).prepared
    except ScanError as problem:
        return ["", "", problem.code]
    found = figures(one.image[0], one.mask[0], one.grid)
    codes = [text.partition(":")[0] for text in one.warnings]
    return [f"{found.grey:.2f}", "" if found.fluid is None else f"{found.fluid:.2f}", ", ".join(codes)]


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description="tissue contrast of heads")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with brains-t1, ms-lesions, ...")
    parser.add_argument("--choose", action="store_true", help="simulated changes of the training brains")
    parser.add_argument("--count", type=int, default=20, help="brains for --choose")
    options = parser.parse_args()
    load = ReadAndPrepare(ReadSettings(), Preparation(load_settings("brain-mri-t1").prepare))
    if options.choose:
        rows = simulated(options.data, load, options.count)
        console.table(["change", "of grey darker", "of fluid darker", "doubtful"], rows)
        return
    console.table(["folder", "scan", "of grey darker", "of fluid darker", "warnings"], list(real(options.data, load)))


if __name__ == "__main__":
    main()
