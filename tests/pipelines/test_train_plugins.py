"""Training with plug-ins: those of other packages, those that are broken, misspelt or of no use to the model."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING

import outside_package
import pytest

from medvae.checkpoint.folder import load
from medvae.cli.main import main
from medvae.errors import SettingsError
from medvae.pipelines import train as pipeline
from medvae.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path


def train(scans: Path, config: Path, out: Path, *more: str) -> int:
    return main(["train", str(scans), "--config", str(config), "--out", str(out), "--workers", "0", "--quiet", *more])


def test_network_and_likelihood_of_another_package_go_all_the_way(
    blocks: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"networks": {"minimal": outside_package.NETWORK}, "likelihoods": {"student": outside_package.LIKELIHOOD}}
    (tmp_path / "package").mkdir()
    with closing(outside_package.install(tmp_path / "package", sources, patch=monkeypatch)) as installed:
        next(installed)
        scans, config = blocks[0], tmp_path / "config.yaml"
        network = "model: {name: minimal, options: {latent: 5}}"
        config.write_text(re.sub("(?m)^model: .*", network, blocks[1].read_text("utf-8")), "utf-8")
        options = ("--set", "likelihood.family=student", "--set", "train.kl_warmup=0.9")
        assert train(scans, config, tmp_path / "model", *options) == 0
        model = load(tmp_path / "model")
        assert model.settings.likelihood.options == {"nu": 4.0}
        assert type(model.vae).__name__ == "Minimal"
        command = ["detect", str(scans), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "maps")]
        assert main([*command, "--workers", "0", "--quiet"]) == 0
        assert (tmp_path / "maps" / "scans" / "s0" / "nll.nii.gz").is_file()
        assert train(scans, config, tmp_path / "other", "--set", "likelihood.family=studnet") == 2
        assert "did you mean 'student'" in capsys.readouterr().err


def test_plug_ins_that_cannot_be_imported_stop_nobody_else(
    blocks: tuple[Path, Path], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package").mkdir()
    sources = {kind: {"broken": "import nothing_of_this_name"} for kind in ("maps", "networks", "likelihoods")}
    with closing(outside_package.install(tmp_path / "package", sources, patch=monkeypatch)) as installed:
        next(installed)
        model = pipeline.train(blocks[0], config=blocks[1], out=tmp_path / "model")
    assert model.hash == load(whole).hash


def test_a_map_that_the_model_cannot_have_is_refused_before_anything_is_read(
    blocks: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = load_settings(str(blocks[1]), ("detect.maps=[residual_z]",))
    with pytest.raises(SettingsError, match="'residual_z' compares voxel by voxel"):
        pipeline.train(blocks[0], config=settings, out=tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("model.name=spatail", "there is no 'spatail' among the networks"),
        ("model.options.blocks=0", "blocks is 0 in networks.spatial: it must be at least 1"),
        ("likelihood.family=laplac", "there is no 'laplac' among the likelihoods"),
        ("likelihood.options.nu=1", "unknown setting 'nu' in likelihoods.gaussian"),
        ("detect.maps=[residul]", "there is no 'residul' among the maps"),
        ("detect.options.residual.sign=dim", "sign is 'dim' in maps.residual"),
        ("augment.sampler=densty", "there is no 'densty' among the samplers"),
        ("augment.options.x=1", "unknown setting 'x' in samplers.density"),
        ("prepare.shape=[25,24,16]", "25x24x16 is not divisible by the model's stride 4"),
        ("prepare.modality=SHAPE detector.steps=5", "the scans are binary shapes"),
        ("prepare.modality=SHAPE train.randomize.corrupt_anomalies=1", "the scans are binary shapes"),
        ("prepare.modality=SHAPE train.randomize.corrupt_noise=1", "the scans are binary shapes"),
    ],
)
def test_plug_ins_and_options_are_checked_before_scans_are_looked_for(
    blocks: tuple[Path, Path], tmp_path: Path, overrides: str, said: str
) -> None:
    settings = load_settings(str(blocks[1]), tuple(overrides.split()))
    with pytest.raises(SettingsError) as caught:
        pipeline.train(tmp_path / "nothing is here", config=settings, out=tmp_path / "model")
    assert said in str(caught.value)
    assert not (tmp_path / "model").exists()
