"""The picture of the worklist: the slice of the highest voxel, as a reader holds it, in the colours of the run."""

from __future__ import annotations

import io

import numpy as np
from made_review import LESION, LIMITS, PEAKS, detection
from matplotlib.image import imread

from medvae.review.montage import COLOURS, colour_scale
from medvae.review.thumbnail import Thumbnail

TURNED = np.array([[0, 0, 2.0, 0], [-2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]])  # axes to P, S, R


def test_the_highest_voxel_is_seen_where_a_reader_looks_for_it() -> None:
    for affine in (np.diag([2.0, 2, 2, 1]), np.diag([-2.0, -2, 2, 1]), TURNED):
        found = detection("a", affine=affine)
        image = imread(io.BytesIO(Thumbnail("a.png", found.picture).png()))[..., :3]
        assert max(image.shape[:2]) == 112
        colour = np.array(COLOURS(float(colour_scale(LIMITS["fused"])(PEAKS["fused"])))[:3])
        row, column = np.argwhere(np.abs(image - colour).sum(axis=-1) < 0.35).mean(axis=0) / image.shape[:2]
        middle = found.first.geometry.to_world((np.array(found.coverage.shape) - 1) / 2)
        x, y, _ = found.first.geometry.to_world(LESION) - middle
        assert (column < 0.5) == (x > 0), "the patient's right is on the left"
        assert (row < 0.5) == (y > 0), "front up"


def test_a_healthy_scan_is_grey() -> None:
    image = imread(io.BytesIO(Thumbnail("a.png", detection("a", top=0.1).picture).png()))[..., :3]
    assert np.ptp(image, axis=-1).max() < 0.02
