"""What an implanted lesion changes, and what it must not."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from scipy import ndimage

from medvae.io.formats import nifti
from medvae.prepare.noise import noise_of
from medvae.scan import Geometry
from medvae.simulate import lesions

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SPACING = (2.0, 1.0, 3.0)
KINDS = get_args(lesions.Kind)
every_kind = pytest.mark.parametrize("kind", KINDS)


def head(*, noise: float = 10.0, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Stripes in an ellipsoid of zeros around it, as a stripped brain has: image and foreground."""
    shape = (30, 40, 24)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    inside = np.square(grid).sum(axis=0) < 0.9
    stripes = 600 + 200 * np.sign(np.sin(np.arange(40) / 1.5))[None, :, None]
    image = stripes + np.random.default_rng(seed).normal(0, noise, size=shape)
    return np.where(inside, image, 0).astype(np.float32), inside


def two_pieces() -> NDArray[np.bool_]:
    """A large piece that reaches out of the foreground, and a single voxel."""
    shape = np.zeros((30, 40, 24), bool)
    shape[18:30, 12:26, 8:15] = True
    shape[8, 20, 12] = True
    return shape


def put(kind: lesions.Kind, **options: float) -> tuple[NDArray[np.float32], NDArray[np.bool_], lesions.Implanted]:
    image, inside = head()
    implanted = lesions.implant(image, two_pieces(), foreground=inside, spacing=SPACING, kind=kind, **options)  # type: ignore[arg-type]
    return image, inside, implanted


@every_kind
def test_nothing_changes_outside_the_foreground_and_far_from_the_lesion(kind: lesions.Kind) -> None:
    image, inside, implanted = put(kind, edge_mm=4.0)
    far = ndimage.distance_transform_edt(~implanted.truth, SPACING) > 2.0 + min(SPACING) / 2
    assert (implanted.image[~inside] == 0).all()
    np.testing.assert_array_equal(implanted.image[far], image[far])
    assert (implanted.image[inside] > 0).all()  # a zero would leave the foreground


@every_kind
def test_the_truth_is_the_shape_within_the_foreground_and_the_input_is_left_alone(kind: lesions.Kind) -> None:
    image, inside, implanted = put(kind)
    np.testing.assert_array_equal(implanted.truth, two_pieces() & inside)
    np.testing.assert_array_equal(image, head()[0])


@every_kind
def test_the_edge_is_soft_and_half_of_it_lies_on_the_border(kind: lesions.Kind) -> None:
    flat = np.full((30, 40, 24), 500.0, np.float32)
    flat[:4] = 400.0  # a spread
    flat[-4:] = 600.0
    shape = np.zeros(flat.shape, bool)
    shape[10:20, 10:30, 8:16] = True
    everywhere = np.ones(flat.shape, bool)
    implanted = lesions.implant(flat, shape, foreground=everywhere, spacing=(1, 1, 1), kind=kind, edge_mm=4.0)
    if kind == "iso":
        return  # there is no structure to take away
    change = np.abs(implanted.image - flat)
    step = change[:, 20, 12] / change.max()
    np.testing.assert_allclose(step[7:14], [0, 0.125, 0.375, 0.625, 0.875, 1, 1], atol=1e-6)
    np.testing.assert_array_equal(
        np.abs(implanted.image - flat) > 0.5 * np.abs(implanted.image - flat).max(), implanted.truth
    )


@pytest.mark.parametrize(("kind", "sign"), [("dark", -1), ("bright", 1)])
def test_the_contrast_is_in_units_of_the_tissue_spread(kind: lesions.Kind, sign: int) -> None:
    image, inside, implanted = put(kind, contrast=0.4, edge_mm=0.0)
    low, high = np.percentile(image[inside], (5, 95))
    change = (implanted.image - image)[implanted.truth]
    assert np.median(change) == pytest.approx(sign * 0.4 * (high - low) / (2 * 1.6448536), rel=1e-5)
    assert abs(implanted.contrast) <= 0.4 + 1e-6
    assert np.sign(implanted.contrast) == sign


def test_the_contrast_does_not_depend_on_the_units() -> None:
    image, inside = head()
    options = {"foreground": inside, "spacing": SPACING, "kind": "dark"}
    one = lesions.implant(image, two_pieces(), **options)  # type: ignore[arg-type]
    other = lesions.implant(image * 7 + 100, two_pieces(), **options)  # type: ignore[arg-type]
    assert one.contrast == pytest.approx(other.contrast, rel=1e-4)
    np.testing.assert_allclose(other.image, one.image * 7 + 100, rtol=1e-4)


def test_nothing_is_darker_than_fluid() -> None:
    image, inside, implanted = put("dark", contrast=50.0)
    floor = np.percentile(image[inside], 0.5)
    darker = implanted.image < image - 1e-3
    assert (implanted.image[darker] >= floor - 1e-3).all()
    assert implanted.image[implanted.truth].mean() < image[implanted.truth].mean()


def test_iso_keeps_the_mean_of_every_piece_and_takes_the_structure_away() -> None:
    image, _, implanted = put("iso")
    labels, count = ndimage.label(implanted.truth)
    assert count == 2
    for piece in (1, 2):
        assert implanted.image[labels == piece].mean() == pytest.approx(image[labels == piece].mean(), abs=0.01)
    core = ndimage.binary_erosion(labels == np.bincount(labels.ravel())[1:].argmax() + 1, iterations=2)
    assert implanted.image[core].std() < 0.3 * image[core].std()
    assert abs(implanted.contrast) < 1e-3


def test_iso_has_the_noise_of_the_scan_and_the_seed_decides_it() -> None:
    image, inside = head(noise=25.0)
    implanted = [
        lesions.implant(image, two_pieces(), foreground=inside, spacing=SPACING, kind="iso", seed=seed)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(implanted[0].image, implanted[1].image)
    assert (implanted[0].image != implanted[2].image).any()
    core = ndimage.binary_erosion(implanted[0].truth, iterations=2)
    grain = implanted[0].image - ndimage.gaussian_filter(implanted[0].image, 1.0)
    assert grain[core].std() == pytest.approx(25.0, rel=0.35)


def test_noise_is_estimated_in_spite_of_anatomy() -> None:
    for noise in (5.0, 20.0):
        image, inside = head(noise=noise)
        assert noise_of(image, inside) == pytest.approx(noise, rel=0.1)


def test_a_shape_outside_the_foreground_is_refused() -> None:
    image, inside = head()
    with pytest.raises(ValueError, match="foreground"):
        lesions.implant(image, ~inside, foreground=inside, spacing=SPACING, kind="dark")


def test_a_shape_goes_to_another_grid_by_its_place_in_mm(tmp_path: Path) -> None:
    """A box from a fine grid, onto a coarser one with flipped axes: the same mm, the same volume."""
    fine = Geometry((40, 40, 40), np.array([[1, 0, 0, -20], [0, 1, 0, -20], [0, 0, 1, -20], [0, 0, 0, 1.0]]))
    data = np.zeros(fine.shape, np.uint8)
    data[10:20, 8:20, 12:24] = 1
    nifti.write(tmp_path / "shape.nii.gz", data, fine, description="shape")
    coarse = Geometry((20, 20, 20), np.array([[-2, 0, 0, 18.5], [0, 2, 0, -19.5], [0, 0, 2, -19.5], [0, 0, 0, 1.0]]))
    shape = lesions.shape_on(tmp_path / "shape.nii.gz", coarse)
    assert shape.sum() * coarse.voxel_volume == pytest.approx(data.sum(), rel=0.05)
    middle = coarse.to_world(np.argwhere(shape).mean(axis=0))
    np.testing.assert_allclose(middle, fine.to_world(np.argwhere(data).mean(axis=0)), atol=0.5)


def test_shapes_are_chosen_by_rank_of_volume(tmp_path: Path) -> None:
    geometry = Geometry((8, 8, 8), np.eye(4))
    paths = []
    for size, name in ((5, "a"), (1, "b"), (3, "c"), (2, "d"), (6, "e"), (4, "f")):
        data = np.zeros(geometry.shape, np.uint8)
        data[:size] = 1
        paths.append(tmp_path / f"{name}.nii")
        nifti.write(paths[-1], data, geometry, description="shape")
    assert [path.stem for path in lesions.spread_by_volume(paths, 3)] == ["d", "f", "e"]
    assert len(set(lesions.spread_by_volume(paths, 6))) == 6
    with pytest.raises(ValueError, match="7 of 6"):
        lesions.spread_by_volume(paths, 7)
