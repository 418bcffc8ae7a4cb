"""`medvae evaluate augment`: a whole evaluation of a tiny set, the bytes of Python, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_images import SHAPE, made

import medvae
from medvae.checkpoint.folder import load, save
from medvae.cli.main import main
from medvae.errors import InputError, RunError, SettingsError
from medvae.evaluation.folder import remove_evaluation
from medvae.evaluation.plan import HEADLINE, Plan
from medvae.evaluation.synthetic_run import Reader, SyntheticRun
from medvae.io.formats import nifti
from medvae.pipelines import evaluate_augment as pipeline
from medvae.scan import Geometry, Selection
from medvae.settings import ReadSettings

ROOT = Path(__file__).parents[2]
ARMS = ("classical", HEADLINE, "classical+reconstructions")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 8 training scans, 4 held-out ones, and one of a training subject; each with label map and class."""
    folder = tmp_path_factory.mktemp("cohort")
    scans = made(13, classes=("bright", "dark"))
    geometry = Geometry(SHAPE, np.eye(4))
    rows = []
    for i, (image, label_map) in enumerate(zip(scans.images, scans.label_maps, strict=True)):  # type: ignore[arg-type]
        nifti.write(folder / f"s{i}.nii.gz", 100 + 20 * image[0].astype(np.float32), geometry, description="")
        nifti.write(folder / f"s{i}_label.nii.gz", label_map[0].astype(np.uint8), geometry, description="")
        split = "train" if i < 8 else "test" if i < 12 else "again"
        rows.append([f"s{i}.nii.gz", f"s{i}_label.nii.gz", f"p{i % 12}", scans.classes[i], split])
    with open(folder / "list.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["scan", "label_map", "subject", "label", "split"], *rows])
    return folder / "list.csv"


@pytest.fixture(scope="module")
def model(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "model"
    config = out.parent / "config.yaml"
    config.write_text(
        "prepare: {modality: MR, spacing: [1, 1, 1], shape: [16, 16, 16], foreground: whole}\n"
        "model: {options: {stem: 2, channels: [8, 16], latent: 2}}\n"
        "train: {steps: 2, validate_every: 2, precision: '32', validation: 0}\n"
        "detect: {maps: [residual]}\naugment: {sampler: classical, reject: false}\n",
        "utf-8",
    )
    words = ["train", str(cohort), "--split", "train", "--config", str(config), "--out", str(out), "--workers", "0"]
    assert main([*words, "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six samples of the model; the evaluation of them all is written into it."""
    out = tmp_path_factory.mktemp("augmented") / "set"
    assert main(["augment", "--model", str(model), "--out", str(out), "--count", "6", "--quiet"]) == 0
    return out


def of(cohort: Path, split: str) -> Selection:
    return Selection((cohort,), split=split)


def test_a_whole_evaluation_by_the_command_and_in_python(run: Path, cohort: Path, model: Path) -> None:
    words = ["evaluate", "augment", str(run), "--real", str(cohort), "--split", "train", "--holdout", str(cohort)]
    words += ["--holdout-split", "test", "--model", str(model), "--utility", "segmentation", "--steps", "2"]
    words += [word for arm in ARMS for word in ("--arm", arm)]
    assert main([*words, "--draws", "2", "--device", "cpu", "--quiet"]) == 0
    place = run / "evaluation"
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert set(before) == {"augment.json", "augment.md", "fidelity.png", "nearest.png", "utility.png"}
    found = medvae.evaluate_augment(
        run,
        of(cohort, "train"),
        holdout=of(cohort, "test"),
        model=model,
        utility="segmentation",
        arms=ARMS,
        draws=2,
        plan=Plan(steps=2),
    )
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    tree = json.loads(before["augment.json"])
    assert tree == found.tree
    assert (tree["synthetic"], tree["real"], tree["held_out"], tree["notes"]) == (6, 8, 4, [])
    assert tree["screen"]["derived_from_one_subject"] == 6
    assert len(tree["fidelity"]["spectrum"]) == 8
    utility = tree["utility"]
    assert list(utility["arms"]) == list(ARMS)
    assert list(utility["differences"]) == [HEADLINE, "classical+reconstructions"]
    assert len(utility["arms"][HEADLINE]["trainings"]["dice"]) == 2
    one, other = (np.array(utility["arms"][arm]["trainings"]["dice"]) for arm in ARMS[:2])
    assert utility["differences"][HEADLINE]["means"]["dice"][0] == pytest.approx((other - one).mean())
    text = before["augment.md"].decode()
    assert f"**{HEADLINE} − classical: dice" in text
    assert "too narrow for so few trainings" in text
    remove_evaluation(run)
    assert not place.exists(), "it knows every file"


def test_without_held_out_scans_it_says_what_is_not_known(run: Path, cohort: Path) -> None:
    tree = medvae.evaluate_augment(run, of(cohort, "train")).tree
    assert "copies look perfect" in tree["notes"][0]
    assert tree["copying"]["closer_to_training"] is None
    assert tree["utility"] is None
    assert tree["fidelity"]["scans"] == 3


def test_classes_and_a_preparation_that_run_json_says(run: Path, cohort: Path) -> None:
    found = medvae.evaluate_augment(
        run,
        of(cohort, "train"),
        holdout=of(cohort, "test"),
        utility="classification",
        arms=("real", "synthetic", "real"),
        draws=1,
        plan=Plan(steps=1),
    )
    assert found.tree["utility"]["measures"][0] == "balanced_accuracy"
    assert len(found.tree["utility"]["differences"]) == 1
    assert list(found.tree["utility"]["arms"]) == ["real", "synthetic"], "an arm named twice is trained once"
    assert len(found.tree["utility"]["arms"]["real"]["trainings"]["balanced_accuracy"]) == 1


def test_the_figures_are_written_before_anything_is_drawn(
    run: Path, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise ValueError("cannot be drawn")

    remove_evaluation(run)
    monkeypatch.setattr(pipeline, "fidelity_picture", fail)
    with pytest.raises(ValueError, match="cannot be drawn"):
        medvae.evaluate_augment(run, of(cohort, "train"))
    assert json.loads((run / "evaluation" / "augment.json").read_text("utf-8"))["synthetic"] == 6


def test_a_held_out_scan_of_a_training_subject_is_refused(run: Path, cohort: Path, model: Path) -> None:
    for more in ({}, {"model": model}):
        with pytest.raises(InputError, match="s12") as problem:
            medvae.evaluate_augment(run, of(cohort, "train"), holdout=of(cohort, "again"), **more)  # type: ignore[arg-type]
        assert problem.value.code == "subjects_overlap"
    with pytest.raises(InputError) as problem:
        medvae.evaluate_augment(run, of(cohort, "test"), holdout=of(cohort, "train"))
    assert problem.value.code == "subjects_overlap", "they are sources of the samples"


def test_swapped_scans_are_refused_where_only_the_audit_names_them(run: Path, cohort: Path, tmp_path: Path) -> None:
    """Decoded samples have no sources; their audit has the ids of training scans all the same."""
    other = tmp_path / "set"
    shutil.copytree(run, other)
    text = (other / "labels.csv").read_text("utf-8")
    with open(other / "labels.csv", "w", encoding="utf-8", newline="") as file:
        rows = [row | {"sources": "", "subject": ""} for row in csv.DictReader(text.splitlines())]
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    with pytest.raises(InputError, match="held-out scans of subjects that are trained on: s0 and 7 more") as problem:
        medvae.evaluate_augment(other, of(cohort, "test"), holdout=of(cohort, "train"))
    assert problem.value.code == "subjects_overlap"
    assert "swap real= and holdout=" in (problem.value.hint or "")


def test_an_id_of_digits_is_no_number(tmp_path: Path) -> None:
    """As a condition of a list it would be one, and the scan 007 would be another one, 7.0."""
    for name in ("one", "two", "real"):
        nifti.write(tmp_path / f"{name}.nii.gz", np.ones(SHAPE, np.uint8), Geometry(SHAPE, np.eye(4)), description="")
    (tmp_path / "run.json").write_text('{"command": "augment"}', "utf-8")
    lines = ["scan,synthetic,sources", "one.nii.gz,yes,007", "two.nii.gz,yes,007;8", "real.nii.gz,no,9"]
    (tmp_path / "labels.csv").write_text("\n".join(lines), "utf-8")
    read = SyntheticRun.read(tmp_path)
    assert read.sources == read.known == {"007", "8"}
    assert [ref.id for ref in read.refs] == ["one", "two"]


@pytest.mark.parametrize("layout", ["medvae", "nnunet"])
def test_label_values_are_those_of_the_model_whatever_the_layout(layout: str, model: Path, tmp_path: Path) -> None:
    """nnU-Net's are numbered anew: 0, 1, ... for 0, 5, ...; compared with real label maps they have to be 5 again."""
    loaded = load(model)
    assert loaded.training.label_maps is not None
    loaded.training.label_maps[:] *= 5
    save(loaded, tmp_path / "model")
    out = tmp_path / "set"
    words = ["augment", "--model", str(tmp_path / "model"), "--out", str(out), "--count", "2", "--layout", layout]
    assert main([*words, "--quiet"]) == 0
    run = SyntheticRun.read(out)
    read = Reader(run.preparation(None), ReadSettings()).samples(run)
    samples = [one.label_map for one in medvae.synthesize(tmp_path / "model", 2)]
    assert read.label_values == (0, 5)
    assert read.label_maps is not None
    assert [int((one == 5).sum()) for one in read.label_maps] == [int((one == 5).sum()) for one in samples]


def test_samples_that_depend_on_other_scans_are_noted(run: Path, cohort: Path) -> None:
    tree = medvae.evaluate_augment(run, of(cohort, "test")).tree
    assert "training scans that are not among the real ones" in tree["notes"][0]


def test_the_model_of_another_run_is_refused(run: Path, cohort: Path, model: Path) -> None:
    other = replace(load(model), hash="another")
    with pytest.raises(InputError, match=f"of the model {load(model).hash[:12]}, not of another") as problem:
        medvae.evaluate_augment(run, of(cohort, "train"), model=other)
    assert problem.value.path == str(run)


def test_what_is_refused(run: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no finished run of augment"):
        medvae.evaluate_augment(tmp_path, cohort)
    with pytest.raises(SettingsError, match="held-out"):
        medvae.evaluate_augment(run, cohort, utility="segmentation")
    apart = {"holdout": of(cohort, "test"), "utility": "segmentation"}
    with pytest.raises(SettingsError, match="no reconstructions"):
        medvae.evaluate_augment(run, of(cohort, "train"), arms=[ARMS[2]], **apart)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="no arm 'clasical'"):
        medvae.evaluate_augment(run, cohort, arms=["clasical"])
    with pytest.raises(SettingsError, match="arms is empty"):
        medvae.evaluate_augment(run, cohort, arms=[])
    with pytest.raises(SettingsError, match="steps is 0"):
        medvae.evaluate_augment(run, cohort, plan=Plan(steps=0))
    with pytest.raises(InputError, match="1 real training subjects") as problem:
        medvae.evaluate_augment(run, of(cohort, "again"))
    assert problem.value.code == "too_few"
    with pytest.raises(RunError, match="cuda:99"):
        medvae.evaluate_augment(run, of(cohort, "train"), device="cuda:99")
    assert main(["evaluate", "augmet", str(run)]) == 2
    assert "augment" in capsys.readouterr().err


def test_every_entry_and_file_is_described(run: Path, cohort: Path) -> None:
    page = (ROOT / "docs" / "outputs.md").read_text("utf-8")
    place = medvae.evaluate_augment(run, of(cohort, "train"), holdout=of(cohort, "test")).out
    tree = json.loads((place / "augment.json").read_text("utf-8"))
    names = {*tree, *tree["fidelity"], *tree["fidelity"]["metrics"], *tree["copying"], *tree["screen"]}
    names |= {path.name for path in place.iterdir()}
    assert {name for name in names if f"`{name}`" not in page} == set()
