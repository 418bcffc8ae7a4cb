"""What a layout refuses before anything is generated: names of labels, and real sets that do not fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from made_layouts import nnunet_set, put, tree, write_set
from toy_model import toy_model

from medvae import plugins
from medvae.errors import InputError, SettingsError
from medvae.settings import AugmentSettings
from medvae.synthesis import generate
from medvae.synthesis.synthesize import make_layout

if TYPE_CHECKING:
    from pathlib import Path

NAMES = plugins.names("layouts")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "synthetic"


@pytest.mark.parametrize("layout", NAMES)
def test_names_of_values_that_there_are_not_are_refused(layout: str) -> None:
    settings = AugmentSettings(sampler="classical", layout=layout, label_names={2: "organ"})
    with pytest.raises(SettingsError, match=r"names the values \[2\], the label maps have 0, 1"):
        make_layout(generate.fit(toy_model(label_maps=True), settings, seed=0))


@pytest.mark.parametrize("layout", NAMES)
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({1: "organ", 3: "organ"}, "the values 1 and 3 are both called 'organ'"),
        ({1: "3"}, "the values 1 and 3 are both called '3'"),
        ({1: "background"}, "the values 0 and 1 are both called 'background'"),
        ({0: "air", 1: "background"}, "'background' is the name of 0, not of 1"),
    ],
)
def test_names_that_do_not_tell_values_apart_are_refused(layout: str, names: dict[int, str], message: str) -> None:
    """A list by names would have one entry for two values, or the background at another one."""
    model = toy_model(label_maps=True)
    assert model.training.label_maps is not None
    model.training.label_maps[:, :, 8, 9, 6:8] = 3
    settings = AugmentSettings(sampler="classical", layout=layout, label_names=names)
    with pytest.raises(SettingsError, match=message) as caught:
        make_layout(generate.fit(model, settings, seed=0))
    assert "augment.label_names" in str(caught.value)
    assert caught.value.hint


def test_the_background_of_nnunet_is_called_so() -> None:
    """It takes no other name for the value 0; other layouts do."""
    settings = {"sampler": "classical", "label_names": {0: "air"}}
    named = [AugmentSettings(layout=layout, **settings) for layout in ("nnunet", "monai")]
    nnunet, monai = (generate.fit(toy_model(label_maps=True), one, seed=0) for one in named)
    assert make_layout(monai).label_name(0) == "air"
    with pytest.raises(SettingsError, match="nnU-Net calls the value 0 'background'"):
        make_layout(nnunet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_ending": ".nrrd"}, "one channel and end in .nii.gz"),
        ({"channel_names": {"0": "T1", "1": "T2"}}, "one channel and end in .nii.gz"),
        ({"channel_names": None}, "not an nnU-Net v2 dataset: the list has no channel_names"),
        ({"file_ending": None, "channel_names": None}, "the list has no channel_names, file_ending"),
        ({"labels": ["background", "organ"]}, "the list has no labels"),
        ({"dataset": {"a": {"label": "labelsTr/a.nii.gz"}}}, "a case of `dataset` has no list `images`"),
        ({"dataset": {"a": {"images": ["imagesTr/a_0000.nii.gz"]}}}, "or no path `label`"),
        ({"dataset": ["a"]}, "a case of `dataset`"),
        ({"labels": {"background": 0, "organ": 2}}, r"labels \[1\], which the real set does not name"),
        (
            {"labels": {"background": 0, "whole": [2, 3], "part": [3]}, "regions_class_order": [2, 3]},
            r"labels \[1\], which the real set does not name",
        ),
    ],
)
def test_a_real_set_that_does_not_fit_is_refused(changes: dict[str, Any], message: str, out: Path) -> None:
    real = nnunet_set(out.with_name("real"), ["a"], **changes)
    with pytest.raises(InputError, match=message):
        write_set(out, "nnunet", merge_with=real)
    assert not out.exists()


def test_values_that_regions_have_are_named(out: Path) -> None:
    regions = {"background": 0, "whole": [1, 2], "part": [2]}
    write_set(out, "nnunet", merge_with=nnunet_set(out.with_name("real"), ["a"], labels=regions))
    assert tree(out / "dataset.json")["labels"] == regions


@pytest.mark.parametrize("layout", sorted({*NAMES} - {"medvae", "dicom"}))
def test_a_folder_without_a_list_is_refused(layout: str, out: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the list of the real set cannot be read"):
        write_set(out, layout, merge_with=tmp_path)


@pytest.mark.parametrize("training", ['["imagesTr/one.nii.gz"]', '{"image": "one.nii.gz"}', "null"])
def test_a_datalist_of_another_form_is_refused(training: str, out: Path, tmp_path: Path) -> None:
    """Its scans would be missing from the list of both sets."""
    (tmp_path / "dataset.json").write_text(f'{{"training": {training}}}', "utf-8")
    with pytest.raises(InputError, match=r"dataset\.json: `training` is not a list of objects") as caught:
        write_set(out, "monai", merge_with=tmp_path)
    assert caught.value.hint


def test_a_datalist_with_several_images_per_item_is_refused(out: Path, tmp_path: Path) -> None:
    """Samples have one: a list of both would train on scans of two kinds."""
    (tmp_path / "dataset.json").write_text('{"training": [{"image": ["t1.nii.gz", "t2.nii.gz"]}]}', "utf-8")
    with pytest.raises(InputError, match=r"an item of `training` has several images, samples have one") as caught:
        write_set(out, "monai", merge_with=tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("label", "labels", "message"),
    [
        ("x.nii.gz", {"0": "background", "10": "organ"}, r"the labels \[1\], which the real set does not name"),
        ("healthy", {"0": "healthy", "1": "ill"}, "the label 'healthy', which is neither a file nor a number"),
        ("gone.nii.gz", {"0": "background", "1": "organ"}, r"the label 'gone\.nii\.gz', which is neither"),
    ],
)
def test_labels_of_a_datalist_that_do_not_fit_are_refused(
    label: str, labels: dict[str, str], message: str, out: Path, tmp_path: Path
) -> None:
    put(tmp_path, "one.nii.gz", "x.nii.gz")
    listed = {"labels": labels, "training": [{"image": "one.nii.gz", "label": label}]}
    (tmp_path / "dataset.json").write_text(json.dumps(listed), "utf-8")
    with pytest.raises(InputError, match=message) as caught:
        write_set(out, "monai", merge_with=tmp_path)
    assert caught.value.hint
    assert not out.exists()


@pytest.mark.parametrize(
    ("said", "classes"),
    [
        ({"labels": {"0": "b", "1": "a"}}, ["b", "a"]),
        ({"labels": {"a": 1, "b": 0}}, ["b", "a"]),
        ({"labels": {"a": "one"}}, None),
        ({"classes": None, "labels": {"0": "b", "1": "a"}}, ["b", "a"]),
        ({"classes": None}, ["a", "b"]),
    ],
)
def test_classes_of_a_datalist_in_every_form(
    said: dict[str, Any], classes: list[str] | None, out: Path, tmp_path: Path
) -> None:
    """nnU-Net has numbers by names, MONAI names by numbers."""
    put(tmp_path, "one.nii.gz", "x.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({**said, "training": [{"image": "one.nii.gz", "label": 0}]}))
    model = toy_model(n=8, labels=("a", "b"))
    if classes is None:
        with pytest.raises(InputError, match="`labels` of the real set does not number its names") as caught:
            write_set(out, "monai", model=model, merge_with=tmp_path)
        assert caught.value.hint
        return
    write_set(out, "monai", model=model, merge_with=tmp_path)
    assert tree(out / "dataset.json")["classes"] == classes


def test_dicom_series_are_not_left_out_of_lists_without_a_word(out: Path, tmp_path: Path) -> None:
    write_set(tmp_path, "dicom")
    put(tmp_path, "images/one.nii.gz", "labels/x.nii.gz")
    with pytest.raises(InputError, match="4 of 5 scans of the real set are DICOM series") as caught:
        write_set(out, "medvae", merge_with=tmp_path / "images")
    assert caught.value.hint
    assert not out.exists()


def test_classes_keep_the_numbers_of_the_real_set(out: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    put(real, "one.nii.gz", "x.nii.gz")
    (real / "list.csv").write_text("scan,label\none.nii.gz,z\n", "utf-8")
    model = toy_model(n=8, labels=("a", "b"))
    with pytest.raises(InputError, match="the real set has the classes z, the samples also a, b"):
        write_set(out, "medvae", model=model, merge_with=real / "list.csv")


@pytest.mark.parametrize(
    ("listed", "layout"),
    [
        ("list.csv:scan,synthetic\none.nii.gz,no\ntwo.nii.gz,yes\n", "medvae"),
        ('list.json:[{"scan": "one.nii.gz"}, {"scan": "two.nii.gz", "synthetic": true}]', "medvae"),
        ('run.json:{"command": "augment", "identity": {}}', "medvae"),
        ('dataset.json:{"training": [{"image": "one.nii.gz"}, {"image": "two.nii.gz", "synthetic": true}]}', "monai"),
    ],
)
def test_a_real_set_with_synthetic_scans_is_refused(listed: str, layout: str, out: Path, tmp_path: Path) -> None:
    """Their rows and items would say that they are real."""
    put(tmp_path / "earlier", "one.nii.gz", "two.nii.gz")
    name, _, text = listed.partition(":")
    (tmp_path / "earlier" / name).write_text(text, "utf-8")
    where = tmp_path / "earlier" / (name if name.startswith("list") else "")
    with pytest.raises(InputError, match=r"(one|two)\.nii\.gz: the real set has synthetic scans") as caught:
        write_set(out, layout, merge_with=where)
    assert caught.value.hint == "name a real set without synthetic scans"
    assert not out.exists()
