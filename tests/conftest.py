"""Fixtures shared by all tests."""

from __future__ import annotations

import logging
import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from medvae import plugins
from medvae.cli import console
from medvae.cli.main import main
from medvae.io.formats import nifti
from medvae.prepare import align, preparation
from medvae.scan import scan_hash
from medvae.simulate import phantom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from medvae.prepare.align import Alignment
    from medvae.scan import Scan

settings.register_profile(
    "medvae", deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("medvae")

BRAINS = (*(f"train/t{i}" for i in range(5)), *(f"healthy/h{i}" for i in range(3)), "new/well", "new/ill")
SHARED = Path(os.environ.get("MEDVAE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_configure(config: pytest.Config) -> None:
    """Beside other workers a test gets one thread: two workers of two threads each wait for one another."""
    if hasattr(config, "workerinput"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real scans beside the checkout; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(
            f"needs the real scans of {SHARED.parent.name}/{SHARED.name} beside the checkout (or MEDVAE_SHARED_DATA)"
        )
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _each_scan_is_aligned_once() -> Iterator[None]:
    """Alignment takes seconds and gives the same matrix to the bit (its own tests see to that): it is remembered."""
    known: dict[tuple[str, str], Alignment] = {}

    def remembered(scan: Scan, mask: NDArray[np.bool_] | None) -> Alignment:
        key = (scan_hash(scan), "" if mask is None else sha256(mask.tobytes()).hexdigest())
        if key not in known:
            known[key] = align.align_to_template(scan, mask)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "align_to_template", remembered)
        yield


@pytest.fixture(autouse=True)
def _logging_is_as_nobody_set_it_up() -> None:
    """A command of an earlier test or fixture has set loudness and handlers for the whole process."""
    ours = logging.getLogger("medvae")
    ours.handlers[:], ours.propagate = [], True
    ours.setLevel(logging.NOTSET)
    console._quiet = False


@pytest.fixture(scope="session")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a tiny model of brains: aligned, 6 mm, a few steps, the options of maps that the demo has."""
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(
        "prepare: {modality: MR, align: mni152, spacing: [6, 6, 6], shape: [32, 40, 32], foreground: nonzero}\n"
        "model: {options: {channels: [16, 32], latent: 4}}\n"
        "train: {steps: 6, validate_every: 3, batch: 2, precision: '32'}\n"
        "detector: {steps: 3, channels: [4, 8], patch: [16, 16, 16]}\n"
        "detect: {draws: 2, options: {residual_z: {winsor: 1.5, scales_mm: [6]}}}\n",
        "utf-8",
    )
    return path


@pytest.fixture(scope="session")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made brains as NIfTI: 5 in train, 3 in healthy, 2 in new; masks/ill is the lesion of new/ill."""
    folder = tmp_path_factory.mktemp("brains")
    for index, name in enumerate(BRAINS):
        member = phantom.make(index, seed=1, lesion="bright" if name == "new/ill" else "none")
        nifti.write(folder / f"{name}.nii.gz", member.data, member.geometry, description="made brain")
        if name == "new/ill":
            lesion = member.lesion.astype(np.uint8)
            nifti.write(folder / "masks" / "ill.nii.gz", lesion, member.geometry, description="its lesion")
    return folder


@pytest.fixture(scope="session")
def trained_folder(brains: Path, small_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder from `medvae train` on the made brains, not calibrated. Do not write into it."""
    out = tmp_path_factory.mktemp("trained") / "model"
    command = ["train", str(brains / "train"), "--config", str(small_config), "--out", str(out)]
    assert main([*command, "--quiet", "--workers", "0"]) == 0
    return out


@pytest.fixture(scope="session")
def model_folder(brains: Path, trained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model after `medvae calibrate`. Do not write into it."""
    out = tmp_path_factory.mktemp("calibrated") / "model"
    shutil.copytree(trained_folder, out)
    assert main(["calibrate", "--model", str(out), str(brains / "healthy"), "--quiet", "--workers", "0"]) == 0
    return out


@pytest.fixture(scope="session")
def model_of_every_map(brains: Path, trained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, calibrated for the costly maps, too. Do not write into it."""
    out = tmp_path_factory.mktemp("every-map") / "model"
    shutil.copytree(trained_folder, out)
    maps = ["--set", f"detect.maps=[{','.join(plugins.names('maps'))}]"]
    assert main(["calibrate", "--model", str(out), str(brains / "healthy"), *maps, "--quiet", "--workers", "0"]) == 0
    return out
