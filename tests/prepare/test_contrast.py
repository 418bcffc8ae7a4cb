"""What the tissues of a head look like beside each other: T1 or not, on whatever scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_scans import MNI, aligned_brain, made_brain

from medvae.errors import ScanError
from medvae.io.formats import nifti
from medvae.prepare import preparation
from medvae.prepare.align import Alignment
from medvae.prepare.contrast import DOUBTFUL_CONTRAST, LEAST_FLUID, LEAST_GREY, TissueContrast, tissue_contrast
from medvae.prepare.load import ReadAndPrepare
from medvae.prepare.preparation import Preparation
from medvae.scan import ScanRef
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Values = NDArray[np.float32]

GRID = Preparation(MNI).grid


def brain() -> tuple[Values, NDArray[np.bool_]]:
    made = aligned_brain()
    return made.image[0], made.mask[0]


def contrast(values: Values, mask: NDArray[np.bool_] | None = None) -> TissueContrast:
    found = tissue_contrast(values, brain()[1] if mask is None else mask, grid=GRID)
    assert found is not None
    return found


def knots(image: Values, mask: NDArray[np.bool_]) -> Any:
    return np.percentile(image[mask], (3, 35, 85))


def with_tissues(fluid: float, grey: float, white: float) -> Values:
    """The made brain with these mean intensities of its tissues, instead of those of T1."""
    image, mask = brain()
    made = np.interp(image, knots(image, mask), (fluid, grey, white))
    noise = np.random.default_rng(0).normal(0, 0.02, image.shape)
    return np.where(mask, made + noise, 0).astype(np.float32)


@pytest.mark.parametrize("change", [lambda x: 3 * x + 500, np.exp], ids=["another scale", "another law"])
def test_no_scale_changes_the_figures(change: Callable[[Values], Values]) -> None:
    image, _ = brain()
    found = contrast(image)
    assert found.doubt is None
    assert found.grey > 0.9
    assert contrast(change(image.astype(np.float64)).astype(np.float32)).grey == pytest.approx(found.grey, abs=2e-3)


@pytest.mark.parametrize(
    "tissues", [(0, 1, 0.85), (1, 0.5, 0.3), (0.9, 1, 0.8), (1, 0.6, 0.1)], ids=["FLAIR", "T2", "PD", "inverted"]
)
def test_another_contrast_is_doubtful(tissues: tuple[float, float, float]) -> None:
    found = contrast(with_tissues(*tissues))
    assert found.grey < LEAST_GREY
    assert found.doubt is not None
    assert found.doubt.startswith(
        f"{DOUBTFUL_CONTRAST}: white matter is brighter than {found.grey:.0%} of the grey matter"
    )


def test_bright_fluid_is_doubtful_even_below_white_matter_that_is_bright() -> None:
    image, mask = brain()
    bright = np.where(image < knots(image, mask)[0] + 0.5, np.float32(20), image)
    found = contrast(bright)
    assert found.grey > LEAST_GREY
    assert found.fluid is not None
    assert found.fluid < LEAST_FLUID
    assert found.doubt is not None


def lesion(image: Values) -> Values:
    """A dark third of the brain."""
    changed = image.copy()
    changed[: image.shape[0] * 2 // 5] = image.min()
    return changed


def receive_field(image: Values) -> Values:
    """A factor of three from bottom to top."""
    lift = np.exp(np.linspace(0, np.log(3), image.shape[2]))
    return ((image - image.min()) * lift).astype(np.float32)


def noisy(image: Values) -> Values:
    return (image + np.random.default_rng(0).normal(0, 0.5, image.shape)).astype(np.float32)


@pytest.mark.parametrize("change", [lesion, receive_field, noisy])
def test_neither_lesion_nor_field_nor_noise_is_another_contrast(change: Callable[[Values], Values]) -> None:
    assert contrast(change(brain()[0])).doubt is None


def test_too_little_of_a_brain_says_nothing() -> None:
    image, mask = brain()
    thin = mask & (np.abs(np.arange(mask.shape[2]) - mask.shape[2] // 2) < 1)[None, None]
    assert tissue_contrast(image, thin, grid=GRID) is None
    low = mask & (np.arange(mask.shape[2]) > mask.shape[2] * 0.6)[None, None]
    assert contrast(image, low).fluid is None, "there is no fluid inside the upper end of a brain"


@pytest.fixture
def flair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScanRef:
    """The made brain as a FLAIR, in a file; it is aligned as the T1 was."""
    member, made = made_brain(), aligned_brain()
    values = member.data.astype(np.float32)
    inside = values > 0
    as_flair = np.interp(values, knots(values, inside), (100, 1000, 850)).astype(np.float32)
    path = tmp_path / "flair.nii.gz"
    nifti.write(path, np.where(inside, as_flair, np.float32(0)), member.geometry, description="flair")
    matrix = made.input.affine @ made.to_input @ np.linalg.inv(made.grid.affine)
    monkeypatch.setattr(preparation, "align_to_template", lambda *_: Alignment(matrix, 0.7, 0.95))
    return ScanRef("flair", "nifti", (path,))


def test_a_doubtful_contrast_is_accepted_with_a_warning_or_rejected(flair: ScanRef) -> None:
    prepared = ReadAndPrepare(ReadSettings(), Preparation(MNI))(flair).prepared
    assert [one.partition(":")[0] for one in prepared.warnings] == [DOUBTFUL_CONTRAST]
    with pytest.raises(ScanError, match="of the grey matter") as caught:
        ReadAndPrepare(ReadSettings(on_doubtful="reject"), Preparation(MNI))(flair)
    assert caught.value.code == DOUBTFUL_CONTRAST


def test_a_model_of_another_contrast_takes_it(flair: ScanRef) -> None:
    settings = MNI.model_copy(update={"contrast": "any"})
    assert ReadAndPrepare(ReadSettings(on_doubtful="reject"), Preparation(settings))(flair).prepared.warnings == ()
    assert Preparation(settings).hash == Preparation(MNI).hash, "no prepared value depends on it"
