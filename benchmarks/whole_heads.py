"""Whole heads: the extracted brain compared with given masks, what it keeps of lesions, and scores with and without it.

    python benchmarks/whole_heads.py --model MODEL [--data FOLDER] [--shapes N]

The brain of the IXI heads is compared with the masks that come with them. Every head is scored with the template's
brain (what a head gets if no brain can be extracted), with its extracted brain, with its given mask, and as the same
person's scan that others stripped and registered. Stroke shapes, filled dark or bright, are implanted into whole heads
and the brain is extracted again: how much of a lesion that lay in the brain is still in it?
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from medvae.anomaly.detect import detect_prepared
from medvae.checkpoint.folder import load
from medvae.cli import console
from medvae.cohort.read import read
from medvae.io import reading
from medvae.prepare import preparation
from medvae.prepare.brain import extract_brain
from medvae.prepare.preparation import Prepared, prepare
from medvae.scan import Geometry, Scan
from medvae.settings import ReadSettings
from medvae.simulate.lesions import implant, shape_on, spread_by_volume

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model

DATA = Path(__file__).parents[2] / "shared" / "data"
HEADS = (
    "brains-t1-native/trio-head-1mm.nii.gz",
    "brains-t1-native/chris-head-0.88mm.nii.gz",
    "dicom/mr-anatomical/ge-coronal-t1-mrhead",
    "dicom/mr-anatomical/siemens-verio-axial-oblique-t1",
)
IMPLANTED = HEADS[:2]
FILLED: tuple[Literal["dark", "bright"], ...] = ("dark", "bright")
MAP = "residual_z"
Mask = NDArray[np.bool_]


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description="the brain mask of whole heads")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--shapes", type=int, default=15, help="stroke shapes, evenly spread by volume")
    options = parser.parse_args()
    model = load(options.model)
    given = sorted((options.data / "brains-t1-site2").glob("*-t1_head2mm.nii.gz"))
    names = [
        "head",
        "Dice",
        "extracted, mL",
        "given, mL",
        "template's brain",
        "extracted brain",
        "given mask",
        "stripped",
    ]
    console.table(names, [compared(path, model) for path in given])
    print()
    names = ["head", "extracted, mL", "template's brain", "extracted brain"]
    console.table(names, [scored(options.data / name, model) for name in HEADS])
    print()
    shapes = spread_by_volume(sorted((options.data / "stroke-lesion-masks").glob("*.nii.gz")), options.shapes)
    rows = [kept(options.data / name, shapes, kind, model) for name in IMPLANTED for kind in FILLED]
    console.table(["head", "lesions", "count", "mean share kept", "least share kept", "its mL"], rows)


# ---------------------------------------------------------------------------------------------------- scores


def compared(path: Path, model: Model) -> list[str]:
    """A head with a given mask, and the same person's stripped scan."""
    scan, stripped = read(path), read(path.with_name(path.name.replace("head2mm", "mni2mm")))
    mask = reading.read_mask(
        path.with_name(path.name.replace("t1_head2mm", "brainmask_head2mm")), scan.geometry, ReadSettings()
    )
    brain = extract_brain(scan)
    dice = 2 * (brain & mask).sum() / (brain.sum() + mask.sum())
    return [
        path.name.partition("-")[0],
        f"{dice:.3f}",
        *(f"{millilitres(one, scan):.0f}" for one in (brain, mask)),
        by_template(scan, model),
        by_extraction(scan, model),
        score(scan, prepare(scan, model.preparation, mask=mask), model),
        score(stripped, prepare(stripped, model.preparation), model),
    ]


def scored(path: Path, model: Model) -> list[str]:
    """A head without a given mask."""
    scan = read(path)
    volume = millilitres(extract_brain(scan), scan)
    return [path.name, f"{volume:.0f}", by_template(scan, model), by_extraction(scan, model)]


def by_extraction(scan: Scan, model: Model) -> str:
    """As `detect` does."""
    return score(scan, prepare(scan, model.preparation), model)


def by_template(scan: Scan, model: Model) -> str:
    """As if no brain could be extracted."""
    real, preparation.extract_brain = preparation.extract_brain, lambda one: np.zeros(one.data.shape, bool)
    try:
        return score(scan, prepare(scan, model.preparation), model)
    finally:
        preparation.extract_brain = real


def score(scan: Scan, prepared: Prepared, model: Model) -> str:
    """The score; the highest peak, and its place in MNI space, mm."""
    found = detect_prepared(prepared, scan, model)
    place = in_mni(scan, prepared).to_world(found.picture.peaks[0])
    return "{:.1f} ({:.1f} at {:.0f}, {:.0f}, {:.0f})".format(found.scores[MAP].score, found.picture.values[0], *place)


# --------------------------------------------------------------------------------------------------- lesions


def kept(path: Path, shapes: list[Path], kind: Literal["dark", "bright"], model: Model) -> list[str]:
    """What is left of lesions in the brain that is extracted with them, of what lay in it without them."""
    scan = read(path)
    brain, there = extract_brain(scan), in_mni(scan, prepare(scan, model.preparation))
    shares = []
    for shape in (shape_on(one, there) for one in shapes):
        ill = implant(scan.data, shape, foreground=brain, spacing=scan.geometry.spacing, kind=kind)
        found = extract_brain(Scan(ill.image, scan.geometry))
        shares.append(((found & ill.truth).sum() / ill.truth.sum(), millilitres(ill.truth, scan)))
    least, volume = min(shares)
    mean = np.mean([share for share, _ in shares])
    return [path.name, kind, str(len(shares)), f"{mean:.3f}", f"{least:.3f}", f"{volume:.0f}"]


def in_mni(scan: Scan, prepared: Prepared) -> Geometry:
    """Where the scan's voxels lie in MNI space."""
    return Geometry(scan.geometry.shape, prepared.grid.affine @ np.linalg.inv(prepared.to_input))


def millilitres(mask: Mask, scan: Scan) -> float:
    """Volume of a mask on the scan's grid."""
    return float(mask.sum() * scan.geometry.voxel_volume / 1000)


if __name__ == "__main__":
    main()
