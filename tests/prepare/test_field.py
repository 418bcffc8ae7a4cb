"""The receive field: found where there is one, left alone where values have no zero, and put back on the way out."""

from __future__ import annotations

import numpy as np
import pytest

from medvae.errors import ScanError
from medvae.prepare.field import receive_field
from medvae.prepare.preparation import Preparation, prepare
from medvae.scan import Geometry, Scan
from medvae.settings import PrepareSettings

SHAPE = (40, 44, 36)


@pytest.fixture
def tissue() -> tuple[np.ndarray, np.ndarray]:
    """Blobs of two tissues in a ball, and the ball."""
    rng = np.random.default_rng(0)
    at = np.indices(SHAPE).astype(np.float32)
    inside = sum(((a - n / 2) / (n / 2 - 3)) ** 2 for a, n in zip(at, SHAPE, strict=True)) < 1
    coarse = rng.random([n // 4 for n in SHAPE]).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    values = np.where(coarse > 0.5, 100.0, 60.0) + rng.normal(0, 2, SHAPE)
    return np.where(inside, values, 0).astype(np.float32), inside


def field_of(shape: tuple[int, ...]) -> np.ndarray:
    """Brighter towards one corner by up to a factor of two."""
    x, y, _ = np.indices(shape) / np.array(shape)[:, None, None, None]
    return (0.75 + 0.75 * (x + y) / 2).astype(np.float32)


def test_a_field_is_found(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    values, inside = tissue
    added = field_of(SHAPE)
    found = receive_field(values * added, inside, spacing=(2.0, 2.0, 2.0))
    assert found is not None
    left = np.log(found / added)[inside]
    assert left.std() < 0.3 * np.log(added[inside]).std()
    assert np.log(found[inside]).mean() == pytest.approx(0, abs=1e-4)


def test_without_a_field_little_changes(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    values, inside = tissue
    found = receive_field(values, inside, spacing=(2.0, 2.0, 2.0))
    assert found is not None
    assert np.log(found[inside]).std() < 0.03


def test_values_without_a_zero_are_left_alone(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    values, inside = tissue
    assert receive_field(values - 80, inside, spacing=(2.0, 2.0, 2.0)) is None


def test_a_scan_of_one_value_stays_one(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    _, inside = tissue
    assert receive_field(np.where(inside, np.float32(5), np.float32(0)), inside, spacing=(2.0, 2.0, 2.0)) is None
    scan = Scan(inside * np.float32(5), Geometry(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0])), modality="MR")
    settings = PrepareSettings(modality="MR", spacing=(2, 2, 2), shape=SHAPE, field="n4")
    with pytest.raises(ScanError, match="one value") as refused:
        prepare(scan, Preparation(settings), mask=inside)
    assert refused.value.code == "blank"


def test_the_way_back_has_the_field_again(tissue: tuple[np.ndarray, np.ndarray]) -> None:
    values, inside = tissue
    scan = Scan(values * field_of(SHAPE), Geometry(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0])), modality="MR")
    settings = PrepareSettings(modality="MR", spacing=(2, 2, 2), shape=SHAPE, field="n4")
    prepared = prepare(scan, Preparation(settings), mask=inside)
    plain = prepare(scan, Preparation(settings.model_copy(update={"field": "none"})), mask=inside)
    assert plain.bias_field is None
    assert prepared.bias_field is not None
    there = inside & (np.abs(prepared.image[0]) < 9)
    np.testing.assert_allclose(prepared.in_units(prepared.image)[0][there], scan.data[there], rtol=1e-4)
    bright = inside & (values > 80)  # one tissue: its values differ by the field alone
    assert prepared.image[0][bright].std() < 0.6 * plain.image[0][bright].std()
