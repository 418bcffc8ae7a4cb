"""Sets in a layout: synthetic ones as `medvae augment` writes them, and real ones to be listed beside them."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from toy_model import toy_model

from medvae.io.formats import nifti
from medvae.scan import Geometry
from medvae.settings import AugmentSettings
from medvae.synthesis import generate
from medvae.synthesis.rows import Row
from medvae.synthesis.synthesize import make_layout, with_screen

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.checkpoint.model import Model

COUNT = 4


def write_set(
    out: Path, layout: str, *, model: Model | None = None, merge_with: Path | None = None, **augment: Any
) -> list[Row]:
    """A set with its lists, as `medvae augment` writes it."""
    settings = AugmentSettings.model_validate({"sampler": "classical", "layout": layout, **augment})
    synthesizer = generate.fit(model or toy_model(n=8, label_maps=True), settings, seed=0)
    whole = with_screen(synthesizer, layout=make_layout(synthesizer, merge_with=merge_with))
    rows = []
    for index in range(COUNT):
        result = whole.scan(index).result()
        result.write(out)
        rows.append(Row(f"synthetic-{index:05d}", result.scores, result.facts))
    for file in whole.layout.lists(rows, out):
        file.write(out)
    return rows


def tree(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


def put(folder: Path, image: str, label: str, *, seed: int = 0) -> None:
    """A real scan and its label map."""
    data = np.random.default_rng(seed).normal(100, 10, (6, 7, 8)).astype(np.float32)
    geometry = Geometry(data.shape, np.eye(4))
    nifti.write(folder / image, data, geometry, description="real")
    nifti.write(folder / label, (data > 100).astype(np.uint8), geometry, description="labels")


def nnunet_set(folder: Path, names: list[str], **changes: Any) -> Path:
    """A raw dataset of nnU-Net with these cases."""
    for seed, name in enumerate(names):
        put(folder, f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz", seed=seed)
    description = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**description, "numTraining": len(names), **changes}), "utf-8")
    return folder
