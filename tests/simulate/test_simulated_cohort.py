"""The simulated cohort as files: a list that the commands read, masks on their scans, the template's terms."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
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
    jobs = cohort.members(SIZES, seed=3)
    assert Counter(job.split for job in jobs) == SIZES
    assert {job.lesion for job in jobs if job.split != "test"} == {"none"}
    assert Counter(job.lesion for job in jobs if job.split == "test") == {"none": 3, "dark": 1, "bright": 1, "iso": 1}
    assert len({job.id for job in jobs}) == len(jobs)


def test_a_member_is_known_by_all_that_its_voxels_depend_on() -> None:
    job = cohort.MemberJob(3, "train", "none", 0)
    others = [replace(job, index=4), replace(job, lesion="dark"), replace(job, seed=1)]
    assert len({one.fingerprint() for one in (job, *others)}) == 4
    assert replace(job, split="test").fingerprint() == job.fingerprint()


def test_a_cohort_reads_like_any_other(tmp_path: Path) -> None:
    jobs = cohort.members(SIZES, seed=3)
    listed = cohort.write_list(jobs, tmp_path)
    ill = next(job for job in jobs if job.lesion == "dark")
    files = cohort.files(ill, cohort.simulate(ill))
    for file in files:
        file.write(tmp_path)
    well = next(job for job in jobs if job.lesion == "none")
    assert len(cohort.files(well, cohort.simulate(ill))) == 1
    settings = ReadSettings()
    found = find(Selection((listed,), split="test"), settings).refs
    assert [ref.id for ref in found] == [job.id for job in jobs if job.split == "test"]
    case = cohort.case(ill, tmp_path)
    assert case.truth is not None
    assert [file.name for file in files] == [str(path.relative_to(tmp_path)) for path in (case.scan, case.truth)]
    read = next(ref for ref in found if ref.id == ill.id)
    scan = reading.read(read, settings)
    lesion = reading.read_mask(case.truth, scan.geometry, settings)
    assert lesion.any()
    assert (scan.data[lesion] > 0).all()
    assert np.array_equal(np.rint(scan.data), scan.data)


def test_the_terms_of_the_template_go_along(tmp_path: Path) -> None:
    cohort.write_list(cohort.members({"train": 1}, seed=0), tmp_path)
    text = (tmp_path / "NOTICE.txt").read_text("utf-8")
    assert "Copyright (C) 1993-2009 Louis Collins" in text
    assert "Research use only" in text
