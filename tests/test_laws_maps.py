"""Laws that every anomaly map keeps: 0 outside the mask, its unit, determinism, independence, sums in nats."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, get_args

import linear_model
import numpy as np
import pytest
import small_model
from pydantic import ValidationError

from medvae import plugins
from medvae.anomaly.anomaly_map import AnomalyMap, Unit, anomaly_map
from medvae.anomaly.inference import infer
from medvae.anomaly.maps import residual_z
from medvae.anomaly.maps._shared import smooth_inside
from medvae.anomaly.reference import reference_of
from medvae.errors import SettingsError
from medvae.settings import configure
from medvae.vae.base import elbo

if TYPE_CHECKING:
    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared

NAMES = plugins.names("maps")
KINDS = ("linear", "spatial")  # a latent without place, a latent with one

every_map = pytest.mark.parametrize("name", NAMES)
every_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def model(kind: str) -> Model:
    return linear_model.known_model(NAMES) if kind == "linear" else small_model.trained()


def scan(kind: str, *, lesion: float = 0.0) -> Prepared:
    if kind == "linear":
        return linear_model.scan(0, lesion=lesion)
    return small_model.scan(20, lesion=lesion, align="mni152")


def run(name: str, kind: str, prepared: Prepared) -> AnomalyMap:
    return anomaly_map(name, infer(model(kind), prepared), reference_of(model(kind)))


@every_kind
@every_map
def test_finite_float32_zero_outside_the_mask_with_a_unit(name: str, kind: str) -> None:
    prepared = scan(kind)
    found = run(name, kind, prepared)
    assert found.name == name
    assert found.unit in get_args(Unit)
    assert found.values.dtype == np.float32
    assert found.values.shape == prepared.grid.shape
    assert np.isfinite(found.values).all()
    assert (found.values[~prepared.mask[0]] == 0).all()
    assert found.values[prepared.mask[0]].any()


@every_kind
@every_map
def test_the_same_bytes_again_whatever_was_computed_before(name: str, kind: str) -> None:
    first = run(name, kind, scan(kind)).values
    inference = infer(model(kind), scan(kind))
    for other in (*NAMES, name):  # maps share an inference; none may change what the next one sees
        again = anomaly_map(other, inference, reference_of(model(kind))).values
    assert np.array_equal(first, again)
    run(name, kind, scan(kind, lesion=3))
    assert np.array_equal(first, run(name, kind, scan(kind)).values)


@every_kind
@every_map
def test_a_map_depends_on_the_image_and_its_id_alone(name: str, kind: str) -> None:
    prepared = scan(kind)
    other = replace(prepared, subject="other", source_hash="other", warnings=("x",))
    assert np.array_equal(run(name, kind, prepared).values, run(name, kind, other).values)


@every_kind
@pytest.mark.parametrize("name", [name for name in NAMES if name != "kl"])  # a code may take a bright spot for usual
def test_higher_on_a_bright_blob_than_elsewhere(name: str, kind: str) -> None:
    lesion = linear_model.LESION if kind == "linear" else small_model.LESION
    prepared = scan(kind, lesion=4)
    values = run(name, kind, prepared).values
    inside = np.zeros(values.shape, bool)
    inside[lesion] = True
    assert values[inside].mean() > 1.2 * np.quantile(values[prepared.mask[0] & ~inside], 0.9)
    healthy = run(name, kind, scan(kind))
    mask = prepared.mask[0]
    assert AnomalyMap(name, values, healthy.unit).score(mask, top=0.01) > healthy.score(mask, top=0.01)


@every_kind
def test_sums_in_nats(kind: str) -> None:
    """The map of the ELBO sums to −ELBO of the same draws, that of the KL to the KL, that of −ln p to the rest."""
    inference = infer(model(kind), scan(kind), draws=3)
    reference = reference_of(model(kind))
    total = {
        name: anomaly_map(name, inference, reference).values.sum(dtype=np.float64) for name in ("elbo", "kl", "nll")
    }
    assert total["elbo"] == pytest.approx(-inference.moments.elbo, rel=1e-4)
    assert total["kl"] == pytest.approx(inference.kl.sum(dtype=np.float64), rel=1e-4)
    assert total["nll"] + total["kl"] == pytest.approx(total["elbo"], rel=1e-4)


def test_nats_of_the_linear_model_are_its_elbo() -> None:
    """With a posterior that hardly varies the mean of draws is the ELBO at the posterior's mean."""
    inference = infer(model("linear"), scan("linear"), draws=64)
    at_mean = elbo(inference.image, inference.mask, posterior=inference.posterior, likelihood=inference.likelihood)
    # each unit's variance costs half of w²/σ² times the variance: half a nat
    assert inference.moments.elbo == pytest.approx(float(at_mean) - linear_model.UNITS / 2, abs=0.5)


@every_map
def test_where_scans_are_not_aligned_a_map_by_place_is_refused(name: str) -> None:
    bare = linear_model.bare_model(aligned=False)
    inference = infer(bare, linear_model.scan(0))
    if not getattr(plugins.load("maps", name), "NEEDS_ALIGNMENT", False):
        assert anomaly_map(name, inference, reference_of(bare)).values.any()
        return
    with pytest.raises(SettingsError, match=f"{name}.*not aligned") as caught:
        anomaly_map(name, inference, reference_of(bare))
    assert "residual" in str(caught.value.hint)


@every_map
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="unknown setting 'scale'"):
        anomaly_map(name, infer(model("linear"), scan("linear")), reference_of(model("linear")), options={"scale": 1})


def test_an_unknown_map_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError, match="residul") as caught:
        run("residul", "linear", scan("linear"))
    assert "'residual'" in str(caught.value.hint)


def test_options_are_frozen() -> None:
    _, options = configure("maps", "residual", {"sign": "dark"})
    with pytest.raises(ValidationError):
        options.sign = "bright"


def test_a_scale_measured_with_other_options_is_not_used() -> None:
    inference = infer(model("linear"), scan("linear"))
    with pytest.raises(SettingsError, match=r"scale of 'residual_z' was measured with"):
        anomaly_map("residual_z", inference, reference_of(model("linear")), options={"scales_mm": [2]})


def test_signs_of_the_residual() -> None:
    inference, reference = infer(model("linear"), scan("linear", lesion=4)), reference_of(model("linear"))
    both, bright, dark = (
        anomaly_map("residual", inference, reference, options={"sign": sign}).values
        for sign in ("both", "bright", "dark")
    )
    assert np.array_equal(both, bright + dark)
    assert (bright * dark == 0).all()
    assert bright[linear_model.LESION].mean() > dark[linear_model.LESION].mean()
    assert np.array_equal(bright - dark, inference.residual)


def test_maps_without_a_model_by_hand() -> None:
    prepared, reference = scan("linear"), reference_of(model("linear"))
    image, mask = prepared.image[0], prepared.mask[0]
    inside = image[mask]
    spread = 1.4826 * np.median(np.abs(inside - np.median(inside)))
    found = run("intensity", "linear", prepared).values[mask]
    np.testing.assert_allclose(found, np.abs(inside - np.median(inside)) / spread, rtol=1e-5)
    assert reference.image is not None
    found = run("atlas", "linear", prepared).values[mask]
    np.testing.assert_allclose(found, np.abs((image - reference.image.mean) / reference.image.sd)[mask], rtol=1e-5)
    binary = replace(prepared, image=(mask & (np.arange(8) == 3))[None].astype(np.float32))
    assert set(np.unique(run("intensity", "linear", binary).values)) == {0, 1}, "no spread of its own"


def test_smoothing_stays_within_the_mask() -> None:
    """A constant stays a constant up to the edge; without smoothing values stay as they are."""
    prepared = scan("linear")
    ones = np.ones(prepared.grid.shape, np.float32)
    mask, spacing = prepared.mask[0], prepared.grid.spacing
    np.testing.assert_allclose(smooth_inside(ones, mask, spacing=spacing, mm=4), mask, atol=1e-5)
    unchanged = smooth_inside(prepared.image[0], mask, spacing=spacing, mm=0)
    assert np.array_equal(unchanged, np.where(mask, prepared.image[0], 0))


def test_a_score_is_the_mean_of_the_highest_voxels() -> None:
    values = np.arange(-100, 100, dtype=np.float32).reshape(2, 10, 10)
    mask = values < 50
    found = AnomalyMap("x", values, "z")
    assert found.score(mask, top=0.02) == 48.0  # three of 150
    assert found.score(mask, top=1e-6) == 49.0
    assert found.score(mask, top=1) == pytest.approx(values[mask].mean())


def test_a_lesion_cannot_be_copied_beyond_what_is_normal() -> None:
    """The linear model copies a pattern it knows, whatever its size; of the winsorised scan it sees no more of it."""
    prepared, reference = scan("linear"), reference_of(model("linear"))
    assert reference.image is not None
    unusual = replace(prepared, image=prepared.image + 20 * linear_model.patterns()[:1] * prepared.mask)
    more = replace(prepared, image=prepared.image + 40 * linear_model.patterns()[:1] * prepared.mask)
    settings = residual_z.Settings()
    plain, held, held_more = (
        infer(model("linear"), unusual).residual,
        residual_z.residual(infer(model("linear"), unusual), reference.image, settings),
        residual_z.residual(infer(model("linear"), more), reference.image, settings),
    )
    inside = prepared.mask[0]
    assert np.abs(plain[inside]).mean() < 0.3 * np.abs(held[inside]).mean()
    reach = reference.image.sd * settings.winsor
    same = (np.abs(unusual.image[0] - reference.image.mean) > reach) & inside
    assert same.mean() > 0.5
    difference = (held_more - held) - (more.image[0] - unusual.image[0])
    assert np.abs(difference[same]).mean() < 0.1 * np.abs(held[same]).mean(), "the expectation stays where it was"


def test_residual_z_by_hand() -> None:
    prepared, reference = scan("linear", lesion=2), reference_of(model("linear"))
    assert reference.image is not None
    assert reference.residual is not None
    inside = prepared.mask[0]
    reach = 1.0 * reference.image.sd
    held = np.clip(prepared.image[0], reference.image.mean - reach, reference.image.mean + reach)
    held[~inside] = prepared.image[0][~inside]
    expected = infer(model("linear"), replace(prepared, image=held[None])).reconstruction
    z = np.abs((prepared.image[0] - expected - reference.residual.mean) / reference.residual.sd)
    parts = [smooth_inside(z.astype(np.float32), inside, spacing=prepared.grid.spacing, mm=mm) for mm in (0, 3, 6)]
    by_hand = (np.mean(parts, axis=0) - np.sqrt(2 / np.pi)) / reference.scales["residual_z"]
    np.testing.assert_allclose(
        run("residual_z", "linear", prepared).values[inside], by_hand[inside], rtol=1e-4, atol=1e-5
    )
