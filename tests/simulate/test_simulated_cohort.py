"""The made cohort as files: a list that the commands read, masks on their scans, the template's terms."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from medvae.cohort.find import find
from medvae.io import reading
from medvae.scan import Selection
from medvae.settings import ReadSettings
from medvae.simulate import cohort

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"train": 3, "calibrate": 2, "test": 6}


def test_only_test_members_have_lesions_and_only_half_of_them() -> None:
    refs = cohort.members(SIZES)
    assert Counter(ref.split for ref in refs) == SIZES
    assert {ref.label for ref in refs if ref.split != "test"} == {"none"}
    assert Counter(ref.label for ref in refs if ref.split == "test") == {"none": 3, "dark": 1, "bright": 1, "iso": 1}
    assert len({ref.subject for ref in refs}) == len(refs)


def test_a_cohort_reads_like_any_other(tmp_path: Path) -> None:
    refs = cohort.members(SIZES)
    made = cohort.write_list(refs, tmp_path)
    ill = next(ref for ref in refs if ref.label == "dark")
    outputs = cohort.write(ill, cohort.Maker(3)(ill), tmp_path)
    settings = ReadSettings()
    found = find(Selection((made,), split="test"), settings).refs
    assert [ref.id for ref in found] == [ref.id for ref in refs if ref.split == "test"]
    case = cohort.case(ill, tmp_path)
    assert case.truth is not None
    assert outputs == [str(path.relative_to(tmp_path)) for path in (case.scan, case.truth)]
    read = next(ref for ref in found if ref.id == ill.id)
    scan = reading.read(read, settings)
    lesion = reading.read_mask(case.truth, scan.geometry, settings)
    assert lesion.any()
    assert (scan.data[lesion] > 0).all()
    assert np.array_equal(np.rint(scan.data), scan.data)


def test_the_terms_of_the_template_go_along(tmp_path: Path) -> None:
    cohort.write_list(cohort.members({"train": 1}), tmp_path)
    text = (tmp_path / "NOTICE.txt").read_text("utf-8")
    assert "Copyright (C) 1993-2009 Louis Collins" in text
    assert "Research use only" in text
