"""`medvae train` and `medvae.train`: what the folder holds, interruption, resumption, a longer training, refusal."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.cli.main import main
from medvae.errors import InputError, OutputError, SettingsError
from medvae.io.formats import nifti
from medvae.pipelines import calibrate, detect
from medvae.pipelines import train as pipeline
from medvae.scan import Geometry
from medvae.settings import load_settings
from medvae.training.logs import read_epochs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from medvae.run.work import Progress

WHOLE = {"vae", "detector", "latents", "training", "reference"}


def train(scans: Path, config: Path, out: Path, *more: str) -> int:
    return main(["train", str(scans), "--config", str(config), "--out", str(out), "--workers", "0", "--quiet", *more])


def test_the_folder_is_a_whole_model(trained_folder: Path) -> None:
    names = {path.name for path in trained_folder.iterdir()}
    assert {f"{name}.safetensors" for name in WHOLE} < names
    assert {
        "model.json",
        "run.json",
        "manifest.jsonl",
        "log",
        "curves.png",
        "reconstructions.png",
        "latent_map.json",
    } < names
    assert {"scans.json", "last", "best"} < names, "what a longer training needs"
    assert "cache" not in names, "prepared scans of patients go"
    lines = [json.loads(line) for line in (trained_folder / "manifest.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 5
    assert all((trained_folder / name).is_file() for line in lines for name in line["outputs"]), (
        "it lists what is there"
    )
    model = load(trained_folder)
    assert len(model.latents.ids) == len(model.training.ids) == 5
    assert model.settings.train.minutes is None
    assert model.record["steps"] == 6
    assert len(model.record["validation"]) == 1
    assert model.record["mean_image_error"] == read_epochs(trained_folder / "log")[-1].mean_image_error
    assert not reference_of(model).calibrated
    assert reference_of(model).n == 5
    fitted = {"atlas", "residual_z", "asymmetry", "contrast", "elbo_z", "kl_z", "fused"}
    fitted |= {"latent", "deviance_z", "fused_unaligned", "matched_residual", "matched_atlas", "denoised_z"}
    assert set(reference_of(model).training) == fitted


def test_a_detector_is_trained_and_trained_further(blocks: tuple[Path, Path], whole: Path, tmp_path: Path) -> None:
    before = load(whole)
    assert before.detector is None
    small = ("--set", "detector.channels=[4,8]", "--set", "detector.patch=[8,8,8]", "--set")
    assert train(*blocks, tmp_path / "both", *small, "detector.steps=2") == 0
    hashes = [load(tmp_path / "both").hash]
    assert train(*blocks, tmp_path / "both", *small, "detector.steps=4", "--resume") == 0
    after = load(tmp_path / "both")
    assert after.detector is not None
    assert after.settings.detector.steps == 4
    assert after.hash not in hashes
    assert {"detector"} < set(reference_of(after).maps)
    assert "detector" not in reference_of(before).maps
    same = {name: torch.equal(value, before.vae.state_dict()[name]) for name, value in after.vae.state_dict().items()}
    assert all(same.values()), "the detector has no part in the VAE"


def test_the_log_has_every_epoch(trained_folder: Path) -> None:
    epochs = read_epochs(trained_folder / "log")
    assert [epoch.step for epoch in epochs] == [3, 6]
    assert all(np.isfinite(epoch.loss) and epoch.validation is not None for epoch in epochs)
    assert any(path.name.startswith("events.out.tfevents") for path in (trained_folder / "log").iterdir())


def test_again_does_nothing(
    trained_folder: Path, brains: Path, small_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, record = (trained_folder / "model.json").stat().st_mtime_ns, (trained_folder / "run.json").read_bytes()
    assert train(brains / "train", small_config, trained_folder) == 0
    assert (trained_folder / "run.json").read_bytes() == record, "what is known of the run stays"
    assert "trained before" in capsys.readouterr().out
    assert (trained_folder / "model.json").stat().st_mtime_ns == before


def test_other_settings_are_refused(
    trained_folder: Path, brains: Path, small_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(brains / "train", small_config, trained_folder, "--seed", "7") == 2
    assert "overwrite" in capsys.readouterr().err


def stop_at(stage: str, done: int) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        if (progress.stage, progress.done) == (stage, done):
            raise KeyboardInterrupt

    return on_progress


def stopped(blocks: tuple[Path, Path], out: Path, stage: str, done: int) -> None:
    scans, config = blocks
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(scans, config=config, out=out, on_progress=stop_at(stage, done))


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a model folder, those apart that hold times."""
    timed = ("run.json", "manifest.jsonl", "last/state.safetensors", "review/index.html")
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {n: p.read_bytes() for n, p in files.items() if n not in timed and not n.startswith(("log/", "."))}


def test_python_and_the_command_write_the_same_bytes(blocks: tuple[Path, Path], whole: Path, tmp_path: Path) -> None:
    scans, config = blocks
    seen: list[Progress] = []
    model = pipeline.train(scans, config=config, out=tmp_path / "model", on_progress=seen.append)
    assert contents(tmp_path / "model") == contents(whole)
    assert model.path == tmp_path / "model"
    assert list(dict.fromkeys(one.stage for one in seen)) == ["prepare", "train", "latents", "reference statistics"]
    given = (sorted(scans.iterdir()), load_settings(str(config)))
    assert pipeline.train(given[0], config=given[1], out=str(tmp_path / "list")).hash == model.hash


@pytest.mark.parametrize(("stage", "done"), [("prepare", 3), ("train", 5), ("reference statistics", 3)])
def test_a_run_that_was_stopped_anywhere_ends_as_one_that_was_not(
    blocks: tuple[Path, Path], whole: Path, tmp_path: Path, stage: str, done: int
) -> None:
    scans, config = blocks
    stopped(blocks, tmp_path / "cut", stage, done)
    assert not (tmp_path / "cut" / "model.json").exists()
    if (stage, done) > ("train", 1) or stage != "prepare":
        assert (stage == "train" and done == 1) or (tmp_path / "cut" / "last").is_dir()
    pipeline.train(scans, config=config, out=tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(whole)
    assert [e.step for e in read_epochs(tmp_path / "cut" / "log")] == [2, 4, 6]


def test_an_interrupted_run_needs_to_be_told_to_go_on(
    blocks: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, config = blocks
    stopped(blocks, tmp_path / "cut", "train", 5)
    with pytest.raises(OutputError, match="interrupted training") as caught:
        pipeline.train(scans, config=config, out=tmp_path / "cut")
    assert "resume=True" in str(caught.value.hint)
    assert train(scans, config, tmp_path / "cut", "--resume") == 0
    assert "6 steps" in capsys.readouterr().out


@pytest.mark.parametrize("gone", ["curves.png", "run.json"])
def test_a_run_killed_between_weights_and_pictures_is_completed(
    blocks: tuple[Path, Path], whole: Path, tmp_path: Path, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, config = blocks

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        place = (pipeline.pictures, "curves") if gone == "curves.png" else (pipeline.OutputFolder, "finish")
        patch.setattr(*place, killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(scans, config=config, out=tmp_path / "cut")
    assert (tmp_path / "cut" / "model.json").is_file()
    with pytest.raises(OutputError, match="interrupted training"):
        pipeline.train(scans, config=config, out=tmp_path / "cut")
    pipeline.train(scans, config=config, out=tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(whole)
    assert json.loads((tmp_path / "cut" / "run.json").read_text("utf-8"))["model"] == load(whole).hash
    assert not (tmp_path / "cut" / "cache").exists()


# --------------------------------------------------------------------------------------------------- other scans


@pytest.mark.parametrize(("change", "finished"), [("added", False), ("removed", True), ("changed", False)])
def test_other_scans_are_refused_with_the_true_reason(
    blocks: tuple[Path, Path], whole: Path, tmp_path: Path, change: str, *, finished: bool
) -> None:
    """Public report: a scan came in while a training was interrupted, and resuming said "other settings"."""
    shutil.copytree(blocks[0], tmp_path / "scans")
    given = (tmp_path / "scans", blocks[1])
    if finished:
        shutil.copytree(whole, tmp_path / "model")
    else:
        stopped(given, tmp_path / "model", "train", 5)
    before = contents(tmp_path / "model")
    if change == "added":
        shutil.copy(given[0] / "s1.nii.gz", given[0] / "s9.nii.gz")
        (given[0] / "s9.nii.gz").write_bytes((given[0] / "s0.nii.gz").read_bytes()[:-1])
    elif change == "removed":
        (given[0] / "s3.nii.gz").unlink()
    else:
        shutil.copy(given[0] / "s0.nii.gz", given[0] / "s3.nii.gz")
    with pytest.raises(OutputError, match=rf"\({change}: s[39]\)") as caught:
        pipeline.train(given[0], config=given[1], out=tmp_path / "model", resume=True)
    assert "overwrite=True" in str(caught.value.hint)
    assert contents(tmp_path / "model") == before
    shutil.rmtree(given[0])
    shutil.copytree(blocks[0], given[0])
    pipeline.train(given[0], config=given[1], out=tmp_path / "model", resume=True)
    assert load(tmp_path / "model").hash == load(whole).hash, "with the scans that it began with it goes on"


def test_the_order_of_the_scans_is_that_of_the_beginning(blocks: tuple[Path, Path], tmp_path: Path) -> None:
    table, rows = tmp_path / "list.csv", [f"{blocks[0]}/s{i}.nii.gz,p{i}" for i in (4, 0, 5, 2, 1, 3)]
    table.write_text("\n".join(["scan,subject", *rows]) + "\n", "utf-8")
    whole = pipeline.train(table, config=blocks[1], out=tmp_path / "whole")
    stopped((table, blocks[1]), tmp_path / "cut", "train", 5)
    table.write_text("\n".join(["scan,subject", *sorted(rows)]) + "\n", "utf-8")
    assert pipeline.train(table, config=blocks[1], out=tmp_path / "cut", resume=True).hash == whole.hash


def test_another_subject_or_condition_is_another_scan(blocks: tuple[Path, Path], tmp_path: Path) -> None:
    rows = [f"{blocks[0]}/s{i}.nii.gz,p{i},{20 + i}" for i in range(6)]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(["scan,subject,age", *rows]) + "\n", "utf-8")
    stopped((table, blocks[1]), tmp_path / "model", "train", 5)
    table.write_text("\n".join(["scan,subject,age", *rows[:-1], rows[-1].replace("p5", "p4")]) + "\n", "utf-8")
    with pytest.raises(OutputError, match=r"\(changed: .*s5\)"):
        pipeline.train(table, config=blocks[1], out=tmp_path / "model", resume=True)


# ------------------------------------------------------------------------------------------------ a longer training


def test_a_finished_model_is_trained_further(blocks: tuple[Path, Path], whole: Path, tmp_path: Path) -> None:
    scans, config = blocks
    shutil.copytree(whole, tmp_path / "model")
    (tmp_path / "model" / "calibration").mkdir()
    longer = load_settings(str(config), ("train.steps=9",))
    with pytest.raises(OutputError, match="a finished model, trained for another number of steps") as caught:
        pipeline.train(scans, config=longer, out=tmp_path / "model")
    assert "resume=True" in str(caught.value.hint)
    assert load(tmp_path / "model").hash == load(whole).hash
    model = pipeline.train(scans, config=longer, out=tmp_path / "model", resume=True)
    assert model.record["steps"] == 9
    assert model.settings.train.plan == ((0, 6), (6, 9))
    assert model.hash != load(whole).hash
    assert [e.step for e in read_epochs(tmp_path / "model" / "log")] == [2, 4, 6, 8, 9]
    assert not (tmp_path / "model" / "calibration").exists(), "it was of the model before"
    again = pipeline.train(scans, config=model.settings, out=tmp_path / "again")
    assert again.hash == model.hash, "its record is enough to train it again"
    assert again.settings == model.settings


def test_without_its_state_a_model_cannot_be_trained_further(blocks: tuple[Path, Path], tmp_path: Path) -> None:
    scans, config = blocks
    brief = load_settings(str(config), ("train.keep_state=false",))
    pipeline.train(scans, config=brief, out=tmp_path / "model")
    assert not {"last", "best"} & {path.name for path in (tmp_path / "model").iterdir()}
    longer = load_settings(str(config), ("train.steps=9",))
    with pytest.raises(OutputError, match="state of its training was not kept"):
        pipeline.train(scans, config=longer, out=tmp_path / "model", resume=True)


# --------------------------------------------------------------------------------- conditions, plug-ins, label maps


def test_conditions_go_from_the_list_into_the_model(
    blocks: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"{blocks[0]}/s{i}.nii.gz,{20 + 10 * i},{'n/a' if i == 2 else 'ab'[i % 2]}" for i in range(6)]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(["scan,age,site", *rows]) + "\n", "utf-8")
    settings = load_settings(str(blocks[1]), ("model.conditions=[age, site]",))
    model = pipeline.train(table, config=settings, out=tmp_path / "model")
    assert model.conditions.names == ("age", "site")
    assert caplog.text.count("is missing for") == 1
    assert "condition 'site' is missing for 1 scan of 6 (" in caplog.text
    table.write_text("\n".join(["scan,age,site", *rows]).replace(",20,", ",-20,") + "\n", "utf-8")
    with pytest.raises(InputError, match="training has seen this scan"):
        calibrate.calibrate(model, table)
    assert caplog.text.count("implausible 'age' of 1 scan (") == 1
    detect.run(table, model=tmp_path / "model", out=tmp_path / "maps")
    assert caplog.text.count("implausible 'age' of 1 scan (") == 2
    assert model.conditions.columns[1].words == ("a", "b")
    trained_on = [i for i in range(6) if not any(name.endswith(f"s{i}") for name in model.record["validation"])]
    assert len(trained_on) == 5
    assert model.conditions.columns[0].mean == pytest.approx(np.mean([20 + 10 * i for i in trained_on]))
    z = model.encode(blocks[0] / "s1.nii.gz", conditions={"age": 30.0, "site": "b"})
    young, old = (model.decode(z, conditions={"age": age}).data for age in (20.0, 70.0))
    assert not np.array_equal(young, old)
    missing = load_settings(str(blocks[1]), ("model.conditions=[weight]",))
    with pytest.raises(SettingsError, match="no training scan has the condition 'weight'"):
        pipeline.train(table, config=missing, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_how_many_healthy_scans_calibrating_needs_is_named_before_training(
    blocks: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="medvae"):
        stopped(blocks, tmp_path / "model", "train", 1)
    assert "5 training scans, 1 validation scans (different subjects)" in caplog.text
    assert "at least 19 other healthy scans" in caplog.text


def test_a_model_that_the_mean_image_beats_is_warned_of(
    blocks: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Scans that are alike, which six steps cannot teach; without validation scans nothing is known of it."""
    said, rng = "worse than the mean of its training scans", np.random.default_rng(0)
    data = np.pad(100 + 20 * rng.normal(size=(14, 12, 10)), 3).astype(np.float32)
    for index in range(3):
        data[3, 3, 3] = index + 1
        nifti.write(tmp_path / f"scans/s{index}.nii.gz", data, Geometry(data.shape, np.eye(4)), description="block")
    known = load_settings(str(blocks[1]))
    pipeline.train(tmp_path / "scans", config=known, out=tmp_path / "model")
    assert said in caplog.text
    assert said in json.loads((tmp_path / "model" / "run.json").read_text("utf-8"))["warnings"][0]
    caplog.clear()
    unknown = load_settings(str(blocks[1]), ("train.validation=0",))
    assert pipeline.train(tmp_path / "scans", config=unknown, out=tmp_path / "unknown").warnings == ()
    assert said not in caplog.text


def test_a_bad_scan_does_not_stop_training(
    blocks: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, config = blocks
    shutil.copytree(scans, tmp_path / "scans")
    whole = (tmp_path / "scans" / "s0.nii.gz").read_bytes()
    (tmp_path / "scans" / "s0.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert train(tmp_path / "scans", config, tmp_path / "model") == 1
    assert "rejected (truncated): s0" in capsys.readouterr().out
    assert load(tmp_path / "model").latents.ids == ["s1", "s2", "s3", "s4", "s5"]
    assert train(tmp_path / "scans", config, tmp_path / "model") == 1, "it says so again"
    assert "rejected (truncated): s0" in capsys.readouterr().out


def test_overwrite_begins_anew(blocks: tuple[Path, Path], tmp_path: Path) -> None:
    scans, config = blocks
    assert train(scans, config, tmp_path / "model") == 0
    first = load(tmp_path / "model").hash
    assert train(scans, config, tmp_path / "model", "--seed", "3", "--overwrite") == 0
    assert load(tmp_path / "model").hash != first
    assert [e.step for e in read_epochs(tmp_path / "model" / "log")] == [2, 4, 6]
    assert (tmp_path / "model" / "review" / "index.html").is_file()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.nii.gz").write_bytes(b"no scan at all")
    assert train(tmp_path / "broken", config, tmp_path / "model", "--overwrite") == 2
    assert not (tmp_path / "model" / "review").exists(), "the page of a model that is gone"


def test_folders_of_the_users_own_are_refused_and_kept(
    blocks: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their names are those of a training's folders, which `--overwrite` removes."""
    scans, config = blocks
    own = [tmp_path / "own" / name for name in ("scans.json", "model.json")]
    own += [tmp_path / "own" / name / "mine" for name in ("folds", "best", "last", "cache", "calibration", "review")]
    own += [tmp_path / "own" / "review" / "index.html"]
    for path in own:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("years", "utf-8")
    shutil.copytree(scans, tmp_path / "scans")
    for more in ((), ("--overwrite",)):
        for out in (tmp_path / "own", tmp_path / "scans"):
            assert train(tmp_path / "scans", config, out, *more) == 2
            said = capsys.readouterr().err
            assert "holds other files" in said
            assert "--overwrite" not in said
    assert all(path.read_text("utf-8") == "years" for path in own)
    assert contents(tmp_path / "scans") == contents(scans), "nor a folder of scans that is named as the output, too"


def test_nothing_usable(blocks: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, config = blocks
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nii.gz").write_bytes(b"no scan at all")
    assert train(tmp_path / "scans", config, tmp_path / "model") == 2
    assert "none of the scans can be used" in capsys.readouterr().out
    with pytest.raises(InputError, match="none of the scans can be used; a: "):
        pipeline.train(tmp_path / "scans", config=config, out=tmp_path / "model")
