"""One synthetic scan as a user gets it: values and grid of real scans, plain data, files, a small repr."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from toy_model import SHAPE, block, toy_model

from medvae import synthesize
from medvae.settings import AugmentSettings
from medvae.synthesis import generate
from medvae.synthesis.synthesize import with_screen
from medvae.synthesis.synthetic import SampleJob

if TYPE_CHECKING:
    from pathlib import Path


def first(**options: Any) -> Any:
    model = toy_model(**options.pop("model", {}))
    return next(synthesize(model, 1, **options))


def test_mr_values_are_on_the_scale_of_a_training_scan() -> None:
    sample = first()
    assert (sample.image.units, sample.image.modality) == ("a.u.", "MR")
    assert sample.image.data.shape == sample.image.geometry.shape == SHAPE
    inside = sample.sample.mask.squeeze(0)
    assert (sample.image.data[~inside] == 0).all()
    expected = sample.sample.intensity.invert(sample.sample.image.squeeze(0))[inside]
    assert np.array_equal(sample.image.data[inside], expected)
    assert sample.record["intensity"]["from"] in toy_model().training.ids


def test_ct_is_in_whole_hounsfield_units() -> None:
    sample = first(model={"prepare": {"modality": "CT", "intensity": "window", "foreground": "air"}})
    assert sample.image.units == "HU"
    assert (sample.image.data == np.rint(sample.image.data)).all()
    assert set(sample.image.data[~sample.sample.mask.squeeze(0)]) == {-1000}, "air around the patient"
    assert sample.files()[0].data.dtype == np.int16
    assert np.array_equal(sample.files()[0].data, sample.image.data)


def test_shapes_are_binary() -> None:
    sample = first(model={"prepare": {"modality": "SHAPE", "intensity": "none"}}, texture=True)
    assert sample.image.units == "binary"
    assert set(np.unique(sample.image.data)) == {0, 1}
    assert sample.files()[0].data.dtype == np.uint8


def test_a_whole_scan_is_cut_to_its_field_of_view() -> None:
    sample = first(model={"prepare": {"foreground": "whole"}, "label_maps": True}, sampler="classical", options=STILL)
    cut = np.argwhere(block().squeeze(0))
    low, high = cut.min(axis=0), cut.max(axis=0)
    assert sample.image.geometry.shape == tuple(high - low + 1) == sample.label_map.shape
    grid = toy_model(prepare={"foreground": "whole"}).preparation.grid
    assert np.allclose(sample.image.geometry.to_world((0, 0, 0)), grid.to_world(low))


STILL = {"randomize": {"spatial": 0, "gamma": 0, "bias": 0, "blur": 0, "noise": 0}}


def test_without_training_scans_the_values_have_no_real_scale() -> None:
    sample = first(model={"keep": 0}, sampler="prior")
    assert sample.record["units"].startswith("robust z")
    assert sample.image.units == "a.u."
    assert sample.audit.copy is None


def test_an_altered_scan_is_derived_from_its_patient() -> None:
    """Whether or not it is near enough to be flagged: a split by subject keeps it beside its source."""
    sample = first(sampler="classical")
    assert sample.source_subject == f"subject-{sample.sources[0][-2:]}"
    assert sample.result().facts["subject"] == sample.source_subject
    assert sample.result().facts["shares"] == "1"
    between = first(sampler="interpolate")
    assert between.result().facts["shares"] == "", "an image that is decoded is from nobody's voxels"
    assert between.source_subject is None, "two people"
    assert between.result().facts["subject"] == between.id


def test_a_result_is_plain_data(tmp_path: Path) -> None:
    sample = first(model={"labels": ("a",), "label_maps": True, "conditions": ("age", "sex")}, sampler="classical")
    result = pickle.loads(pickle.dumps(sample.result()))
    names = [file.name for file in result.files]
    assert names == [f"{part}/synthetic-00000{end}" for part, end in NAMES]
    for file in result.files:
        file.write(tmp_path)
    record = json.loads((tmp_path / names[1]).read_text("utf-8"))
    assert (tmp_path / "images" / record["label_map"]).resolve() == tmp_path / names[2]
    assert all(value is None or isinstance(value, int | float) for value in result.scores.values())
    assert all(value is None or isinstance(value, str) for value in result.facts.values())
    assert (result.scores["condition age"], result.facts["condition sex"]) == tuple(sample.conditions.values())


NAMES = (("images", ".nii.gz"), ("images", ".json"), ("labels", ".nii.gz"))


def test_save_writes_the_files(tmp_path: Path) -> None:
    sample = first()
    folder = sample.save(str(tmp_path / "set"))
    assert folder == tmp_path / "set"
    names = sorted(path.name for path in (folder / "images").iterdir())
    assert names == ["synthetic-00000.json", "synthetic-00000.nii.gz"]
    written = nib.load(folder / "images" / names[1])
    assert np.array_equal(np.asarray(written.dataobj), sample.image.data)
    assert np.allclose(written.affine, sample.image.geometry.affine)


def test_the_repr_is_one_short_line() -> None:
    text = repr(first(model={"labels": ("ill",), "conditions": ("age", "sex")}, conditions={"age": 70}))
    assert text.startswith("Synthetic(synthetic-00000; 16x18x14 MR in a.u.; class ill; age 70.0; sex ")
    assert len(text) < 120


def test_a_set_can_be_sent_to_another_process() -> None:
    whole = with_screen(generate.fit(toy_model(n=4), AugmentSettings(), seed=0))
    sent = pickle.loads(pickle.dumps(whole))
    assert np.array_equal(sent.scan(1).image.data, whole.scan(1).image.data)


def test_a_job_is_its_number() -> None:
    assert SampleJob(3).id == "synthetic-00003"
    assert SampleJob(3).fingerprint() == SampleJob(3).fingerprint() != SampleJob(4).fingerprint()
    assert pickle.loads(pickle.dumps(SampleJob(3))) == SampleJob(3)
