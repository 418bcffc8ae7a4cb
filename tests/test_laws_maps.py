"""Laws that every anomaly map keeps: 0 outside the mask, its unit, determinism, independence, sums in nats.

They hold for maps of other packages, too: `test_an_outside_map_keeps_them_all` runs them on one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, get_args

import linear_model
import numpy as np
import outside_maps
import pytest
import small_model
from pydantic import ValidationError

from medvae import plugins
from medvae.anomaly.anomaly_map import AnomalyMap, anomaly_map, scan_maps
from medvae.anomaly.base_map import Unit
from medvae.anomaly.calibrate import make_reference
from medvae.anomaly.configured import needs_alignment
from medvae.anomaly.inference import infer
from medvae.anomaly.maps._shared import smooth_inside
from medvae.anomaly.reference import reference_of, with_reference
from medvae.errors import SettingsError
from medvae.settings import configure
from medvae.statistics import Normal
from medvae.vae.base import elbo

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.anomaly.maps import residual_z
    from medvae.anomaly.reference import Reference
    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared

KINDS = ("linear", "spatial", "deform")  # a latent without place, one with it, one whose decoder moves things

every_map = pytest.mark.parametrize("name", plugins.names("maps"))
every_kind = pytest.mark.parametrize("kind", KINDS)


def model(kind: str) -> Model:
    return _model(kind, plugins.names("maps"))


@cache
def _model(kind: str, names: tuple[str, ...]) -> Model:
    """With a Reference that knows all maps that there are now."""
    if kind == "linear":
        return linear_model.known_model(names)
    trained, scans = small_model.trained(network=kind), [small_model.scan(i, align="mni152") for i in range(8)]
    if set(names) <= set(reference_of(trained).maps):
        return trained
    return with_reference(trained, make_reference(trained, scans, names=names, calibrated=False))


@cache
def unaligned() -> Model:
    return linear_model.known_model(aligned=False)


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
    for other in (*plugins.names("maps"), name):  # maps share an inference; none may change what the next one sees
        again = anomaly_map(other, inference, reference_of(model(kind))).values
    assert np.array_equal(first, again)
    run(name, kind, scan(kind, lesion=3))
    assert np.array_equal(first, run(name, kind, scan(kind)).values)


@every_kind
@every_map
def test_a_map_depends_on_the_scan_alone_and_not_on_its_name(name: str, kind: str) -> None:
    prepared = scan(kind)
    other = replace(prepared, id="other", subject="other", warnings=("x",))
    assert np.array_equal(run(name, kind, prepared).values, run(name, kind, other).values)


@every_kind
@every_map
def test_higher_on_a_bright_blob_than_elsewhere(name: str, kind: str) -> None:
    if name in ("kl", "kl_z", "latent"):
        return  # a code may take a bright spot for usual
    lesion = linear_model.LESION if kind == "linear" else small_model.LESION
    prepared = scan(kind, lesion=4)
    values = run(name, kind, prepared).values
    inside = np.zeros(values.shape, bool)
    inside[lesion] = True
    assert values[inside].mean() > 1.2 * np.quantile(values[prepared.mask[0] & ~inside], 0.9)
    healthy = run(name, kind, scan(kind))
    mask = prepared.mask[0]
    assert AnomalyMap(name, values, healthy.unit).score(mask, top=0.01) > healthy.score(mask, top=0.01)


@every_map
def test_healthy_scores_are_those_of_maps_without_the_scan(name: str) -> None:
    """Without a second fit: what the sums give without a scan is what a Reference of the others gives."""
    scans = linear_model.healthy(12 if name.startswith(("matched", "fused")) else 4)
    whole = make_reference(linear_model.bare_model(), scans, names=[name], calibrated=False).maps[name]
    scores = []
    for out in scans:
        rest = [one for one in scans if one is not out]
        others = make_reference(linear_model.bare_model(), rest, names=[name], calibrated=False)
        found = anomaly_map(name, infer(linear_model.bare_model(), out), others)
        scores.append(found.score(out.mask[0], top=0.01) * others.maps[name].scale / whole.scale)
    # residual_z and restoration clip to what all scans have, matched maps compare with their mean, fused counts maps
    # of all scans: the one left out is among them, and its highest values lie where a line goes on from few counts
    near = {"residual_z": 0.1, "fused": 0.5, "fused_unaligned": 0.5, "restoration": 0.2}
    near |= {"matched_atlas": 0.25, "matched_residual": 0.25}
    off = 0.2 if name in ("restoration", "matched_atlas") else 0
    np.testing.assert_allclose(np.sort(scores), whole.scores, rtol=near.get(name, 1e-4), atol=off)


@every_map
def test_the_root_mean_square_of_a_standardised_map_is_one(name: str) -> None:
    reference = reference_of(model("linear"))
    squares = [
        np.mean(np.square(anomaly_map(name, infer(model("linear"), one), reference).values[one.mask[0]]))
        for one in linear_model.healthy(12, start=500)
    ]
    standardised = plugins.load("maps", name).Map.STANDARDISED
    assert (reference.maps[name].scale != 1) == standardised
    wide = 0.5 if name == "restoration" else 0.3  # most of what it takes out is little, and some is much
    assert not standardised or np.sqrt(np.mean(squares)) == pytest.approx(1, abs=wide)


@every_map
def test_where_scans_are_not_aligned_a_map_by_place_is_refused(name: str) -> None:
    bare = unaligned()
    inference = infer(bare, linear_model.scan(0))
    if not needs_alignment(name):
        assert anomaly_map(name, inference, reference_of(bare)).values.any()
        return
    with pytest.raises(SettingsError, match=f"{name}.*not aligned") as caught:
        anomaly_map(name, inference, reference_of(bare))
    assert "residual" in str(caught.value.hint)


@every_map
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="unknown setting 'scale'"):
        anomaly_map(name, infer(model("linear"), scan("linear")), reference_of(model("linear")), options={"scale": 1})


def test_an_outside_map_keeps_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has healthy statistics and uses another map, found because its package is installed."""
    outside_maps.install(tmp_path, monkeypatch, theirs=outside_maps.THEIRS)
    assert "theirs" in plugins.names("maps")
    laws = [law for name, law in globals().items() if name.startswith("test_") and every_map.mark in _marks(law)]
    assert len(laws) == 8
    unaligned.cache_clear()
    for law in laws:
        for kind in KINDS:
            law(*(["theirs", kind] if every_kind.mark in _marks(law) else ["theirs"]))


def _marks(law: object) -> list[pytest.Mark]:
    return list(getattr(law, "pytestmark", ()))


@every_kind
def test_sums_in_nats(kind: str) -> None:
    """The map of the ELBO sums to −ELBO of the same draws, that of the KL to the KL, that of −ln p to the rest."""
    inference = infer(model(kind), scan(kind), draws=3)
    reference = reference_of(model(kind))
    total = {
        name: anomaly_map(name, inference, reference).values.sum(dtype=np.float64) for name in ("elbo", "kl", "nll")
    }
    assert total["elbo"] == pytest.approx(-inference.draw_means.elbo, rel=1e-4)
    assert total["kl"] == pytest.approx(float(inference.posterior.kl().double().sum()), rel=1e-4)
    assert total["nll"] + total["kl"] == pytest.approx(total["elbo"], rel=1e-4)


def test_nats_of_the_linear_model_are_its_elbo() -> None:
    """With a posterior that hardly varies the mean of draws is the ELBO at the posterior's mean."""
    inference = infer(model("linear"), scan("linear"), draws=64)
    at_mean = elbo(inference.image, inference.mask, posterior=inference.posterior, likelihood=inference.likelihood)
    # each unit's variance costs half of w²/σ² times the variance: half a nat
    assert inference.draw_means.elbo == pytest.approx(float(at_mean) - linear_model.UNITS / 2, abs=0.5)


def test_an_unknown_map_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError, match="residul") as caught:
        run("residul", "linear", scan("linear"))
    assert "'residual'" in str(caught.value.hint)


def test_options_are_frozen() -> None:
    _, options = configure("maps", "residual", {"sign": "dark"})
    with pytest.raises(ValidationError):
        options.sign = "bright"


def test_healthy_statistics_computed_with_other_options_are_not_used() -> None:
    inference = infer(model("linear"), scan("linear"))
    with pytest.raises(SettingsError, match=r"statistics of 'residual_z' were computed with"):
        anomaly_map("residual_z", inference, reference_of(model("linear")), options={"scales_mm": [2]})


def test_options_are_those_of_the_reference() -> None:
    """And those of a map that another one uses, too."""
    known = linear_model.known_model(options={"residual_z": {"winsor": 1.5, "scales_mm": [6]}})
    inference = infer(known, scan("linear", lesion=2))
    found = anomaly_map("residual_z", inference, reference_of(known)).values
    given = {"winsor": 1.5, "scales_mm": [6]}
    assert np.array_equal(found, anomaly_map("residual_z", inference, reference_of(known), options=given).values)
    assert not np.array_equal(found, run("residual_z", "linear", scan("linear", lesion=2)).values)


def test_signs_of_the_residual() -> None:
    inference, reference = infer(model("linear"), scan("linear", lesion=4)), reference_of(model("linear"))
    both, bright, dark = (
        anomaly_map("residual", inference, reference, options={"sign": sign}).values
        for sign in ("both", "bright", "dark")
    )
    assert np.array_equal(both, bright + dark)
    assert (bright * dark == 0).all()
    assert bright[linear_model.LESION].mean() > dark[linear_model.LESION].mean()
    assert np.array_equal(bright - dark, inference.residual[0])


def test_maps_without_a_network_by_hand() -> None:
    prepared, reference = scan("linear"), reference_of(model("linear"))
    image, mask = prepared.image[0], prepared.mask[0]
    inside = image[mask]
    spread = 1.4826 * np.median(np.abs(inside - np.median(inside)))
    found = run("intensity", "linear", prepared).values[mask]
    np.testing.assert_allclose(found, np.abs(inside - np.median(inside)) / spread, rtol=1e-5)
    atlas = reference.maps["atlas"].arrays
    found = run("atlas", "linear", prepared).values[mask]
    np.testing.assert_allclose(found, np.abs((image - atlas["mean"]) / atlas["sd"])[:, mask][0], rtol=1e-5)
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


def clipped(prepared: Prepared, reference: Reference) -> np.ndarray:  # type: ignore[type-arg]
    """The residual that `residual_z` looks at."""
    module, settings = configure("maps", "residual_z", {})
    method: residual_z.Map = module.Map(settings)
    image = Normal.from_arrays(reference.maps["atlas"].arrays)
    return method.residual(infer(model("linear"), prepared), image)


def test_a_lesion_cannot_be_copied_beyond_what_is_normal() -> None:
    """The linear model copies a pattern it knows, whatever its size; of the winsorised scan it sees no more of it."""
    prepared, reference = scan("linear"), reference_of(model("linear"))
    unusual = replace(prepared, image=prepared.image + 20 * linear_model.patterns()[:1] * prepared.mask)
    more = replace(prepared, image=prepared.image + 40 * linear_model.patterns()[:1] * prepared.mask)
    plain = infer(model("linear"), unusual).residual
    held, held_more = clipped(unusual, reference), clipped(more, reference)
    inside, atlas = prepared.mask, Normal.from_arrays(reference.maps["atlas"].arrays)
    assert np.abs(plain[inside]).mean() < 0.3 * np.abs(held[inside]).mean()
    same = (np.abs(unusual.image - atlas.mean) > atlas.sd) & inside
    assert same.mean() > 0.5
    difference = (held_more - held) - (more.image - unusual.image)
    assert np.abs(difference[same]).mean() < 0.1 * np.abs(held[same]).mean(), "the expectation stays where it was"


def test_residual_z_by_hand() -> None:
    prepared, reference = scan("linear", lesion=2), reference_of(model("linear"))
    image, own = (Normal.from_arrays(reference.maps[name].arrays) for name in ("atlas", "residual_z"))
    inside = prepared.mask[0]
    held = np.clip(prepared.image, image.mean - image.sd, image.mean + image.sd)
    held[:, ~inside] = prepared.image[:, ~inside]
    expected = infer(model("linear"), replace(prepared, image=held)).reconstruction
    z = np.abs((prepared.image - expected - own.mean) / own.sd)[0]
    parts = [smooth_inside(z.astype(np.float32), inside, spacing=prepared.grid.spacing, mm=mm) for mm in (0, 3, 6)]
    by_hand = (np.mean(parts, axis=0) - np.sqrt(2 / np.pi)) / reference.maps["residual_z"].scale
    np.testing.assert_allclose(
        run("residual_z", "linear", prepared).values[inside], by_hand[inside], rtol=1e-4, atol=1e-5
    )


def test_a_map_is_computed_once_for_all_that_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    module = plugins.load("maps", "residual")
    original = module.Map.map
    monkeypatch.setattr(module.Map, "map", lambda *a: [calls.append("map"), original(*a)][1])
    maps = scan_maps(["residual"], infer(model("linear"), scan("linear")), reference_of(model("linear")))
    assert np.array_equal(maps["residual"].values, maps["residual"].values)
    assert calls == ["map"]
