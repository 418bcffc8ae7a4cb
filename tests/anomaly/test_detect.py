"""One scan from Python: the bytes of the command whatever it is given as; defaults, warnings, picture, refusals."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dicom_made
import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.image import imread
from monai.data import MetaTensor

import medvae
from medvae.cli.main import main
from medvae.errors import InputError, ModelError, SettingsError

if TYPE_CHECKING:
    from pathlib import Path


MAPS = ("residual_z", "intensity", "nll")


@pytest.fixture(scope="module")
def by_command(model_folder: Path, brains: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `medvae detect` writes for the folder of the new scans; the maps have the options of the demo."""
    out = tmp_path_factory.mktemp("by-command") / "out"
    return command(brains / "new", model_folder, out)


def command(scans: Path, model: Path, out: Path) -> Path:
    maps = [text for name in MAPS for text in ("--map", name)]
    assert (
        main(["detect", str(scans), "--model", str(model), "--out", str(out), *maps, "--quiet", "--workers", "0"]) == 0
    )
    return out


def same_files(ours: Path, theirs: Path) -> None:
    names = sorted(path.name for path in theirs.iterdir())
    assert sorted(path.name for path in ours.iterdir()) == names
    assert len(names) == len(MAPS) + 7
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def given_as(kind: str, path: Path) -> tuple[Any, dict[str, Any]]:
    """The scan at `path` in one of the ways in which Python has it, and the other arguments that this needs."""
    image = nib.load(path)
    if kind == "text":
        return str(path), {}
    if kind in ("ref", "cohort"):
        return medvae.find(path)[0] if kind == "ref" else medvae.find(path), {}
    if kind == "scan":
        return medvae.read(path), {"id": "ill"}
    if kind == "array":
        return np.asarray(image.dataobj), {"affine": image.affine, "id": "ill"}
    if kind == "nibabel":
        return image, {}
    data = torch.from_numpy(np.asarray(image.dataobj, np.float32))  # as MONAI's LoadImage gives it
    meta = {"filename_or_obj": str(path), "space": "RAS"}
    return MetaTensor(data if kind == "MetaTensor" else data[None], torch.from_numpy(image.affine), meta), {}


@pytest.mark.parametrize("kind", ["text", "ref", "cohort", "scan", "array", "nibabel", "MetaTensor", "channel first"])
def test_python_gives_the_bytes_of_the_command(
    kind: str, by_command: Path, model_folder: Path, brains: Path, tmp_path: Path
) -> None:
    what, more = given_as(kind, brains / "new" / "ill.nii.gz")
    found = medvae.detect(what, model_folder, maps=MAPS, **more)
    assert found.save(tmp_path / "out") == tmp_path / "out"
    same_files(tmp_path / "out", by_command / "scans" / "ill")


def test_a_dicom_folder_gives_the_bytes_of_the_command(model_folder: Path, brains: Path, tmp_path: Path) -> None:
    brain = medvae.read(brains / "new" / "ill.nii.gz")
    slices = dicom_made.slices(np.rint(brain.data).astype(np.int16), brain.geometry.affine, modality="MR")
    dicom_made.put(tmp_path / "series", slices)
    out = command(tmp_path / "series", model_folder, tmp_path / "by-command")
    (written,) = (out / "scans").iterdir()
    found = medvae.detect(tmp_path / "series", model_folder, maps=MAPS)
    assert found.id == written.name
    found.save(tmp_path / "out")
    same_files(tmp_path / "out", written)


def test_the_table_of_the_command_has_these_scores(by_command: Path, model_folder: Path, brains: Path) -> None:
    found = medvae.detect(brains / "new" / "ill.nii.gz", medvae.load_model(model_folder), maps=MAPS)
    header, row = (line.split(",") for line in (by_command / "scores.csv").read_text("utf-8").splitlines()[:2])
    table = dict(zip(header, row, strict=True))
    assert table["id"] == found.id == "ill"
    for name, one in found.scores.items():
        assert table[name] == f"{one.score:.6g}"
        assert table[f"{name}_p"] == f"{one.p:.6g}"
    assert (found.score, found.p) == (found.scores["residual_z"].score, found.scores["residual_z"].p)
    assert table["coverage"] == f"{found.covered_share:.6g}"
    volume = found.coverage.sum() * found.first.geometry.voxel_volume / 1000
    assert float(table["evaluated_ml"]) == pytest.approx(volume, rel=1e-4)


def test_maps_lie_on_the_scans_own_grid(model_folder: Path, brains: Path) -> None:
    scan = medvae.read(brains / "new" / "ill.nii.gz")
    found = medvae.detect(scan, model_folder)
    assert list(found.maps) == ["residual_z", "residual", "atlas", "intensity"], "those of the model's settings"
    assert found.id == "scan"
    for name, one in found.maps.items():
        assert one.name == name
        assert one.data.dtype == np.float32
        assert one.data.shape == found.coverage.shape == scan.data.shape
        assert np.array_equal(one.affine, scan.geometry.affine)
        assert one.data.any()
        assert (one.data[found.coverage == 0] == 0).all()
    assert found.maps["residual_z"].unit == "z"
    assert found.status == "calibrated, n=3"
    model = medvae.load_model(model_folder)
    assert found.warnings == (*model.warnings, *medvae.reference_of(model).warnings)


def test_it_says_what_it_is_and_shows_itself(
    model_folder: Path, brains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = medvae.detect(brains / "new" / "ill.nii.gz", model_folder, maps=["residual", "intensity"])
    assert repr(found).startswith(f"Detection(ill: residual {found.score:.3g} a.u. (p = ")
    assert len(repr(found)) < 120
    html = found._repr_html_()
    assert html.startswith('<img alt="ill: ')
    assert "score" in html[:400]
    assert "data:image/png;base64,iVBOR" in html
    file, small = tmp_path / "shown.png", found.pixels().astype(float)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: pyplot.gcf().savefig(file, dpi=200))
    found.show()
    large = imread(file)[..., :3] * 255
    assert large.shape == (2 * small.shape[0], 2 * small.shape[1], 3)
    assert np.abs(large[::2, ::2] - small).mean() < 5, "the whole picture at any resolution"


def test_the_picture_has_the_values_of_the_file_the_highest_first(model_folder: Path, brains: Path) -> None:
    found = medvae.detect(brains / "new" / "ill.nii.gz", model_folder)
    picture = found.picture
    written = found.maps["residual_z"].data
    assert picture.values == tuple(float(written[tuple(peak)]) for peak in picture.peaks)
    assert list(picture.values) == sorted(picture.values, reverse=True)
    each = found.candidates.each
    assert [number for number in picture.numbers if number] == [one.number for one in each][: len(picture.numbers)]
    for number, peak in zip(picture.numbers, picture.peaks, strict=True):
        assert not number or np.array_equal(peak, np.rint(found.first.geometry.to_index(each[number - 1].ras)))
    (montage,) = (file for file in found.files("scans/ill") if file.name.endswith("montage.png"))
    assert montage.name == "scans/ill/montage.png"
    assert "p = 0.250: none of 3 healthy scans scored as high, the smallest p possible (calibrated)" in montage.title  # type: ignore[attr-defined]
    assert montage.footer.startswith("calibrated, n=3. Research use only.")  # type: ignore[attr-defined]


def test_a_scan_that_was_seen_before_is_warned_of(
    model_folder: Path, brains: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = replace(medvae.load_model(model_folder), record={})  # nothing is known of its reconstructions
    found = medvae.detect(brains / "healthy" / "h0.nii.gz", model, maps=["intensity"])
    few, seen = found.warnings
    assert few.startswith("few_healthy")
    assert seen == "seen_in_calibration"
    (montage,) = (file for file in found.files() if file.name == "montage.png")
    assert "warning: seen_in_calibration" in montage.title  # type: ignore[attr-defined]
    assert "not calibrated" not in caplog.text
    trained = medvae.detect(brains / "train" / "t0.nii.gz", model, maps=["intensity"])
    assert trained.warnings == (few, "seen_in_training")


def test_an_uncalibrated_model_is_warned_of(
    trained_folder: Path, brains: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = medvae.detect(brains / "new" / "ill.nii.gz", trained_folder, maps=["intensity"])
    assert "the model is not calibrated" in caplog.text
    assert found.status == "uncalibrated, n=5"


def test_a_mask_says_what_the_foreground_is(model_folder: Path, brains: Path, tmp_path: Path) -> None:
    """The same for an array, a path, and the mask of a list."""
    path = brains / "new" / "ill.nii.gz"
    scan = medvae.read(path)
    mask = scan.data > 0
    mask[: mask.shape[0] // 2] = False
    found = medvae.detect(path, model_folder, mask=mask, maps=["intensity"])
    assert found.coverage[mask].mean() > 0.9
    assert found.coverage[~mask].mean() < 0.1
    assert found.covered_share is not None
    assert found.covered_share < 0.6
    assert f"low_coverage: only {found.covered_share:.0%} of the template's brain was evaluated" in found.warnings
    medvae.write(tmp_path / "mask.nii.gz", mask, geometry=scan.geometry)
    (tmp_path / "list.csv").write_text(f"scan,mask\n{path},mask.nii.gz\n", "utf-8")
    listed = medvae.detect(tmp_path / "list.csv", model_folder, maps=["intensity"])
    named = medvae.detect(path, model_folder, mask=tmp_path / "mask.nii.gz", maps=["intensity"])
    for other in (listed, named):
        assert np.array_equal(other.maps["intensity"].data, found.maps["intensity"].data)


def test_what_is_refused(model_folder: Path, brains: Path, tmp_path: Path) -> None:
    scan = brains / "new" / "ill.nii.gz"
    with pytest.raises(SettingsError, match="there is no 'residul'"):
        medvae.detect(scan, model_folder, maps=["residul"])
    with pytest.raises(SettingsError, match="no map is asked for"):
        medvae.detect(scan, model_folder, maps=[])
    with pytest.raises(SettingsError, match="there is no 'residul'"):
        medvae.detect(scan, model_folder, maps="residul")
    with pytest.raises(SettingsError, match="no condition 'age'"):
        medvae.detect(scan, model_folder, conditions={"age": 70})
    with pytest.raises(InputError, match="one scan is needed; found 2 scans, 2 of them usable"):
        medvae.detect(brains / "new", model_folder)
    with pytest.raises(InputError, match="affine"):
        medvae.detect(scan, model_folder, affine=np.eye(4))
    with pytest.raises(InputError, match="does not say where its voxels lie"):
        medvae.detect(np.zeros((4, 4, 4)), model_folder)
    shutil.copytree(model_folder, tmp_path / "bare")
    bare = medvae.load_model(model_folder)
    with pytest.raises(ModelError, match="has no Reference"):
        medvae.detect(scan, type(bare)(**{**vars(bare), "sets": {}}))
