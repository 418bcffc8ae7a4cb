"""The decoder at ages from 20 to 80 years: one picture, and the volume of cerebrospinal fluid (CSF) inside the brain.

    python benchmarks/age.py --model MODEL [--minutes N] [--data FOLDER/brains-t1] [--out age.png]

If MODEL does not exist, it is trained for N minutes on all scans of the list, with the column `age` as condition, at 3
mm. The mean code of its training scans is then decoded with each age. CSF is what is darker than half way between the
typical values of CSF and of white matter, in a box around the lateral ventricles (MNI, mm); the same is measured in the
scans themselves and fitted by a line over age. A decoded mean is smoother than a scan, so its volumes are smaller.

The picture shows the ages in an axial and a coronal plane, and the difference between the oldest and the youngest.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import medvae
from medvae.io.files import atomic

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model
    from medvae.run.work import Progress
    from medvae.scan import Geometry

    Volume = np.ndarray[Any, np.dtype[np.float32]]

DATA = Path(__file__).parents[2] / "shared" / "data" / "brains-t1"
CHANGES = (
    "model.conditions=[age]",
    "prepare.spacing=[3,3,3]",
    "prepare.shape=[64,80,64]",
    "train.lr=3e-3",
    "detector.steps=0",
    "detect.maps=[residual_z]",
)
AGES = (20, 35, 50, 65, 80)
BOX_MM = ((-32, 32), (-48, 36), (-4, 34))  # around the lateral ventricles, MNI
DARK = -1.1  # prepared intensity (robust z): half way between CSF (-3) and white matter (0.8)


def main() -> None:
    """Train if needed, print the volumes, write the picture."""
    parser = argparse.ArgumentParser(description="the decoder at ages from 20 to 80")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12.0, help="minutes of training, if MODEL does not exist")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with split.csv")
    parser.add_argument("--out", type=Path, default=Path("age.png"))
    options = parser.parse_args()
    if not (options.model / "model.json").is_file():
        train(options.data / "split.csv", options.model, minutes=options.minutes)
    model = medvae.load_model(options.model)
    z = model.latents.mean.mean(axis=0)
    decoded = {age: prepared(model.decode(z, conditions={"age": age}), model) for age in AGES}
    grid = model.preparation.grid
    print(f"trained on {len(model.latents.ids)} scans, {model.record['steps']} steps; CSF in the box, ml:")
    for age, image in decoded.items():
        print(f"  decoder at {age:3d} years  {csf(image, grid):6.1f}")
    report_scans(model)
    picture(options.out, decoded, grid)


def train(table: Path, out: Path, *, minutes: float) -> None:
    """A model of all scans of a list, conditioned on age; an interrupted training goes on."""

    def show(progress: Progress) -> None:
        if progress.done % 10 == 0 or progress.done == progress.total:
            print(f"{progress.stage} {progress.done}/{progress.total} {progress.note}", flush=True)

    settings = medvae.load_settings("brain-mri-t1", (*CHANGES, f"train.minutes={minutes}"))
    medvae.train(table, config=settings, out=out, resume=True, on_progress=show)


def prepared(scan: medvae.Scan, model: Model) -> Volume:
    """The values of a decoded scan as robust z, `(X, Y, Z)`; far below 0 outside the foreground."""
    offset, scale = (
        np.median([getattr(one, key) for one in model.training.intensities]) for key in ("offset", "scale")
    )
    return np.asarray((scan.data - offset) / scale, np.float32)


def csf(image: Volume, grid: Geometry) -> float:
    """Volume of dark voxels in the box, ml."""
    index = np.stack(np.indices(grid.shape), axis=-1)
    world = grid.to_world(index)
    inside = np.all([(world[..., i] >= low) & (world[..., i] <= high) for i, (low, high) in enumerate(BOX_MM)], axis=0)
    return float(((image < DARK) & inside).sum() * grid.voxel_volume / 1000)


def report_scans(model: Model) -> None:
    """The same measure in the training scans that the model keeps."""
    ages = [one.get("age") for one in model.latents.conditions]
    known = [(float(age), volume) for age, volume in zip(ages, volumes(model), strict=False) if age is not None]
    age, volume = np.array(known).T
    slope, start = np.polyfit(age, volume, 1)
    print(
        f"  scans themselves: {start + 20 * slope:.1f} at 20 and {start + 80 * slope:.1f} at 80 years by a line", end=""
    )
    print(f" (r = {np.corrcoef(age, volume)[0, 1]:.2f}, n = {len(age)})")


def volumes(model: Model) -> list[float]:
    """CSF of the training scans."""
    images = np.where(model.training.masks, model.training.images, np.float16(0))
    return [csf(image.astype(np.float32), model.preparation.grid) for (image,) in images]


def picture(path: Path, decoded: dict[int, Volume], grid: Geometry) -> None:
    """Ages from left to right, and the difference between the last and the first."""
    figure = Figure(figsize=(2.2 * (len(decoded) + 1), 4.8), facecolor="black", layout="constrained")
    rows = figure.subplots(2, len(decoded) + 1)
    _, y, z = (int(n) for n in np.rint(grid.to_index((0, -10, 14))))
    first, *_, last = decoded.values()
    for column, (age, image) in enumerate(decoded.items()):
        for row, plane in zip(rows, (image[:, :, z], image[:, y, :]), strict=True):
            row[column].imshow(plane.T, cmap="gray", vmin=-3, vmax=2, origin="lower")
        rows[0][column].set_title(f"{age} years", color="white")
    change = np.where(last - first == 0, np.nan, last - first)  # 0 outside the foreground
    for row, plane in zip(rows, (change[:, :, z], change[:, y, :]), strict=True):
        row[-1].imshow(plane.T, cmap="RdBu_r", vmin=-1.5, vmax=1.5, origin="lower")
    rows[0][-1].set_title(f"{max(decoded)} less {min(decoded)}", color="white")
    for ax in rows.flat:
        ax.set_axis_off()
    FigureCanvasAgg(figure)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


if __name__ == "__main__":
    main()
