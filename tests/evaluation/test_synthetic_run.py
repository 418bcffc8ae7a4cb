"""Held-out scans of subjects that anything was trained on are refused, whatever the subjects are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvae.cohort.names import digest
from medvae.errors import InputError
from medvae.evaluation.image_set import ImageSet
from medvae.evaluation.synthetic_run import SyntheticRun, check_apart, not_in


def scans(**subjects: str) -> ImageSet:
    """Blank scans by id, with their subjects."""
    shape = (len(subjects), 1, 2, 2, 2)
    ids, nothing = tuple(subjects), (None,) * len(subjects)
    images, masks = np.zeros(shape, np.float16), np.ones(shape, bool)
    return ImageSet(ids, tuple(subjects.values()), nothing, ids, images, masks, None)


@pytest.mark.parametrize("one", ["anna", digest("anna")])
@pytest.mark.parametrize("other", ["anna", digest("anna")])
def test_subjects_are_known_with_and_without_hashes(one: str, other: str) -> None:
    training, run = scans(a=one, b="bert"), SyntheticRun(Path("set"), {}, (), frozenset())
    check_apart(training, scans(c="carl"), run, model=None)
    with pytest.raises(InputError, match="subjects that are trained on: d"):
        check_apart(training, scans(c="carl", d=other), run, model=None)


def test_decoded_samples_depend_on_all_training_scans() -> None:
    """They have no sources, but the audit lists the scans that the decoder has seen."""
    run = SyntheticRun(Path("set"), {}, (), sources=frozenset(), trained=frozenset("abc"))
    assert not_in(scans(a="anna", b="bert", c="carl"), run, model=None) == 0
    assert not_in(scans(a="anna", b="bert"), replace(run, trained=frozenset({digest("a"), "b"})), model=None) == 0
    assert not_in(scans(a="anna", d="dora"), run, model=None) == 2
