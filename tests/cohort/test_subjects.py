"""Who was scanned: BIDS names as they are in real folders, what is told where names leave it open, participants.tsv."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dicom_made import put, ramp, slices
from finding import touch

from medvae.cohort.find import find
from medvae.scan import Selection

if TYPE_CHECKING:
    from pathlib import Path


def subjects(folder: Path, *names: str) -> list[str]:
    """The subjects of NIfTI files, sorted by their paths."""
    touch(folder, *(f"{name}.nii.gz" for name in names))
    return [ref.subject for ref in sorted(find(folder), key=lambda ref: ref.paths)]


# ------------------------------------------------------------------------------------------------------- BIDS names

ONE_EACH = {
    "labels with underscores in their folders": [
        f"sub-ADNI_00{n}_S_02{n}5/anat/sub-ADNI_00{n}_S_02{n}5_T1w" for n in (0, 1)
    ],
    "labels with underscores": ["sub-ADNI_000_S_0205_T1w", "sub-ADNI_001_S_0215_T1w"],
    "labels with underscores and nothing else": ["sub-ADNI_000_S_0205", "sub-ADNI_001_S_0215"],
    "labels with hyphens": ["sub-MSC-00_T1w", "sub-MSC-01_T1w"],
    "labels with hyphens and sessions": ["sub-MSC-00_ses-1_T1w", "sub-MSC-01_ses-1_T1w"],
    "words only": ["sub-anna_T1w", "sub-bob_T1w"],
    "two words": ["sub-site_anna_T1w", "sub-site_bob_T1w"],
    "site and number": ["sub-S1_001_T1w", "sub-S1_002_T1w"],
    "folders": ["sub-01/T1", "sub-02/T1"],
    "folders with sessions": ["sub-Jones/ses-1/x", "sub-Smith/ses-1/x"],
    "a group in a folder": ["sub-acute/case0", "sub-acute/case1"],
    "people in a folder": ["sub-acute/anna", "sub-acute/bob"],
    "a group in a folder with a number": ["sub-2mm/oasis-1000", "sub-2mm/oasis-1001"],
    "groups of patients with a folder each": [
        f"sub-{group}/pat{n}/T1" for group in ("acute", "chronic") for n in (0, 1)
    ],
    "groups": ["sub-acute/c0", "sub-acute/c1", "sub-chronic/c0", "sub-chronic/c1"],
}


@pytest.mark.parametrize("names", ONE_EACH.values(), ids=ONE_EACH)
def test_different_people_stay_different(tmp_path: Path, names: list[str]) -> None:
    found = subjects(tmp_path, *names)
    assert len(set(found)) == len(names), found


ONE_PERSON = {
    "visits": ["sub-anna/visit1/T1", "sub-anna/visit2/T1"],
    "dates": ["sub-anna/20200131/T1", "sub-anna/2021-02-28/T1"],
    "sequences": ["sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_FLAIR"],
    "sessions": ["sub-01/ses-1/anat/x_T1w", "sub-01/ses-2/anat/x_T1w"],
    "raw and processed": ["sub-01/anat/sub-01_T1w", "out/sub-01/anat/sub-01_desc-preproc_T1w"],
    "a word behind the label": ["sub-01_brain", "sub-01_T1w", "sub-01_n4corrected"],
    "underscores and sessions": ["sub-ADNI_000_S_0205_ses-1_T1w", "sub-ADNI_000_S_0205_ses-2_T1w"],
    "files of any name in a folder": ["sub-01/T1", "sub-01/FLAIR", "sub-01/T1_n4"],
    "a word for a folder": ["sub-anna/T1", "sub-anna/FLAIR"],
    "both conventions": ["sub-x/sub-x_T1w", "sub-x/flair"],
    "a label with capitals and sessions": ["sub-Jones/ses-1/x", "sub-Jones/ses-2/y"],
}


@pytest.mark.parametrize("names", ONE_PERSON.values(), ids=ONE_PERSON)
def test_scans_of_one_person_are_one_subject(tmp_path: Path, names: list[str]) -> None:
    found = subjects(tmp_path, *names)
    assert len(found) == len(names)
    assert len(set(found)) == 1, found


def test_numbered_scans_in_folders_of_several_people(tmp_path: Path) -> None:
    names = [f"sub-0{person}/run{run}" for person in (1, 2) for run in (1, 2, 3)]
    assert subjects(tmp_path, *names) == ["sub-01"] * 3 + ["sub-02"] * 3


def test_names_of_subjects_are_those_of_the_dataset(tmp_path: Path) -> None:
    assert subjects(
        tmp_path, "sub-ADNI_002_S_0295/anat/sub-ADNI_002_S_0295_T1w", "sub-MSC-01_T1w", "sub-02_T1w", "x1"
    ) == [
        "sub-02",
        "sub-ADNI_002_S_0295",
        "sub-MSC-01",
        "x1",
    ]


def test_one_folder_of_a_dataset_is_enough(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01/T1.nii", "sub-01/FLAIR.nii")
    assert {ref.subject for ref in find(tmp_path / "sub-01")} == {"sub-01"}
    assert {ref.subject for ref in find(sorted((tmp_path / "sub-01").iterdir()))} == {"sub-01"}


def test_a_list_and_a_patient_id_win_over_names(tmp_path: Path) -> None:
    put(tmp_path / "sub-01" / "dicom", slices(ramp()))
    touch(tmp_path, "sub-01/sub-01_T1w.nii", "sub-02/sub-02_T1w.nii")
    (tmp_path / "list.csv").write_text("scan,subject\nsub-02/sub-02_T1w.nii,p7\nsub-01/sub-01_T1w.nii,\n", "utf-8")
    cohort = find([tmp_path / "list.csv", tmp_path / "sub-01"])
    assert [(ref.format, origin) for ref, origin in zip(cohort, cohort.origins, strict=True)] == [
        ("nifti", "list"),
        ("nifti", "bids"),
        ("dicom", "patient"),
    ]
    assert cohort.subjects[:2] == ("p7", "sub-01")
    assert cohort.subjects[2].startswith("patient-")


def test_names_help_where_the_patient_id_is_a_placeholder(tmp_path: Path) -> None:
    for place in ("sub-01/ses-1", "sub-01/ses-2", "other"):
        put(tmp_path / place, slices(ramp()), lambda one, _: setattr(one, "PatientID", "ANONYMOUS"))
    cohort = find(tmp_path)
    assert sorted(cohort.origins) == ["bids", "bids", "study"]
    assert len(cohort.subjects) == 2


# ------------------------------------------------------------------------------------------------ what a user is told


def test_how_subjects_are_known_is_told_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    subjects(tmp_path, "sub-01_T1w", "sub-01_FLAIR", "case7")
    assert [record.getMessage() for record in caplog.records] == [
        "subjects: 2 scans guessed from BIDS names, 1 scan taken as separate subjects"
    ]
    caplog.clear()
    (tmp_path / "list.csv").write_text("scan,subject\nsub-01_T1w.nii.gz,a\ncase7.nii.gz,b\n", "utf-8")
    find(tmp_path / "list.csv")
    assert not caplog.records, "a list is no guess"


LIKE_ONE_PERSON = {
    "sequences": (["p7/t1", "p7/flair", "p9/t1", "p9/flair"], 4),
    "versions": (["p7/scan", "p7/scan_n4", "p9/scan"], 2),
    "names with sequences": (["ixi012-t1_head", "ixi012-t1_mni2mm", "ixi013-t1_head"], 2),
    "challenge names": (["Case_001_flair", "Case_001_t1ce", "Case_002_flair"], 2),
    "names of newer challenges": (["GLI-00005-000-t1n", "GLI-00005-000-t2f", "GLI-00006-000-t1n"], 2),
    "visits": (["p7/pre", "p7/post", "p9/pre", "p9/post"], 4),
    "channels of nnU-Net": (["case_01_0000", "case_01_0001", "case_02_0000", "case_02_0001", "case_03_0000"], 4),
    "channels of one case": (["imagesTs/c_0000", "imagesTs/c_0001"], 2),
}


@pytest.mark.parametrize(("names", "count"), LIKE_ONE_PERSON.values(), ids=LIKE_ONE_PERSON)
def test_scans_that_may_be_of_one_person_are_told(
    tmp_path: Path, names: list[str], count: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(set(subjects(tmp_path, *names))) == len(names)
    assert f"{count} scans share a folder and look like one person's, e.g. " in caplog.text
    assert "name a list with a column `subject`" in caplog.text


VISITS = {
    "dates": ["P1/20200131/t1", "P1/2021-01-31/t1", "P2/20200131/t1", "P2/2021-01-31/t1"],
    "words": ["1/baseline/T1", "1/followup/T1", "2/baseline/T1", "2/followup/T1"],
    "visits above people": ["baseline/01", "follow-up/01", "baseline/02", "follow-up/02"],
    "frames of ACDC": [f"p{n}/p{n}_frame{frame}" for n in (1, 2) for frame in ("01", "12")],
    "in names": ["01_V1", "01_V2", "02_V1", "02_V2"],
    "OASIS": ["OAS1_0001_MR1", "OAS1_0001_MR2", "OAS1_0002_MR1", "OAS1_0002_MR2"],
    "ADNI": [
        f"{who}/MPRAGE/{day}_08_20_30.0/I{n}/ADNI_{who}_MR_MPRAGE_Br_S{n}_I{n}"
        for n, (who, day) in enumerate((who, day) for who in ("2_S_9", "3_S_8") for day in ("2006-04-18", "2007-05-01"))
    ],
}


@pytest.mark.parametrize("names", VISITS.values(), ids=VISITS)
def test_visits_in_folders_of_their_own_are_told(
    tmp_path: Path, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    subjects(tmp_path, *names, "P9/20200131/t1", "10_V1")
    (record,) = caplog.records
    assert "4 scans look like visits of the same people, e.g. " in record.getMessage()
    assert "name a list with a column `subject`" in record.getMessage()


def test_one_subject_in_two_spellings_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, *(f"{name}.nii" for name in "abcdefg"))
    ways = ["001", "1", "sub-1", "1.0", "010", "P7", "p7"]
    rows = "".join(f"{scan}.nii,{who}\n" for scan, who in zip("abcdefg", ways, strict=True))
    (tmp_path / "list.csv").write_text(f"scan,subject\n{rows}", "utf-8")
    find(tmp_path / "list.csv")
    (record,) = caplog.records
    assert record.getMessage().startswith("2 subjects are written in several ways, e.g. 001 and 1, and taken for diff")


ORDINARY = {
    "numbers": ["oasis-1000", "oasis-1001", "oasis-1002"],
    "a sequence before the number": ["T1_001", "T1_002"],
    "words": ["anna", "bob"],
    "classes": ["ill/case0", "ill/case1", "well/case2", "well/case3"],
    "the same numbers in two classes": ["ill/001", "ill/002", "well/001", "well/002"],
    "one scan for each folder": ["p7/t1", "p9/t1"],
    "identifiers": ["IXI002-Guys-0828-T1", "IXI012-HH-1211-T1"],
    "numbers of four digits": ["scan_0000", "scan_0001", "scan_0002"],
    "numbers of four digits at two sites": ["A_0001", "A_0002", "B_0001", "B_0002"],
    "days of a scanner": ["site/2020-01-30/p1", "site/2020-01-31/p2"],
    "numbered scans": ["train/scan1", "train/scan2", "test/v3"],
    "dates alone": ["2020-01-30/t1", "2020-01-31/t1"],
}


@pytest.mark.parametrize("names", ORDINARY.values(), ids=ORDINARY)
def test_ordinary_folders_are_not_doubted(tmp_path: Path, names: list[str], caplog: pytest.LogCaptureFixture) -> None:
    assert len(set(subjects(tmp_path, *names))) == len(names)
    assert not caplog.records


def test_people_of_the_same_name_in_two_datasets_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{dataset}/sub-0{n}/sub-0{n}_T1w" for dataset in ("one", "two") for n in (1, 2)]
    assert len(set(subjects(tmp_path, *names))) == 2
    assert "2 subjects of the same name, e.g. sub-01, lie in several datasets (one, two)" in caplog.text
    caplog.clear()
    touch(tmp_path, "one/derivatives/n4/sub-01/sub-01_T1w.nii", "one/derivatives/n4/sub-02/sub-02_T1w.nii")
    find([tmp_path / "one", tmp_path / "one" / "derivatives" / "n4"])
    assert "several datasets" not in caplog.text, "derivatives belong to their dataset"


# --------------------------------------------------------------------------------------------------- participants.tsv

TABLE = "participant_id\tage\tsex\tgroup\nsub-01\t20\tF\tcontrol\nsub-02\tn/a\tM\t\nsub-03\t44\tF\tx\n"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for n in (1, 2, 4):
        touch(tmp_path, f"ds/sub-0{n}/anat/sub-0{n}_T1w.nii")
    (tmp_path / "ds" / "participants.tsv").write_text(TABLE, "utf-8")
    return tmp_path / "ds"


KNOWN = [{"age": 20.0, "sex": "F", "group": "control"}, {"sex": "M"}, {}]


def test_participants_are_the_conditions_of_their_scans(dataset: Path) -> None:
    assert [ref.conditions for ref in find(dataset)] == KNOWN
    assert [ref.conditions for ref in find(Selection((dataset,), hash_ids=True))] == KNOWN
    assert find(dataset / "sub-01")[0].conditions == KNOWN[0], "of one folder of the dataset"
    assert find(dataset / "sub-01" / "anat" / "sub-01_T1w.nii")[0].conditions == KNOWN[0]


def test_derivatives_have_the_participants_of_their_dataset(dataset: Path) -> None:
    touch(dataset, "derivatives/n4/sub-01/anat/sub-01_T1w.nii")
    assert find(dataset / "derivatives" / "n4")[0].conditions == KNOWN[0]


def test_participants_without_the_prefix_and_flat_folders(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01_T1w.nii", "sub-02_T1w.nii")
    (tmp_path / "participants.tsv").write_text(TABLE.replace("sub-", ""), "utf-8")
    assert [ref.conditions for ref in find(tmp_path)] == KNOWN[:2]


def test_columns_that_a_list_has_a_meaning_for_are_no_conditions(
    dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (dataset / "participants.tsv").write_text("participant_id\tage\tlabel\nsub-01\t20\tx\n", "utf-8")
    assert find(dataset)[0].conditions == {"age": 20.0}
    assert "label is not used as a condition" in caplog.text


def test_a_list_says_all_of_its_scans_itself(dataset: Path) -> None:
    (dataset / "list.csv").write_text("scan,subject,age\nsub-01/anat/sub-01_T1w.nii,sub-01,3\n", "utf-8")
    assert find(dataset / "list.csv")[0].conditions == {"age": 3.0}


@pytest.mark.parametrize("text", ["a\tb\n1\t2\n", "participant_id\tage\nsub-01\t2\t3\n", ""])
def test_a_table_that_cannot_be_used_is_no_reason_to_stop(dataset: Path, text: str) -> None:
    (dataset / "participants.tsv").write_text(text, "utf-8")
    assert [ref.conditions for ref in find(dataset)] == [{}, {}, {}]


def test_participants_with_a_decimal_comma(dataset: Path) -> None:
    (dataset / "participants.tsv").write_text("participant_id\tage\nsub-01\t23,5\n", "utf-8")
    assert find(dataset)[0].conditions == {"age": 23.5}


def test_several_rows_of_one_participant_say_what_they_agree_on(
    dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "sub-01\t1\t20\tF\nsub-01\t2\t22\tF\nsub-02\t1\t30\tM\nsub-02\t1\t30\tM\nsub-04\t1\t40\tF\n"
    (dataset / "participants.tsv").write_text(f"participant_id\tvisit\tage\tsex\n{rows}", "utf-8")
    assert [ref.conditions.get("age") for ref in find(dataset)] == [None, 30.0, 40.0]
    assert [ref.conditions["sex"] for ref in find(dataset)] == ["F", "M", "F"]
    assert "several rows of one participant that differ in age, visit, which" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("participant_id\tage\n1\t20\n2\t30\n", "has no row for 3 subjects, e.g. sub-01: write"),
        ("participant_id\tage\nsub-01\t20\n", "has no row for 2 subjects, e.g. sub-02: write"),
        ("participant_id   age\nsub-01   20\n", "has no column `participant_id` between tabs"),
        ("subject\tage\nsub-01\t20\n", "has no column `participant_id` between tabs"),
    ],
    ids=["without zeros", "incomplete", "blanks", "another name"],
)
def test_a_table_that_says_nothing_of_a_subject_is_told(
    dataset: Path, text: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    (dataset / "participants.tsv").write_text(text, "utf-8")
    find(dataset)
    assert said in caplog.text
    assert len(caplog.records) == 1
