"""Can a reader tell synthetic scans from real ones? Numbered pictures of both in random order, and the number of right
guesses.

    python benchmarks/blinded.py --model MODEL --scans LIST.csv [--split test] [--count 10] [--seed 0] --out FOLDER
    python benchmarks/blinded.py --out FOLDER --guesses 2,5,7,...

The first command writes a picture per scan, `01.png` on (axial, coronal and sagittal plane through the middle, one grey
window for all), as many synthetic as real ones, and `key.json`, which the reader must not see. Real scans are of a
split that the model has not seen. The second is given the numbers that the reader takes for synthetic, and prints how
many scans are classified correctly, with the exact 95% binomial interval; half is chance. Scans of one reader are not
independent of each other: a reader who has found one mark of all synthetic scans finds them all.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from medvae.checkpoint.folder import load
from medvae.cohort.find import find
from medvae.prepare.load import ReadAndPrepare
from medvae.review.planes import three_planes
from medvae.scan import Selection
from medvae.synthesis import generate

WINDOW = (1, 99.5)  # percentiles of the foreground of the real scans
HEIGHT = 336  # pixels of a plane: about three per voxel of 2 mm


def main() -> None:
    """Write the pictures, or count the right guesses."""
    parser = argparse.ArgumentParser(description="synthetic scans among real ones, for a blinded reader")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--model", type=Path, help="model folder, for its own sampler")
    parser.add_argument("--scans", type=Path, help="list of real scans")
    parser.add_argument("--split", nargs="+", default=["test"], help="splits of the list that the model has not seen")
    parser.add_argument("--count", type=int, default=10, help="real scans at most, and as many synthetic ones")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples and the order")
    parser.add_argument("--guesses", help="numbers that the reader takes for synthetic, separated by commas")
    options = parser.parse_args()
    if options.guesses is None:
        write(options)
    else:
        count(options.out, {int(number) for number in options.guesses.split(",")})


def write(options: argparse.Namespace) -> None:
    """The pictures and the key."""
    model = load(options.model)
    read = ReadAndPrepare(model.settings.read, model.preparation)
    find_in = [Selection((options.scans,), split=split) for split in options.split]
    refs = [ref for selection in find_in for ref in find(selection, model.settings.read).refs][: options.count]
    real = [read(ref).prepared for ref in refs]
    synthesizer = generate.fit(model, model.settings.augment, seed=options.seed + 1)
    samples = [synthesizer.sample(index) for index in range(len(real))]
    low, high = np.percentile(np.concatenate([one.image[one.mask] for one in real]), WINDOW)
    every = [(one, False) for one in real] + [(one, True) for one in samples]
    order = np.random.default_rng(options.seed).permutation(len(every))
    options.out.mkdir(parents=True, exist_ok=True)
    spacing = model.preparation.settings.spacing
    for number, place in enumerate(order, start=1):
        one = every[place][0]
        shown = np.where(one.mask[0], one.image[0], np.float32(low))
        picture = three_planes(shown, spacing=spacing, limits=(float(low), float(high)), height=HEIGHT)
        (options.out / f"{number:02}.png").write_bytes(picture)
    key = {str(number): bool(every[place][1]) for number, place in enumerate(order, start=1)}
    (options.out / "key.json").write_text(json.dumps(key), encoding="utf-8")
    print(f"{len(real)} real and {len(samples)} synthetic scans in {options.out}")


def count(folder: Path, guessed: set[int]) -> None:
    """Right guesses, of how many, with the interval."""
    key = {int(number): made for number, made in json.loads((folder / "key.json").read_text("utf-8")).items()}
    right = sum((number in guessed) == made for number, made in key.items())
    interval = binomtest(right, len(key)).proportion_ci()
    found = sum(made and number in guessed for number, made in key.items())
    print(
        f"{right} of {len(key)} right, {right / len(key):.2f} [{interval.low:.2f}, {interval.high:.2f}]; 0.5 is chance"
    )
    print(f"{found} of {sum(key.values())} synthetic scans recognised, {len(guessed) - found} false alarms")


if __name__ == "__main__":
    main()
