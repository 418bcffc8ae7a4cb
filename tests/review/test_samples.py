"""The montage of synthetic scans: which planes are shown, in which orientation, and that it is written as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medvae.review.samples import Pair, SampleMontage, display_limits

if TYPE_CHECKING:
    from pathlib import Path


def montage(*pairs: Pair) -> SampleMontage:
    return SampleMontage("montage.png", pairs, spacing=(1.0, 1.0, 2.0), limits=(0.0, 1.0), title="all")


def volume(*, shape: tuple[int, int, int] = (8, 10, 6)) -> np.ndarray:
    """A foreground in the middle, its voxels numbered."""
    values = np.full(shape, np.nan)
    inner = tuple(slice(2, n - 1) for n in shape)
    values[inner] = np.arange(values[inner].size).reshape(values[inner].shape)
    return values


def test_a_row_per_pair_with_three_planes_of_each() -> None:
    sample, nearest = volume(), volume() + 1
    figure = montage(Pair(sample, nearest, "title", "caption"), Pair(sample, None, "alone", "none"))._figure()
    axes = np.array(figure.axes).reshape(2, 8)
    shown = [[len(ax.images) for ax in row] for row in axes]
    assert shown == [[0, 1, 1, 1, 0, 1, 1, 1], [0, 1, 1, 1, 0, 0, 0, 0]]
    axial = np.asarray(axes[0, 1].images[0].get_array())
    centre = [int(np.median(one)) for one in np.argwhere(np.isfinite(sample)).T]
    assert np.array_equal(axial, sample[:, :, centre[2]].T, equal_nan=True)
    beside = np.asarray(axes[0, 5].images[0].get_array())
    assert np.array_equal(beside, nearest[:, :, centre[2]].T, equal_nan=True), "the same plane of the neighbour"
    assert axes[0, 1].xaxis_inverted(), "the patient's right is on the left"
    assert axes[0, 3].xaxis_inverted(), "and the nose in sagittal planes"
    assert [ax.get_aspect() for ax in axes[0, 1:4]] == [1.0, 2.0, 2.0]


def test_an_empty_sample_is_shown_at_its_middle() -> None:
    empty = np.full((4, 6, 8), np.nan)
    figure = montage(Pair(empty, None, "empty", ""))._figure()
    assert np.asarray(figure.axes[1].images[0].get_array()).shape == (6, 4)


def test_the_file_is_repeatable(tmp_path: Path) -> None:
    one = montage(Pair(volume(), volume(), "title", "caption"))
    one.write(tmp_path / "a")
    one.write(tmp_path / "b")
    first, second = ((tmp_path / part / "montage.png").read_bytes() for part in "ab")
    assert first == second
    assert first.startswith(b"\x89PNG")


def test_limits_are_percentiles_of_the_foreground() -> None:
    images = np.linspace(0, 100, 1000).reshape(1, 1, 10, 10, 10)
    masks = images >= 50
    low, high = display_limits(images, masks)
    assert (round(low, 1), round(high, 1)) == (50.3, 99.8)
    assert display_limits(images, np.zeros_like(masks)) == (-3.0, 3.0)
