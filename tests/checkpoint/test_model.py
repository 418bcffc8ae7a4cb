"""What a model does with one scan: encode, reconstruct, decode; on its own grid and in its own units."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medvae.checkpoint.decoded import on_own_grid
from medvae.checkpoint.kept import Latents, TrainingScans
from medvae.checkpoint.model import Model, weights_hash
from medvae.errors import InputError, ScanError, SettingsError
from medvae.io.formats import nifti
from medvae.prepare.intensity import Intensity
from medvae.prepare.native import coverage
from medvae.prepare.preparation import Preparation, prepare
from medvae.scan import Geometry, Scan, ScanRef
from medvae.settings import LikelihoodSettings, Settings
from medvae.vae.base import VAE, Posterior
from medvae.vae.conditions import Conditions
from medvae.vae.observation import build_observation

if TYPE_CHECKING:
    from pathlib import Path

GRID = (16, 16, 16)
AFFINE = np.array([[-2.0, 0, 0, 15], [0, 0, 3.0, -20], [0, 2.0, 0, 4], [0, 0, 0, 1]])  # left, head, front


class Copy(VAE):
    """Its code is the image; conditions are added to every voxel of what is decoded."""

    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.observation = build_observation(LikelihoodSettings())

    def encode(self, x: torch.Tensor, c: torch.Tensor | None = None) -> Posterior:
        return Posterior(x, torch.full_like(x, -2.0))

    def render(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return z if c is None else z + c[:, :1].view(-1, 1, 1, 1, 1)

    def latent_shape(self, grid: tuple[int, int, int]) -> tuple[int, ...]:
        return (1, *grid)


def model(*, kept: int = 2, conditions: Conditions | None = None, **prepare: object) -> Model:
    tree = {"modality": "MR", "shape": GRID, "spacing": (2, 3, 2), "foreground": "nonzero", **prepare}
    settings = Settings.model_validate({"prepare": tree})
    masks = np.zeros((kept, 1, *GRID), bool)
    masks[:, :, 3:12, 3:12, 3:12] = True
    masks[: kept // 2, :, 3:6] = False
    scales = [Intensity(offset=300.0 + 200 * i, scale=20.0 + 10 * i, low=-10, high=10) for i in range(kept)]
    training = TrainingScans(np.zeros(masks.shape, np.float16), masks, None, scales, [f"s{i}" for i in range(kept)])
    nothing = np.zeros((0, 1, 16, 16, 16), np.float32)
    vae = Copy().eval()
    return Model(
        {"vae": vae}, Preparation(settings.prepare), settings, Latents(nothing, nothing, [], [], [], []), training,
        hash=weights_hash({"vae": vae}), conditions=conditions or Conditions(),
    )  # fmt: skip


def smooth_scan() -> Scan:
    """An ellipsoid with a smooth field, in values around 500; background 0; an oblique order of axes."""
    shape = (14, 12, 15)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.7
    data = np.where(inside, 500 + 100 * x - 60 * y * z, 0).astype(np.float32)
    return Scan(data, Geometry(shape, AFFINE), modality="MR")


def test_a_code_is_the_same_whatever_the_scan_is_given_as(tmp_path: Path) -> None:
    ours, scan = model(), smooth_scan()
    path = tmp_path / "scan.nii.gz"
    nifti.write(path, scan.data, scan.geometry, description="scan")
    z = ours.encode(scan)
    assert z.shape == (1, 16, 16, 16)
    assert z.dtype == np.float32
    ref = ScanRef("scan", "nifti", (path,))
    tensor = MetaTensor(torch.from_numpy(scan.data)[None], affine=torch.from_numpy(AFFINE))
    for same in (path, str(path), ref, tensor):
        assert np.array_equal(ours.encode(same), z), type(same)
    assert np.array_equal(ours.encode(scan.data, affine=AFFINE), z)
    with pytest.raises(InputError):
        ours.encode(scan.data)


def test_a_scan_that_cannot_be_used_says_why() -> None:
    scan = smooth_scan()
    with pytest.raises(ScanError) as caught:
        model().encode(replace(scan, modality="CT"))
    assert caught.value.code == "wrong_modality"


def test_a_reconstruction_has_the_grid_and_the_units_of_its_scan() -> None:
    ours, scan = model(), smooth_scan()
    found = ours.reconstruct(scan)
    assert found.geometry == scan.geometry
    assert (found.units, found.modality, found.data.dtype) == (scan.units, "MR", np.float32)
    inside = scan.data > 0
    np.testing.assert_allclose(found.data[inside], scan.data[inside], rtol=1e-4, atol=0.1)
    far = ~inside & (scan.data == 0) & (np.indices(scan.data.shape).min(axis=0) == 0)
    assert (found.data[far] == 0).all()


def test_the_background_beside_the_rim_does_not_bleed_into_it() -> None:
    """One value in the whole foreground, on a grid that has to be resampled."""
    scan = smooth_scan()
    prepared = prepare(scan, model(spacing=(3, 4, 4)).preparation)
    found = on_own_grid(np.where(prepared.mask, np.float32(1), np.float32(-5)), prepared, scan).data
    value = prepared.intensity.offset + prepared.intensity.scale
    np.testing.assert_allclose(found[found > 0], value, rtol=1e-5)
    assert (found > 0).sum() == (coverage(prepared) > 0).sum()


def test_hounsfield_units_stay(tmp_path: Path) -> None:
    scan = smooth_scan()
    ct = replace(
        scan, data=np.where(scan.data > 0, scan.data - 460, -1000).astype(np.float32), modality="CT", units="HU"
    )
    ours = model(modality="CT", foreground="air", intensity="window", window=(-1000.0, 400.0))
    found = ours.reconstruct(ct)
    assert found.units == "HU"
    inside = (ct.data > -500) & (coverage(prepare(ct, ours.preparation)) > 0)
    np.testing.assert_allclose(found.data[inside], ct.data[inside], atol=0.1)
    assert found.data.min() == -1000


def test_a_code_decodes_to_the_grid_with_the_median_scale_of_the_training_scans() -> None:
    ours = model(kept=3)
    found = ours.decode(np.full((1, 16, 16, 16), 2.0))
    assert found.geometry == ours.preparation.grid
    inside = np.zeros(GRID, bool)
    inside[3:12, 3:12, 3:12] = True
    assert (found.data[inside] == 500 + 2 * 30).all(), "offset 500 and scale 30 are the medians"
    assert (found.data[~inside] == 0).all(), "background as in the scans"
    assert (ours.decode(np.full((1, 16, 16, 16), 99.0)).data.max()) == 500 + 10 * 30, "no brighter than scans can be"


def test_the_foreground_is_what_half_of_the_training_scans_share() -> None:
    found = model(kept=4).decode(np.zeros((1, 16, 16, 16)))
    assert (found.data[3:6, 3:12, 3:12] > 0).all(), "half of them have it"
    assert (found.data[:3] == 0).all()


def test_without_kept_scans_values_stay_as_prepared() -> None:
    found = model(kept=0).decode(np.full((1, 16, 16, 16), 2.0))
    assert (found.data == 2).all()
    assert found.units == "a.u."


def test_conditions_of_a_scan_and_of_a_code() -> None:
    ages = Conditions.fit(["age"], [{"age": 20.0}, {"age": 40.0}])
    ours, z = model(kept=3, conditions=ages), np.zeros((1, 16, 16, 16))
    old, young = (ours.decode(z, conditions={"age": age}).data[5, 5, 5] for age in (40.0, 20.0))
    assert old - young == pytest.approx(2 * 30)
    assert ours.decode(z).data[5, 5, 5] == 500, "not given is missing, which is 0 here"
    scan = smooth_scan()
    inside = scan.data > 0
    with_age, without = ours.reconstruct(scan, conditions={"age": 40.0}), ours.reconstruct(scan)
    assert (with_age.data - without.data)[inside].mean() > 10
    with pytest.raises(ScanError, match="'age' is 'old'"):
        ours.decode(z, conditions={"age": "old"})


def test_a_misspelt_condition_is_not_a_missing_one() -> None:
    ages = Conditions.fit(["age"], [{"age": 20.0}, {"age": 40.0}])
    ours, wrong = model(kept=3, conditions=ages), {"Age": 40.0}
    for call in (ours.encode, ours.reconstruct):
        with pytest.raises(SettingsError, match="no condition 'Age'") as caught:
            call(smooth_scan(), conditions=wrong)
        assert "did you mean 'age'?" in str(caught.value.hint)
    with pytest.raises(SettingsError, match="no condition 'Age'"):
        ours.decode(np.zeros((1, 16, 16, 16)), conditions=wrong)
    ref_like = prepare(smooth_scan(), ours.preparation, conditions={"age": 40.0, "sex": "F"})
    assert ours.reconstruct_prepared(ref_like).ndim == 4, "a list may have other columns"


def test_a_code_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 16, 16, 16\), not \(16, 16, 16\)"):
        model().decode(np.zeros((16, 16, 16)))


def test_a_model_is_shown_in_one_line() -> None:
    assert repr(model()) == "Model(spatial; grid 16x16x16 at 2x3x2 mm; 0 training scans)"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, False),
        ({"validation_error": 0.5}, False),
        ({"validation_error": None, "mean_image_error": None}, False),
        ({"validation_error": 0.5, "mean_image_error": 0.5}, False),
        ({"validation_error": 0.51, "mean_image_error": 0.5}, True),
    ],
)
def test_a_model_says_where_the_mean_image_beats_it(record: dict[str, float | None], said: bool) -> None:
    text = "error 0.51 against 0.5 on its validation scans"
    assert [text in one for one in replace(model(), record=record).warnings] == [True] * said
