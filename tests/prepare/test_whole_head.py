"""A whole head goes by its extracted brain, or as a head by the template's brain; what is neither is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_scans import MNI

from medvae.errors import ScanError
from medvae.prepare import preparation, template
from medvae.prepare.align import Alignment
from medvae.prepare.preparation import WHOLE_HEAD, Preparation, Prepared, prepare
from medvae.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

RECIPE = Preparation(MNI)
DATA, TEMPLATE = template.on_grid(RECIPE.grid)
BRAIN = TEMPLATE & (np.arange(TEMPLATE.shape[2]) > 14)[:, None][None, :, 0]  # the head's own is cut at the bottom
SURE = Alignment(np.eye(4), 0.8, None)
DOUBTFUL = Alignment(np.eye(4), 0.4, None)
Aligned = Alignment | str


def head() -> Scan:
    """The template in a bright grainy box: nothing is background, so it is no stripped brain."""
    grain = np.random.default_rng(0).uniform(150, 250, DATA.shape)
    return Scan(np.where(TEMPLATE, DATA + 50, grain).astype(np.float32), RECIPE.grid)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Prepared]:
    """Prepares the head with this extracted brain, aligned so by its brain, and so as a head; a text is a refusal."""

    def run(extracted: NDArray[np.bool_], *, brain: Aligned = SURE, whole: Aligned = SURE) -> Prepared:
        def align(scan: Scan, mask: NDArray[np.bool_] | None) -> Alignment:
            found = whole if mask is None else brain
            if isinstance(found, str):
                raise ScanError(found, code="registration_failed")
            return found

        monkeypatch.setattr(preparation, "extract_brain", lambda scan: extracted)
        monkeypatch.setattr(preparation, "align_to_template", align)
        return prepare(head(), RECIPE)

    return run


def test_a_whole_head_has_its_own_brain_as_mask(prepared: Any) -> None:
    one = prepared(BRAIN, whole="never asked")
    assert one.warnings == ()
    np.testing.assert_array_equal(one.mask[0], BRAIN)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_what_has_not_the_size_of_a_brain_is_none(prepared: Any, share: float) -> None:
    """Nothing, a small part, and the whole box."""
    sizes: dict[float, Any] = {0.0: BRAIN & False, 0.1: BRAIN & (np.arange(56) < 14)[:, None], 1.0: BRAIN | True}
    one = prepared(sizes[share], brain="never asked")
    assert one.warnings == (WHOLE_HEAD,)
    assert 0.9 < one.mask[0][TEMPLATE].mean() <= 1
    assert one.mask[0][TEMPLATE & ~BRAIN].any(), "the template's brain, not the extracted one"


@pytest.mark.parametrize("brain", ["it is no brain", DOUBTFUL], ids=["refused", "doubtful"])
def test_where_its_brain_is_not_surely_one_a_head_is_aligned_as_a_whole(prepared: Any, brain: Aligned) -> None:
    assert prepared(BRAIN, brain=brain).warnings == (WHOLE_HEAD,)
    both = prepared(BRAIN, brain=brain, whole=DOUBTFUL).warnings
    assert both == (WHOLE_HEAD, DOUBTFUL.doubt)


@pytest.mark.parametrize(
    ("brain", "reason"), [("it is upside down", "it is upside down"), (DOUBTFUL, "no head")], ids=["refused", "doubt"]
)
def test_what_is_no_head_is_refused_with_the_truest_reason(prepared: Any, brain: Aligned, reason: str) -> None:
    with pytest.raises(ScanError, match=reason):
        prepared(BRAIN, brain=brain, whole="no head")


def test_a_given_mask_is_the_brain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "align_to_template", lambda scan, mask: SURE)
    monkeypatch.setattr(preparation, "extract_brain", None)
    np.testing.assert_array_equal(prepare(head(), RECIPE, mask=BRAIN).mask[0], BRAIN)
