"""`medvae calibrate` leaves out subjects of the training scans, whatever they are called, and says why it does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import medvae
from medvae.checkpoint.folder import load, save
from medvae.cli.main import main
from medvae.cohort.find import find
from medvae.cohort.names import Candidate, both_forms, digest, unique
from medvae.errors import InputError
from medvae.io.formats import nifti
from medvae.run.manifest import Manifest
from medvae.scan import Geometry, ScanRef, Selection

if TYPE_CHECKING:
    from collections.abc import Mapping


def listed(folder: Path, subjects: Mapping[str, str]) -> Path:
    """A list of new blocks by name, with their subjects."""
    rng = np.random.default_rng(sum(map(ord, "".join(subjects))))
    for name in subjects:
        data = np.zeros((20, 18, 16), np.float32)
        data[3:17, 3:15, 3:13] = 100 + 20 * rng.normal(size=(14, 12, 10))
        nifti.write(folder / f"{name}.nii.gz", data, Geometry(data.shape, np.eye(4)), description="block")
    rows = [f"{name}.nii.gz,{subject}" for name, subject in subjects.items()]
    (folder / "list.csv").write_text("\n".join(["scan,subject", *rows]) + "\n", "utf-8")
    return folder / "list.csv"


@pytest.mark.parametrize("trained_hashed", [True, False])
@pytest.mark.parametrize("hashed", [True, False])
def test_subjects_are_known_with_and_without_hashes(
    whole: Path, blocks: tuple[Path, Path], tmp_path: Path, trained_hashed: bool, hashed: bool
) -> None:
    trained, rows = load(whole), [f"{blocks[0]}/s{index}.nii.gz,person{index}" for index in range(6)]
    (tmp_path / "train.csv").write_text("\n".join(["scan,subject", *rows]) + "\n", "utf-8")
    refs = find(Selection((tmp_path / "train.csv",), hash_ids=trained_hashed)).refs
    whose = {ref.path.name.split(".")[0]: ref.subject for ref in refs}
    subjects = [whose[one] for one in trained.latents.ids]
    save(replace(trained, latents=replace(trained.latents, subjects=subjects)), tmp_path / "model")
    there = listed(tmp_path, {"again": f"person{trained.latents.ids[0][1:]}", "new": "person6"})
    words = ["calibrate", str(there), "--model", str(tmp_path / "model"), "--workers", "0", "--quiet"]
    assert main([*words, "--hash-ids"] if hashed else words) == 0
    outcomes = Manifest(tmp_path / "model" / "calibration" / "manifest.jsonl").outcomes()
    assert sorted(one.code or "ok" for one in outcomes.values()) == ["ok", "seen_in_training"]
    assert ("again" in outcomes) is not hashed, "its id is hashed, too"


def test_patients_of_dicom_are_known_though_they_are_hashed_twice() -> None:
    ref = ScanRef("series-1", "dicom", (Path("1.dcm"),), subject="patient-0a1b")
    (again,) = unique([Candidate(ref, Path(), "patient")], hashed=True)
    assert again.subject != ref.subject
    for mine, theirs in ((ref, again), (again, ref), (again, again), (ref, ref)):
        assert both_forms(mine.subject) & both_forms(theirs.subject, "other")
    assert not both_forms(again.subject) & both_forms("patient-0a1c")


@pytest.mark.parametrize("other", ["1", "1.0", "sub-001", "SUB-1", digest("1"), digest("001")])
def test_a_subject_is_known_in_another_spelling(other: str) -> None:
    """Spreadsheets drop zeros; BIDS puts `sub-` before a name."""
    assert both_forms("001") & both_forms(other)
    assert not both_forms("0010") & both_forms(other)


@pytest.mark.parametrize("hashed", [True, False])
def test_a_subject_that_a_list_calls_like_its_file_is_known(whole: Path, tmp_path: Path, hashed: bool) -> None:
    """The most natural list; the name of a file that no list mentions may be the same by chance."""
    trained = load(whole)
    subjects = ["p00", *trained.latents.subjects[1:]]
    save(replace(trained, latents=replace(trained.latents, subjects=subjects)), tmp_path / "model")
    there = listed(tmp_path, {"p00": "p00", "p07": "p07"})
    words = ["--model", str(tmp_path / "model"), "--workers", "0", "--quiet", *["--hash-ids"] * hashed]
    assert main(["calibrate", str(there), *words]) == 0
    outcomes = Manifest(tmp_path / "model" / "calibration" / "manifest.jsonl").outcomes()
    assert sorted(one.code or "ok" for one in outcomes.values()) == ["ok", "seen_in_training"]
    there.unlink()
    assert main(["calibrate", str(tmp_path / "p00.nii.gz"), *words]) == 0


def test_a_subject_of_the_same_name_is_told_from_the_same_scan(
    whole: Path, blocks: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels of BIDS begin with sub-01 at every site."""
    trained = load(whole)
    names = [f"sub-0{index}" for index, _ in enumerate(trained.latents.ids)]
    save(replace(trained, latents=replace(trained.latents, subjects=names)), tmp_path / "model")
    there = listed(tmp_path, {"a": "sub-00", "b": "sub-01", "c": "sub-09"})
    seen = blocks[0] / f"{trained.latents.ids[0]}.nii.gz"
    words = ["calibrate", str(seen), str(there), "--model", str(tmp_path / "model"), "--workers", "0"]
    assert main([*words, "--quiet"]) == 0
    told = capsys.readouterr().out
    assert f"{seen.name.split('.')[0]}: training has seen this scan\n" in told
    assert "a and 1 more: training has seen a subject of this name\n" in told
    assert "hint: ignore it: it is not used for calibration" in told
    assert "hint: give a list with a column `subject` and other names" in told
    with pytest.raises(InputError, match="training has seen a subject of this name") as problem:
        medvae.calibrate(tmp_path / "model", listed(tmp_path, {"d": "sub-00"}))
    assert str(problem.value.hint).startswith("give a list with a column `subject`")
    with pytest.raises(InputError, match="training has seen this scan") as problem:
        medvae.calibrate(tmp_path / "model", seen)
    assert problem.value.hint == "give healthy scans that training has not seen"
