"""Simulated brains: repeatable member by member, T1-like, read and aligned like real scans."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from medvae.prepare import template
from medvae.prepare.align import SURE, align_to_template
from medvae.prepare.foreground import is_stripped
from medvae.scan import Scan
from medvae.simulate import phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray


@cache
def member(index: int, lesion: phantom.Lesion = "none") -> phantom.Member:
    return phantom.make(index, seed=3, lesion=lesion)


def in_template_voxels(simulated: phantom.Member) -> NDArray[np.int16]:
    """The volume in the order R, A, S, as it was before its pose."""
    directions = np.abs(simulated.geometry.affine[:3, :3]).argmax(axis=0)
    turned = simulated.data.transpose(np.argsort(directions))
    signs = [simulated.geometry.affine[axis, np.flatnonzero(directions == axis)[0]] for axis in range(3)]
    return np.flip(turned, axis=[axis for axis in range(3) if signs[axis] < 0])


def test_a_member_is_the_same_again_and_differs_from_others() -> None:
    again = phantom.make(0, seed=3)
    np.testing.assert_array_equal(member(0).data, again.data)
    assert member(0).geometry == again.geometry
    one, other = in_template_voxels(member(0)), in_template_voxels(member(1))
    both = (one > 0) & (other > 0)
    assert np.corrcoef(one[both], other[both])[0, 1] < 0.95
    assert not np.array_equal(phantom.make(0, seed=4).data, again.data)


@pytest.mark.parametrize("lesion", [kind for kind in get_args(phantom.Lesion) if kind != "none"])
def test_a_lesion_changes_its_member_near_its_mask_alone(lesion: phantom.Lesion) -> None:
    healthy, ill = member(0), member(0, lesion)
    assert healthy.geometry == ill.geometry
    np.testing.assert_array_equal(healthy.data > 0, ill.data > 0)
    changed = np.argwhere(healthy.data != ill.data)
    inside = np.argwhere(ill.lesion)
    assert (changed.min(axis=0) >= inside.min(axis=0) - 2).all()
    assert (changed.max(axis=0) <= inside.max(axis=0) + 2).all()
    assert 1 < ill.lesion.sum() * ill.geometry.voxel_volume / 1000 < 40  # millilitres
    assert not healthy.lesion.any()
    assert (ill.data[ill.lesion] > 0).all()
    change = (ill.data - healthy.data.astype(float))[ill.lesion].mean()
    sign = {"dark": -1, "bright": 1, "iso": 0}[lesion]
    assert np.sign(change) == sign or sign == 0


def test_it_looks_like_a_stripped_brain_and_finds_its_way_to_the_template() -> None:
    simulated = member(0)
    scan = Scan(simulated.data.astype(np.float32), simulated.geometry, modality="MR")
    assert is_stripped(scan.data != 0, scan.geometry)
    found = align_to_template(scan, simulated.data > 0)
    assert found.likeness > SURE
    data, grid = template.brain()
    middle, own = (
        grid.to_world(np.argwhere(data > 0).mean(0)),
        simulated.geometry.to_world(np.argwhere(simulated.data > 0).mean(0)),
    )
    assert np.linalg.norm(found.matrix[:3, :3] @ middle + found.matrix[:3, 3] - own) < 8
    directions = simulated.geometry.affine[:3, :3] / phantom.VOXEL
    order = np.argsort(np.abs(directions).argmax(axis=0))
    pose = directions[:, order] * np.sign(np.diag(directions[:, order]))
    turn, _, back = np.linalg.svd(found.matrix[:3, :3])
    angle = np.degrees(np.arccos(np.clip((np.trace(pose.T @ turn @ back) - 1) / 2, -1, 1)))
    assert angle < 8  # the warp itself turns a brain a little


def test_white_matter_is_brighter_than_grey_and_fluid_darkest() -> None:
    shares = phantom._tissues()
    image, brain = phantom._contrast(shares, np.random.default_rng(0))
    grey, white, fluid = (float(image[share > 0.9].mean()) for share in shares)
    assert white > grey > fluid > 0
    assert brain.sum() * phantom.VOXEL**3 == pytest.approx(template.brain()[0].astype(bool).sum(), rel=0.15)


def test_the_warp_never_folds() -> None:
    displacement = phantom._diffeomorphism(np.random.default_rng(5))
    jacobian = (
        np.stack([np.stack(np.gradient(component)) for component in displacement]) + np.eye(3)[..., None, None, None]
    )
    determinant = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1))[2:-2, 2:-2, 2:-2])
    assert determinant.min() > 0


def test_poses_differ_in_axis_order_and_rotation() -> None:
    axes = {tuple(np.abs(member(i).geometry.affine[:3, :3]).argmax(axis=0)) for i in range(4)}
    assert len(axes) > 1
    oblique = member(0).geometry.affine[:3, :3] / phantom.VOXEL
    assert np.allclose(oblique @ oblique.T, np.eye(3))
    assert not np.allclose(np.abs(oblique).max(axis=0), 1, atol=1e-3)
