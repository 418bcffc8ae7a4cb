"""Fitting the network of lesion crops: from label maps, from masks alone, the same weights every time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import ndimage
from small_model import SHAPE, scan, settings

from medvae.checkpoint.lesion_codes import LesionCodes
from medvae.checkpoint.model import weights_hash
from medvae.errors import InputError, ScanError
from medvae.io.formats import nifti
from medvae.lesions.crops import crops_of_mask
from medvae.scan import Geometry
from medvae.settings import ReadSettings
from medvae.training.lesions import find_crops, fit_lesions, mask_files
from medvae.training.store import Scans, store

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.lesions.crops import Crop
    from medvae.lesions.network import LesionVAE
    from medvae.settings import Settings

BLOCKS = ((slice(4, 7), slice(5, 8), slice(5, 9)), (slice(10, 12), slice(9, 12), slice(8, 10)))


def wanted(**more: object) -> Settings:
    return settings(lesions={"steps": 6, "channels": [4], "latent": 3, "batch": 4, **more})


def stored(folder: Path, *, value: int = 1, without: int = 1) -> Scans:
    """Two scans with two lesions each, 2 brighter than what is below; others without a label map."""
    files = []
    for index in range(2 + without):
        one = scan(index)
        if index < 2:
            labels = np.zeros(SHAPE, np.int16)
            for block in BLOCKS:
                labels[block] = value
            one = replace(one, image=one.image + 2.0 * (labels > 0), label_map=labels[None])
        files.append(folder / f"{index}.safetensors")
        store(one, files[-1])
    return Scans(files)


def fitted(crops: list[Crop], run: Settings) -> tuple[LesionVAE, LesionCodes]:
    return fit_lesions(crops, run, device=torch.device("cpu"))


def masks(folder: Path) -> list[Path]:
    """Two masks of another grid, of one and two lesions."""
    geometry = Geometry((20, 20, 20), np.diag([2.0, 2.0, 2.0, 1.0]))
    for number in (1, 2):
        values = np.zeros(geometry.shape, np.uint8)
        values[3:9, 3:8, 4:8] = 1
        values[12:17, 12:18, 11:17] = number - 1
        nifti.write(folder / f"m{number}.nii.gz", values, geometry, description="mask")
    return mask_files(folder, ReadSettings())


def test_lesions_are_those_of_the_label_maps(tmp_path: Path) -> None:
    crops = find_crops(stored(tmp_path), wanted())
    assert [one.source for one in crops] == ["scan-0", "scan-0", "scan-1", "scan-1"]
    assert [one.change for one in crops] == pytest.approx([2] * 4, abs=0.4)
    codes = fitted(crops, wanted())[1]
    assert codes.counts.tolist() == [2, 2]
    assert codes.mean.shape == (4, 3)
    assert np.isfinite(codes.places).all()
    assert codes.value == 1


def test_the_same_run_ends_with_the_same_weights_and_codes(tmp_path: Path) -> None:
    crops = find_crops(stored(tmp_path), wanted())
    (one, codes), (other, again) = fitted(crops, wanted()), fitted(crops, wanted())
    assert weights_hash({"lesions": one}) == weights_hash({"lesions": other})
    assert codes.to_set().hash == again.to_set().hash
    assert weights_hash({"lesions": fitted(crops, wanted(steps=7))[0]}) != weights_hash({"lesions": one})


def test_named_labels_are_lesions_and_others_are_not(tmp_path: Path) -> None:
    scans = stored(tmp_path, value=3)
    assert len(find_crops(scans, wanted(labels=(3,)))) == 4
    with pytest.raises(InputError, match="at least 2 lesions") as found:
        find_crops(scans, wanted(labels=(1,)))
    assert found.value.hint is not None
    assert "label_map" in found.value.hint


def test_scans_without_a_map_beside_maps_of_more_than_lesions_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Samples made of them would say that there is no other structure."""
    scans = stored(tmp_path, value=3)
    find_crops(scans, wanted(labels=(3,)))
    assert not caplog.records
    one = scan(7)
    labels = np.zeros(one.mask.shape, np.int16)
    labels[0, 2:4], labels[(0, *BLOCKS[0])] = 1, 3
    store(replace(one, label_map=labels), tmp_path / "more.safetensors")
    find_crops(Scans([*scans.files, tmp_path / "more.safetensors"]), wanted(labels=(3,)))
    assert "1 scan without a label map, while others mark 1 besides lesions" in caplog.text


def test_masks_alone_give_shapes(tmp_path: Path) -> None:
    """Their changes, levels and places are not known."""
    (tmp_path / "masks").mkdir()
    scans = stored(tmp_path, value=3)
    crops = find_crops(scans, wanted(labels=(1,)), masks=masks(tmp_path / "masks"))
    codes = fitted(crops, wanted())[1]
    assert codes.counts.tolist() == [1, 2]
    assert not any(np.isfinite(values).any() for values in (codes.changes, codes.levels, codes.places))
    assert set(codes.sources) == {"mask-001", "mask-002"}, "names of files may be names of patients"


def test_training_lowers_the_error_of_shapes() -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(40, 40, 40)), 2.5)
    geometry = Geometry(noise.shape, np.eye(4))
    crops = crops_of_mask(noise > np.percentile(noise, 92), geometry=geometry, source="m", least=20)
    assert len(crops) > 10
    run = wanted(lr=5e-3, batch=8)
    few, many = (
        fitted(crops, run.model_copy(update={"lesions": run.lesions.model_copy(update={"steps": steps})}))[0]
        for steps in (1, 120)
    )
    assert many.observation.log_scale[1] < few.observation.log_scale[1] - 0.05


def test_codes_survive_a_checkpoint(tmp_path: Path) -> None:
    codes = fitted(find_crops(stored(tmp_path), wanted()), wanted())[1]
    again = LesionCodes.from_set(codes.to_set())
    assert again.to_set().hash == codes.to_set().hash
    assert again.labels == codes.labels


def test_nothing_is_learned_where_nothing_is_wanted(tmp_path: Path) -> None:
    assert find_crops(stored(tmp_path), settings()) == []


def test_a_folder_without_masks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no masks"):
        mask_files(tmp_path, ReadSettings())


def test_masks_are_the_nifti_files_that_are_not_hidden(tmp_path: Path) -> None:
    """What macOS and checksums leave beside them is passed over; a mask that cannot be read is told at once."""
    masks(tmp_path)
    for name in ("._m1.nii.gz", "m1.nii.gz.md5", "notes.txt"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "m1.nii.gz").rename(tmp_path / "M3.NII.GZ")
    assert mask_files(tmp_path, ReadSettings()) == [tmp_path / "M3.NII.GZ", tmp_path / "m2.nii.gz"]
    (tmp_path / "m4.nii").write_bytes(b"no image")
    with pytest.raises(ScanError, match=r"^m4\.nii: "):
        mask_files(tmp_path, ReadSettings())
