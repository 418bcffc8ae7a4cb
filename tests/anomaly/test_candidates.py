"""Candidates lie where the lesion lies, in every orientation; the worklist's table; scans unlike the healthy ones."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import linear_model
import numpy as np
import pytest
from made_scans import centred, pose, rotation

from medvae.anomaly.anomaly_map import AnomalyMap
from medvae.anomaly.candidates import Candidate, Candidates, find_candidates, side_of
from medvae.anomaly.extremes import KEPT, TAIL, Extremes
from medvae.anomaly.findings import COLUMNS, findings_table
from medvae.anomaly.inference import infer
from medvae.anomaly.reference import MapReference, Reference, reference_of
from medvae.anomaly.traits import scan_traits, unlike
from medvae.prepare.preparation import Intensity, Preparation, Prepared
from medvae.settings import DetectSettings, PrepareSettings

if TYPE_CHECKING:
    from medvae.scan import Geometry

GRID = Preparation(PrepareSettings(align="mni152", spacing=(6, 6, 6), shape=(32, 38, 32))).grid
INPUTS = {
    "RAS": centred((70, 80, 70), np.diag([3.0, 3.0, 3.0]), (4, -15, 10)),
    "LPS": centred((70, 80, 70), np.diag([-3.0, -3.0, 3.0]), (4, -15, 10)),
    "oblique": centred((80, 70, 60), rotation(15, -20, 10)[:, [1, 0, 2]] @ np.diag([3.0, 3.0, 4.0]), (4, -15, 10)),
    "thick": centred((70, 80, 9), np.diag([3.0, 3.0, 24.0]), (4, -15, 10)),
}
WORLD = pose(rotation(4, 3, -5) @ np.diag([1.1, 0.95, 1.0]), (5, -2, 3))  # template mm -> scanner mm


def prepared(where: Geometry) -> Prepared:
    mask = np.ones((1, *GRID.shape), bool)
    return Prepared(
        id="made",
        subject="made",
        image=np.zeros(mask.shape, np.float32),
        mask=mask,
        fov=mask,
        to_input=np.linalg.inv(where.affine) @ WORLD @ GRID.affine,
        grid=GRID,
        input=where,
        intensity=Intensity(offset=0.0, scale=1.0, low=-10.0, high=10.0),
    )


def reference(maxima: Any, **limits: float) -> Reference:
    """Regions are formed above 4; their masses in healthy scans, in mL on the model's grid, are the maxima."""
    masses = np.zeros((len(maxima), KEPT), np.float32)
    masses[:, 0] = maxima
    quantiles = np.full((len(maxima), TAIL.size), 4, np.float32)
    extremes = Extremes(masses, quantiles, np.arange(len(maxima), dtype=np.int32))
    maps = {name: MapReference({}, 1.0, np.zeros(1, np.float32), one, {}, extremes) for name, one in limits.items()}
    return Reference(maps, {}, 0.01, 8, len(maxima), True, "", "")


def found(where: Geometry, values: Any, *, second: Any = None, aligned: bool = True, **options: Any) -> Candidates:
    maps = {"residual": AnomalyMap("residual", values, "a.u.")}
    maps["nll"] = AnomalyMap("nll", values * 0 if second is None else second, "nats")
    chosen = DetectSettings(**options)
    known = reference([0.1, 0.2, 0.3, 0.4], residual=1.0, nll=2.0)
    return find_candidates(maps, prepared(where), known, options=chosen, aligned=aligned)


def lesions() -> Any:
    values = np.zeros(GRID.shape, np.float32)
    values[8:11, 20:23, 15:18] = 6  # to the left of the middle plane
    values[9, 21, 16] = 8
    values[22:24, 12:14, 10:12] = 5  # to the right
    values[22, 12, 10] = 9
    values[16, 30, 25] = 7  # one voxel in the middle
    values[3, 3, 3] = 4  # no higher than healthy scans
    return values


@pytest.mark.parametrize("name", INPUTS)
def test_a_lesion_is_a_candidate_at_its_place(name: str) -> None:
    where = INPUTS[name]
    result = found(where, lesions())
    assert (result.level, result.threshold) == (4, pytest.approx(0.4))
    assert [(one.number, one.peak, one.side) for one in result.each] == [
        (1, 8, "left"),
        (2, 9, "right"),
        (3, 7, "midline"),
    ]
    assert [one.mass / 0.216 for one in result.each] == pytest.approx([26 * 2 + 4, 7 + 5, 3], rel=1e-5)
    voxel_ml = 0.216 * 1.1 * 0.95
    for one, index, voxels in zip(result.each, [(9, 21, 16), (22, 12, 10), (16, 30, 25)], [27, 8, 1], strict=True):
        assert one.mni == pytest.approx(tuple(GRID.to_world(index)), abs=1e-3)
        assert one.ras == pytest.approx(tuple((WORLD @ [*GRID.to_world(index), 1])[:3]), abs=1e-3)
        assert one.lps == pytest.approx((-one.ras[0], -one.ras[1], one.ras[2]))
        assert one.volume_ml == pytest.approx(voxels * voxel_ml, rel=1e-6)
        labelled = np.argwhere(result.labels == one.number)
        assert len(labelled)
        assert np.abs(where.to_world(labelled) - one.ras).min(axis=0).max() < max(where.spacing)
    assert result.labels.dtype == np.uint16
    if name != "thick":
        assert (result.labels == 1).sum() * where.voxel_volume / 1000 == pytest.approx(27 * voxel_ml, rel=0.25)


def test_p_mean_and_witness() -> None:
    second = np.zeros(GRID.shape, np.float32)
    second[22, 12, 10] = 30  # 15 healthy limits, where the first map has 9
    one, two, _ = found(INPUTS["RAS"], lesions(), second=second, healthy_fpr=1.0).each[:3]
    assert (one.witness, two.witness) == ("residual", "nll")
    assert one.mean == pytest.approx((26 * 6 + 8) / 27)
    assert one.p == pytest.approx(1 / 5)


def test_the_rate_sets_the_threshold_and_the_size_the_least_volume() -> None:
    assert found(INPUTS["RAS"], lesions(), healthy_fpr=0.6).threshold == pytest.approx(0.2)
    assert [one.number for one in found(INPUTS["RAS"], lesions(), min_ml=1.0).each] == [1, 2]
    assert found(INPUTS["RAS"], lesions() * 0).each == ()


def test_without_alignment_there_is_no_side() -> None:
    one = found(INPUTS["RAS"], lesions(), aligned=False).each[0]
    assert one.mni is None
    assert one.side is None
    assert one.to_json()["mni"] is None
    assert [side_of(x) for x in (-5.1, -5, 0, 5, 5.1)] == ["left", "midline", "midline", "midline", "right"]


def test_the_table_has_false_discovery_rates_over_all_scans() -> None:
    each = [one.to_json() for one in found(INPUTS["RAS"], lesions()).each]
    p = [0.01, 0.04, 0.03, 0.5]
    given = [("a", [{**each[0], "p": p[0]}, {**each[1], "p": p[1]}]), ("b", []), ("c", [{**each[0], "p": p[2]}])]
    given += [("d", [{**each[2], "p": p[3], "mni": None, "side": None}])]
    rows = list(csv.DictReader(io.StringIO(findings_table(given))))
    assert [(row["id"], row["number"]) for row in rows] == [("a", "1"), ("a", "2"), ("c", "1"), ("d", "3")]
    assert [float(row["q"]) for row in rows] == pytest.approx([0.05, 0.2 / 3, 0.2 / 3, 0.625], rel=1e-4)
    assert (rows[3]["x_mni"], rows[3]["side"]) == ("", "")
    assert float(rows[0]["x_lps"]) == -float(rows[0]["x_ras"])
    assert findings_table([("a", [])]).strip() == findings_table([]).strip() == ",".join(COLUMNS)


def test_in_healthy_scans_alone_a_small_q_is_rare() -> None:
    """Each scan is searched, and has a candidate where its p is small enough: q must count those that have none."""
    one, rng = found(INPUTS["RAS"], lesions()).each[0].to_json(), np.random.default_rng(0)
    below = 0
    for _ in range(100):
        p = rng.uniform(size=200)
        scans = [(str(number), [{**one, "p": value}] if value <= 0.1 else []) for number, value in enumerate(p)]
        rows = csv.DictReader(io.StringIO(findings_table(scans)))
        below += any(float(row["q"]) <= 0.05 for row in rows)
    assert below <= 12  # 5 expected


def test_another_scanner_is_warned_of_and_the_same_is_not() -> None:
    model = linear_model.known_model()
    healthy = reference_of(model).traits
    for index in range(300, 320):
        assert unlike(scan_traits(infer(model, linear_model.scan(index))), healthy) == ()
    odd = linear_model.scan(300)
    noisy = odd.image + np.random.default_rng(1).normal(0, 3, odd.image.shape).astype(np.float32) * odd.mask
    warnings = unlike(scan_traits(infer(model, replace(odd, image=noisy))), healthy)
    assert any("noise is 1" in text and "times that of the healthy scans (z = " in text for text in warnings)


def test_the_noise_trait_is_the_noise() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0, 2, linear_model.SHAPE).astype(np.float32)
    scan = replace(linear_model.scan(1, hole=False), image=image[None])
    assert scan_traits(infer(linear_model.bare_model(), scan))["noise"] == pytest.approx(2, rel=0.15)


def test_few_healthy_scans_warn_of_little() -> None:
    healthy = {"noise": np.array([1.0, 1.02], np.float32)}
    assert unlike({"noise": 100.0}, healthy) == ()
    more = {"noise": np.linspace(0.95, 1.05, 12, dtype=np.float32)}
    assert unlike({"noise": 1.15}, more) == ()
    assert unlike({"noise": 3.0}, more) != ()
    assert unlike({"noise": 0.0}, more) != ()


def test_what_was_found_in_words() -> None:
    labels = np.zeros((1, 1, 1), np.uint16)
    three = found(INPUTS["RAS"], lesions())
    limit = "A candidate exceeds the limit of healthy scans, 0.4 z·mL above 4 z."
    assert three.in_words("z", shown=3) == f"3 candidates. {limit}"
    assert three.in_words("z", shown=2) == f"3 candidates, the first 2 are shown. {limit}"
    assert replace(three, each=three.each[:1]).in_words("z", shown=3) == f"1 candidate. {limit}"
    none = replace(three, each=(), labels=labels)
    assert none.in_words("z", shown=3) == f"No candidate. This does not exclude disease. {limit}"
    assert "1235 z·mL" in replace(none, threshold=1234.5678).in_words("z", shown=3), "no exponent for a reader"
    unknown = replace(none, threshold=np.inf)
    assert "unknown" in unknown.in_words("z", shown=3), "nothing to compare with is no good news"


@pytest.mark.parametrize(("found", "threshold", "places"), [(0, 1.0, 1), (2, 1.0, 2), (5, 1.0, 3), (0, np.inf, 3)])
def test_a_picture_shows_the_candidates_and_one_place_without(found: int, threshold: float, places: int) -> None:
    one = Candidate(1, (0, 0, 0), None, None, 1.0, 5.0, 5.0, 2.0, 0.1, "residual_z")
    candidates = Candidates("residual_z", 1.0, threshold, (one,) * found, np.zeros((2, 2, 2), np.uint16))
    assert candidates.places(3) == places
