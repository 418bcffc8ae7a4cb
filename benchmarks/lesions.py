"""Simulated lesions of real shapes in held-out healthy brains: voxel AP of each map.

    python benchmarks/lesions.py --model MODEL [--data FOLDER] [--shapes K] [--contrast C]

For every test subject of `brains-t1/split.csv`, K stroke shapes and K MS shapes are implanted, each filled dark, bright
and iso-intense (`medvae.simulate.lesions`), one lesion per scan. Shapes are selected by rank of volume, so that every
subject gets small and large ones. The scans are written as NIfTI, `medvae detect` processes them, and its maps are read
on the scans' own grid. The voxels of all scans of a kind are pooled. Intervals are from bootstrap draws of subjects;
differences are paired. The model has to be trained and calibrated on the other subjects of `split.csv`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from medvae.anomaly.maps import residual_z
from medvae.anomaly.maps._shared import smooth_inside
from medvae.cli import console
from medvae.cohort.find import find
from medvae.evaluation.metrics import DRAWS, ScanVoxels, compare
from medvae.evaluation.truth import Case, read_scores, read_voxels
from medvae.io.formats import nifti
from medvae.pipelines import detect
from medvae.scan import Selection
from medvae.settings import ReadSettings
from medvae.simulate.lesions import CONTRAST, Kind, implant, shape_on, spread_by_volume

if TYPE_CHECKING:
    from medvae.scan import ScanRef

DATA = Path(__file__).parents[2] / "shared" / "data"
SHAPES = {"stroke": "stroke-lesion-masks", "MS": "ms-lesion-masks"}
MAPS = ("residual_z", "atlas", "residual", "intensity")
GATHERED = "atlas_averaged"  # the atlas, averaged over the scales of `residual_z`: the effect of averaging alone
SETTINGS = ReadSettings()


@dataclass(frozen=True)
class Lesion:
    """One scan with a simulated lesion: its files, the set of shapes, the filling, volume and contrast."""

    case: Case
    shapes: str
    kind: str
    millilitres: float
    contrast: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="voxel AP of maps for simulated lesions of real shapes")
    parser.add_argument("--model", type=Path, required=True, help="trained and calibrated model folder")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with brains-t1 and the folders of masks")
    parser.add_argument("--shapes", type=int, default=3, help="shapes of each set per subject")
    parser.add_argument("--contrast", type=float, default=CONTRAST, help="of dark and bright, in robust tissue SD")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    console.configure(quiet=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        lesions = implant_all(options.data, Path(scratch), shapes=options.shapes, contrast=options.contrast)
        out = Path(scratch) / "maps"
        texts = (f"detect.maps=[{', '.join(MAPS)}]", "detect.montage=false")
        scans = Selection((Path(scratch) / "scans",))
        detect.run(scans, model=options.model, out=out, overrides=texts, workers=options.workers)
        for lesion in lesions:
            gather(out / "scans" / lesion.case.id, lesion.case)
        report(lesions, out)
    print(f"\n{len(lesions)} scans, {time.monotonic() - begun:.0f} s")


def implant_all(data: Path, scratch: Path, *, shapes: int, contrast: float) -> list[Lesion]:
    """Write all scans to `scans/` and their lesion masks to `truth/`."""
    refs = find(Selection((data / "brains-t1" / "split.csv",), split="test"), SETTINGS).refs
    made = []
    for name, folder in SHAPES.items():
        chosen = spread_by_volume(sorted((data / folder).glob("*.nii.gz")), shapes * len(refs))
        for place, ref in enumerate(refs):
            for number, path in enumerate(chosen[place :: len(refs)]):
                for kind in get_args(Kind):
                    made.append(implant_one(ref, path, scratch, name=f"{name}-{number}", kind=kind, contrast=contrast))
    return made


def implant_one(ref: ScanRef, shape: Path, scratch: Path, *, name: str, kind: Kind, contrast: float) -> Lesion:
    """Write one scan with one lesion, and the lesion mask."""
    image, geometry = nifti.read_values(ref.path, SETTINGS)
    spacing = geometry.spacing
    made = implant(
        image, shape_on(shape, geometry), foreground=image != 0, spacing=spacing, kind=kind, contrast=contrast
    )
    one = f"{ref.id}-{name}-{kind}"
    case = Case(one, ref.subject, scratch / "scans" / f"{one}.nii.gz", scratch / "truth" / f"{one}.nii.gz")
    nifti.write(case.scan, made.image, geometry, description=f"{kind} lesion implanted, contrast {made.contrast:.2f}")
    nifti.write(scratch / "truth" / case.scan.name, made.truth.astype(np.uint8), geometry, description="lesion mask")
    millilitres = float(made.truth.sum()) * geometry.voxel_volume / 1000
    return Lesion(case, name.partition("-")[0], kind, millilitres, made.contrast)


def gather(folder: Path, case: Case) -> None:
    """Write the atlas map, averaged over the scales of `residual_z` inside the foreground, beside the others."""
    if not folder.is_dir():  # detect rejected the scan
        return
    heat, geometry = nifti.read_values(folder / "atlas.nii.gz", SETTINGS)
    inside = nifti.read_values(case.scan, SETTINGS)[0] != 0
    parts = [smooth_inside(heat, inside, spacing=geometry.spacing, mm=mm) for mm in residual_z.Settings().scales_mm]
    nifti.write(folder / f"{GATHERED}.nii.gz", np.mean(parts, axis=0), geometry, description=GATHERED)


def report(lesions: list[Lesion], out: Path) -> None:
    """One block per set of shapes and kind: AP of each map, and the difference to the first one."""
    done = read_scores(out, MAPS[0])
    failed = [one.case.id for one in lesions if one.case.id not in done]
    if failed:
        print(f"\nexcluded, because detect rejected them: {', '.join(failed)}")
    lesions = [one for one in lesions if one.case.id in done]
    for shapes in SHAPES:
        for kind in get_args(Kind):
            group = [one for one in lesions if (one.shapes, one.kind) == (shapes, kind)]
            scans: list[ScanVoxels] = [read_voxels(out, one.case, maps=(*MAPS, GATHERED)) for one in group]
            print_block(f"{shapes}, {kind}", group, scans)
    print(f"\nintervals: 95%, {DRAWS} draws of subjects; AP per scan: mean over the scans")


def print_block(title: str, group: list[Lesion], scans: list[ScanVoxels]) -> None:
    """One block of the table."""
    found = compare(scans, MAPS[0])
    sizes = [one.millilitres for one in group]
    contrast: Any = np.mean([one.contrast for one in group])
    print(
        f"\n{title}: {len(group)} scans of {found.subjects} subjects, {min(sizes):.1f} to {max(sizes):.0f} mL, "
        f"mean contrast {contrast:+.2f}, prevalence {found.prevalence:.4f}"
    )
    rows = [[name, found.ap[name], found.gain.get(name, ""), found.per_scan[name]] for name in found.ap]
    console.table(
        ["map", "voxel AP", f"AP of {MAPS[0]} minus this", "AP per scan"], [[str(cell) for cell in row] for row in rows]
    )


if __name__ == "__main__":
    main()
