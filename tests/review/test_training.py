"""Pictures of a training: every known number is drawn, a single point is seen, scans stand beside reconstructions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import small_model
from matplotlib.image import imread

from medvae.review import training as pictures
from medvae.training.epoch import Epoch

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

EPOCH = Epoch(
    step=100,
    plan=((0, 200),),
    loss=1.5,
    reconstruction=100.0,
    kl=12.5,
    beta=0.5,
    error=0.2,
    validation=1.25,
    validation_error=0.3,
    mean_image_error=0.5,
    active=7,
    scans_per_second=3.0,
    best=True,
)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures as they are saved."""
    seen: list[Figure] = []
    save = pictures._save

    def kept(figure: Figure, path: Path) -> None:
        seen.append(figure)
        save(figure, path)

    monkeypatch.setattr(pictures, "_save", kept)
    return seen


def lines(figure: Figure) -> dict[str, Any]:
    return {str(line.get_label()): line for ax in figure.axes for line in ax.get_lines()}


def test_a_curve_of_one_point_has_a_marker(tmp_path: Path, drawn: list[Figure]) -> None:
    pictures.curves(tmp_path / "one.png", [EPOCH])
    pictures.curves(tmp_path / "two.png", [EPOCH, replace(EPOCH, step=200, best=False)])
    one, two = (lines(figure) for figure in drawn)
    curves = set(one) - {"kept weights"}
    assert {one[name].get_marker() for name in curves} == {"o"}
    assert {two[name].get_marker() for name in curves} == {"None"}
    assert list(two["KL"].get_xdata()) == [100, 200]
    assert list(two["kept weights"].get_xdata()) == [100, 100], "the best epoch, not the last one"


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"step": 1, "kl": 0.0, "active": 0},
        {"loss": 4 / 3, "validation": 4 / 3 + 1e-9, "error": 0.2, "validation_error": 0.2 + 1e-9},
        {"kl": 272006.4, "loss": -1e-3, "validation": -1e-3},
        {"validation": None, "validation_error": None, "mean_image_error": None},
    ],
)
def test_axes_can_be_read_however_alike_the_values_are(
    tmp_path: Path, drawn: list[Figure], numbers: dict[str, Any]
) -> None:
    pictures.curves(tmp_path / "curves.png", [replace(EPOCH, **numbers)])
    for ax in drawn[0].axes:
        for axis in (ax.xaxis, ax.yaxis):
            shown = [text.get_text() for text in axis.get_ticklabels() if text.get_text()]
            assert len(set(shown)) == len(shown), "no two ticks have the same label"
            assert axis.get_offset_text().get_text() == "", "no offset to add, no power to multiply by"
            assert all(len(text) <= 8 for text in shown)
        low, high = ax.get_ylim()
        assert high - low >= 0.099 * abs(low + high) / 2
    below, beside = drawn[0].axes[2:]
    assert below.get_xlim()[0] == beside.get_ylim()[0] == 0
    steps = [float(text.get_text().replace("\N{MINUS SIGN}", "-")) for text in below.get_xticklabels()]
    assert all(step.is_integer() for step in steps)


def test_without_validation_only_the_training_is_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    bare = replace(EPOCH, validation=None, validation_error=None, mean_image_error=None)
    pictures.curves(tmp_path / "curves.png", [bare, replace(bare, step=200)])
    assert not [name for name in lines(drawn[0]) if "validation" in name]


def test_scans_stand_beside_their_reconstructions(tmp_path: Path, drawn: list[Figure]) -> None:
    pairs = []
    for index in range(2):
        prepared = small_model.scan(index)
        pairs.append(pictures.Pair(prepared, np.where(prepared.mask, prepared.image + 0.5, np.float32(0))))
    pictures.reconstructions(tmp_path / "pairs.png", pairs, spacing=(4, 4, 4), title="validation scans")
    assert imread(tmp_path / "pairs.png").ndim == 3
    (figure,) = drawn
    planes = [image.get_array() for ax in figure.axes for image in ax.get_images()]
    assert len(planes) == 2 * 6
    for scan, reconstruction in zip(planes[::2], planes[1::2], strict=True):
        difference = np.asarray(reconstruction) - np.asarray(scan)
        np.testing.assert_allclose(difference[np.isfinite(difference)], 0.5, atol=1e-5)
        assert np.isnan(difference).any(), "what is not foreground is left out"
    assert pairs[0].error == pytest.approx(0.25, rel=1e-4)
    assert "reconstruction, squared error 0.250" in [ax.get_title() for ax in figure.axes]
