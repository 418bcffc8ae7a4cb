"""What a denoiser changes, beside a plain version; it needs a detector, and healthy statistics of its own."""

from __future__ import annotations

from dataclasses import replace

import linear_model
import numpy as np
import pytest
from scipy import ndimage

from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.inference import infer
from medvae.anomaly.maps._shared import smooth_inside
from medvae.anomaly.reference import reference_of
from medvae.errors import ModelError, SettingsError
from medvae.statistics import Moments


def changed(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """n − h(x − n) with the detector of the model: medians of n in 24 parts of the voxels, in the order of x − n."""
    without = ndimage.uniform_filter(image[0], 3)
    noise, inside = image[0] - without, mask[0]
    order = np.argsort(without[inside], kind="stable")
    parts = [order[round(k * order.size / 24) : round((k + 1) * order.size / 24)] for k in range(24)]
    greys, usual = ([np.median(one[inside][part]) for part in parts] for one in (without, noise))
    return np.where(inside, noise - np.interp(without, greys, usual), 0).astype(np.float32)[None]


def test_beside_the_plain_version() -> None:
    model, prepared = linear_model.known_model(("denoised_z",)), linear_model.scan(0, lesion=2)
    moments = Moments.empty(prepared.image.shape)
    for one in linear_model.healthy():
        moments.add(changed(one.image, one.mask), one.mask)
    normal = moments.normal(spacing=prepared.grid.spacing)
    z = ((changed(prepared.image, prepared.mask) - normal.mean) / np.sqrt(normal.sd**2 + 0.01))[0]
    inside, spacing = prepared.mask[0], prepared.grid.spacing
    middle = np.median(z[inside])
    z = np.abs(z - middle) / max(1, 1.4826 * np.median(np.abs(z[inside] - middle)))
    smooth = np.mean([smooth_inside(z, inside, spacing=spacing, mm=mm) for mm in (0, 3, 6)], axis=0)
    by_hand = (smooth - np.sqrt(2 / np.pi)) / reference_of(model).maps["denoised_z"].scale
    found = anomaly_map("denoised_z", infer(model, prepared))
    assert (
        np.median(np.abs(found.values[inside] - by_hand[inside])) < 0.02
    )  # a voxel at a border may be in the bin beside it
    assert np.corrcoef(found.values[inside], by_hand[inside])[0, 1] > 0.999
    assert found.unit == "z"


def test_a_denoiser_that_changes_next_to_nothing_marks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its healthy spread is as small as its changes: in units of that alone a lesion would be rare."""
    plain = linear_model.Marks.change
    monkeypatch.setattr(linear_model.Marks, "change", lambda *args: 1e-3 * plain(*args))
    model = linear_model.known_model(("denoised_z",))
    healthy, ill = (
        anomaly_map("denoised_z", infer(model, linear_model.scan(0, lesion=lesion))).values for lesion in (0, 3)
    )
    assert np.abs(healthy - ill).max() < 0.05


def test_a_scan_that_is_noisier_throughout_is_not_marked_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of another scanner is; a lesion stands out of it as before."""
    model, plain = linear_model.known_model(("denoised_z",)), linear_model.Marks.change
    ill = linear_model.scan(0, lesion=3)
    inside = ill.mask[0]
    usual = anomaly_map("denoised_z", infer(model, ill)).values
    monkeypatch.setattr(linear_model.Marks, "change", lambda *args: 4 * plain(*args))
    other = anomaly_map("denoised_z", infer(model, ill)).values
    assert np.median(other[inside]) < np.median(usual[inside]) + 0.5
    assert other[linear_model.LESION].mean() > np.quantile(other[inside], 0.9)


def test_scans_that_are_not_aligned_have_one_mean_and_spread() -> None:
    model = linear_model.known_model(("denoised_z",), aligned=False)
    arrays = reference_of(model).maps["denoised_z"].arrays
    assert {one.shape for one in arrays.values()} == {(1, 1, 1, 1)}
    inside = np.concatenate([changed(one.image, one.mask)[one.mask] for one in linear_model.healthy()])
    assert float(arrays["sd"].squeeze()) == pytest.approx(inside.std(), rel=1e-3)


def test_without_a_detector() -> None:
    model = linear_model.bare_model()
    bare = replace(model, networks={"vae": model.vae})
    with pytest.raises(ModelError, match="no detector"):
        _ = infer(bare, linear_model.scan(0)).noise
    known = linear_model.known_model(("residual_z",))
    with pytest.raises(SettingsError, match="no detector"):
        anomaly_map("denoised_z", infer(known, linear_model.scan(0)))
