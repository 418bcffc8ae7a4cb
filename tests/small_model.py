"""The smallest real network, on simulated scans of 16 voxels a side: for tests of training, checkpoints and maps."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.anomaly.calibrate import uncalibrated
from medvae.checkpoint.model import Model, build_vae
from medvae.prepare.preparation import Intensity, Preparation, Prepared
from medvae.settings import Settings
from medvae.training.detector import fit_detector
from medvae.training.fabric import make_fabric
from medvae.training.finish import to_model
from medvae.training.fit import fit
from medvae.training.store import Scans, store

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (16, 16, 16)
LESION = (slice(6, 9), slice(7, 10), slice(8, 11))


def settings(
    *, align: str = "none", network: str = "spatial", train: dict[str, Any] | None = None, **more: Any
) -> Settings:
    """Settings of a network of stride 4 with two or three latent channels, and of a run of six steps."""
    tree = {
        "prepare": {"modality": "MR", "shape": SHAPE, "spacing": (4, 4, 4), "align": align},
        "model": {
            "name": network,
            "options": {"stem": 2, "channels": [8, 16], "latent": 3 if network == "deform" else 2},
        },
        "train": {"steps": 6, "validate_every": 2, "precision": "32", "kl_warmup": 0.0, **(train or {})},
        "detect": {"draws": 3},
        **more,
    }
    return Settings.model_validate(tree)


def scan(index: int, *, lesion: float = 0.0, align: str = "none") -> Prepared:
    """A ball with a smooth field of its own and noise, in prepared intensities; one with a bright block, if asked."""
    rng = np.random.default_rng(index)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    a, b, c = rng.normal(size=3)
    image = a * x + 0.5 * b * np.cos(3 * y) + 0.5 * c * z + 0.2 * rng.normal(size=SHAPE)
    image[LESION] += lesion
    mask: NDArray[np.bool_] = x**2 + y**2 + z**2 < 0.8
    grid = Preparation(settings(align=align).prepare).grid
    return Prepared(
        id=f"scan-{index}",
        subject=f"subject-{index}",
        image=np.where(mask, image, 0).astype(np.float32)[None],
        mask=mask[None],
        fov=np.ones_like(mask)[None],
        to_input=np.diag([1.0, 2.0, 1.0, 1.0]),
        grid=grid,
        input=grid,
        intensity=Intensity(offset=100.0, scale=20.0, low=-10.0, high=10.0),
        modality="MR",
        source_hash=f"hash-{index}",
    )


def stored(folder: Path, count: int, *, start: int = 0, align: str = "none") -> Scans:
    """Scans number `start` to `start + count` in cache files."""
    files = [folder / f"{i:03d}.safetensors" for i in range(start, start + count)]
    for i, path in enumerate(files, start):
        store(scan(i, align=align), path)
    return Scans(files)


@cache
def trained(align: str = "mni152", *, network: str = "spatial") -> Model:
    """The network after some steps on eight scans, with its uncalibrated Reference."""
    detector = {"steps": 80, "channels": [8, 16], "patch": SHAPE, "batch": 4, "lr": 5e-3}
    train = {"steps": 40, "validate_every": 40, "lr": 3e-3}
    chosen = settings(align=align, network=network, train=train, detector=detector)
    with TemporaryDirectory() as place:
        scans = stored(Path(place), 8, align=align)
        vae, fabric = build_vae(chosen), make_fabric("cpu", precision="32")
        list(fit(vae, scans, Scans([]), chosen, fabric=fabric, folder=Path(place), resume=False))
        marks, _ = fit_detector(scans, chosen, fabric=fabric, folder=Path(place), resume=False)
        model = to_model(vae, scans, detector=marks, labels=["a", None] * 4, settings=chosen, record={"steps": 40})
        return uncalibrated(model, [scans[i] for i in range(8)])
