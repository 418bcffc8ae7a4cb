"""`medvae augment`: synthetic scans that tools read, records that repeat them, the copy audit; the bytes of Python."""

from __future__ import annotations

import csv
import doctest
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import outside_sampler
import pytest
import torch
from monai.data import load_decathlon_datalist

import medvae
from medvae import load_model, plugins, synthesize
from medvae.checkpoint.folder import load, save
from medvae.checkpoint.kept import Latents
from medvae.checkpoint.model import build_vae, weights_hash
from medvae.cli.main import main
from medvae.errors import OutputError
from medvae.pipelines import augment as pipeline
from medvae.synthesis.generate import Synthesizer
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.synthesis.generate import Sample


def augment(model: Path, out: Path, count: int, *more: str) -> int:
    return main(["augment", "--model", str(model), "--out", str(out), "--count", str(count), "--quiet", *more])


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def trained(brains: Path, out: Path, *config: str) -> Path:
    """A model of the small brains, on a coarse grid and for two steps."""
    small = ("train.steps=2", "train.batch=1", "prepare.spacing=[8, 8, 8]", "prepare.shape=[24, 28, 24]")
    sets = [word for text in (*small, "model.options={stem: 4, channels: [8]}") for word in ("--set", text)]
    command = ["train", str(brains / "train"), *config, *sets, "--out", str(out)]
    assert main([*command, "--quiet", "--workers", "0"]) == 0
    return out


@pytest.fixture(scope="module")
def demo_folder(brains: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained as the demo's."""
    return trained(brains, tmp_path_factory.mktemp("demo") / "model", "--config", "demo")


@pytest.fixture(scope="module")
def shape_folder(brains: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the network `deform`, which the sampler `anatomy` needs."""
    config = ("--config", "demo", "--set", "model.name=deform")
    return trained(brains, tmp_path_factory.mktemp("shape") / "model", *config)


@pytest.fixture(scope="module")
def written(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("augmented") / "set"
    assert augment(model_folder, out, 3) == 0
    return out


def test_scans_are_in_real_units_on_a_real_grid(written: Path, model_folder: Path) -> None:
    model = load(model_folder)
    for index in range(3):
        image = nib.load(written / "images" / f"synthetic-{index:05d}.nii.gz")
        values = np.asarray(image.dataobj)
        assert image.shape == model.preparation.grid.shape
        assert np.abs(image.affine - model.preparation.grid.affine).max() < 1e-4
        assert (values >= 0).all()
        assert (values == 0).mean() > 0.3, "a stripped brain lies in zeros"
        scales = [one.offset for one in model.training.intensities]
        assert min(scales) / 2 < np.median(values[values > 0]) < max(scales) * 2, "as bright as real scans"
        assert image.header["descrip"].tobytes().startswith(b"synthetic")


def test_the_sidecar_says_synthetic_and_how_made(written: Path, model_folder: Path) -> None:
    record = json.loads((written / "images" / "synthetic-00001.json").read_text("utf-8"))
    assert record["synthetic"] is True
    assert record["sampler"] == "density"
    assert record["model"] == load(model_folder).hash
    assert record["index"] == 1
    assert "not for diagnosis" in record["notice"]
    assert {"nearest", "distance", "copy", "copy_threshold"} <= set(record["audit"])


def test_lists_are_read_by_monai_and_by_medvae(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = load_decathlon_datalist(str(written / "dataset.json"), is_segmentation=False, data_list_key="training")
    assert len(items) == 3
    assert all(nib.load(item["image"]).ndim == 3 and item["synthetic"] is True for item in items)
    assert main(["info", str(written / "labels.csv"), "--quiet"]) == 0
    assert "synthetic-00002" in capsys.readouterr().out


def test_the_audit_has_samples_beside_real_scans(written: Path) -> None:
    rows = table(written / "audit.csv")
    synthetic, real = ([row for row in rows if row["kind"] == kind] for kind in ("synthetic", "real"))
    assert (len(synthetic), len(real)) == (3, 5)
    assert all(float(row["distance"]) > 0 and row["copy"] in ("yes", "no") for row in synthetic)
    assert all(row["nearest"] != row["id"] for row in real)
    record = json.loads((written / "run.json").read_text("utf-8"))
    assert record["copies"] == sum(row["copy"] == "yes" for row in synthetic)
    assert (written / "montage.png").stat().st_size > 10_000


def test_the_same_seed_gives_the_same_bytes_and_more_are_added(
    written: Path, model_folder: Path, tmp_path: Path
) -> None:
    assert augment(model_folder, tmp_path / "set", 2) == 0
    names = [f"images/synthetic-{i:05d}{suffix}" for i in range(2) for suffix in (".nii.gz", ".json")]
    assert all((tmp_path / "set" / name).read_bytes() == (written / name).read_bytes() for name in names)
    first = (tmp_path / "set" / names[0]).stat().st_mtime_ns
    assert augment(model_folder, tmp_path / "set", 3) == 0
    assert (tmp_path / "set" / names[0]).stat().st_mtime_ns == first, "what is there is not made again"
    for name in (*names, "images/synthetic-00002.nii.gz", "audit.csv", "labels.csv", "dataset.json"):
        assert (tmp_path / "set" / name).read_bytes() == (written / name).read_bytes()
    assert augment(model_folder, tmp_path / "set", 3, "--seed", "9") == 2, "another seed is another set"


def test_a_smaller_count_loses_no_row_of_the_tables(model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert augment(model_folder, out, 3) == 0
    before = {name: (out / name).read_bytes() for name in TABLES}
    assert augment(model_folder, out, 1) == 0
    assert {name: (out / name).read_bytes() for name in TABLES} == before


TABLES = ("labels.csv", "audit.csv", "dataset.json", "montage.png")
SAMPLERS = [name for name in plugins.names("samplers") if name != "lesion"]  # which needs lesions: test_lesions.py


# ------------------------------------------------------------------------------------- the command and Python


def files(folder: Path) -> dict[str, bytes]:
    """The files of the samples by name: images, sidecars, label maps."""
    found = (path for part in ("images", "labels") for path in (folder / part).glob("*"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def same_files(model: Path, folder: Path, sampler: str, changes: dict[str, Any]) -> None:
    """Write a set by the command and by Python, and compare all bytes."""
    seed = ["--seed", str(changes["seed"])] if "seed" in changes else []
    sets = [
        word
        for name, value in changes.items()
        if name != "seed"
        for word in ("--set", f"augment.{name}={json.dumps(value)}")
    ]
    assert augment(model, folder / "command", 2, "--sampler", sampler, *seed, *sets) == 0
    for sample in synthesize(model, 2, sampler=sampler, **changes):
        sample.save(folder / "python")
    assert files(folder / "command") == files(folder / "python")
    assert len(files(folder / "python")) >= 4
    rows = table(folder / "command" / "labels.csv")
    assert {row["scan"] for row in rows} <= set(files(folder / "python"))


def for_sampler(sampler: str, folder: Path, shape_folder: Path, tmp_path: Path) -> Path:
    """A model that a sampler can be fitted to: of shapes for `anatomy`, of three times as many codes for `flow`."""
    if sampler != "flow":
        return shape_folder if sampler == "anatomy" else folder
    model, rng = load(folder), np.random.default_rng(0)
    latents = model.latents
    noise = rng.standard_normal((2, *latents.mean.shape)).astype(np.float32)
    names = [[f"{name}-{more}" for name in latents.ids] for more in range(2)]
    more = Latents(
        np.concatenate([latents.mean, *(latents.mean + noise)]),
        np.concatenate([latents.log_variance] * 3),
        [*latents.ids, *names[0], *names[1]],
        [*latents.subjects, *names[0], *names[1]],
        list(latents.labels) * 3,
        [*latents.hashes, *names[0], *names[1]],
        list(latents.conditions) * 3,
    )
    save(replace(model, latents=more), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_command_and_python_write_the_same_bytes(
    sampler: str, model_folder: Path, shape_folder: Path, tmp_path: Path
) -> None:
    same_files(for_sampler(sampler, model_folder, shape_folder, tmp_path), tmp_path, sampler, {})
    values = np.asarray(nib.load(tmp_path / "command" / "images" / "synthetic-00000.nii.gz").dataobj)
    assert np.isfinite(values).all()
    assert values.std() > 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_they_do_on_a_model_of_the_demo(sampler: str, demo_folder: Path, shape_folder: Path, tmp_path: Path) -> None:
    model = for_sampler(sampler, demo_folder, shape_folder, tmp_path)
    same_files(model, tmp_path, sampler, {"seed": 7, "classes": "balanced", "texture": True})


def test_they_do_with_conditions_and_label_maps(demo_folder: Path, tmp_path: Path) -> None:
    model = conditional(demo_folder, tmp_path / "model")
    same_files(model, tmp_path / "density", "density", {"conditions": {"age": 70}})
    rows = table(tmp_path / "density" / "command" / "labels.csv")
    assert [(row["age"], row["sex"] in ("F", "M")) for row in rows] == [("70", True)] * 2
    same_files(model, tmp_path / "classical", "classical", {})
    assert {name.partition("/")[0] for name in files(tmp_path / "classical" / "python")} == {"images", "labels"}
    changed = synthesize(model, 1, sampler="density", conditions={"age": 20})
    first = nib.load(tmp_path / "density" / "python" / "images" / "synthetic-00000.nii.gz")
    assert not np.array_equal(next(changed).image.data, np.asarray(first.dataobj)), "the network is given the age"


def conditional(folder: Path, out: Path) -> Path:
    """The model with label maps and an untrained network that is given age and sex."""
    model = load(folder)
    latents = model.latents
    people = [{"age": 20.0 + 10 * i, "sex": "FM"[i % 2]} for i in range(len(latents.ids))]
    known = Conditions.fit(("age", "sex"), people)
    networks = {"vae": build_vae(model.settings, known)}
    maps = model.training.masks.astype(np.int16)
    with_people = Latents(
        latents.mean, latents.log_variance, latents.ids, latents.subjects, latents.labels, latents.hashes, people
    )
    changed = replace(
        model,
        networks=networks,
        hash=weights_hash(networks),
        conditions=known,
        latents=with_people,
        training=replace(model.training, label_maps=maps),
        sets={},
    )
    save(changed, out)
    return out


def test_the_docstring_examples_run(demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(demo_folder)
    for public in (synthesize, medvae.Synthetic, medvae.SyntheticDataset, medvae.RandSyntheticd):
        found = doctest.DocTestFinder(recurse=False).find(
            public, module=False, globs={"medvae": medvae, "torch": torch}
        )
        assert [test.examples for test in found] != [[]]
        assert all(doctest.DocTestRunner().run(test).failed == 0 for test in found)
    assert len(files(tmp_path / "synthetic")) == 4


def test_a_model_in_memory_gives_what_its_folder_gives(demo_folder: Path) -> None:
    one, other = (next(synthesize(model, 1)) for model in (load_model(demo_folder), str(demo_folder)))
    assert np.array_equal(one.image.data, other.image.data)
    assert one.record == other.record


def test_the_pipeline_prints_nothing(demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    finished = pipeline.run(demo_folder, out=tmp_path / "set", count=2, on_progress=seen.append)
    assert capsys.readouterr().out == ""
    assert (finished.out, finished.exit_code) == (tmp_path / "set", 0)
    assert [one.id for one in finished.summary.outcomes] == ["synthetic-00000", "synthetic-00001"]
    assert any("near-copies" in line for line in finished.lines)
    assert [(one.stage, one.done, one.total) for one in seen if one.stage == "augment"] == [
        ("augment", done, 2) for done in (0, 1, 2)
    ]
    assert seen[0].stage == "copy screen"


# ------------------------------------------------------------------------------------------------ other samplers


def test_a_sampler_of_another_package(
    demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    source = outside_sampler.SOURCE.replace("dict(self.latents.conditions[a])", "{}")
    outside_sampler.install(package, source)
    monkeypatch.syspath_prepend(str(package))
    try:
        with pytest.raises(SystemExit):
            main(["augment", "--help"])
        assert outside_sampler.NAME in capsys.readouterr().out
        same_files(demo_folder, tmp_path, outside_sampler.NAME, {"options": {"share": 0.25}})
    finally:
        sys.modules.pop("crossover_of_others", None)
    record = json.loads((tmp_path / "command" / "images" / "synthetic-00001.json").read_text("utf-8"))
    assert (record["sampler"], record["parameters"]) == (outside_sampler.NAME, {"share": 0.25})


def test_a_copy_is_caught(model_folder: Path, tmp_path: Path) -> None:
    """The classical chain with all its steps off gives training scans back."""
    steps = ("spatial", "gamma", "bias", "blur", "noise")
    off = "{" + ", ".join(f"{step}: 0" for step in steps) + "}"
    change = ["--set", f"augment.options={{randomize: {off}}}"]
    assert augment(model_folder, tmp_path / "set", 2, "--sampler", "classical", *change) == 0
    rows = [row for row in table(tmp_path / "set" / "audit.csv") if row["kind"] == "synthetic"]
    assert [row["copy"] for row in rows] == ["yes", "yes"]
    assert all(float(row["distance"]) < 1e-3 for row in rows)


def test_altered_scans_are_counted_as_those_of_a_patient(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert augment(model_folder, tmp_path / "set", 2, "--sampler", "classical") == 0
    assert "2 of 2 samples derived from a patient" in capsys.readouterr().out
    record = json.loads((tmp_path / "set" / "run.json").read_text("utf-8"))
    assert record["derived_from_one_subject"] == 2


def test_a_sample_that_cannot_be_drawn_is_rejected_and_the_others_are_written(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Synthesizer.sample

    def blank(self: Synthesizer, index: int, *, attempt: int = 0) -> Sample:
        sample = real(self, index, attempt=attempt)
        return replace(sample, image=np.zeros_like(sample.image)) if index == 1 else sample

    monkeypatch.setattr(Synthesizer, "sample", blank)
    assert augment(model_folder, tmp_path / "set", 3) == 1
    record = json.loads((tmp_path / "set" / "run.json").read_text("utf-8"))
    assert (record["counts"], record["not_generated"]) == ({"ok": 2, "rejected": 1}, 1)
    lines = (tmp_path / "set" / "manifest.jsonl").read_text("utf-8").splitlines()
    (rejected,) = [one for line in lines if (one := json.loads(line))["status"] == "rejected"]
    assert (rejected["id"], rejected["code"]) == ("synthetic-00001", "implausible")
    assert [row["scan"] for row in table(tmp_path / "set" / "labels.csv")] == [
        f"images/synthetic-0000{index}.nii.gz" for index in (0, 2)
    ]
    assert "--set augment.reject=false" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------- layouts


def test_layouts_are_written_by_the_command_and_by_python(demo_folder: Path, tmp_path: Path) -> None:
    model = conditional(demo_folder, tmp_path / "model")
    raw = tmp_path / "Dataset001_Both"
    options = ["--sampler", "classical", "--layout", "nnunet"]
    assert augment(model, raw, 2, *options) == 0
    chosen = load(model)
    augmented = chosen.settings.augment.model_copy(update={"layout": "nnunet"})
    chosen = replace(chosen, settings=chosen.settings.model_copy(update={"augment": augmented}))
    for sample in synthesize(chosen, 2, sampler="classical"):
        sample.save(tmp_path / "python")
    same = [path.relative_to(tmp_path / "python") for path in (tmp_path / "python").rglob("*") if path.is_file()]
    assert len(same) == 6
    assert all((raw / name).read_bytes() == (tmp_path / "python" / name).read_bytes() for name in same)
    assert (raw / "audit.csv").is_file()

    assert augment(model, tmp_path / "more", 3, *options, "--merge-with", str(raw)) == 2, "its names are taken"


def test_what_a_layout_cannot_hold_is_refused_before_anything_is_written(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert augment(demo_folder, tmp_path / "set", 1, "--layout", "nnunet") == 2
    assert augment(demo_folder, tmp_path / "set", 1, "--layout", "monai", "--merge-with", str(tmp_path)) == 2
    assert augment(demo_folder, tmp_path / "set", 1, "--layout", "nnunett") == 2
    text = capsys.readouterr().err
    assert "needs label maps" in text
    assert "the list of the real set cannot be read" in text
    assert "did you mean 'nnunet'?" in text
    assert not (tmp_path / "set").exists()


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("text", ["train.lr=1", "detect.draws=3", "model.name=flat", "prepare.align=none"])
def test_settings_without_effect_are_refused(
    text: str, demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert augment(demo_folder, tmp_path / "set", 1, "--set", text) == 2
    assert text.partition(".")[0] in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_other_training_scans_are_another_set(demo_folder: Path, tmp_path: Path) -> None:
    """The same weights with fewer kept scans: what they give is not what lies there."""
    pipeline.run(demo_folder, out=tmp_path / "set", count=1)
    model = load(demo_folder)
    kept = model.training
    fewer = replace(
        kept, images=kept.images[:3], masks=kept.masks[:3], intensities=kept.intensities[:3], ids=kept.ids[:3]
    )
    save(replace(model, training=fewer), tmp_path / "model")
    assert load(tmp_path / "model").hash == model.hash
    with pytest.raises(OutputError, match="another run"):
        pipeline.run(tmp_path / "model", out=tmp_path / "set", count=1)
