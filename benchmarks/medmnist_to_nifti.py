"""Export a MedMNIST3D file to NIfTI volumes and a list of classes and splits, for the preset `vessel-shape`.

    python benchmarks/medmnist_to_nifti.py vesselmnist3d.npz OUT [--per-split N]

Volumes are binary shapes: every voxel above half of the largest value is 1. The files contain neither position nor
voxel size, so voxels are 1 mm along R, A, S. Each volume counts as a separate subject; the source does not say which
volumes come from the same person.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from medvae.io.formats import nifti
from medvae.scan import Geometry


def main() -> None:
    """Write `OUT/SPLIT-NNNN.nii.gz` and `OUT/list.csv`."""
    parser = argparse.ArgumentParser(description="export MedMNIST3D to NIfTI")
    parser.add_argument("npz", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-split", type=int, help="export the first N volumes of each split only")
    options = parser.parse_args()
    arrays = np.load(options.npz)  # arrays only: pickles are refused by default
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / "list.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["scan", "label", "split"])
        for split in ("train", "val", "test"):
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"].ravel()
            for index in range(min(len(images), options.per_split or len(images))):
                name = f"{split}-{index:04d}.nii.gz"
                shape = (images[index] > images[index].max() / 2).astype(np.uint8)
                nifti.write(options.out / name, shape, Geometry(shape.shape, np.eye(4)), description="binary shape")
                table.writerow([name, labels[index], split])


if __name__ == "__main__":
    main()
