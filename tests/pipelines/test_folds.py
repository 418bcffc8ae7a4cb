"""`medvae train --folds`: a model that is calibrated on its own training scans, and what other commands make of it."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.checkpoint.folds import load_folds
from medvae.cli.main import main
from medvae.errors import ModelError, OutputError, SettingsError
from medvae.io.formats import nifti
from medvae.pipelines import calibrate
from medvae.pipelines import train as pipeline
from medvae.scan import Geometry
from medvae.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from medvae.run.work import Progress
    from medvae.settings import Settings


@pytest.fixture(scope="session")
def folded(blocks: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the blocks with two folds, by the command. Do not write into it."""
    scans, config = blocks
    out = tmp_path_factory.mktemp("folded") / "model"
    command = ["train", str(scans), "--config", str(config), "--out", str(out), "--workers", "0", "--quiet"]
    assert main([*command, "--folds", "2"]) == 0
    return out


def settings(blocks: tuple[Path, Path], *more: str, folds: int = 2) -> Settings:
    return load_settings(str(blocks[1]), (f"train.folds={folds}", *more))


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a model folder, those apart that hold times."""
    timed = ("run.json", "manifest.jsonl", "last/state.safetensors", "review/index.html")
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    skipped = {name for name in files if name.endswith(timed) or "log/" in name or name.startswith(".")}
    return {name: path.read_bytes() for name, path in files.items() if name not in skipped}


def test_the_model_is_calibrated_on_its_own_scans(
    blocks: tuple[Path, Path], folded: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, plain = load(folded), load(whole)
    assert model.hash == plain.hash, "folds have no part in the model itself"
    reference = reference_of(model)
    assert (reference.status, reference.cross_fitted) == ("cross-fitted, n=6", 6)
    assert sorted(reference.scan_hashes) == sorted(model.latents.hashes)
    for name in ("residual", "nll"):
        assert len(reference.maps[name].scores) == 6
        assert not np.array_equal(reference.maps[name].scores, reference_of(plain).maps[name].scores)
    assert reference.p_value("nll", 1e9) == pytest.approx(1 / 7)
    pipeline.run(blocks[0], settings=settings(blocks), out=folded)
    lines = json.loads((folded / "run.json").read_text("utf-8"))
    assert [one["model"] for one in lines["folds"]] == list(reference.folds)


def test_folds_are_models_that_have_not_seen_their_part(folded: Path) -> None:
    model, folds = load(folded), load_folds(load(folded))
    held_out = [sorted(one.held_out) for one in folds]
    assert sorted(name for part in held_out for name in part) == model.latents.ids
    assert [len(part) for part in held_out] == [3, 3]
    assert json.loads((folded / "folds" / "parts.json").read_text("utf-8")) == held_out
    for number, fold in enumerate(folds, start=1):
        assert not fold.held_out & set(fold.model.latents.ids)
        assert len(fold.model.latents.ids) == 3
        assert fold.model.record["steps"] == model.record["steps"] == 6
        assert not fold.model.training.ids, "scans of patients are kept once"
        assert fold.model.path == folded / "folds" / str(number)
        assert not (folded / "folds" / str(number) / "curves.png").exists()
        assert not reference_of(fold.model).calibrated
    assert len({model.hash, *(one.model.hash for one in folds)}) == 3


def stop_at(stage: str, done: int) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        if (progress.stage, progress.done) == (stage, done):
            raise KeyboardInterrupt

    return on_progress


def test_python_and_the_command_write_the_same_bytes(blocks: tuple[Path, Path], folded: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    pipeline.train(blocks[0], config=settings(blocks), out=tmp_path / "model", on_progress=seen.append)
    assert contents(tmp_path / "model") == contents(folded)
    rest = [f"fold {k} of 2: {stage}" for k in (1, 2) for stage in ("latents", "reference statistics")]
    expected = ["prepare", "train", "fold 1 of 2: train", "fold 2 of 2: train", *rest]
    expected += ["latents", "reference statistics", "cross-fitting"]
    assert list(dict.fromkeys(one.stage for one in seen)) == expected


@pytest.mark.parametrize(
    ("stage", "done"), [("fold 1 of 2: train", 3), ("fold 2 of 2: train", 5), ("fold 2 of 2: latents", 2)]
)
def test_an_interrupted_run_goes_on_with_the_fold_that_it_was_in(
    blocks: tuple[Path, Path], folded: Path, tmp_path: Path, stage: str, done: int
) -> None:
    out, chosen = tmp_path / "cut", settings(blocks)
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(blocks[0], config=chosen, out=out, on_progress=stop_at(stage, done))
    assert not (out / "model.json").exists()
    seen: list[Progress] = []
    pipeline.train(blocks[0], config=chosen, out=out, resume=True, on_progress=seen.append)
    assert contents(out) == contents(folded)
    trained = {one.stage for one in seen if one.stage.endswith("train")}
    rest = {"fold 1 of 2: train", "fold 2 of 2: train"} if stage.startswith("fold 1") else {stage}
    assert trained == (rest if stage.endswith("train") else set()), "nothing is trained twice"


def test_folds_can_be_added_and_taken_away(
    blocks: tuple[Path, Path], whole: Path, folded: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "model")
    with pytest.raises(OutputError, match="steps, minutes or folds"):
        pipeline.train(blocks[0], config=settings(blocks), out=tmp_path / "model")
    pipeline.train(blocks[0], config=settings(blocks), out=tmp_path / "model", resume=True)
    assert contents(tmp_path / "model") == contents(folded)
    pipeline.train(blocks[0], config=settings(blocks, folds=3), out=tmp_path / "model", resume=True)
    assert reference_of(load(tmp_path / "model")).in_words.endswith("(3 folds)")
    pipeline.train(blocks[0], config=str(blocks[1]), out=tmp_path / "model", resume=True)
    assert contents(tmp_path / "model") == contents(whole)


def test_a_longer_training_trains_the_folds_further(blocks: tuple[Path, Path], folded: Path, tmp_path: Path) -> None:
    shutil.copytree(folded, tmp_path / "model")
    chosen = settings(blocks, "train.steps=9")
    model = pipeline.train(blocks[0], config=chosen, out=tmp_path / "model", resume=True)
    folds = load_folds(model)
    assert [one.model.settings.train.plan for one in folds] == [((0, 6), (6, 9))] * 2
    assert not {one.model.hash for one in folds} & set(reference_of(load(folded)).folds)
    assert reference_of(model).folds == tuple(one.model.hash for one in folds)


def test_a_time_budget_is_shared_by_all_trainings(blocks: tuple[Path, Path], tmp_path: Path) -> None:
    chosen = settings(blocks, "train.minutes=0.02", "train.keep_state=false")
    model = pipeline.train(blocks[0], config=chosen, out=tmp_path / "model")
    record = json.loads((tmp_path / "model" / "run.json").read_text("utf-8"))
    assert (record["length"]["minutes"], record["length"]["folds"]) == (0.02, 2)
    for fold in load_folds(model):
        assert fold.model.settings.train.plan == model.settings.train.plan, "step by step as the model"
        assert fold.model.record["steps"] == model.record["steps"]
    left = {path.name for path in (tmp_path / "model").rglob("*")}
    assert not {"last", "best"} & left, "no state is kept"


def test_more_folds_than_subjects_are_refused_before_anything_is_written(
    blocks: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="the scans are of 6 subjects"):
        pipeline.train(blocks[0], config=settings(blocks, folds=7), out=tmp_path / "model")
    assert not (tmp_path / "model").exists()


# ------------------------------------------------------------------------------------------- calibrate and detect


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    rng = np.random.default_rng(7)
    for index in range(2):
        data = np.zeros((20, 18, 16), np.float32)
        data[3:17, 3:15, 3:13] = 100 + 20 * rng.normal(size=(14, 12, 10))
        nifti.write(tmp_path / f"healthy/h{index}.nii.gz", data, Geometry(data.shape, np.eye(4)), description="block")
    return tmp_path / "healthy"


def test_calibrating_adds_to_the_scans_of_the_training_and_detect_uses_both(
    blocks: tuple[Path, Path], folded: Path, healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(folded, model)
    before = reference_of(load(model))
    assert main(["calibrate", str(healthy), "--model", str(model), "--workers", "0"]) == 0
    said = capsys.readouterr()
    assert "calibrated on 6 healthy scans of its training, by cross-fitting (2 folds), and on 2 more" in said.out
    assert "has kept" not in said.err
    after = reference_of(load(model))
    assert (after.n, after.cross_fitted, after.status) == (8, 6, "cross-fitted, n=8")
    own = set(before.maps["nll"].scores.tolist())
    assert len(own & set(after.maps["nll"].scores.tolist())) == 6, "a map without statistics scores them as before"
    scans = tmp_path / "scans"
    shutil.copytree(healthy, scans)
    shutil.copy(blocks[0] / "s0.nii.gz", scans)
    assert (
        main(
            ["detect", str(scans), "--model", str(model), "--out", str(tmp_path / "maps"), "--quiet", "--workers", "0"]
        )
        == 0
    )
    table = (tmp_path / "maps" / "scores.csv").read_text("utf-8")
    rows = {row["id"]: row for row in csv.DictReader(table.splitlines())}
    assert "seen_in_training" in rows["s0"]["warnings"]
    assert "seen_in_calibration" not in rows["s0"]["warnings"]
    assert "seen_in_calibration" in rows["h0"]["warnings"]
    assert {row["n"] for row in rows.values()} == {"8"}
    assert {row["calibrated"] for row in rows.values()} == {"yes"}
    findings = json.loads((tmp_path / "maps" / "scans" / "h0" / "findings.json").read_text("utf-8"))
    assert findings["reference"] == "cross-fitted, n=8"
    again = calibrate.calibrate(folded, healthy, out=tmp_path / "python")
    assert reference_of(again).hash == after.hash


def test_where_not_all_scans_are_kept_calibrating_uses_those_that_are(
    blocks: tuple[Path, Path], healthy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = settings(blocks, "train.keep_scans=4")
    model = pipeline.train(blocks[0], config=chosen, out=tmp_path / "model")
    assert reference_of(model).n == 6
    calibrated = calibrate.calibrate(model, healthy)
    assert reference_of(calibrated).n == 6
    assert reference_of(calibrated).cross_fitted == 4
    assert "uses the 4 of 6 training scans that the model has kept" in caplog.text


def test_a_fold_of_another_model_is_refused(folded: Path, healthy: Path, tmp_path: Path) -> None:
    shutil.copytree(folded, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "folds" / "1")
    with pytest.raises(ModelError, match="not a model folder"):
        calibrate.calibrate(tmp_path / "model", healthy)
    shutil.copytree(folded / "folds" / "2", tmp_path / "model" / "folds" / "1")
    with pytest.raises(ModelError, match="was not trained with the model"):
        calibrate.calibrate(tmp_path / "model", healthy)
    assert reference_of(load(tmp_path / "model")).n == 6, "the model itself does not need them"
