"""Scans made for the geometry and preparation tests: smooth fields, landmarks in any pose, one aligned made brain."""

from __future__ import annotations

from functools import cache
from itertools import permutations, product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from medvae.prepare.preparation import Preparation, Prepared, prepare
from medvae.scan import Geometry, Scan
from medvae.settings import PrepareSettings
from medvae.simulate import phantom

ORIENTATIONS = [
    np.eye(3)[:, list(order)] * signs for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]
MNI = PrepareSettings(modality="MR", align="mni152", spacing=(4, 4, 4), shape=(48, 56, 48))


def rotation(x: float, y: float, z: float) -> np.ndarray[Any, Any]:
    """Rotation by three angles in degrees about the axes, x first."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians([x, y, z])):
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def pose(linear: np.ndarray[Any, Any], centre: Any = (0, 0, 0)) -> np.ndarray[Any, Any]:
    """4×4 of a linear part and a shift."""
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = centre
    return affine


def centred(shape: tuple[int, int, int], linear: np.ndarray[Any, Any], centre: Any = (0, 0, 0)) -> Geometry:
    """A geometry whose middle lies at `centre`."""
    return Geometry(shape, pose(linear, np.asarray(centre) - linear @ ((np.array(shape) - 1) / 2)))


@st.composite
def geometries(draw: st.DrawFn, *, orientation: np.ndarray[Any, Any] | None = None, shear: bool = False) -> Geometry:
    """Any axis order and flips, turned by up to 40° about each axis, three spacings of 0.7 to 3 mm."""
    turn = draw(st.sampled_from(ORIENTATIONS)) if orientation is None else orientation
    angles = draw(st.tuples(*[st.floats(-40, 40)] * 3))
    spacing = np.array(draw(st.tuples(*[st.floats(0.7, 3.0)] * 3)))
    shape = draw(st.tuples(*[st.integers(14, 22)] * 3))
    linear = rotation(*angles) @ turn @ np.diag(spacing)
    if shear:
        linear = linear @ (np.eye(3) + np.triu(np.full((3, 3), draw(st.floats(-0.4, 0.4))), 1))
    return centred(shape, linear, draw(st.tuples(*[st.floats(-150, 150)] * 3)))


def blob(geometry: Geometry, at: np.ndarray[Any, Any], *, mm: float) -> np.ndarray[Any, Any]:
    """A Gaussian bump about a world position, in each axis as wide as `mm` or 1.2 voxels, whichever is more."""
    width = np.maximum(mm / np.array(geometry.spacing), 1.2)
    offset = np.stack(np.indices(geometry.shape), axis=-1) - geometry.to_index(at)
    return np.exp(-0.5 * ((offset / width) ** 2).sum(axis=-1)).astype(np.float32)


def waves(geometry: Geometry, *, mm: float) -> np.ndarray[Any, Any]:
    """A smooth field in world space of amplitude 1, with waves of length `mm` along each axis."""
    where = geometry.to_world(np.stack(np.indices(geometry.shape), axis=-1))
    return (np.cos(2 * np.pi * where / mm + [0.3, 1.1, 2.0]).sum(axis=-1) / 3).astype(np.float32)


def centre_of_mass(values: np.ndarray[Any, Any], geometry: Geometry) -> np.ndarray[Any, Any]:
    """World position of the centre of mass."""
    index = np.stack(np.indices(values.shape), axis=-1).reshape(-1, 3)
    weights = values.reshape(-1).astype(np.float64)
    return geometry.to_world((index * weights[:, None]).sum(axis=0) / weights.sum())


@cache
def made_brain() -> phantom.Member:
    """A made brain with a bright lesion, oblique and in another axis order."""
    return phantom.make(3, seed=11, lesion="bright")


def as_scan(member: phantom.Member) -> Scan:
    return Scan(np.asfortranarray(member.data, np.float32), member.geometry, modality="MR")


@cache
def aligned_brain() -> Prepared:
    """The made brain, aligned to the template on a 4 mm grid, its lesion as label map."""
    member = made_brain()
    return prepare(as_scan(member), Preparation(MNI), id="made", label_map=member.lesion.astype(np.int16))
