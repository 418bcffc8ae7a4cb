"""What is found where: folders, links, globs, lists, ids, pairs, DICOM series; what is said of nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from dicom_made import put, ramp, slices
from finding import listed, look, refusal, touch

from medvae.errors import InputError


def ids(*inputs: Path, **more: Any) -> list[str]:
    return [ref.id for ref in look(*inputs, **more).refs]


# ---------------------------------------------------------------------------------------------------------- folders


def test_a_folder_is_walked_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii.gz", "a/z.nii", "a/b/c.NII.GZ", "notes.txt")
    cohort = look(tmp_path)
    assert [ref.id for ref in cohort.refs] == ["b", "a_z", "a_b_c"]
    assert {ref.format for ref in cohort.refs} == {"nifti"}
    assert [ref.subject for ref in cohort.refs] == ["b", "a_z", "a_b_c"], "everyone is a subject of their own"
    assert cohort.ignored == 1
    assert look(tmp_path) == cohort


def test_hidden_and_unfinished_files_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "._a.nii", ".partial-3-b.nii", ".git/c.nii")
    assert ids(tmp_path) == ["a"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.nii")
    os.mkfifo(tmp_path / "in" / "pipe.nii")
    assert ids(tmp_path / "in") == ["a"]
    assert "neither a file nor a folder" in str(refusal(tmp_path / "in" / "pipe.nii"))
    (tmp_path / "in" / "list.csv").write_text("scan\npipe.nii\n", "utf-8")
    assert "row 1: pipe.nii is neither a file nor a folder" in str(refusal(tmp_path / "in" / "list.csv"))


def test_what_a_run_wrote_is_left_out_unless_it_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.nii", "maps/run.json", "maps/manifest.jsonl", "maps/kl.nii.gz")
    assert ids(tmp_path) == ["a"]
    assert "maps: skipped a folder that medvae wrote" in caplog.text
    assert ids(tmp_path / "maps") == ["kl"]


LABEL_MAPS = [
    "mask.nii",
    "brainmask.nii.gz",
    "s1_label.nii",
    "s1-labels.nii",
    "s1_seg.nii",
    "x_dseg.nii",
    "aparc+aseg.nii.gz",
    "x_label-GM_probseg.nii.gz",
    "labelsTr/s.nii",
    "patient001_frame01_gt.nii.gz",
    "sub-strokecase0001_msk.nii.gz",
    "s1_ground_truth.nii",
]


@pytest.mark.parametrize("name", LABEL_MAPS)
def test_label_maps_are_known_by_their_names(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "s1.nii", name)
    assert ids(tmp_path) == ["s1"]
    assert f"skipped a file that looks like a label map ({name}); name it in a list" in caplog.text
    assert len(ids(tmp_path, include=("*",))) == 2, "unless they are asked for"
    (tmp_path / "list.csv").write_text(f"scan\ns1.nii\n{name}\n", "utf-8")
    assert len(ids(tmp_path / "list.csv")) == 2, "by a glob or a list, which every command takes"
    (tmp_path / "s1.nii").unlink()
    assert len(ids(tmp_path)) == 1, "or nothing else is there"


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_a_series_is_something_else_beside_label_maps(tmp_path: Path, suffix: str) -> None:
    for index, one in enumerate(put(tmp_path / "p1", slices(ramp()))):
        one.rename(one.with_name(f"IM{index}{suffix}"))
    touch(tmp_path, "p1/lesion_mask.nii.gz", "p1/notes.txt")
    (ref,) = look(tmp_path).refs
    assert ref.format == "dicom"
    (row,) = listed(tmp_path, "scan,subject,mask\np1,a,p1/lesion_mask.nii.gz\n")
    assert (row.format, row.mask) == ("dicom", tmp_path / "p1" / "lesion_mask.nii.gz")
    for path in (tmp_path / "p1").glob("IM*"):
        path.unlink()
    assert ids(tmp_path / "p1") == ["lesion_mask"]


def test_a_folder_in_a_list_gives_no_file_that_the_list_calls_a_mask_or_label_map(tmp_path: Path) -> None:
    put(tmp_path / "p1", slices(ramp()))
    touch(tmp_path, "p1/roi.nii.gz", "p1/tissue.nii.gz", "p2/a.nii", "p2/roi.nii.gz")
    text = "scan,mask,label_map\np1,p1/roi.nii.gz,p1/../p1/tissue.nii.gz\np2,p2/roi.nii.gz,\n"
    one, other = listed(tmp_path, text)
    assert (one.format, other.path.name) == ("dicom", "a.nii")
    (shape,) = listed(tmp_path, "scan,label_map\np2/roi.nii.gz,p2/roi.nii.gz\n")
    assert shape.path.name == "roi.nii.gz", "a file that a row names as the scan is one"


@pytest.mark.parametrize(
    "name", ["masked.nii", "segment2.nii", "labeled.nii", "mask/s.nii", "damask7.dcm", "gt_t1.nii"]
)
def test_other_names_are_scans(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "s1.nii", name)
    assert len(look(tmp_path).refs) + look(tmp_path).ignored == 2


def test_globs(tmp_path: Path) -> None:
    touch(tmp_path, "t1/a.nii", "t1/b.nii", "t2/a.nii", "x.nii")
    assert ids(tmp_path, include=("t1/*",)) == ["t1_a", "t1_b"]
    assert ids(tmp_path, include=("a.nii", "x*")) == ["x", "t1_a", "t2_a"], "the name, or the path"
    assert ids(tmp_path, include=("t*",), exclude=("*a.nii",)) == ["t1_b"]
    assert ids(tmp_path, include=("T1/*", "t2/*")) == ["t2_a"], "capitals count"
    problem = refusal(tmp_path, include=("*.dcm",))
    assert "include= and exclude= leave none of the 4 files" in str(problem)


# --------------------------------------------------------------------------------------------------------- files, pairs


def test_a_glob_that_excludes_nothing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "sub-01/a.nii", "sub-02/b.nii", "sub-02/b_seg.nii", "derivatives/c.nii", "x.json")
    assert ids(tmp_path, exclude=("derivatives/*", "*_seg*", "*.json", "sub-01/*")) == ["sub-02_b"]
    assert "leaves out no file" not in caplog.text
    assert ids(tmp_path, exclude=("sub-01", "*b.nii")) == ["sub-01_a"]
    assert "exclude=sub-01 leaves out no file; to leave out a folder, write e.g. 'sub-01/*'" in caplog.text
    assert caplog.text.count("leaves out no file") == 1


def test_the_slices_of_a_series_that_are_named_one_by_one_are_one_scan(tmp_path: Path) -> None:
    put(tmp_path / "series", slices(ramp()))
    (ref,) = look(*sorted((tmp_path / "series").iterdir())).refs
    assert len(ref.paths) == 5


def test_what_a_shell_names_besides_scans_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, *(f"sub-01_T1w.{end}" for end in ("nii.gz", "bval", "bvec", "txt")))
    (tmp_path / "sub-01_T1w.json").write_text('{"MagneticFieldStrength": 3}', "utf-8")
    (tmp_path / "params.json").write_text("{,", "utf-8")
    (tmp_path / "sub-01_scans.tsv").write_text("filename\nsub-01_T1w.nii.gz\n", "utf-8")
    (tmp_path / "participants.tsv").write_text("file\tscan\nx.nii\t2nd scan\n", "utf-8")
    (tmp_path / "clinical.csv").write_text("file,age\nx.nii,20\n", "utf-8")
    inputs = sorted(tmp_path.iterdir())
    cohort = look(*inputs)
    assert [ref.id for ref in cohort.refs] == ["sub-01_T1w"]
    assert cohort.ignored == 0, "they are told of once"
    assert "skipped 8 named files without a scan (clinical.csv)" in caplog.text
    assert "clinical.csv: no column `scan`" in caplog.text, "a table of one's own is named with the reason"
    with pytest.raises(InputError, match="neither an array of rows nor a datalist"):
        look(tmp_path / "sub-01_T1w.json")


def test_a_label_map_that_is_named_beside_scans_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a_T1w.nii", "a_T1w_seg.nii", "b_seg.nii")
    assert ids(tmp_path / "a_T1w_seg.nii", tmp_path / "b_seg.nii") == ["a_T1w_seg", "b_seg"]
    assert "looks like a label map" not in caplog.text
    assert len(ids(*sorted(tmp_path.iterdir()))) == 3
    assert "a_T1w_seg.nii looks like a label map, and is read as a scan because it is named" in caplog.text


def test_a_list_with_a_mistake_is_never_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii")
    (tmp_path / "list.csv").write_text("scan,modality\na.nii,XR\n", "utf-8")
    assert "modality 'XR'" in str(refusal(tmp_path / "a.nii", tmp_path / "list.csv"))
    (tmp_path / "list.csv").write_text("file,label\na.nii,1\n", "utf-8")
    (tmp_path / "more").mkdir()
    assert "no column `scan`" in str(refusal(tmp_path / "more", tmp_path / "list.csv")), "no glob names CSV and folders"


def test_a_pair_is_one_scan_whichever_half_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.hdr", "a.img", "b.hdr.gz", "b.img.gz", "c.hdr", "d.hdr", "d.img.gz")
    pairs = {ref.id: [path.name for path in ref.paths] for ref in look(tmp_path).refs}
    assert pairs == {"a": ["a.hdr", "a.img"], "b": ["b.hdr.gz", "b.img.gz"], "c": ["c.hdr"], "d": ["d.hdr", "d.img.gz"]}
    for half in ("a.hdr", "a.img"):
        (ref,) = look(tmp_path / half).refs
        assert [path.name for path in ref.paths] == ["a.hdr", "a.img"]
    assert ids(tmp_path / "a.img", tmp_path / "a.hdr") == ["a"]


def test_a_lone_img_is_dicom_if_that_is_what_it_holds(tmp_path: Path) -> None:
    put(tmp_path / "series", slices(ramp()))
    for number, path in enumerate(sorted((tmp_path / "series").iterdir())):
        path.rename(path.with_name(f"{number}.img"))
    (ref,) = look(tmp_path / "series").refs
    assert (ref.format, len(ref.paths)) == ("dicom", 5)
    touch(tmp_path, "lone/half.img")
    (ref,) = look(tmp_path / "lone").refs
    assert (ref.format, ref.id) == ("nifti", "half")


def test_dicom_series_in_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        put(tmp_path / name, slices(ramp()))
    touch(tmp_path, "n.nii", "readme.txt")
    cohort = look(tmp_path)
    assert sorted(ref.format for ref in cohort.refs) == ["dicom", "dicom", "nifti"]
    assert [len(ref.paths) for ref in cohort.refs if ref.format == "dicom"] == [5, 5]
    assert cohort.ignored == 1
    assert all(re.fullmatch(r"[\w.+-]+", ref.id) for ref in cohort.refs)
    assert ids(tmp_path, hash_ids=True)[-2:] == ids(tmp_path)[-2:], "of a series it is a hash already"


# ---------------------------------------------------------------------------------------------------------------- ids


def test_ids_are_safe_names(tmp_path: Path) -> None:
    touch(tmp_path, "Müller, Ö (1).nii.gz", "-x-.nii", "...hidden/q.nii", "..nii", "a.b.nii", "l" * 200 + ".nii")
    found = ids(tmp_path)
    assert "Müller-Ö-1" in found
    assert {"x", "a.b"} <= set(found)
    assert all(len(one.encode()) <= 120 and re.fullmatch(r"[\w.+-]+", one) for one in found)


def test_ids_that_would_be_the_same_get_a_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.nii", "two/A.nii", "two/b.nii")
    found = look(tmp_path / "one", tmp_path / "two").refs
    assert [ref.id.lower()[:2] for ref in found] == ["a-", "a-", "b"], "disks may not tell capitals apart"
    assert len({ref.id.lower() for ref in found}) == 3
    assert all(ref.subject == ref.id for ref in found)
    again = look(tmp_path / "two", tmp_path / "one").refs
    assert {ref.id for ref in again} == {ref.id for ref in found}, "whatever the order"


def test_an_id_does_not_depend_on_how_the_input_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "g/a b.nii", "g/a-b.nii", "h/a b.nii")
    found = ids(tmp_path / "g")
    assert len(set(found)) == 2
    monkeypatch.chdir(tmp_path)
    assert ids(Path("g")) == found
    monkeypatch.chdir(tmp_path / "g")
    assert ids(Path()) == ids(Path("..") / "g") == found
    monkeypatch.chdir(tmp_path)
    two = ids(Path("g"), Path("h"))
    assert len(set(two)) == 3, "the same path below two inputs"
    assert two == ids(tmp_path / "g", tmp_path / "h")
    assert all(re.fullmatch(r"a-b-[0-9a-f]{6}", one) for one in two)


def test_hashed_ids_tell_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "Smith.nii", "sub-Jones/ses-1/x.nii", "sub-Jones/ses-2/x.nii")
    smith, first, second = look(tmp_path, hash_ids=True).refs
    assert all(re.fullmatch(r"[0-9a-f]{12}", one) for ref in (smith, first, second) for one in (ref.id, ref.subject))
    assert smith.subject == smith.id
    assert first.subject == second.subject != first.id
    assert look(tmp_path, hash_ids=True).refs == (smith, first, second)


# ---------------------------------------------------------------------------------------------- nothing, and one scan


def test_nothing_found_says_what_was_there(tmp_path: Path) -> None:
    assert str(refusal(tmp_path / "gone")) == f"no such file or folder: {tmp_path / 'gone'}"
    (tmp_path / "empty").mkdir()
    problem = refusal(tmp_path / "empty")
    assert str(problem) == "empty: no files in it"
    assert "NIfTI" in (problem.hint or "")
    touch(tmp_path, "text/a.txt", "text/b.txt", "text/README")
    assert str(refusal(tmp_path / "text")) == "text: no scan in 3 files (2 .txt, 1 without suffix)"
    assert "no scan in 1 file (1 .txt)" in str(refusal(tmp_path / "text" / "a.txt"))
    assert "no scan in 3 files" in str(refusal(tmp_path / "text", tmp_path / "empty"))


def test_one_empty_input_beside_a_full_one_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "full/a.nii")
    (tmp_path / "empty").mkdir()
    assert ids(tmp_path / "empty", tmp_path / "full") == ["a"]
    assert "no scan in it" in caplog.text


def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path: Path) -> None:
    touch(tmp_path, "list.xlsx")
    assert refusal(tmp_path / "list.xlsx").hint == "save the .xlsx file as CSV to use it as a list"
