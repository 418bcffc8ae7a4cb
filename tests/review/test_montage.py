"""The picture of a scan and its map: which slices, what is left and right, colours with one meaning everywhere."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy.spatial.distance import pdist

from medvae.prepare.grid import nearest_ras
from medvae.prepare.preparation import Preparation, prepare
from medvae.review.frame import turned
from medvae.review.montage import COLOURS, Montage, Picture, _draw_rows, _Layers, colour_scale, find_peaks
from medvae.scan import Geometry, Scan
from medvae.settings import PrepareSettings

if TYPE_CHECKING:
    from pathlib import Path

AFFINES = {
    "RAS": np.diag([2.0, 2, 2, 1]),
    "LPS": np.diag([-2.0, -2, 2, 1]),
    "PSR": np.array([[0, 0, 2.0, 0], [-2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]]),
}


def block(affine: np.ndarray) -> Scan:
    """A bright block in zeros; one voxel of it, towards the patient's right, front and top, is brightest."""
    data = np.zeros((24, 28, 26), np.float32)
    data[4:20, 4:24, 4:22] = 100
    return Scan(
        data + np.random.default_rng(0).normal(size=data.shape).astype(np.float32) * (data > 0),
        Geometry(data.shape, affine),
    )


@pytest.mark.parametrize("name", AFFINES)
def test_peaks_come_back_to_the_voxels_they_are_at(name: str) -> None:
    scan = block(AFFINES[name])
    prepared = prepare(scan, Preparation(PrepareSettings(spacing=(2, 2, 2), shape=(32, 32, 32))))
    values = np.zeros((32, 32, 32), np.float32)
    target = np.array([10, 9, 8])
    world = scan.geometry.to_world(target)
    grid_index = np.rint(np.linalg.inv(prepared.to_input) @ [*target, 1])[:3].astype(int)
    values[tuple(slice(i - 1, i + 2) for i in grid_index)] = 5
    peaks = find_peaks(values, prepared)
    assert np.linalg.norm(scan.geometry.to_world(peaks[0]) - world) <= 2
    distances = pdist(scan.geometry.to_world(peaks))
    assert min(distances, default=99) > 16 - 2 * np.sqrt(3) * 4, "peaks keep their distance, a quarter of 64 mm here"


def test_given_places_come_before_the_highest_and_keep_them_away() -> None:
    scan = block(AFFINES["LPS"])
    prepared = prepare(scan, Preparation(PrepareSettings(spacing=(2, 2, 2), shape=(32, 32, 32))))
    values = np.random.default_rng(0).random((32, 32, 32)).astype(np.float32)
    (highest, *_), given = find_peaks(values, prepared), [np.array([5.0, 6, 7]), np.array([6.0, 6, 7])]
    peaks = find_peaks(values, prepared, first=[highest + 0.4, *given])
    assert peaks.tolist() == [highest.tolist(), [5, 6, 7], [6, 6, 7]]
    assert len(find_peaks(values, prepared, first=given)) == 3
    last = find_peaks(values, prepared, first=[highest.astype(float)])[1:]
    assert (np.linalg.norm((last - highest) * 2, axis=1) > 16 - 2 * np.sqrt(3) * 2).all()


def test_a_peak_is_the_highest_voxel_near_its_smoothed_place() -> None:
    scan = block(AFFINES["RAS"])
    prepared = prepare(scan, Preparation(PrepareSettings(spacing=(2, 2, 2), shape=(32, 32, 32))))
    values = np.zeros((32, 32, 32), np.float32)
    values[14:19, 14:19, 14:19] = 3
    values[18, 18, 18] = 4
    highest = prepared.to_input[:3, :3] @ (18, 18, 18) + prepared.to_input[:3, 3]
    assert np.abs(find_peaks(values, prepared)[0] - highest).max() <= 0.5


@pytest.mark.parametrize("name", AFFINES)
def test_the_right_of_the_patient_is_on_the_left(name: str) -> None:
    """The picture's x axis falls where the plane runs along R, in every axis order of the file."""
    geometry = Geometry((24, 28, 26), AFFINES[name])
    marked = np.zeros(geometry.shape, np.float32)
    corners = geometry.to_world(np.argwhere(np.ones(geometry.shape, bool)))
    right_front_top = np.argwhere(np.ones(geometry.shape, bool))[(corners @ [1, 1, 1]).argmax()]
    marked[tuple(right_front_top)] = 1
    ras = turned(marked, nearest_ras(geometry))
    assert np.argwhere(ras)[0].tolist() == [n - 1 for n in ras.shape], "the last voxel along R, A and S"
    picture = Picture(
        marked, marked, np.ones(geometry.shape, bool), geometry, np.zeros((1, 3), np.intp), (0.0,), (0,), 1, "z"
    )
    layers = _Layers.from_picture(picture, nearest_ras(geometry))
    for axis in (0, 1, 2):
        ax = Figure().subplots()
        layers.draw(ax, axis=axis, at=np.array([1, 1, 1]), heat=False)
        texts = [text.get_text() for text in ax.texts]
        assert texts == (["A", "P"] if axis == 0 else ["R", "L"]), "the nose on the left, as on the pages"
        assert ax.xaxis_inverted()
        assert not ax.yaxis_inverted()


def test_the_outline_of_the_template_is_drawn_on_the_plain_scan() -> None:
    scan = block(AFFINES["LPS"])
    zeros = np.zeros_like(scan.data)
    peaks = np.array([[10, 9, 8]])
    brain = np.zeros(scan.data.shape, bool)
    brain[4:15, 4:15, 4:15] = True
    picture = Picture(scan.data, zeros, scan.data > 0, scan.geometry, peaks, (0.0,), (0,), 1.5, "z", outline=brain)
    layers = _Layers.from_picture(picture, nearest_ras(scan.geometry))
    for heat, lines in ((False, 1), (True, 0)):
        ax = Figure().subplots()
        layers.draw(ax, axis=2, at=np.array([10, 9, 8]), heat=heat)
        assert len(ax.collections) == lines


def test_colours_mean_the_same_in_all_pictures() -> None:
    def picture(top: float) -> Picture:
        heat = np.full((4, 4, 4), top, np.float32)
        return Picture(
            heat, heat, heat > 0, Geometry((4, 4, 4), np.eye(4)), np.zeros((1, 3), np.intp), (top,), (0,), 2.0, "z"
        )

    assert colour_scale(picture(1).limit).vmax == colour_scale(picture(50).limit).vmax == 6.0
    alpha = COLOURS(colour_scale(picture(1).limit)(np.array([0.0, 0.9, 2.0, 6.0])))[:, 3]
    assert alpha[0] == alpha[1] == 0, "healthy values are transparent"
    assert alpha[2] == pytest.approx(0.75, abs=0.02)


def test_a_picture_is_plain_data_until_it_is_written(tmp_path: Path) -> None:
    scan = block(AFFINES["LPS"])
    heat = np.where(scan.data > 0, np.float32(1), np.float32(0))
    peaks = np.array([[10, 9, 8], [5, 6, 7]])
    picture = Picture(scan.data, heat, scan.data > 0, scan.geometry, peaks, (3.0, 2.0), (1, 0), 1.5, "z")
    montage = Montage("scans/a/montage.png", picture, title="scan", footer="calibrated, n=5")
    montage.write(tmp_path)
    image = imread(tmp_path / "scans" / "a" / "montage.png")
    assert image.shape[1] == 1600
    assert image[..., :3].std() > 0.05
    sent = pickle.loads(pickle.dumps(montage))
    assert (tmp_path / "scans" / "a" / "montage.png").read_bytes() == montage.png() == sent.png()
    assert Montage("x.png", picture, title="another", footer="").png() != montage.png()


def test_a_candidate_has_its_number_beside_the_cross_in_every_plane() -> None:
    scan = block(AFFINES["PSR"])
    peaks = np.array([[10, 9, 8], [5, 6, 7]])
    picture = Picture(scan.data, scan.data, scan.data > 0, scan.geometry, peaks, (3.0, 2.0), (4, 0), 1.5, "z")
    axes = Figure().subplots(2, 6)
    _draw_rows(axes, picture, _Layers.from_picture(picture, nearest_ras(picture.geometry)))
    numbers = [[one.get_text() for one in ax.texts if one.get_text().isdigit()] for ax in axes.ravel()]
    assert numbers == [["4"], [], ["4"], [], ["4"], [], *[[]] * 6], "beside the plain planes' crosses, none for 0"
    for ax in axes[0, ::2]:
        (cross,), (number,) = ax.lines, [one for one in ax.texts if one.get_text() == "4"]
        assert np.array_equal(np.ravel(cross.get_data()), number.xy)
