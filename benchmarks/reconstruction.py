"""Reconstruction of held-out scans: squared error compared with the mean image, and rank of the subject's own scan.

    python benchmarks/reconstruction.py --model MODEL [--data FOLDER/brains-t1]

For the test subjects of `split.csv`: the mean squared error over the foreground (prepared intensities, variance about
1) of the reconstruction at the posterior mean, and of the mean image of the training scans; the geometric mean of the
ratios with its bootstrap interval over subjects; and the rank of the subject's own scan among all scans of the list, by
distance to the reconstruction (1: nearest).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvae.anomaly.inference import infer
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.cohort.find import find
from medvae.evaluation.metrics import paired_ratio
from medvae.prepare.load import ReadAndPrepare
from medvae.scan import Selection

if TYPE_CHECKING:
    from medvae.prepare.preparation import Prepared

DATA = Path(__file__).parents[2] / "shared" / "data" / "brains-t1"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="reconstruction of held-out scans, compared with the mean image")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with split.csv")
    options = parser.parse_args()
    model = load(options.model)
    read = ReadAndPrepare(model.settings.read, model.preparation)
    refs = find(Selection((options.data / "split.csv",)), model.settings.read).refs
    scans = {ref.id: read(ref).prepared for ref in refs}
    test = [ref for ref in refs if ref.split == "test"]
    if not model.preparation.aligned:
        raise SystemExit("the scans of this model are not registered: there is no mean image")
    mean = reference_of(model).maps["atlas"].arrays["mean"]

    print(f"{'test scan':<12} {'model':>8} {'mean image':>11} {'ratio':>7}  rank of own scan among {len(scans)}")
    ours, theirs = [], []
    for ref in test:
        prepared = scans[ref.id]
        mask = prepared.mask
        reconstruction = infer(model, prepared).reconstruction
        ours.append(_error(prepared.image, reconstruction, mask))
        theirs.append(_error(prepared.image, mean, mask))
        rank = _rank(ref.id, reconstruction, scans)
        print(f"{ref.id:<12} {ours[-1]:8.3f} {theirs[-1]:11.3f} {ours[-1] / theirs[-1]:7.3f}  {rank}")
    print(f"\nratio, geometric mean over {len(test)} subjects: {paired_ratio(ours, theirs)}")


def _error(image: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(np.square(image[mask] - other[mask]).mean())


def _rank(name: str, reconstruction: np.ndarray, scans: dict[str, Prepared]) -> int:  # type: ignore[type-arg]
    """Rank of the subject's own scan among all scans, by squared distance over the foreground common to both."""
    errors = {one: _error(p.image, reconstruction, p.mask & scans[name].mask) for one, p in scans.items()}
    return 1 + sum(error < errors[name] for one, error in errors.items() if one != name)


if __name__ == "__main__":
    main()
