"""A checkpoint folder: all of it comes back, every damaged part is noticed and said in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import small_model
import torch

from medvae.anomaly.inference import infer
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.arrays import save_set
from medvae.checkpoint.folder import find_device, load, save
from medvae.checkpoint.model import build_vae, weights_hash
from medvae.errors import ModelError, RunError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

FILES = (
    "model.json",
    "vae.safetensors",
    "latents.safetensors",
    "training.safetensors",
    "reference.safetensors",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save(small_model.trained(), folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_holds_these_files_and_no_others(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == sorted(FILES)


def test_everything_comes_back(saved: Path) -> None:
    ours, theirs = small_model.trained(), load(saved)
    assert theirs.hash == ours.hash == weights_hash(theirs.networks)
    assert theirs.settings == ours.settings
    assert theirs.preparation.hash == ours.preparation.hash
    assert reference_of(theirs).hash == reference_of(ours).hash
    assert theirs.record == {"steps": 40}
    assert np.array_equal(theirs.latents.mean, ours.latents.mean)
    assert np.array_equal(theirs.latents.log_variance, ours.latents.log_variance)
    for name in ("ids", "subjects", "labels", "hashes"):
        assert getattr(theirs.latents, name) == getattr(ours.latents, name)
    assert np.array_equal(theirs.training.images, ours.training.images)
    assert np.array_equal(theirs.training.masks, ours.training.masks)
    assert theirs.training.masks.dtype == bool
    assert theirs.training.intensities == ours.training.intensities
    assert (theirs.training.ids, theirs.training.units) == (ours.training.ids, "a.u.")
    prepared = small_model.scan(40, align="mni152")
    again, first = infer(theirs, prepared), infer(ours, prepared)
    assert np.array_equal(again.moments.negative_elbo, first.moments.negative_elbo)
    network = cast("nn.Module", theirs.vae)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert theirs.device == torch.device("cpu")


def test_saving_again_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    save(load(saved), tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes(), name


def test_label_maps_and_infinite_bounds_come_back(tmp_path: Path) -> None:
    ours = small_model.trained()
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 3, size=ours.training.images.shape).astype(np.int16)
    intensities = [replace(one, low=-np.inf, high=np.inf) for one in ours.training.intensities]
    changed = replace(ours, training=replace(ours.training, label_maps=maps, intensities=intensities))
    save(changed, tmp_path / "model")
    theirs = load(tmp_path / "model")
    assert theirs.training.label_maps is not None
    assert np.array_equal(theirs.training.label_maps, maps)
    assert theirs.training.intensities == intensities
    assert "Infinity" not in (tmp_path / "model" / "model.json").read_text("utf-8")


def test_a_new_reference_replaces_one_file(copied: Path, saved: Path) -> None:
    other = replace(reference_of(load(copied)), calibrated=True, n=3)
    save_set(copied, "reference", other.to_set())
    assert reference_of(load(copied)).hash == other.hash
    for name in FILES[:-1]:
        assert (copied / name).read_bytes() == (saved / name).read_bytes()


def refused(folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(folder)
    problem = caught.value
    assert "\n" not in str(problem)
    assert len(str(problem)) < 320
    assert problem.path == str(folder)
    return problem


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(copied: Path, name: str) -> None:
    (copied / name).unlink()
    problem = refused(copied)
    assert problem.hint
    if name == "model.json":
        assert "not a model folder: there is no model.json in it" in str(problem)


def test_no_folder(tmp_path: Path) -> None:
    problem = refused(tmp_path / "nowhere")
    assert "the folder is not there" in str(problem)
    assert "medvae train" in str(problem.hint)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(copied: Path, name: str, keep: float) -> None:
    data = (copied / name).read_bytes()
    (copied / name).write_bytes(data[: int(keep * (len(data) - 1))])
    assert refused(copied).hint


@pytest.mark.parametrize("where", [0.0, 0.01, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("name", FILES[1:])
def test_a_flipped_bit(copied: Path, name: str, where: float) -> None:
    data = bytearray((copied / name).read_bytes())
    data[int(where * (len(data) - 1))] ^= 4
    (copied / name).write_bytes(data)
    refused(copied)


EDITS: dict[str, Any] = {
    "weights of another": lambda tree: tree.update(hash="0" * 64),
    "no hash": lambda tree: tree.pop("hash"),
    "unknown setting": lambda tree: tree["settings"].update(extra=1),
    "wrong type": lambda tree: tree["settings"]["prepare"].update(shape="big"),
    "another network": lambda tree: tree["settings"]["model"]["options"].update(latent=3),
    "no such network": lambda tree: tree["settings"]["model"].update(name="os.system"),
    "a grid that does not fit": lambda tree: tree["settings"]["prepare"].update(shape=[17, 16, 16]),
    "another preparation": lambda tree: tree["settings"]["prepare"].update(spacing=[3, 3, 3]),
    "fewer ids": lambda tree: tree["latents"]["ids"].pop(),
    "fewer subjects": lambda tree: tree["latents"]["subjects"].pop(),
    "unknown column": lambda tree: tree["latents"].update(names=[]),
    "fewer training ids": lambda tree: tree["training"]["ids"].pop(),
    "fewer intensities": lambda tree: tree["training"]["intensities"].pop(),
    "intensity of another kind": lambda tree: tree["training"]["intensities"].__setitem__(0, {"gain": 1}),
    "another preparation's hash": lambda tree: tree.update(preparation_hash="x"),
    "no files": lambda tree: tree.update(files={}),
    "a list for an object": lambda tree: tree.update(settings=[]),
    "no record": lambda tree: tree.update(record=3),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_model_json(copied: Path, edit: str) -> None:
    tree = json.loads((copied / "model.json").read_text("utf-8"))
    EDITS[edit](tree)
    (copied / "model.json").write_text(json.dumps(tree), "utf-8")
    refused(copied)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\xff", '{"format": 2}'])
def test_a_model_json_that_is_none(copied: Path, text: str) -> None:
    (copied / "model.json").write_bytes(text.encode("latin-1"))
    refused(copied)


@pytest.mark.parametrize("other", [1, 3])
def test_another_format_is_refused_by_name(copied: Path, other: int) -> None:
    tree = json.loads((copied / "model.json").read_text("utf-8"))
    (copied / "model.json").write_text(json.dumps({**tree, "format": other}), "utf-8")
    problem = refused(copied)
    assert f"format {other} is not the 2" in str(problem)
    assert "version of medvae" in str(problem.hint)


def test_the_reference_of_another_model_is_refused(copied: Path) -> None:
    save_set(copied, "reference", replace(reference_of(load(copied)), model_hash="x").to_set())
    assert "belongs to another model" in str(refused(copied))


@pytest.mark.parametrize("name", ["latents", "training"])
def test_the_file_of_another_checkpoint_is_refused(copied: Path, tmp_path: Path, name: str) -> None:
    ours = load(copied)
    latents, training = (
        replace(ours.latents, mean=-ours.latents.mean),
        replace(ours.training, images=-ours.training.images),
    )
    save(replace(ours, latents=latents, training=training), tmp_path / "other")
    shutil.copy(tmp_path / "other" / f"{name}.safetensors", copied)
    assert f"{name}.safetensors is not the file" in str(refused(copied))


def test_devices(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert find_device("auto") == find_device("cpu") == "cpu"
    for name in ("cuda", "cuda:3"):
        with pytest.raises(RunError, match=f"no device '{name}': torch sees 0 GPUs") as caught:
            load(saved, device=name)
        assert "device='cpu'" in str(caught.value.hint)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("auto") == "cuda"
    assert find_device("cuda:1") == "cuda:1"
    with pytest.raises(RunError, match="torch sees 2 GPUs"):
        find_device("cuda:2")


def test_the_hash_is_of_the_weights_alone() -> None:
    network = build_vae(small_model.settings())
    before = weights_hash({"vae": network})
    assert before == weights_hash({"vae": build_vae(small_model.settings())})
    assert before != small_model.trained().hash
    with torch.no_grad():
        next(iter(network.parameters())).mul_(1.01)
    assert weights_hash({"vae": network}) != before
