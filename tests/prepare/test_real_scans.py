"""Real heads, whole and stripped, land on the template; a chest does not."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage

from medvae.cohort.read import read
from medvae.errors import ScanError
from medvae.io import reading
from medvae.prepare import template
from medvae.prepare.native import coverage, to_native
from medvae.prepare.preparation import Preparation, Prepared, prepare
from medvae.scan import Scan
from medvae.settings import ReadSettings, load

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = Preparation(load("brain-mri-t1").prepare)
HEADS = {  # and whether it is whole; one of each kind, for each takes seconds
    "brains-t1-native/trio-head-1mm.nii.gz": True,
    "brains-t1-native/oasis-1001-brain-1mm.nii.gz": False,
    "brains-t1-native/oasis-1110-brain-1mm.nii.gz": False,
    "brains-t1-site2/ixi033-t1_head2mm.nii.gz": True,
    "dicom/mr-anatomical/siemens-verio-axial-oblique-t1": True,  # a tumour, fat very bright, slices of 6.5 mm
}


@cache
def prepared(path: Path) -> tuple[Scan, Prepared]:
    scan = read(path)
    return scan, prepare(scan, RECIPE)


def likeness(one: Prepared) -> float:
    """Correlation with the template in the inner brain, each divided by its local mean: a field is no anatomy."""
    data, brain = template.on_grid(one.grid)
    inner = ndimage.binary_erosion(brain & one.mask[0], iterations=4)
    weight = ndimage.gaussian_filter(inner.astype(np.float32), 8)[inner]
    values = (one.intensity.invert(one.image[0]), data)
    fine = [v[inner] * weight / ndimage.gaussian_filter(v * inner, 8)[inner] for v in values]
    return float(np.corrcoef(*fine)[0, 1])


def litres_inside(one: Prepared) -> float:
    return float(one.mask.sum() * abs(np.linalg.det(one.input.affine[:3, :3] @ one.to_input[:3, :3])) / 1e6)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_lands_on_the_template(shared_data: Path, name: str) -> None:
    scan, one = prepared(shared_data / name)
    agent = [text.startswith("contrast_agent") for text in one.warnings]
    assert agent == [True] * name.endswith("verio-axial-oblique-t1"), "a tumour after contrast agent, and nothing else"
    assert likeness(one) > 0.38  # moved by 6 mm they have 0.2 to 0.35, facing back 0.2
    brain = template.on_grid(one.grid)[1]
    assert 2 * (one.mask[0] & brain).sum() / (one.mask.sum() + brain.sum()) > 0.93
    assert 0.9 < litres_inside(one) < 1.9, "the size of a brain, in the scan's own millimetres"
    covered = coverage(one)
    assert covered.shape == scan.data.shape
    assert to_native(one.image[0], one).shape == scan.data.shape
    if not HEADS[name]:
        mask = scan.data != 0
        assert 2 * (covered * mask).sum() / (covered.sum() + mask.sum()) > 0.95


def test_whole_or_masked_it_is_the_same_place_and_brain(shared_data: Path) -> None:
    """The extracted brain is nearly the one that a given mask says."""
    folder = shared_data / "brains-t1-site2"
    scan, whole = prepared(folder / "ixi033-t1_head2mm.nii.gz")
    mask = reading.read_mask(folder / "ixi033-brainmask_head2mm.nii.gz", scan.geometry, ReadSettings())
    masked = prepare(scan, RECIPE, mask=mask)
    points = np.argwhere(template.on_grid(whole.grid)[1])[::50]
    apart = (points @ (whole.to_input - masked.to_input)[:3, :3].T + (whole.to_input - masked.to_input)[:3, 3]) * 2
    assert np.linalg.norm(apart, axis=1).mean() < 1
    for one in (whole, masked):
        brain = coverage(one)
        assert 2 * (brain * mask).sum() / (brain.sum() + mask.sum()) > 0.96
    assert masked.intensity.offset == pytest.approx(whole.intensity.offset, rel=0.02)


def test_an_extracted_brain_keeps_its_tumour(shared_data: Path) -> None:
    """A ring that enhances, of about 35 mm, at the surface of the brain."""
    scan, one = prepared(shared_data / "dicom/mr-anatomical/siemens-verio-axial-oblique-t1")
    centre = scan.geometry.to_world([179, 214, 16])
    where = scan.geometry.to_world(np.moveaxis(np.indices(scan.data.shape), 0, -1))
    assert coverage(one)[np.linalg.norm(where - centre, axis=-1) < 18].all()


@cache
def chest(shared_data: Path) -> Scan:
    return read(shared_data / "dicom" / "chest-ct" / "siemens-sensation10-8mm-whole")


def test_a_chest_is_no_head(shared_data: Path) -> None:
    scan = chest(shared_data)
    with pytest.raises(ScanError) as caught:
        prepare(scan, RECIPE)
    assert caught.value.code == "wrong_modality"
    unsaid = Scan(scan.data, scan.geometry)
    with pytest.raises(ScanError) as caught:
        prepare(unsaid, RECIPE)
    assert caught.value.code == "registration_failed"


def test_a_chest_keeps_its_hounsfield_units(shared_data: Path) -> None:
    scan = chest(shared_data)
    one = prepare(scan, Preparation(load("chest-ct").prepare))
    assert one.units == "HU"
    assert 0.2 < one.mask.mean() < 0.6
    back: Any = to_native(one.intensity.invert(one.image[0]), one)
    body = ndimage.binary_erosion(coverage(one) > 0, iterations=5)
    windowed = np.clip(scan.data, -1000, 400)
    smooth = ndimage.gaussian_filter(windowed, (4, 4, 0.5))
    assert np.median(np.abs(back - smooth)[body]) < 30
    assert back[body].mean() == pytest.approx(windowed[body].mean(), abs=15)
    lung = (smooth < -700) & body
    assert np.median(back[lung]) == pytest.approx(np.median(windowed[lung]), abs=60)


def test_the_hippocampus_preset_keeps_the_whole_crop(shared_data: Path) -> None:
    recipe = Preparation(load("hippocampus-mri").prepare)
    spread = []
    for path in sorted((shared_data / "hippocampus" / "images").iterdir())[:12]:
        scan = read(path)
        labels = reading.read_label_map(
            shared_data / "hippocampus" / "labels" / path.name, scan.geometry, ReadSettings()
        )
        one = prepare(scan, recipe, label_map=labels)
        assert one.mask.sum() == scan.data.size, "at 1 mm every voxel has its place on the grid"
        np.testing.assert_array_equal(to_native(one.label_map[0], one, labels=True), labels)  # type: ignore[index]
        spread.append((scan.data.std(), one.image[one.mask].std()))
    files, grids = np.array(spread).T
    assert files.max() / files.min() > 5
    assert grids.max() / grids.min() < 2
