"""Layouts: files where other tools look for them, lists that they read, donors out of validation, real files kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from made_layouts import COUNT, hashes, nnunet_set, put, tree, write_set
from monai.data import load_decathlon_datalist
from pydicom import dcmread
from sklearn.model_selection import KFold
from toy_model import toy_model

from medvae import find, plugins, read
from medvae.errors import InputError, SettingsError
from medvae.io.same_voxels import turned_onto
from medvae.scan import scan_hash
from medvae.settings import AugmentSettings
from medvae.synthesis import generate, splits
from medvae.synthesis.rows import Row
from medvae.synthesis.synthesize import make_layout

NAMES = plugins.names("layouts")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "synthetic"


# ------------------------------------------------------------------------------------------------- of every layout


@pytest.mark.parametrize("layout", NAMES)
def test_places_are_apart_and_hold_the_same_scans(layout: str, out: Path) -> None:
    rows = write_set(out, layout)
    files = [name for row in rows for name in (row.facts["image"], row.facts["label_map"])]
    assert len(set(files)) == 2 * COUNT
    plain = write_set(out.with_name("plain"), "medvae")
    for row, other in zip(rows, plain, strict=True):
        one, same = (
            read(out / str(row.facts["image"])),
            read(out.with_name("plain") / str(other.facts["image"])),
        )
        turned = turned_onto(one.data, one.geometry, same.geometry)
        assert turned is not None
        span = same.data.max() - min(same.data.min(), 0)
        step = span / 65535 if layout == "dicom" else 0  # that holds whole numbers
        assert np.abs(turned - same.data).max() <= step
        labels = nib.load(out / str(row.facts["label_map"]))
        assert labels.shape == same.geometry.shape
        assert np.allclose(labels.affine, same.geometry.affine)


@pytest.mark.parametrize("layout", NAMES)
def test_a_sidecar_leads_to_its_label_map(layout: str, out: Path) -> None:
    write_set(out, layout)
    records = [path for path in out.rglob("*.json") if path.parent != out]
    assert len(records) == COUNT
    for path in records:
        assert tree(path)["synthetic"] is True
        assert (path.parent / tree(path)["label_map"]).is_file()


@pytest.mark.parametrize("layout", NAMES)
def test_medvae_reads_it_with_the_people_that_samples_belong_to(layout: str, out: Path) -> None:
    rows = write_set(out, layout)
    cohort = find(out / "labels.csv")
    assert [ref.subject for ref in cohort] == [row.facts["subject"] for row in rows]
    assert all(ref.path.is_file() and ref.label_map is not None and ref.label_map.is_file() for ref in cohort)


def test_an_unknown_layout_gets_the_choices() -> None:
    with pytest.raises(SettingsError, match="no 'nnunett' among the layouts") as caught:
        make_layout(generate.fit(toy_model(), AugmentSettings(layout="nnunett"), seed=0))
    assert "did you mean 'nnunet'" in (caught.value.hint or "")


# --------------------------------------------------------------------------------------------------------- nnU-Net


def test_the_raw_dataset_of_nnunet(out: Path) -> None:
    write_set(out, "nnunet", label_names={1: "organ"})
    description = tree(out / "dataset.json")
    assert description["labels"] == {"background": 0, "organ": 1}
    assert (description["channel_names"], description["file_ending"]) == ({"0": "MR"}, ".nii.gz")
    cases = [path.name.removesuffix(".nii.gz") for path in sorted((out / "labelsTr").iterdir())]
    assert [path.name for path in sorted((out / "imagesTr").iterdir())] == [f"{name}_0000.nii.gz" for name in cases]
    assert description["numTraining"] == len(cases) == COUNT


def test_its_labels_are_consecutive(out: Path) -> None:
    model = toy_model(n=8, label_maps=True)
    assert model.training.label_maps is not None
    model.training.label_maps[model.training.label_maps == 1] = 17
    model.training.label_maps[:, :, 8, 9, 6:8] = 4
    write_set(out, "nnunet", model=model, label_names={17: "left thing"}, reject=False)
    assert tree(out / "dataset.json")["labels"] == {"background": 0, "4": 1, "left thing": 2}
    found = {int(v) for path in (out / "labelsTr").iterdir() for v in np.unique(np.asarray(nib.load(path).dataobj))}
    assert found == {0, 1, 2}


def test_it_needs_label_maps() -> None:
    settings = AugmentSettings(sampler="density", layout="nnunet")
    with pytest.raises(SettingsError, match="'nnunet' is for segmentation and needs label maps: the decoder") as caught:
        make_layout(generate.fit(toy_model(label_maps=True), settings, seed=0))
    assert "augment.sampler=classical" in (caught.value.hint or "")


def test_donors_are_kept_out_of_the_folds_that_validate_them(out: Path, tmp_path: Path) -> None:
    """The cases are called as the training scans were, with a folder before and a channel behind."""
    real = nnunet_set(tmp_path / "Dataset007_Toy", ["scan-00", "scan-01", "scan-02", "scan-03", "scan-04", "new"])
    before = hashes(real)
    rows = write_set(out, "nnunet", merge_with=real)
    donor = {row.id: row.sources[0] for row in rows}
    folds = tree(out / "splits_final.json")
    assert sorted(name for fold in folds for name in fold["val"]) == ["new", *(f"scan-0{i}" for i in range(5))]
    for fold in folds:
        assert not {donor[name] for name in fold["train"] if name in donor} & set(fold["val"])
        kept = [name for name in donor if donor[name] not in fold["val"]]
        assert set(kept) <= set(fold["train"]), "and in all others they are trained on"
        assert not set(fold["train"]) & set(fold["val"])
    assert hashes(real) == before, "no real file is touched"
    cases = tree(out / "dataset.json")["dataset"]
    assert len(cases) == tree(out / "dataset.json")["numTraining"] == COUNT + 6
    assert all((out / path).is_file() for case in cases.values() for path in (*case["images"], case["label"]))


def test_real_scans_alone_are_split_as_nnunet_splits_them() -> None:
    """sklearn's KFold over the sorted names, shuffled with 12345."""
    names = [f"case{i:02d}" for i in range(7)]
    found = splits.folds({name: frozenset([name]) for name in names}, names)
    expected = [
        {"train": [names[i] for i in train], "val": [names[i] for i in val]}
        for train, val in KFold(5, shuffle=True, random_state=12345).split(names)
    ]
    assert found == expected


def test_a_scan_is_known_by_its_voxels_where_its_name_is_another(tmp_path: Path) -> None:
    real = nnunet_set(tmp_path / "real", ["a", "b"])
    layout = plugins.load("layouts", "nnunet").Layout
    scans = layout.read(real).scans
    latents = toy_model(n=3).latents
    latents.hashes[1] = scan_hash(read(scans[0].image))
    people = splits.people_of_real(scans, latents)
    assert people == {"a": {"subject-01"}, "b": {"real b"}}


def test_voxels_tell_who_it_is_where_names_look_like_those_of_others(tmp_path: Path) -> None:
    """Cases are numbered anew: each is called as the training scan of another person. Every case is still validated."""
    names = [f"{number:03d}" for number in range(6)]
    scans = plugins.load("layouts", "nnunet").Layout.read(nnunet_set(tmp_path / "real", names)).scans
    latents = toy_model(n=6).latents
    latents.ids[:] = [f"siteA_{name}" for name in names]
    latents.hashes[:] = [scan_hash(read(scans[(at + 1) % 6].image)) for at in range(6)]
    people = splits.people_of_real(scans, latents)
    assert people == {name: {latents.subjects[at - 1]} for at, name in enumerate(names)}
    donors = {f"of {subject}": frozenset([subject]) for subject in latents.subjects}
    folds = splits.folds({**people, **donors}, people)
    assert sorted(one for fold in folds for one in fold["val"]) == names
    for fold in folds:
        validated = {person for one in fold["val"] for person in people[one]}
        assert not any(donors[one] & validated for one in fold["train"] if one in donors)


def test_decoded_scans_hold_everyone_that_the_decoder_has_seen(out: Path, tmp_path: Path) -> None:
    real = nnunet_set(tmp_path / "real", ["scan-00", "scan-01", "other", "another"])
    settings = AugmentSettings(sampler="jitter", layout="nnunet")
    synthesizer = generate.fit(toy_model(n=8, label_maps=True), settings, seed=0)
    layout = plugins.load("layouts", "nnunet").Layout
    rows = [Row("s", {}, {"sources": "scan-05", "image": "i", "label_map": "l"})]
    merged = layout(synthesizer, layout.read(real))
    for fold in merged._folds(rows):
        assert ("s" in fold["train"]) == (not {"scan-00", "scan-01"} & set(fold["val"]))
    assert any("preprocessed" in line for line in merged.lines(rows))
    only_known = layout(synthesizer, layout.read(nnunet_set(tmp_path / "known", ["scan-00", "scan-01"])))
    assert any("no fold trains on a synthetic scan" in line for line in only_known.lines(rows))


@pytest.fixture
def verify() -> Any:
    """`verify_dataset_integrity` of nnU-Net, where it is installed."""
    return pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity").verify_dataset_integrity


def test_nnunet_accepts_the_dataset(verify: Any, out: Path, tmp_path: Path) -> None:
    write_set(out, "nnunet")
    verify(str(out), 1)
    real = nnunet_set(tmp_path / "real", ["scan-00", "other"])
    write_set(tmp_path / "merged", "nnunet", merge_with=real)
    verify(str(tmp_path / "merged"), 1)


# ------------------------------------------------------------------------------------------------- MONAI and medvae


def test_the_datalist_of_monai(out: Path) -> None:
    write_set(out, "monai")
    items = load_decathlon_datalist(str(out / "dataset.json"), data_list_key="training")
    assert len(items) == COUNT
    assert all(Path(item["image"]).is_file() and Path(item["label"]).is_file() for item in items)
    assert tree(out / "dataset.json")["labels"] == {"0": "background", "1": "1"}


def test_a_real_datalist_is_gone_on_with(out: Path, tmp_path: Path) -> None:
    real = tmp_path / "Task01"
    for name in ("a", "b", "v"):
        put(real, f"imagesTr/{name}.nii.gz", f"labelsTr/{name}.nii.gz")
    listed = [{"image": f"./imagesTr/{one}.nii.gz", "label": f"./labelsTr/{one}.nii.gz"} for one in "abv"]
    description = {"name": "Task01", "labels": {"0": "background", "1": "organ"}, "training": listed[:2]}
    description |= {"validation": listed[2:], "test": ["./imagesTr/v.nii.gz"]}
    (real / "dataset.json").write_text(json.dumps(description), "utf-8")
    before = hashes(real)
    write_set(out, "monai", merge_with=real)
    merged = tree(out / "dataset.json")
    assert (merged["name"], merged["labels"], merged["numTraining"]) == ("Task01", description["labels"], 2 + COUNT)
    for key, count in (("training", 2 + COUNT), ("validation", 1)):
        items = load_decathlon_datalist(str(out / "dataset.json"), data_list_key=key)
        assert len(items) == count
        assert all(Path(item["image"]).is_file() and Path(item["label"]).is_file() for item in items)
    assert (out / merged["test"][0]["image"]).is_file()
    assert hashes(real) == before


def test_the_lists_of_medvae_hold_real_scans(out: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    put(real, "one.nii.gz", "one_seg.nii.gz")
    write_set(out, "medvae", merge_with=real)
    cohort = find(out / "labels.csv")
    assert len(cohort) == 1 + COUNT
    assert [ref.path.resolve() for ref in cohort].count((real / "one.nii.gz").resolve()) == 1
    assert len(load_decathlon_datalist(str(out / "dataset.json"), is_segmentation=True)) == 1 + COUNT


def classified(real: Path, *, label_maps: bool) -> None:
    """Two real scans with classes, in a list of medvae and a datalist of MONAI."""
    rows, items = ["scan,label,label_map"], []
    for number, name in enumerate("ab"):
        put(real, f"{name}.nii.gz", f"maps/{name}.nii.gz")
        rows.append(f"{name}.nii.gz,{name},{f'maps/{name}.nii.gz' if label_maps else ''}")
        label = {"label": f"maps/{name}.nii.gz", "class": number} if label_maps else {"label": number}
        items.append({"image": f"{name}.nii.gz", **label})
    (real / "list.csv").write_text("\n".join(rows), "utf-8")
    labels = {"0": "rest", "1": "organ"} if label_maps else {"0": "a", "1": "b"}
    description = {"labels": labels, "classes": ["a", "b"], "training": items, "validation": items[:1]}
    (real / "dataset.json").write_text(json.dumps(description), "utf-8")


@pytest.mark.parametrize("layout", ["medvae", "monai"])
@pytest.mark.parametrize(("of_samples", "of_real"), [(True, False), (False, True), (False, False), (True, True)])
def test_label_means_one_thing_in_a_datalist(
    layout: str, of_samples: bool, of_real: bool, out: Path, tmp_path: Path
) -> None:
    """A path where any scan has a label map, and then `class` is the class; else the class."""
    classified(tmp_path / "real", label_maps=of_real)
    real = tmp_path / "real" / ("list.csv" if layout == "medvae" else "")
    model = toy_model(n=8, labels=("a", "b"), label_maps=of_samples)
    write_set(out, layout, model=model, merge_with=real)
    merged = tree(out / "dataset.json")
    maps, key = of_samples or of_real, "class" if of_samples or of_real else "label"
    items = [*merged["training"], *merged.get("validation", [])]
    assert len(items) >= 2 + COUNT
    assert all(item[key] in (0, 1) for item in items)
    with_map = [isinstance(item.get("label"), str) for item in merged["training"]]
    assert with_map == [of_real] * 2 + [of_samples] * COUNT
    assert maps or all("class" not in item for item in items)
    names = {"0": "rest", "1": "organ"} if of_real else {"0": "background", "1": "1"}
    if layout == "monai":
        assert merged["labels"] == (names if maps else {"0": "a", "1": "b"})
    loaded = load_decathlon_datalist(str(out / "dataset.json"), is_segmentation=maps)
    assert all("label" not in item or isinstance(item["label"], str) == maps for item in loaded)


# ------------------------------------------------------------------------------------------------------------ BIDS


def test_a_bids_derivative(out: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "dataset_description.json").write_text('{"Name": "raw", "BIDSVersion": "1.10.0"}', "utf-8")
    rows = write_set(out, "bids", merge_with=raw, label_names={1: "organ"})
    description = tree(out / "dataset_description.json")
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "medvae"
    assert description["SourceDatasets"] == [{"URL": "../raw"}]
    assert rows[0].facts["image"] == "sub-synthetic00000/anat/sub-synthetic00000_desc-synthetic_T1w.nii.gz"
    people = (out / "participants.tsv").read_text("utf-8").splitlines()
    assert people[0].split("\t")[:2] == ["participant_id", "synthetic"]
    assert [line.split("\t")[0] for line in people[1:]] == [f"sub-synthetic{i:05d}" for i in range(COUNT)]
    assert (out / "desc-synthetic_dseg.tsv").read_text("utf-8") == "index\tname\n0\tbackground\n1\torgan\n"
    sidecar = tree(out / "sub-synthetic00000/anat/sub-synthetic00000_desc-synthetic_T1w.json")
    assert sidecar["SkullStripped"] is True
    assert len(find(out)) == COUNT, "medvae reads it, too"


@pytest.mark.parametrize(
    ("sampler", "text"),
    [
        ("classical", "4 of 4 samples derived from a patient (sources in audit.csv): treat each as that person's data"),
        ("interpolate", "4 of 4 samples derived from several training subjects (sources in audit.csv)"),
        ("density", "no subject here is a person"),
    ],
)
def test_the_readme_says_whose_data_the_samples_are(sampler: str, text: str, out: Path) -> None:
    write_set(out, "bids", sampler=sampler, reject=False)
    readme = (out / "README").read_text("utf-8")
    assert text in " ".join(readme.split())
    assert ("is a person" in readme) == (sampler == "density")


def test_the_suffix_is_that_of_the_training_scans(out: Path) -> None:
    model = toy_model(n=8, label_maps=True)
    ids = [f"{one}_FLAIR" for one in model.latents.ids]
    model.latents.ids[:] = ids
    model.training.ids[:] = ids
    assert str(write_set(out, "bids", model=model)[0].facts["image"]).endswith("_FLAIR.nii.gz")


@pytest.mark.parametrize(
    ("modality", "image"), [("MR", "anat/*_T1w.nii.gz"), ("CT", "anat/*_ct.nii.gz"), ("PT", "pet/*_pet.nii.gz")]
)
def test_bids_knows_or_ignores_every_file(modality: str, image: str, out: Path) -> None:
    """Label maps of PET are in anat/, BIDS has no CT, and a folder is ignored by its name without a slash."""
    prepare = {"modality": modality, **({"intensity": "window"} if modality == "CT" else {})}
    write_set(out, "bids", model=toy_model(n=8, label_maps=True, prepare=prepare))
    assert len(list(out.glob(f"sub-*/{image}"))) == len(list(out.glob("sub-*/anat/*_dseg.nii.gz"))) == COUNT
    assert len(list(out.rglob("*_dseg.nii.gz"))) == COUNT
    assert len(find(out)) == COUNT, "label maps are not taken for scans"
    ignored = (out / ".bidsignore").read_text("utf-8").splitlines()
    assert {"review", "evaluation", "*_ct.*"} <= set(ignored)
    assert not any(line.endswith("/") for line in ignored)


# ---------------------------------------------------------------------------------------------------------- DICOM


def test_a_dicom_series_is_of_an_invented_patient_and_says_that_it_is_synthetic(out: Path) -> None:
    write_set(out, "dicom")
    patients, studies = set(), set()
    for folder in (out / "images").iterdir():
        slices = [dcmread(path) for path in sorted(folder.iterdir())]
        assert {one.SyntheticData for one in slices} == {"YES"}
        assert {one.PatientID for one in slices} == {folder.name}
        assert len({one.SOPInstanceUID for one in slices}) == len(slices)
        assert "research use only" in slices[0].SeriesDescription
        patients.add(str(slices[0].PatientName))
        studies.add(slices[0].StudyInstanceUID)
        row, column = np.split(np.array(slices[0].ImageOrientationPatient, float), 2)
        assert (row[0], column[1]) == (1, 1), "columns run to the left, rows to the back"
    assert len(patients) == len(studies) == COUNT
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(out / "images" / "synthetic-00000")))
    own = read(out / "images" / "synthetic-00000")
    assert np.allclose(sitk.GetArrayFromImage(image).transpose(2, 1, 0), own.data, rtol=1e-5, atol=1e-3)


def test_a_dicom_series_is_the_same_again(out: Path) -> None:
    write_set(out, "dicom")
    write_set(out.with_name("again"), "dicom")
    assert hashes(out) == hashes(out.with_name("again"))


def test_dicom_samples_are_not_appended_to_a_real_set(out: Path) -> None:
    with pytest.raises(InputError, match="not appended to a real set"):
        write_set(out, "dicom", merge_with=out)
