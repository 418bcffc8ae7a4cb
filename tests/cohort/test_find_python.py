"""Finding scans from Python: what `find` takes, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from finding import look, refusal, touch

from medvae.cohort.find import find
from medvae.errors import InputError, SettingsError
from medvae.scan import Selection
from medvae.settings import load

if TYPE_CHECKING:
    from pathlib import Path


def test_a_cohort_is_a_sequence_of_its_scans(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii", "c.nii")
    cohort = find(str(tmp_path))
    assert isinstance(cohort, Sequence)
    assert [ref.id for ref in cohort] == ["a", "b", "c"]
    assert (len(cohort), cohort[-1].id, cohort.index(cohort[1])) == (3, "c", 1)
    assert [ref.id for ref in cohort[:2]] == ["a", "b"]
    assert repr(cohort[:2]) == "Cohort(2 scans of 2 subjects)"


def test_scans_are_found_from_whatever_names_them(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.nii", "two/b.nii", "two/c.nii")
    a, b, c = find([tmp_path / "one", str(tmp_path / "two")])
    assert [ref.id for ref in (a, b, c)] == ["a", "b", "c"]
    cohort = find(tmp_path / "two")
    assert find(cohort) == cohort
    assert list(find(cohort[:1])) == list(find(b)) == list(find([b])) == [b]
    assert list(find([c, tmp_path / "one" / "a.nii", b])) == [a, c, b], "files first"
    assert list(find(Selection((tmp_path / "two",), include=("c*",)), load())) == [c]
    known = replace(b, subject="p", label="ill", conditions={"age": 3.0})
    assert list(find([known, a])) == [known, a], "what is known of a scan stays"
    for wrong in (3, [3], None):
        with pytest.raises(InputError, match=r"not from (int|NoneType)"):
            find(wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="needed, not str 'demo'"):
        find(tmp_path, "demo")  # type: ignore[arg-type]


def test_one_path_and_one_glob_need_no_tuple(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii")
    both = {"inputs": str(tmp_path), "include": "*.nii", "exclude": "b*"}
    chosen = Selection(**both)  # type: ignore[arg-type]
    assert chosen == Selection((tmp_path,), include=("*.nii",), exclude=("b*",))
    assert [ref.id for ref in find(chosen)] == ["a"]
    assert "include=" in str(refusal(tmp_path / "*.nii").hint)


def test_scans_of_two_searches_get_unique_ids(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.nii", "two/a.nii")
    both = [*find(tmp_path / "one"), *find(tmp_path / "two")]
    assert {ref.id for ref in find(both)} == {ref.id for ref in find([tmp_path / "two", tmp_path / "one"])}
    assert len({ref.subject for ref in find(both)}) == 2


@pytest.mark.parametrize("hash_ids", [False, True])
def test_ids_are_unique_and_the_same_whatever_the_order_of_the_inputs(tmp_path: Path, hash_ids: bool) -> None:
    touch(tmp_path, *(f"p{n}/CT.nii" for n in range(4)))
    folders = [tmp_path / f"p{n}" for n in range(4)]
    found = {ref.path: ref for ref in look(*folders, hash_ids=hash_ids).refs}
    assert found == {ref.path: ref for ref in look(*reversed(folders), hash_ids=hash_ids).refs}
    assert len({ref.id for ref in found.values()}) == len({ref.subject for ref in found.values()}) == 4
    assert not hash_ids or not any("CT" in ref.id for ref in found.values())
