"""The extracted brain lies on the scan's own grid, whatever its orientation; the networks are replaced by a rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from deepbet import BrainExtraction
from made_scans import ORIENTATIONS, centred, rotation

from medvae.prepare import brain
from medvae.prepare.brain import extract_brain
from medvae.scan import Geometry, Scan


class Rule(BrainExtraction):  # type: ignore[misc]
    """Without networks: bright voxels in the right, front, upper part of what it is shown are brain."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.threads: list[int] = []

    def run_model(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self.shapes.append(x.shape)
        self.threads.append(torch.get_num_threads())
        self.bbox = (slice(None),) * 3
        upper = np.all(np.moveaxis(np.indices(x.shape), 0, -1) > (np.array(x.shape) - 1) / 2, axis=-1)
        return (upper & (x > 50)).astype(np.float32)


@pytest.fixture
def rule(monkeypatch: pytest.MonkeyPatch) -> Rule:
    made = Rule()
    monkeypatch.setattr(brain, "_networks", lambda: made)
    return made


def head(geometry: Geometry, **rest: Any) -> tuple[Scan, np.ndarray[Any, Any]]:
    """A bright ball of 20 mm around 0 mm, and where each voxel lies, mm."""
    where = geometry.to_world(np.moveaxis(np.indices(geometry.shape), 0, -1))
    ball = np.linalg.norm(where, axis=-1) < 20
    return Scan(np.where(ball, 100, 10).astype(np.float32), geometry, **rest), where


@pytest.mark.parametrize("turn", ORIENTATIONS, ids=lambda turn: "".join(f"{int(v)}" for v in turn @ (1, 2, 3)))
@pytest.mark.parametrize("angles", [(0, 0, 0), (12, -9, 14)], ids=["straight", "oblique"])
def test_a_mask_lies_on_the_grid_of_its_scan(rule: Rule, turn: Any, angles: tuple[int, int, int]) -> None:
    spacing = np.abs(turn.T @ (3.0, 2.5, 2.0))
    scan, where = head(centred((20, 22, 24), rotation(*angles) @ turn @ np.diag(spacing)))
    found = extract_brain(scan)
    upper = np.all(where @ rotation(*angles) > 0, axis=-1)
    np.testing.assert_array_equal(found, upper & (scan.data > 50))
    assert found.any()


def test_voxels_smaller_than_the_networks_need_are_thinned_out(rule: Rule) -> None:
    """A fine scan costs no more memory; its mask is as large as itself and off by less than a network's voxel."""
    scan, where = head(centred((91, 90, 30), np.diag([0.45, 0.5, 1.5])))
    found = extract_brain(scan)
    assert rule.shapes == [(46, 45, 30)]
    assert found.shape == scan.data.shape
    sure = np.all(np.abs(where) > 1, axis=-1) & (np.abs(np.linalg.norm(where, axis=-1) - 20) > 1)
    np.testing.assert_array_equal(found[sure], (np.all(where > 0, axis=-1) & (scan.data > 50))[sure])


def test_filled_voxels_never_count(rule: Rule) -> None:
    valid = np.ones((20, 22, 24), bool)
    valid[12] = False
    scan, _ = head(centred(valid.shape, np.eye(3) * 2.5), valid=valid)
    found = extract_brain(scan)
    assert found[11].any()
    assert not found[12].any()


def test_where_nothing_looks_like_brain_the_mask_is_empty(rule: Rule) -> None:
    scan, _ = head(centred((20, 22, 24), np.eye(3) * 2.5))
    assert not extract_brain(scan.with_data(np.full_like(scan.data, 7))).any()


def test_one_thread_whatever_the_process_has(rule: Rule) -> None:
    before = torch.get_num_threads()
    scan, _ = head(centred((20, 22, 24), np.eye(3) * 2.5))
    copy = scan.data.copy()
    try:
        torch.set_num_threads(3)
        extract_brain(scan)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert rule.threads == [1]
    np.testing.assert_array_equal(scan.data, copy, "the scan is not changed")


def test_the_networks_come_with_the_package_and_are_loaded_once(capfd: pytest.CaptureFixture[str]) -> None:
    first = brain._networks()
    assert first is brain._networks()
    assert {one.device.type for one in first.model.parameters()} == {"cpu"}
    assert capfd.readouterr() == ("", "")
