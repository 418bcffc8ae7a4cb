"""Small scans to train on, and a model that was trained on them without a break."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from medvae.cli.main import main
from medvae.io.formats import nifti
from medvae.scan import Geometry

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Six small unaligned scans of textured blocks, and a configuration that trains on them within a second."""
    folder = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(0)
    for index in range(6):
        data = np.zeros((20, 18, 16), np.float32)
        data[3:17, 3:15, 3:13] = 100 + 20 * rng.normal(size=(14, 12, 10)) + 10 * index
        nifti.write(folder / "scans" / f"s{index}.nii.gz", data, Geometry(data.shape, np.eye(4)), description="block")
    config = folder / "config.yaml"
    config.write_text(
        "prepare: {modality: MR, spacing: [1, 1, 1], shape: [24, 24, 16]}\n"
        "model: {options: {stem: 2, channels: [8, 16], latent: 2}}\n"
        "train: {steps: 6, validate_every: 2, precision: '32'}\n"
        "detect: {maps: [residual, nll], draws: 2}\n",
        "utf-8",
    )
    return folder / "scans", config


@pytest.fixture(scope="session")
def whole(blocks: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the blocks, by the command. Do not write into it."""
    scans, config = blocks
    out = tmp_path_factory.mktemp("whole") / "model"
    command = ["train", str(scans), "--config", str(config), "--out", str(out), "--workers", "0", "--quiet"]
    assert main(command) == 0
    return out
