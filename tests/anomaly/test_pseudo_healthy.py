"""The pseudo-healthy image on the scan's own grid: written where its map is asked for, shown in the page."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

import medvae
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.cli.main import main
from medvae.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_calibrated_only_if_asked_for(brains: Path, model_folder: Path, model_of_every_map: Path) -> None:
    known, more = (reference_of(load(folder)).maps for folder in (model_folder, model_of_every_map))
    assert set(more) - set(known) == {"restoration"}
    with pytest.raises(SettingsError, match="map 'restoration' was not calibrated") as caught:
        medvae.detect(brains / "new" / "ill.nii.gz", model_folder, maps="restoration")
    assert "detect.maps=[fused,restoration]" in (caught.value.hint or "")


def test_it_is_the_scan_but_for_what_is_unusual(model_of_every_map: Path, brains: Path, tmp_path: Path) -> None:
    path = brains / "new" / "ill.nii.gz"
    found = medvae.detect(path, model_of_every_map, maps=["residual", "restoration"])
    scan, image = medvae.read(path), found.pseudo_healthy
    assert image is not None
    assert image.dtype == np.float32
    assert image.shape == scan.data.shape
    covered = found.coverage > 0
    assert np.array_equal(image[~covered], scan.data[~covered])
    change = np.abs(image - scan.data)
    assert change[covered].any()
    heat = found.maps["restoration"].data  # what was taken out is what the map marks
    assert heat[change > np.quantile(change[covered], 0.99)].mean() > 2 * max(heat[covered].mean(), 0)
    file = nib.load(found.save(tmp_path) / "pseudo_healthy.nii.gz")
    assert np.array_equal(file.get_fdata(dtype=np.float32), image)
    np.testing.assert_allclose(file.affine, scan.geometry.affine, atol=1e-4)


def test_no_other_map_has_one(model_folder: Path, brains: Path, tmp_path: Path) -> None:
    found = medvae.detect(brains / "new" / "ill.nii.gz", model_folder, maps="residual")
    assert found.pseudo_healthy is None
    assert not (found.save(tmp_path) / "pseudo_healthy.nii.gz").exists()


def test_the_page_holds_it(model_of_every_map: Path, brains: Path, tmp_path: Path) -> None:
    out, maps = tmp_path / "out", ["--map", "residual", "--map", "restoration"]
    command = ["detect", str(brains / "new"), "--model", str(model_of_every_map), "--out", str(out), *maps, "--quiet"]
    assert main([*command, "--workers", "0"]) == 0
    page = (out / "review" / "scans" / "ill.html").read_text("utf-8")
    assert 'id="volume_pseudo_healthy"' in page
    (facts,) = re.findall(r'id="facts">(.*?)</script>', page)
    assert json.loads(facts)["pseudo_healthy"] is True
