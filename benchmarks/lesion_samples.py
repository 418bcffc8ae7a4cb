"""Does the sampler `lesion` help a segmenter that has few scans with lesions? Simulated lesions of real MS shapes.

    python benchmarks/lesion_samples.py [--data FOLDER] [--draws 3] [--scans 5,10] [--kind bright]
    python benchmarks/lesion_samples.py --tune [--draws 1]

The test generator (`medvae.simulate.lesions`) implants the masks of MS patients in brains of `brains-t1/split.csv`:
masks 01-15 in training brains, 16-30 in test brains. In each draw, n brains have lesions and ten others have none. From
these scans alone lesions are learned, and `lesion` puts new ones into the ten. A 3D U-Net (MONAI) is trained on patches
of the real scans, or half of them and half of the samples: the same augmentation (turns, scale, mirror, gamma, noise),
the same number of steps, the same seed. A lesion is found where one of its voxels is marked. Differences are paired by
draw; intervals are 95% bootstrap intervals over the test scans, of the means over the draws.

The third arm is the control: the lesions of the n scans themselves, put into the ten by the same rules (place, turn,
mirror, blending) in the place of learned ones.

`--tune` compares learning rates and steps of the segmenter without samples: ten scans with masks 01-10, tested on the
calibration brains with masks 11-15.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from medvae.checkpoint.kept import Latents, TrainingScans
from medvae.checkpoint.lesion_codes import LESION_CODES
from medvae.checkpoint.model import Model, build_vae
from medvae.io.formats import nifti
from medvae.lesions.crops import crops_of_scan
from medvae.lesions.implant import Lesion
from medvae.lesions.network import LESIONS
from medvae.prepare import intensity
from medvae.prepare.grid import resample, resample_labels
from medvae.prepare.preparation import Preparation
from medvae.settings import AugmentSettings, ReadSettings, Settings
from medvae.simulate.lesions import CONTRAST, Kind, implant, shape_on
from medvae.synthesis import generate
from medvae.synthesis.samplers.lesion import Lesions
from medvae.training.lesions import fit_lesions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.lesions.crops import Crop
    from medvae.prepare.intensity import Intensity
    from medvae.synthesis.generate import Synthesizer

DATA = Path(__file__).parents[2] / "shared" / "data"
HEALTHY, SAMPLES = 10, 40  # scans without lesions, and samples, of a draw
PATCH, BATCH, ON_LESION = 32, 6, 0.6
TURN = 15.0  # degrees, standard deviation, of a lesion that is put elsewhere: that of the sampler
WEIGHT = 10.0  # of a lesion voxel in the cross-entropy: they are 3 of 1000, and without it nothing is marked
LR, STEPS = 1e-2, 800  # of `--tune`
TRIED = tuple(product((3e-3, 1e-2), (400, 800)))
MEASURES = ("sensitivity", "dice", "false")
SHAPES = {2.0: (96, 112, 96), 3.0: (64, 80, 64)}  # of the grid, by voxel size in mm
CLASSICAL, LESION, PASTED = "classical", "+ lesion", "+ pasted"
DRAWS = 2000  # of the bootstrap


@dataclass(frozen=True, eq=False)
class Case:
    """A scan on the grid, `(X, Y, Z)`."""

    image: NDArray[np.float32] = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    lesions: NDArray[np.bool_] = field(repr=False)
    scale: Intensity


@dataclass(frozen=True, eq=False)
class Pasted(Lesions):
    """The sampler `lesion`, with real lesions in the place of those of its network."""

    crops: Sequence[Crop] = field(default=(), repr=False)

    def _lesion(self, change: float | None, generator: np.random.Generator) -> tuple[Lesion, dict[str, Any]]:
        crop = self.crops[int(generator.integers(len(self.crops)))]
        turn = Rotation.from_rotvec(np.radians(generator.normal(0, TURN, 3))).as_matrix()
        axes = turn @ crop.axes * generator.choice([-1.0, 1.0], 3)
        return Lesion(crop.change * crop.profile, crop.distance, axes, crop.sizes, self.codes.detail), {}


@dataclass(frozen=True)
class Found:
    """What a segmenter makes of a test scan."""

    sensitivity: float
    dice: float
    false: int


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="lesion samples as training data for a segmenter")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--scans", default="5,10", help="scans with lesions")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of the segmenter")
    parser.add_argument("--lesion-steps", type=int, default=250, help="training steps of the network of lesion crops")
    parser.add_argument("--kind", choices=get_args(Kind), default="bright")
    parser.add_argument("--contrast", type=float, default=CONTRAST)
    parser.add_argument("--spacing", type=float, choices=list(SHAPES), default=2.0, help="voxel size of the grid, mm")
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    begun = time.monotonic()
    settings = settings_of(options.lesion_steps, options.spacing)
    shapes = sorted((options.data / "ms-lesion-masks").glob("*.nii.gz"))
    if options.tune:
        tune(options, shapes[:15], settings)
        return
    test = test_cases(options, shapes[15:], settings)
    sizes = [len(np.unique(ndimage.label(one.lesions, np.ones((3, 3, 3)))[0])) - 1 for one in test]
    print(f"{len(test)} test scans, {sum(sizes)} lesions; {options.kind}, contrast {options.contrast}")
    for count in (int(text) for text in options.scans.split(",")):
        results = [one_draw(options, shapes[:15], settings, test, count=count, seed=s) for s in range(options.draws)]
        report(count, results)
        print(f"  {time.monotonic() - begun:.0f} s so far", flush=True)


def tune(options: argparse.Namespace, shapes: Sequence[Path], settings: Settings) -> None:
    """Print what the segmenter without samples finds, per learning rate and steps; means over draws of the brains."""
    test = [
        case(brain, shape, settings, options)
        for brain, shape in zip(brains_of(options.data, "calibrate"), shapes[10:], strict=True)
    ]
    drawn = [cases_of_draw(options, shapes[:10], settings, count=10, seed=seed) for seed in range(options.draws)]
    for lr, steps in TRIED:
        nets = [train([(1.0, cases)], steps=steps, lr=lr, seed=seed) for seed, cases in enumerate(drawn)]
        found = [judge(net, one) for net in nets for one in test]
        means = {name: np.mean([getattr(one, name) for one in found]) for name in MEASURES}
        print(f"{lr:g}, {steps} steps: {', '.join(f'{name} {value:.3f}' for name, value in means.items())}", flush=True)


def settings_of(lesion_steps: int, spacing: float) -> Settings:
    """A grid over the template's brain; the network of scans is not trained."""
    return Settings.model_validate(
        {
            "prepare": {"modality": "MR", "align": "mni152", "spacing": (spacing,) * 3, "shape": SHAPES[spacing]},
            "model": {"name": "spatial", "options": {"stem": 4, "channels": [8], "latent": 1}},
            "lesions": {"steps": lesion_steps},
        }
    )


def test_cases(options: argparse.Namespace, shapes: Sequence[Path], settings: Settings) -> list[Case]:
    """Each test brain with two masks."""
    brains = brains_of(options.data, "test")
    return [case(brains[i % len(brains)], shapes[i], settings, options) for i in range(2 * len(brains))]


def brains_of(data: Path, split: str) -> list[Path]:
    """Files of a split."""
    lines = (data / "brains-t1" / "split.csv").read_text("utf-8").split()[1:]
    return [data / "brains-t1" / line.split(",")[0] for line in lines if line.split(",")[-1] == split]


def case(brain: Path, shape: Path | None, settings: Settings, options: argparse.Namespace) -> Case:
    """A brain, which is registered already, on the grid; with lesions of a mask, if there is one."""
    image, geometry = nifti.read_values(brain, ReadSettings())
    foreground, truth = image > 0, np.zeros(image.shape, bool)
    if shape is not None:
        on = shape_on(shape, geometry)
        made = implant(
            image,
            on,
            foreground=foreground,
            spacing=geometry.spacing,
            kind=options.kind,
            contrast=options.contrast,
        )
        image, truth = made.image, made.truth
    grid = Preparation(settings.prepare).grid
    to_input = np.linalg.inv(geometry.affine) @ grid.affine
    mask = resample_labels(foreground, to_input, grid.shape) > 0
    values = resample(image, to_input, grid.shape)
    scale = intensity.fit(values, mask, settings=settings.prepare)
    lesions = (resample(truth.astype(np.float32), to_input, grid.shape) >= 0.5) & mask
    return Case(np.where(mask, scale.apply(values), np.float32(0)), mask, lesions, scale)


def one_draw(
    options: argparse.Namespace,
    shapes: Sequence[Path],
    settings: Settings,
    test: Sequence[Case],
    *,
    count: int,
    seed: int,
) -> dict[str, list[Found]]:
    """Both segmenters of a draw, on all test scans."""
    real = cases_of_draw(options, shapes, settings, count=count, seed=seed)
    model, crops = lesion_model(real, settings)
    learned = generate.fit(model, AugmentSettings(sampler="lesion"), seed=seed)
    assert isinstance(learned.fitted, Lesions)
    pasted = replace(learned, fitted=Pasted(**vars(learned.fitted), crops=crops))
    arms = {CLASSICAL: [(1.0, real)]}
    arms |= {name: [(0.5, real), (0.5, samples_of(one))] for name, one in ((LESION, learned), (PASTED, pasted))}
    nets = {name: train(pools, steps=options.steps, lr=LR, seed=seed) for name, pools in arms.items()}
    return {name: [judge(net, one) for one in test] for name, net in nets.items()}


def cases_of_draw(
    options: argparse.Namespace, shapes: Sequence[Path], settings: Settings, *, count: int, seed: int
) -> list[Case]:
    """Training brains: `count` with lesions, and others without."""
    rng = np.random.default_rng(seed)
    brains = rng.permutation(np.array(brains_of(options.data, "train"), object))
    chosen = rng.permutation(np.array(shapes, object))[:count]
    ill = [case(brain, shape, settings, options) for brain, shape in zip(brains, chosen, strict=False)]
    return [*ill, *(case(brain, None, settings, options) for brain in brains[-HEALTHY:])]


def lesion_model(cases: Sequence[Case], settings: Settings) -> tuple[Model, list[Crop]]:
    """A checkpoint in memory, with the lesions of these scans, and these."""
    preparation = Preparation(settings.prepare)
    crops: list[Crop] = []
    ids = [f"scan-{i}" for i in range(len(cases))]
    for name, one in zip(ids, cases, strict=True):
        crops += crops_of_scan(
            one.image, one.lesions, foreground=one.mask, geometry=preparation.grid, source=name, least=3
        )
    net, codes = fit_lesions(crops, settings, device=torch.device("cpu"))
    vae = build_vae(settings).eval()
    nothing = np.zeros((len(ids), *vae.latent_shape(settings.prepare.shape)), np.float32)
    training = TrainingScans(
        np.stack([one.image[None] for one in cases]).astype(np.float16),
        np.stack([one.mask[None] for one in cases]),
        np.stack([one.lesions[None] for one in cases]).astype(np.int16),
        [one.scale for one in cases],
        ids,
    )
    latents = Latents(nothing, nothing, ids, ids, [None] * len(ids), ids)
    networks = {"vae": vae, LESIONS: net}
    sets = {LESION_CODES: codes.to_set()}
    return Model(networks, preparation, settings, latents, training, "benchmark", sets=sets), crops


def samples_of(synthesizer: Synthesizer) -> list[Case]:
    """Scans of the sampler."""
    made = []
    for one in (synthesizer.sample(index) for index in range(SAMPLES)):
        assert one.label_map is not None
        made.append(Case(one.image[0], one.mask[0], one.label_map[0] > 0, one.intensity))
    return made


def train(pools: Sequence[tuple[float, list[Case]]], *, steps: int, lr: float, seed: int) -> UNet:
    """A segmenter; patches come from each pool of scans with its probability."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 1])
    net = UNet(3, 1, 1, channels=(12, 24, 48), strides=(2, 2), num_res_units=1)
    optimizer = torch.optim.AdamW(net.parameters(), lr)
    loss = DiceCELoss(sigmoid=True, batch=True, weight=torch.tensor([WEIGHT]))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(steps):
        pairs = [patch(pick(pools, rng), rng) for _ in range(BATCH)]
        x, y = augmented(*(torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True)), rng)
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def pick(pools: Sequence[tuple[float, list[Case]]], rng: np.random.Generator) -> Case:
    """A scan."""
    cases = pools[int(rng.choice(len(pools), p=[share for share, _ in pools]))][1]
    return cases[int(rng.integers(len(cases)))]


def patch(one: Case, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image and lesions, `(1, P, P, P)`: mostly around a lesion, where there is one."""
    where = one.lesions if one.lesions.any() and rng.random() < ON_LESION else one.mask
    centre = np.argwhere(where)[int(rng.integers(int(where.sum())))] + rng.integers(-8, 9, 3)
    starts = [int(np.clip(c - PATCH // 2, 0, n - PATCH)) for c, n in zip(centre, one.mask.shape, strict=True)]
    box = tuple(slice(start, start + PATCH) for start in starts)
    return one.image[box][None], one.lesions[box][None].astype(np.float32)


def augmented(x: torch.Tensor, y: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Turned, scaled and mirrored in one resampling; then gain, offset, gamma and noise."""
    size = len(x)
    angle, zoom = rng.uniform(-0.3, 0.3, (size, 3)), rng.uniform(0.8, 1.2, (size, 1, 1))
    skew = np.zeros((size, 3, 3))
    for (i, j), column in zip(((0, 1), (0, 2), (1, 2)), range(3), strict=True):
        skew[:, i, j], skew[:, j, i] = angle[:, column], -angle[:, column]
    turn = torch.linalg.matrix_exp(torch.from_numpy(skew)).numpy() * zoom
    turn[:, :, 2] *= rng.choice([-1, 1], (size, 1))  # the last axis of the grid of torch is x of the scan
    theta = torch.from_numpy(np.concatenate([turn, np.zeros((size, 3, 1))], 2).astype(np.float32))
    grid = F.affine_grid(theta, [size, 2, *x.shape[2:]], align_corners=False)
    moved = F.grid_sample(torch.cat([x, y], 1), grid, align_corners=False)
    gain, offset = (torch.from_numpy(rng.normal(m, 0.1, (size, 1, 1, 1, 1)).astype(np.float32)) for m in (1, 0))
    image = moved[:, :1] * gain + offset
    bent = image.sign() * image.abs() ** float(np.exp(rng.normal(0, 0.15)))
    noise = torch.from_numpy(rng.normal(0, rng.uniform(0, 0.15), image.shape).astype(np.float32))
    return bent + noise, (moved[:, 1:] > 0.5).float()


def judge(net: UNet, one: Case) -> Found:
    """The share of lesions that are found, Dice, and marked regions without a lesion."""
    image = torch.from_numpy(one.image)[None, None]
    with torch.inference_mode():  # by patches: the network normalises by the statistics of what it sees
        values = sliding_window_inference(image, (PATCH,) * 3, BATCH, net, overlap=0.5, mode="gaussian")
    assert isinstance(values, torch.Tensor)
    marked = (values[0, 0].numpy() > 0) & one.mask
    touching = np.ones((3, 3, 3))
    numbers, count = ndimage.label(one.lesions, touching)
    hit = len(np.unique(numbers[marked & one.lesions]))
    regions, found = ndimage.label(marked, touching)
    true = len(np.unique(regions[marked & one.lesions]))
    dice = 2 * (marked & one.lesions).sum() / max(1, marked.sum() + one.lesions.sum())
    return Found(hit / max(count, 1), float(dice), found - true)


def report(count: int, results: Sequence[dict[str, list[Found]]]) -> None:
    """Means per arm, and the paired difference with its interval."""
    print(f"\n{count} scans with lesions, {len(results)} draws")
    rng = np.random.default_rng(0)
    for name in MEASURES:
        arms: dict[str, Any] = {
            arm: np.array([[getattr(one, name) for one in result[arm]] for result in results]) for arm in results[0]
        }
        means = ", ".join(f"{arm} {values.mean():.3f}" for arm, values in arms.items())
        print(f"  {name}: {means}")
        for one, other in ((LESION, CLASSICAL), (PASTED, CLASSICAL), (LESION, PASTED)):
            gain = arms[one] - arms[other]
            picks = rng.integers(gain.shape[1], size=(DRAWS, gain.shape[1]))
            low, high = np.percentile(gain.mean(0)[picks].mean(1), (2.5, 97.5))
            each = " ".join(f"{value:+.3f}" for value in gain.mean(1))
            print(f"    {one} − {other}: {gain.mean():+.3f} ({low:+.3f} to {high:+.3f}), per draw {each}")


if __name__ == "__main__":
    main()
