"""Maps of other packages: found, ordered by what they use, calibrated and detected; a broken one harms nobody."""

from __future__ import annotations

import csv
import shutil
from typing import TYPE_CHECKING

import linear_model
import nibabel as nib
import numpy as np
import outside_maps
import pytest

from medvae import plugins
from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.calibrate import make_reference
from medvae.anomaly.configured import configured, needs_alignment, usable
from medvae.anomaly.inference import infer
from medvae.anomaly.options import check_maps
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.folder import load
from medvae.cli.main import main
from medvae.errors import SettingsError
from medvae.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

OURS = plugins.names("maps")


def test_used_maps_come_first_and_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside_maps.install(tmp_path, monkeypatch, a=outside_maps.using("residual_z", "b"), b=outside_maps.using("nll"))
    assert list(configured(["kl", "a"], {})) == ["kl", "atlas", "residual_z", "nll", "b", "a"]
    assert (needs_alignment("a"), needs_alignment("b")) == (True, False)
    assert set(usable(linear_model.bare_model(aligned=False))) == {
        name for name in (*OURS, "b") if not needs_alignment(name)
    }
    settings = Settings.model_validate({"detect": {"maps": ["a"]}})
    with pytest.raises(SettingsError, match="'a' compares voxel by voxel"):
        check_maps(settings)


def test_maps_that_use_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outside_maps.install(
        tmp_path, monkeypatch, a=outside_maps.using("b"), b=outside_maps.using("c"), c=outside_maps.using("b")
    )
    with pytest.raises(SettingsError, match="use each other in a circle: b -> c -> b"):
        configured(["a"], {})
    model = linear_model.bare_model()
    assert usable(model, ["restoration"]) == OURS
    assert {*OURS} - {*usable(model)} == {"restoration"}
    assert "circle" in caplog.text


def test_a_map_that_uses_an_unknown_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside_maps.install(tmp_path, monkeypatch, a=outside_maps.using("residul"))
    with pytest.raises(SettingsError, match="there is no 'residul'"):
        configured(["a"], {})


def test_one_that_cannot_be_used_is_left_out_of_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outside_maps.install(tmp_path, monkeypatch, broken=outside_maps.BROKEN, old=outside_maps.OLD)
    made = make_reference(linear_model.bare_model(), linear_model.healthy(2), calibrated=False)
    assert set(made.maps) == {*OURS} - {"restoration"}
    assert "a_package_that_is_not_installed" in caplog.text
    assert "the map 'old' has no class Map" in caplog.text
    with pytest.raises(SettingsError, match="cannot be imported"):
        configured(["broken"], {})


def test_a_map_may_use_the_values_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As their `map` gave them: a scale is known only after calibration, and healthy scores must mean the same."""
    outside_maps.install(tmp_path, monkeypatch, a=outside_maps.using("residual_z", "nll"))
    model, scans = linear_model.bare_model(), linear_model.healthy(4)
    made = make_reference(model, scans, names=["a"], calibrated=False)
    assert set(made.maps) == {"a", "atlas", "residual_z", "nll"}
    inference = infer(model, linear_model.scan(900))
    scale = np.float32(made.maps["residual_z"].scale)
    parts = [anomaly_map(name, inference, made).values * by for name, by in (("residual_z", scale), ("nll", 1))]
    np.testing.assert_allclose(anomaly_map("a", inference, made).values, sum(parts), rtol=1e-5, atol=1e-5)
    assert made.maps["a"].scale == 1


def test_a_map_may_use_other_networks_of_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = outside_maps.using().replace(
        "return sum(one.map for one in arrays.used.values())",
        "return inference.model.networks['second'].encode(inference.image).mean.sum().item() * inference.foreground",
    )
    outside_maps.install(tmp_path, monkeypatch, second=source)
    model = linear_model.bare_model()
    model = type(model)(**{**vars(model), "networks": {"vae": model.vae, "second": linear_model.Linear()}})
    made = make_reference(model, linear_model.healthy(2), names=["second"], calibrated=False)
    assert len(set(made.maps["second"].scores)) == 2


# ------------------------------------------------------------------------------------------------- on the command line


@pytest.fixture(scope="module")
def with_theirs(trained_folder: Path, brains: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that was trained without another package's map and calibrated with it; the folder of the package."""
    folder = tmp_path_factory.mktemp("theirs")
    shutil.copytree(trained_folder, folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        outside_maps.install(folder, patch, theirs=outside_maps.THEIRS, broken=outside_maps.BROKEN)
        options = ["--set", "detect.options.theirs.power=2", "--quiet", "--workers", "0"]
        assert detect(brains, trained_folder, folder / "never", "theirs") == 2, "it is not calibrated yet"
        scans = str(brains / "healthy")
        assert main(["calibrate", scans, "--model", str(folder / "model"), *options]) == 0
    return folder / "model", folder / "outside"


def detect(brains: Path, model: Path, out: Path, *maps: str) -> int:
    wanted = [text for name in maps for text in ("--map", name)]
    scan = str(brains / "new" / "ill.nii.gz")
    return main(["detect", scan, "--model", str(model), "--out", str(out), *wanted, "--quiet", "--workers", "0"])


def test_a_map_of_another_package_is_calibrated_and_detected(
    with_theirs: tuple[Path, Path], brains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are no statistics of the training scans that it could start from."""
    model, package = with_theirs
    monkeypatch.syspath_prepend(str(package))
    known = reference_of(load(model))
    assert known.maps["theirs"].options == {"power": 2.0}
    assert set(known.maps["theirs"].arrays) == {"mean", "sd"}
    assert "theirs" not in known.training
    assert detect(brains, model, tmp_path / "out", "theirs", "residual") == 0
    written = nib.load(tmp_path / "out" / "scans" / "ill" / "theirs.nii.gz")
    assert np.asarray(written.dataobj).any()
    assert written.header["descrip"].tobytes().decode().startswith("theirs, z, calibrated, n=3")
    (row,) = csv.DictReader((tmp_path / "out" / "scores.csv").read_text("utf-8").splitlines())
    assert float(row["theirs_p"]) in (0.25, 0.5, 0.75, 1.0)


def test_a_model_lives_on_when_the_package_is_gone(
    with_theirs: tuple[Path, Path], brains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = with_theirs
    assert "theirs" in reference_of(load(model)).maps
    assert detect(brains, model, tmp_path / "out", "residual") == 0
    assert detect(brains, model, tmp_path / "other", "theirs") == 2
    assert "there is no 'theirs' among the maps" in capsys.readouterr().err
