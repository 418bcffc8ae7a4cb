"""A few training steps of a network that learns label maps, on scans of the small model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from small_model import scan

from medvae.checkpoint.model import build_vae
from medvae.training.fabric import make_fabric
from medvae.training.finish import to_model
from medvae.training.fit import fit
from medvae.training.store import Scans, store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medvae.checkpoint.model import Model
    from medvae.settings import Settings
    from medvae.vae.base import TrainingScan


def stored(folder: Path, labelled: Sequence[TrainingScan]) -> Scans:
    """As many scans, with these label maps."""
    files = [folder / f"{i}.safetensors" for i in range(len(labelled))]
    for i, (path, one) in enumerate(zip(files, labelled, strict=True)):
        assert one.label_map is not None
        store(replace(scan(i), label_map=one.label_map.numpy()), path)
    return Scans(files)


def trained(folder: Path, labelled: Sequence[TrainingScan], settings: Settings, *, resume: bool = False) -> Model:
    """The model after all steps."""
    folder.mkdir(exist_ok=True)
    scans, vae, fabric = stored(folder, labelled), build_vae(settings), make_fabric("cpu", precision="32")
    list(fit(vae, scans, scans, settings, fabric=fabric, folder=folder, resume=resume))
    return to_model(vae, scans, labels=[None] * len(labelled), settings=settings, record={})
