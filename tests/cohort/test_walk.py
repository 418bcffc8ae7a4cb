"""Folders as they are on clusters: links, loops, folders without rights, BIDS datasets with their derivatives."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from finding import touch

from medvae.cohort.find import find
from medvae.errors import InputError, ScanError
from medvae.io import reading
from medvae.scan import Selection
from medvae.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.scan import ScanRef


def ids(*inputs: Path, **more: Any) -> list[str]:
    return [ref.id for ref in find(Selection(inputs, **more))]


def code(ref: ScanRef) -> str:
    with pytest.raises(ScanError) as caught:
        reading.read(ref, ReadSettings())
    return caught.value.code


# ------------------------------------------------------------------------------------------------------------ links


def annex(folder: Path, subject: str, *, fetched: bool = True) -> None:
    """A file as git-annex keeps it: a link into `.git` of the dataset."""
    file, key = folder / subject / "anat" / f"{subject}_T1w.nii.gz", folder / ".git/annex/objects" / f"{subject}.nii.gz"
    if fetched:
        touch(key.parent, key.name)
    file.parent.mkdir(parents=True)
    file.symlink_to(os.path.relpath(key, file.parent))


def test_files_behind_links_are_read_from_the_dataset_or_from_one_folder_of_it(tmp_path: Path) -> None:
    for subject in ("sub-01", "sub-02"):
        annex(tmp_path / "ds", subject)
    assert ids(tmp_path / "ds") == ["sub-01_anat_sub-01_T1w", "sub-02_anat_sub-02_T1w"]
    (ref,) = find(tmp_path / "ds" / "sub-01")
    assert (ref.id, ref.subject) == ("anat_sub-01_T1w", "sub-01")
    assert ids(tmp_path / "ds" / "sub-01" / "anat" / "sub-01_T1w.nii.gz") == ["sub-01_T1w"]


def test_a_link_to_nothing_ends_as_unreadable_and_stops_nothing(tmp_path: Path) -> None:
    annex(tmp_path, "sub-01")
    annex(tmp_path, "sub-02", fetched=False)
    (tmp_path / "README").symlink_to("nowhere")
    (tmp_path / "notes.txt").symlink_to("nowhere")
    (tmp_path / "round.nii").symlink_to("round.nii")
    here, *broken = find(tmp_path)
    assert here.subject == "sub-01"
    assert [ref.id for ref in broken] == ["round", "sub-02_anat_sub-02_T1w"]
    assert [code(ref) for ref in broken] == ["unreadable"] * 2
    with pytest.raises(ScanError, match="a link to a file that is not there") as problem:
        reading.inspect(broken[1], ReadSettings())
    assert str(problem.value.hint).startswith("fetch the file")
    named = [tmp_path / "README", *sorted(tmp_path.glob("sub-*/anat/*"))]
    assert [ref.subject for ref in find(named)] == ["sub-01", "sub-02"], "nor where a shell has named it"
    with pytest.raises(InputError, match="no scan in 1 file"):
        find(tmp_path / "README")


def test_a_named_link_to_nothing_has_the_id_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the command is run from."""
    (tmp_path / "deep" / "folder").mkdir(parents=True)
    link = tmp_path / "deep" / "folder" / "gone.nii.gz"
    link.symlink_to(tmp_path / "nowhere.nii.gz")
    for place in (tmp_path, tmp_path / "deep"):
        monkeypatch.chdir(place)
        assert ids(link) == ["gone"]


def test_a_dicom_folder_that_was_not_fetched_is_one_unreadable_scan(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for n in range(3):
            (tmp_path / name / f"{n}.dcm").symlink_to(f"nowhere/{n}")
    one, other = find(tmp_path)
    assert (one.format, len(one.paths), code(one)) == ("dicom", 3, "unreadable")
    assert one.id != other.id
    assert one.id.startswith("object-"), "folders of DICOM tell who was scanned"


def test_half_a_pair_that_leads_to_nothing_is_no_scan_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path, "a.hdr")
    (tmp_path / "a.img").symlink_to("nowhere")
    (tmp_path / "b.hdr").symlink_to("nowhere")
    (tmp_path / "b.img").symlink_to("nowhere")
    assert ids(tmp_path) == ["a", "b"]


def test_links_to_folders_are_followed_wherever_they_lead(tmp_path: Path) -> None:
    touch(tmp_path, "scratch/s1/t1.nii", "scratch/s2/t1.nii", "in/own.nii")
    for name in ("s1", "s2"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "scratch" / name)
    (tmp_path / "in" / "again").symlink_to(tmp_path / "scratch" / "s1")
    assert sorted(ids(tmp_path / "in")) == ["again_t1", "own", "s2_t1"], "each folder once"
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert len(ids(tmp_path / "link")) == 3


def test_a_folder_that_holds_one_already_seen_adds_what_is_new(tmp_path: Path) -> None:
    touch(tmp_path, "scratch/deep/a.nii", "scratch/b.nii")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1").symlink_to(tmp_path / "scratch" / "deep")
    (tmp_path / "in" / "2").symlink_to(tmp_path / "scratch")
    assert ids(tmp_path / "in") == ["1_a", "2_b"]


def test_a_real_folder_names_its_scans_whatever_links_lead_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "z/t1.nii")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    (tmp_path / "a.nii").symlink_to(tmp_path / "z" / "t1.nii")
    assert ids(tmp_path) == ["a"], "one file, found twice"
    (tmp_path / "a.nii").unlink()
    assert ids(tmp_path) == ["z_t1"]


def test_two_names_of_one_file_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "in/sub-01/sub-01_T1w.nii", "in/sub-02/x")
    (tmp_path / "in/sub-02/sub-02_T1w.nii").symlink_to(tmp_path / "in/sub-01/sub-01_T1w.nii")
    assert ids(tmp_path / "in") == ["sub-01_sub-01_T1w"]
    assert "sub-01_sub-01_T1w and sub-02_sub-02_T1w are the same file" in caplog.text


def test_hard_links_are_one_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "monday/p1/t1.nii", "tuesday/x")
    (tmp_path / "tuesday/p1.nii").hardlink_to(tmp_path / "monday/p1/t1.nii")
    assert ids(tmp_path) == ["monday_p1_t1"]
    assert "monday_p1_t1 and tuesday_p1 are the same file: it is used once" in caplog.text


def test_a_loop_of_folders_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "data/in/deep/a.nii", "data/other/b.nii", "far/c.nii")
    (tmp_path / "data/in/self").symlink_to(".")
    (tmp_path / "data/in/deep/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/in/far").symlink_to(tmp_path / "far")
    (tmp_path / "far/back").symlink_to(tmp_path / "data/in")
    (tmp_path / "far/higher").symlink_to(tmp_path / "data")
    assert ids(tmp_path / "data" / "in") == ["deep_a", "far_c"]
    told = [name for name in ("self", "up", "back", "higher") if f"{name}: the link leads back" in caplog.text]
    assert told == ["self", "up", "back", "higher"]


# ----------------------------------------------------------------------------------------------------------- rights


def test_a_folder_that_cannot_be_listed_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "a.nii", "closed/b.nii")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert ids(tmp_path) == ["a"]
    assert "closed: the folder cannot be listed: Permission denied" in caplog.text


def test_a_folder_that_may_be_listed_but_not_entered_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "a/t1.nii", "b/t1.nii", "b/sub/t2.nii", "b/readme.txt", "c/t1.nii")
    real = os.stat

    def stat(path: Any, **more: Any) -> Any:
        if str(tmp_path / "b") + os.sep in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **more)

    monkeypatch.setattr(os, "stat", stat)
    cohort = find(tmp_path)
    assert [ref.id for ref in cohort if ref.path.parent.name != "b"][:2] == ["a_t1", "c_t1"]
    assert {code(ref) for ref in cohort if "b" in ref.path.parts} == {"unreadable"}
    assert "b: the folder can be listed but not entered, 2 files cannot be opened" in caplog.text
    assert code(find(tmp_path / "b" / "t1.nii")[0]) == "unreadable", "nor where it is named"


# ------------------------------------------------------------------------------------------------------------- BIDS


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """A dataset with derivatives and source data."""
    root = tmp_path / "ds"
    for subject in ("sub-01", "sub-02"):
        touch(
            root,
            f"{subject}/ses-1/anat/{subject}_ses-1_T1w.nii.gz",
            f"{subject}/ses-1/anat/{subject}_ses-1_FLAIR.nii.gz",
        )
        touch(root, f"derivatives/fmriprep/{subject}/anat/{subject}_desc-preproc_T1w.nii.gz")
        touch(root, f"derivatives/fmriprep/{subject}/anat/{subject}_dseg.nii.gz")
        touch(root, f"sourcedata/{subject}/T1.nii.gz")
    touch(root, "code/test.nii.gz", ".datalad/x.nii.gz")
    return root


RAW = [f"sub-0{n}_ses-1_anat_sub-0{n}_ses-1_{name}" for n in (1, 2) for name in ("FLAIR", "T1w")]


def test_of_a_bids_dataset_the_raw_scans_are_taken(bids: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert ids(bids) == RAW
    assert "ds: skipped derivatives and sourcedata of the BIDS dataset" in caplog.text
    assert ids(bids, include=("*_T1w.nii.gz",)) == [name for name in RAW if name.endswith("T1w")]
    assert len({ref.subject for ref in find(bids)}) == 2
    assert ids(bids.parent) == [f"ds_{name}" for name in RAW], "also below another folder"


def test_derivatives_in_capitals(bids: Path) -> None:
    (bids / "derivatives").rename(bids / "Derivatives")
    assert ids(bids) == RAW


def test_raw_data_in_a_folder_of_its_own(bids: Path) -> None:
    (bids / "rawdata").mkdir()
    for subject in ("sub-01", "sub-02"):
        (bids / subject).rename(bids / "rawdata" / subject)
    assert ids(bids) == [f"rawdata_{name}" for name in RAW]


def test_what_is_named_of_a_bids_dataset_is_taken(bids: Path) -> None:
    derived = [f"derivatives_fmriprep_sub-0{n}_anat_sub-0{n}_desc-preproc_T1w" for n in (1, 2)]
    assert ids(bids, include=("derivatives/*_T1w.nii.gz",)) == derived
    assert ids(bids, include=("deriv*/fmriprep/*_T1w.nii.gz",)) == derived
    assert len(ids(bids / "derivatives")) == len(ids(bids / "derivatives" / "fmriprep")) == 2, "without label maps"
    assert ids(bids / "sourcedata") == ["sub-01_T1", "sub-02_T1"]
    subjects = [ref.subject for ref in find([bids, bids / "sourcedata"])]
    assert sorted(set(subjects)) == ["sub-01", "sub-02"], "raw and processed scans of one person are one subject's"


def test_a_dataset_without_raw_scans_says_where_the_others_are(tmp_path: Path) -> None:
    touch(tmp_path, "dataset_description.json", "derivatives/fmriprep/sub-01/sub-01_T1w.nii")
    with pytest.raises(InputError, match="no scan except in derivatives") as caught:
        find(tmp_path)
    assert str(tmp_path / "derivatives") in (caught.value.hint or "")


def test_other_folders_of_these_names_are_walked(tmp_path: Path) -> None:
    touch(tmp_path, "derivatives/a.nii", "code/b.nii", "rest/c.nii")
    assert ids(tmp_path) == ["code_b", "derivatives_a", "rest_c"]
