"""Sharper images: terms of the loss, a patch discriminator, changes of samples; their spectrum, errors and copies.

    python benchmarks/sharpness.py --scans CACHE --unseen CACHE --out FOLDER [--arms plain,gradient:1,...]
    python benchmarks/sharpness.py --scans CACHE --unseen CACHE --out FOLDER --only measure [--picture FILE]

CACHE holds prepared scans, as `medvae train` keeps them in its folder. All arms see the same batches in the same order
and begin with the same weights. Arms, each with a weight:

- `plain`: as `medvae train`. Its samples are measured with three changes as well: `texture` (`augment.texture`),
  `filter` (bands of frequency amplified to the power of training scans), `quilt` (residuals of training scans).
- `gradient`: plus Σ_axes ln(mean |∂x − ∂x̂|) over the foreground.
- `amplitude`: plus the mean |ln A(x) − ln A(x̂)| of the Fourier amplitudes of patches of 16³ voxels.
- `bands`: the same for the mean power in bands of frequency of each patch, which ignores single coefficients.
- `adversarial`: `plain` for two thirds of the steps; from then on the encoder is frozen, and a patch discriminator
  (least squares, feature matching) judges reconstructions and, in every other step, decoded codes of the sampler
  `density`. The weight is the norm of its gradient in the last convolution over that of the likelihood. A second number
  says how often the batches of the last third are used (1). It needs `plain` among the arms before it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.metrics import SSIMMetric
from scipy import ndimage
from sharpness_arms import BANDS, Roles, band_matrix, model_of, patch_power, synthesizer_of, train_all, weights_of

from medvae.evaluation.features import Features
from medvae.evaluation.fidelity import distances, prdc
from medvae.evaluation.image_set import ImageSet
from medvae.evaluation.spectrum import radial_power
from medvae.prepare.grid import box_around
from medvae.settings import load_settings
from medvae.synthesis.decoding import finish
from medvae.synthesis.nearest import TrainingImages, find_nearest
from medvae.training.roles import held_out
from medvae.training.store import Scans, fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared
    from medvae.settings import Settings

    Pairs = Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]]  # image and mask, `(1, X, Y, Z)`

ARMS = (
    "plain,adversarial:1,bands:1,gradient:0.3,adversarial:0.3,bands:0.3,amplitude:0.3,adversarial:1:2,gradient:1,"
    "adversarial:3,amplitude:1"
)
UNSEEN = "oasis-1005,oasis-1010,oasis-1018,oasis-1107,oasis-1119"  # of split `calibrate`
NEIGHBOURS = 2  # of precision, recall and coverage: there are seven unseen people
SHOWN = 2  # samples in a picture
PIECES = 6  # donors of a quilted sample
TILINGS = 2  # of a scan into patches


def main() -> None:
    """Train the arms, then measure them; or measure what was trained."""
    parser = argparse.ArgumentParser(description="sharper samples")
    parser.add_argument("--scans", type=Path, required=True, help="prepared training scans, a folder")
    parser.add_argument("--unseen", type=Path, help="folder of further prepared scans, none of a test; to measure")
    parser.add_argument("--ids", default=UNSEEN, help="which of them, separated by commas")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", default="brain-mri-t1")
    parser.add_argument("--arms", default=ARMS, help="names and weights, separated by commas; the first is `plain`")
    parser.add_argument("--steps", type=int, default=1447)
    parser.add_argument("--seconds", type=float, default=3600, help="no arm is begun that would end later")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--count", type=int, default=24, help="samples")
    parser.add_argument("--only", choices=["train", "measure"], help="without measuring, or without training")
    parser.add_argument("--picture", type=Path, help="PNG: slices of unseen scans and of samples")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    settings = load_settings(options.config, {"train.steps": options.steps})
    roles = _roles(options, settings)
    if options.only != "measure":
        train_all(options, settings, roles)
    if options.only != "train":
        measure_all(options, settings, roles)


def _roles(options: argparse.Namespace, settings: Settings) -> Roles:
    files = sorted(options.scans.glob("*.safetensors"))
    subjects = [fetch(file).subject for file in files]
    aside = held_out(subjects, share=settings.train.validation, seed=settings.seed)
    pairs = list(zip(files, subjects, strict=True))
    names = options.ids.split(",") if options.unseen else []
    further = [next(options.unseen.rglob(f"{name}.safetensors")) for name in names]
    roles = Roles(
        Scans([file for file, one in pairs if one not in aside]),
        Scans([file for file, one in pairs if one in aside]),
        Scans(further),
    )
    ids = [[file.stem for file in one.files] for one in (roles.validation, roles.unseen)]
    print(f"{len(roles.training)} training scans; validation {ids[0]}; unseen {ids[1]}", flush=True)
    return roles


def measure_all(options: argparse.Namespace, settings: Settings, roles: Any) -> None:
    """Print a table of all arms whose weights are in the folder, append JSON lines, write pictures."""
    unseen = [*_all(roles.validation), *_all(roles.unseen)]
    real = ImageSet.from_prepared(unseen, classes=[None] * len(unseen))
    training = ImageSet.from_prepared(_all(roles.training), classes=[None] * len(roles.training))
    base = _Real(unseen, real, training)
    say({"arm": "real training scans", **base.of_set(training)}, options.out / "measures.jsonl")
    rows: list[tuple[str, Pairs]] = [("unseen scans", [(one.image, one.mask) for one in unseen])]
    device = "cuda" if options.device.startswith("cuda") else "cpu"
    stored = {path.stem: path for path in sorted(options.out.glob("*.safetensors")) if path.stem != "two_thirds"}
    chosen = [arm.replace(":", "-") for arm in options.arms.split(",")]
    for name in [one for one in chosen if one in stored]:
        vae = weights_of(stored[name], settings).to(device)
        model = model_of(vae, settings, roles.training)
        found = base.reconstructions([finish(model.reconstruct_prepared(one), one.mask, model) for one in unseen])
        sets = {name: _drawn(model, options.count, seed=1)}
        if name == "plain":
            sets["plain+texture"] = _drawn(model, options.count, seed=1, texture=True)
            sets["plain+filter"] = _filtered(model, sets[name], roles)
            sets["plain+quilt"] = _quilted(model, sets[name], roles)
        for arm, samples in sets.items():
            record = {"arm": arm, **(found if arm == name else {}), **base.of_set(_image_set(samples))}
            say(record, options.out / "measures.jsonl")
            print(_line(record), flush=True)
            rows.append((arm, samples))
    if options.picture:
        _picture(rows, options.picture)


class _Real:
    """The unseen scans, and what samples are compared with."""

    def __init__(self, unseen: Sequence[Prepared], real: ImageSet, training: ImageSet) -> None:
        self.unseen, self.real, self.training = unseen, real, training
        self.features = Features.fit(training)
        self.points, self.power = self.features.of(real), _power(_pairs(real))
        self.patches = _patches(_pairs(real))
        self.nearest = TrainingImages.from_scans(
            training.images.astype(np.float32), training.masks, ids=training.ids, subjects=training.subjects
        )

    def reconstructions(self, images: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
        """Errors and spectra of reconstructions of the unseen scans."""
        pairs = list(zip(images, self.unseen, strict=True))
        powers = _power([(image, one.mask) for image, one in pairs])
        return {
            "error": [float(np.square(image - one.image)[one.mask].mean()) for image, one in pairs],
            "absolute": [float(np.abs(image - one.image)[one.mask].mean()) for image, one in pairs],
            "ssim": [_ssim(image, one) for image, one in pairs],
            "reconstruction_spectrum": (powers / self.power).tolist(),
            "reconstruction_patches": (_patches([(i, one.mask) for i, one in pairs]) / self.patches).tolist(),
        }

    def of_set(self, samples: ImageSet) -> dict[str, Any]:
        """Spectra, precision, recall, coverage, likeness and copies of samples (or training scans)."""
        points = self.features.of(samples)
        across = distances(self.points, points)
        found = prdc(distances(self.points, self.points), distances(points, points), across, k=NEIGHBOURS)
        near = []
        for image, mask, subject in zip(samples.images, samples.masks, samples.subjects, strict=True):
            away = self.nearest.distances(image.astype(np.float32), mask)
            one = find_nearest(away, self.nearest.ids, subjects=self.nearest.subjects, without=subject)
            near.append([one.distance, one.ratio])  # type: ignore[union-attr]
        return {
            "spectrum": (_power(_pairs(samples)) / self.power).tolist(),
            "patches": (_patches(_pairs(samples)) / self.patches).tolist(),
            "precision": found.precision,
            "recall": found.recall,
            "coverage": found.coverage,
            "density": found.density,
            "distance": float(np.median([one for one, _ in near])),
            "ratio": [float(min(r for _, r in near)), float(np.median([r for _, r in near]))],
        }


def _drawn(model: Model, count: int, *, seed: int, **changes: Any) -> Pairs:
    synthesizer = synthesizer_of(model, seed=seed, **changes)
    samples = [synthesizer.sample(index) for index in range(count)]
    return [(one.image, one.mask) for one in samples]


def _filtered(model: Model, samples: Pairs, roles: Any) -> Pairs:
    """Samples whose bands are amplified to the power of training scans, measured on other samples.

    Repeated, because a window leaks the power of low bands into the neighbouring bands.
    """
    wanted = _patches([(one.image, one.mask) for one in _all(roles.training)])
    others, gain = _drawn(model, 8, seed=50), np.ones(BANDS)
    for _ in range(4):
        found = _patches([(_amplified(image, mask, gain, model), mask) for image, mask in others])
        gain = np.clip(gain * np.sqrt(wanted / found), 0.5, 8)
    print("gain per band:", " ".join(f"{value:.2f}" for value in gain), flush=True)
    return [(_amplified(image, mask, gain, model), mask) for image, mask in samples]


def _amplified(
    image: NDArray[np.float32], mask: NDArray[np.bool_], gain: NDArray[np.float64], model: Model
) -> NDArray[np.float32]:
    at = ndimage.distance_transform_edt(~mask[0], return_distances=False, return_indices=True)
    filled = image[0][tuple(at)]
    lines = [np.fft.fftfreq(n) for n in filled.shape[:2]] + [np.fft.rfftfreq(filled.shape[2])]
    radius = np.sqrt(sum(np.square(one) for one in np.meshgrid(*lines, indexing="ij")))
    factor = np.interp(radius, [0, *((np.arange(BANDS) + 0.5) * 0.5 / BANDS)], [1, *gain])
    sharp = np.fft.irfftn(np.fft.rfftn(filled) * factor, filled.shape)[None].astype(np.float32)
    return finish(sharp, mask, model)


def _quilted(model: Model, samples: Pairs, roles: Any) -> Pairs:
    """Samples and residuals of training scans, at each place of another scan: pieces of patients, who are sources.

    The mean residual, which belongs to no single patient, is added everywhere. Weights of what deviates from it are
    smooth, Σ w² = 1, so that it keeps its power where two pieces meet.
    """
    donors = [_residual(model, one) for one in _all(roles.training)]
    mean = np.mean(donors, axis=0)
    result = []
    for number, (image, mask) in enumerate(samples):
        rng = np.random.default_rng([7, number])
        chosen = rng.choice(len(donors), PIECES, replace=False)
        fields = np.stack([_smooth(rng, image.shape[1:]) for _ in chosen])
        weights = np.exp(12 * (fields - fields.max(0)))
        weights /= np.sqrt(np.square(weights).sum(0))
        change = mean + sum(w * (donors[row] - mean) for w, row in zip(weights, chosen, strict=True))
        result.append((finish(image + change.astype(np.float32)[None], mask, model), mask))
    return result


def _residual(model: Model, one: Prepared) -> NDArray[np.float32]:
    """Of a training scan, `(X, Y, Z)`; beyond its foreground that of the nearest voxel in it."""
    at = ndimage.distance_transform_edt(~one.mask[0], return_distances=False, return_indices=True)
    return np.asarray((one.image - model.reconstruct_prepared(one))[0][tuple(at)], np.float32)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A random field of unit variance that changes over about 12 voxels."""
    coarse = ndimage.gaussian_filter(rng.standard_normal([n // 4 for n in shape]), 3)
    fine = ndimage.zoom(coarse / coarse.std(), 4, order=1)
    return np.asarray(fine, np.float64)


def _power(pairs: Pairs) -> NDArray[np.float64]:
    """Mean over scans of the power per band up to half of Nyquist."""
    mean: NDArray[np.float64] = np.mean([radial_power(image, mask) for image, mask in pairs], axis=0)
    return mean


def _patches(pairs: Pairs) -> NDArray[np.float64]:
    """Mean over scans of the power of patches inside the foreground per band up to Nyquist."""
    which, total = band_matrix(torch.device("cpu")), []
    for image, mask in pairs:
        values, inside = torch.from_numpy(image)[None], torch.from_numpy(mask)[None]
        for _ in range(TILINGS):
            power, _ = patch_power(values, values, inside, inside=0.999)
            total.append((power.flatten(1) @ which).double().numpy())
    mean: NDArray[np.float64] = np.concatenate(total).mean(axis=0)
    return mean


def _ssim(image: NDArray[np.float32], one: Prepared) -> float:
    """SSIM (Wang et al., 2004) in the box around the foreground, with a range of 6: −3 to 3 robust SD."""
    x, y, z = box_around(one.mask[0])
    pair = [torch.from_numpy(np.ascontiguousarray(value[:, x, y, z]))[None] for value in (image, one.image)]
    return float(SSIMMetric(3, data_range=6.0, kernel_type="uniform", win_size=7)(*pair))


def _image_set(samples: Pairs) -> ImageSet:
    ids = tuple(f"sample-{number}" for number in range(len(samples)))
    images = np.stack([image for image, _ in samples]).astype(np.float16)
    none = (None,) * len(ids)
    return ImageSet(ids, ids, none, ("",) * len(ids), images, np.stack([mask for _, mask in samples]), None)


def _pairs(scans: ImageSet) -> Pairs:
    return [(image.astype(np.float32), mask) for image, mask in zip(scans.images, scans.masks, strict=True)]


def _all(scans: Any) -> list[Prepared]:
    return [scans[number] for number in range(len(scans))]


def _line(record: dict[str, Any]) -> str:
    bands = " ".join(f"{value:.2f}" for value in record["spectrum"])
    patches = " ".join(f"{value:.2f}" for value in record["patches"])
    text = f"{record['arm']:<16}"
    if "error" in record:
        own = " ".join(f"{value:.2f}" for value in record["reconstruction_spectrum"])
        text += f" error {np.mean(record['error']):.4f} ssim {np.mean(record['ssim']):.4f} rec {own} |"
    text += f" samples {bands} | patches {patches} | P {record['precision']:.2f} R {record['recall']:.2f}"
    text += f" C {record['coverage']:.2f} d {record['distance']:.3f} ratio {record['ratio'][0]:.2f}"
    return f"{text}/{record['ratio'][1]:.2f}"


def _picture(rows: Sequence[tuple[str, Pairs]], path: Path) -> None:
    """One row of slices per set."""
    from PIL import Image, ImageDraw  # a machine that only trains need not have it

    lines = []
    for name, pairs in rows:
        tiles = []
        for image, mask in pairs[:SHOWN]:
            values = np.where(mask, image, np.nan)[0]
            x, y, z = (n // 2 for n in values.shape)
            for plane in (values[:, :, z], values[:, y - 8], values[x - 6]):
                grey = np.nan_to_num(np.clip((plane + 3.0) / 5.0, 0, 1), nan=0.0)
                tile = np.zeros((112, 112))
                tile[: grey.shape[1], : grey.shape[0]] = grey.T[::-1]
                tiles.append(tile)
        line = Image.fromarray((255 * np.concatenate(tiles, 1)).astype(np.uint8))
        ImageDraw.Draw(line).text((2, 2), name, fill=255)
        lines.append(np.asarray(line))
    Image.fromarray(np.concatenate(lines)).save(path)


def say(record: dict[str, Any], path: Path) -> None:
    """Append a line to a JSON-lines file."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
