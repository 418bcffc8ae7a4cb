"""Which subjects are held out for validation, and which ones a fold leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from medvae.errors import SettingsError
from medvae.scan import ScanRef
from medvae.settings import Settings
from medvae.training.roles import assign_folds, held_out, parts, stored_at

if TYPE_CHECKING:
    from pathlib import Path


def test_validation_is_by_subject_and_independent_of_order() -> None:
    subjects = [f"s{i}" for i in range(20)] * 2
    aside = held_out(subjects, share=0.1, seed=0)
    assert len(aside) == 2
    assert held_out(subjects[::-1], share=0.1, seed=0) == aside
    assert held_out(subjects, share=0.1, seed=1) != aside
    assert held_out(["a", "b"], share=0.1, seed=0) == frozenset(), "too few to hold one out"
    assert held_out(subjects, share=0, seed=0) == frozenset()
    assert len(held_out(["a", "b", "c"], share=0.1, seed=0)) == 1


def test_parts_are_by_subject_even_in_number_and_independent_of_order() -> None:
    subjects = [*(f"s{i}" for i in range(11)), *["many"] * 4, *["two"] * 2]
    found = parts(subjects, count=3, seed=0)
    assert sorted(name for part in found for name in part) == sorted(set(subjects)), "each subject in one part"
    numbers = [sum(subjects.count(name) for name in part) for part in found]
    assert max(numbers) - min(numbers) <= 1
    assert parts(subjects[::-1], count=3, seed=0) == found
    assert parts(subjects, count=3, seed=1) != found


def test_more_parts_than_subjects_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"train\.folds is 3, and the scans are of 2 subjects") as caught:
        parts(["a", "a", "b"], count=3, seed=0)
    assert caught.value.hint == "set train.folds=2 or fewer"
    with pytest.raises(SettingsError, match=r"the scans are of 1 subject\b"):
        parts(["a", "a"], count=2, seed=0)


def test_a_fold_has_all_scans_but_its_part(tmp_path: Path) -> None:
    """Two scans of one subject are left out together; validation subjects are chosen among those that are left."""
    refs = [ScanRef(id=f"s{i}", format="nifti", paths=(tmp_path / f"s{i}",), subject=f"p{i // 2}") for i in range(12)]
    for ref in refs[1:]:  # the first one could not be prepared
        stored_at(tmp_path, ref.id).parent.mkdir(exist_ok=True)
        stored_at(tmp_path, ref.id).touch()
    settings = Settings.model_validate({"train": {"folds": 3, "validation": 0.2}})
    found = assign_folds(refs, settings, out=tmp_path)
    held_out = [name for fold in found for name in fold.held_out]
    assert sorted(held_out) == sorted(ref.id for ref in refs[1:])
    for fold in found:
        left_out = {f"p{int(name[1:]) // 2}" for name in fold.held_out}
        roles = fold.roles
        seen = [path.stem for path in (*roles.training.files, *roles.validation.files)]
        assert sorted(seen) == sorted(path.stem for path in roles.all.files)
        assert not left_out & {f"p{int(name[1:]) // 2}" for name in seen}
        assert len(seen) + len(fold.held_out) == 11
        assert len(roles.validation) in (1, 2)
    assert assign_folds(refs, Settings(), out=tmp_path) == ()
