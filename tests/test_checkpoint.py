"""A checkpoint folder: all of it comes back, and every damaged part is noticed and named in one line."""

from __future__ import annotations

import errno
import importlib
import io
import json
import shutil
import sys
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import outside_package
import pytest
import small_model
import torch

from medvae.anomaly.inference import infer
from medvae.anomaly.reference import reference_of
from medvae.checkpoint.arrays import ArraySet, save_set
from medvae.checkpoint.folder import FORMAT, find_device, load, save
from medvae.checkpoint.model import build_network, build_vae, weights_hash
from medvae.errors import ModelError, RunError
from medvae.training.fabric import make_fabric
from medvae.vae.conditions import Conditions

if TYPE_CHECKING:
    from pathlib import Path

FILES = (
    "model.json",
    "vae.safetensors",
    "detector.safetensors",
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
    assert np.array_equal(again.reconstruction, first.reconstruction)
    assert not theirs.vae.training
    assert not any(parameter.requires_grad for parameter in theirs.vae.parameters())
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
    assert "not a model folder: it does not exist" in str(problem)
    assert "train a model first" in str(problem.hint)


def test_a_training_that_was_interrupted(tmp_path: Path) -> None:
    (tmp_path / "last").mkdir()
    problem = refused(tmp_path)
    assert "interrupted" in str(problem)
    assert problem.hint == "run the training again with resume=True"


def test_a_file_of_a_model_is_named_with_its_folder(copied: Path) -> None:
    problem = refused(copied / "vae.safetensors")
    assert "but a file" in str(problem)
    assert problem.hint == f"give its folder: {copied}"


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
    "another network": lambda tree: tree["networks"]["vae"]["options"].update(latent=3),
    "no such network": lambda tree: tree["networks"]["vae"].update(name="os.system"),
    "no such likelihood": lambda tree: tree["settings"]["likelihood"].update(family="os.system"),
    "a network without file": lambda tree: tree["networks"].update(second=tree["networks"]["vae"]),
    "no network": lambda tree: tree.update(networks={}),
    "a grid that does not fit": lambda tree: tree["settings"]["prepare"].update(shape=[17, 16, 16]),
    "another preparation": lambda tree: tree["settings"]["prepare"].update(spacing=[3, 3, 3]),
    "latents of another": lambda tree: tree["sets"].update(latents="0" * 64),
    "a set without hash": lambda tree: tree["sets"].pop("training"),
    "a set that is not there": lambda tree: tree["others"].append("more"),
    "conditions that are none": lambda tree: tree.update(conditions=[{"name": "age"}]),
    "conditions of another network": lambda tree: tree.update(
        conditions=[{"name": "age", "words": [], "mean": 1.0, "sd": 1.0}]
    ),
    "another preparation's hash": lambda tree: tree.update(preparation_hash="x"),
    "a list for an object": lambda tree: tree.update(settings=[]),
    "no record": lambda tree: tree.update(record=3),
    "no preparation's hash": lambda tree: tree.pop("preparation_hash"),
    "a set in another folder": lambda tree: tree["others"].append("../elsewhere/reference"),
    "a network in another folder": lambda tree: tree["networks"].update({"../x": tree["networks"]["vae"]}),
    "folds without a model": lambda tree: tree["record"].update(folds=[{}]),
    "folds that leave nobody out": lambda tree: tree["record"].update(folds=[{"model": "x", "held_out": "s"}]),
    "no list of folds": lambda tree: tree["record"].update(folds=None),
    "a word for an error": lambda tree: tree["record"].update(validation_error="x"),
    "a list for an error": lambda tree: tree["record"].update(mean_image_error=[]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_model_json(copied: Path, edit: str) -> None:
    tree = json.loads((copied / "model.json").read_text("utf-8"))
    EDITS[edit](tree)
    (copied / "model.json").write_text(json.dumps(tree), "utf-8")
    refused(copied)


@pytest.mark.parametrize("name", ["", "..", "{}/elsewhere", "../elsewhere", "../model/reference"])
def test_no_path_in_a_model_json_is_opened(copied: Path, name: str) -> None:
    """A good set lies there, so that only the name can be refused."""
    shutil.copy(copied / "reference.safetensors", copied.parent / "elsewhere.safetensors")
    tree, named = json.loads((copied / "model.json").read_text("utf-8")), name.format(copied.parent)
    (copied / "model.json").write_text(json.dumps({**tree, "others": ["reference", named]}), "utf-8")
    assert "is not the name of a file in it" in str(refused(copied))


@pytest.mark.parametrize("name", FILES[1:])
def test_a_damaged_file_is_named_in_message_and_hint(copied: Path, name: str) -> None:
    data = (copied / name).read_bytes()
    for wrong in (b"", data[: len(data) // 2], bytes(len(data))):
        (copied / name).write_bytes(wrong)
        problem = refused(copied)
        assert f"the checkpoint is damaged ({name}: " in str(problem)
        assert problem.hint == f"copy {name} again, or train again"


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_file(copied: Path, name: str) -> None:
    (copied / name).unlink()
    (copied / name).mkdir()
    assert refused(copied).hint


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\xff", '{"format": 2}'])
def test_a_model_json_that_is_none(copied: Path, text: str) -> None:
    (copied / "model.json").write_bytes(text.encode("latin-1"))
    refused(copied)


@pytest.mark.parametrize("other", [FORMAT - 1, FORMAT + 1])
def test_another_format_is_refused_by_name(copied: Path, other: int) -> None:
    tree = json.loads((copied / "model.json").read_text("utf-8"))
    (copied / "model.json").write_text(json.dumps({**tree, "format": other}), "utf-8")
    problem = refused(copied)
    assert f"format {other} is not the {FORMAT}" in str(problem)
    assert "version of medvae" in str(problem.hint)


def test_the_reference_of_another_model_is_refused(copied: Path) -> None:
    save_set(copied, "reference", replace(reference_of(load(copied)), model_hash="x").to_set())
    with pytest.raises(ModelError, match="another model"):
        reference_of(load(copied))


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


@pytest.mark.parametrize("name", ["model.json", "vae.safetensors", "reference.safetensors"])
def test_a_file_without_permission_is_no_damage(copied: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The root of a container may read everything, so the refusal is made here."""
    real = io.open

    def guarded(file: Any, *more: Any, **named: Any) -> Any:
        if str(file).endswith(name):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return real(file, *more, **named)

    monkeypatch.setattr("builtins.open", guarded)
    monkeypatch.setattr(io, "open", guarded)
    problem = refused(copied)
    assert f"{name}: Permission denied" in str(problem)
    assert str(problem.hint) == "ask its owner for permission to read the folder and all files in it"


def test_devices(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert find_device("auto") == find_device("cpu") == "cpu"
    for name in ("cuda", "cuda:3"):
        with pytest.raises(RunError, match=f"no device '{name}': torch sees 0 GPUs") as caught:
            load(saved, device=name)
        assert "device='cpu'" in str(caught.value.hint)
    for name in ("gpu", "cuda:x", "cuda-1"):
        with pytest.raises(RunError, match=f"'{name}' is not a device"):
            load(saved, device=name)
    for name in ("gpu", "cuda"):
        with pytest.raises(RunError, match=r"no device|not a device"):
            make_fabric(name, precision="auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("auto") == "cuda"
    assert find_device("cuda:1") == "cuda:1"
    with pytest.raises(RunError, match="torch sees 2 GPUs"):
        find_device("cuda:2")


def test_posteriors_and_list_beside_them_are_of_one_length(copied: Path) -> None:
    ours = load(copied)
    short = replace(ours.latents, ids=ours.latents.ids[:-1])
    save(replace(ours, latents=short), copied)
    assert "the posteriors are of other scans" in str(refused(copied))
    short_training = replace(ours.training, ids=ours.training.ids[:-1])
    save(replace(ours, training=short_training), copied)
    assert "the images are of other scans" in str(refused(copied))


def test_several_networks_and_sets_come_back_under_their_names(tmp_path: Path) -> None:
    ours = small_model.trained()
    options = {"channels": [4], "latent": 3}
    second = build_network("flat", options, settings=ours.settings)
    extra = ArraySet({"values": np.arange(3)}, {"unit": "mm"}, "three values")
    networks = {**ours.networks, "segmenter": second}
    both = replace(ours, networks=networks, hash=weights_hash(networks)).with_set("extra", extra)
    save(both, tmp_path / "model")
    theirs = load(tmp_path / "model")
    assert set(theirs.networks) == {"vae", "detector", "segmenter"}
    assert theirs.hash == both.hash != ours.hash
    again = theirs.networks["segmenter"]
    assert again.architecture["name"] == "flat"
    assert again.latent_shape(small_model.SHAPE) == (3,)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in second.state_dict().items())
    assert theirs.vae.architecture == ours.vae.architecture
    assert theirs.sets["extra"].hash == extra.hash
    assert "three values" in repr(theirs)
    (tmp_path / "model" / "segmenter.safetensors").unlink()
    assert "segmenter" in str(refused(tmp_path / "model"))


def test_networks_and_sets_do_not_overwrite_each_other(tmp_path: Path) -> None:
    ours = small_model.trained()
    with pytest.raises(ValueError, match="different names"):
        save(replace(ours, networks={**ours.networks, "latents": ours.vae}), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_with_conditions_comes_back(tmp_path: Path) -> None:
    ages = Conditions.fit(["age", "sex"], [{"age": 20.0, "sex": "F"}, {"age": 60.0, "sex": "M"}])
    ours = small_model.trained()
    vae = build_vae(ours.settings, ages).eval()
    save(replace(ours, networks={"vae": vae}, hash=weights_hash({"vae": vae}), conditions=ages), tmp_path / "model")
    theirs = load(tmp_path / "model")
    assert theirs.conditions == ages
    assert "conditions age, sex" in repr(theirs)
    c = theirs.condition({"age": 60.0})
    assert c is not None
    assert c.tolist() == [[1, 0, 0, 0, 1]]
    assert small_model.trained().condition({"age": 60.0}) is None


def test_a_network_of_a_package_that_is_gone_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package").mkdir()
    sources = {"networks": {"minimal": outside_package.NETWORK}}
    ours = small_model.trained()
    with (
        monkeypatch.context() as patch,
        closing(outside_package.install(tmp_path / "package", sources, patch=patch)) as installed,
    ):
        next(installed)
        vae = build_network("minimal", {}, settings=ours.settings).eval()
        save(replace(ours, networks={"vae": vae}, hash=weights_hash({"vae": vae})), tmp_path / "model")
        assert load(tmp_path / "model").vae.architecture == {"name": "minimal", "options": {"latent": 3}}
        (tmp_path / "package" / "outside_networks_minimal.py").write_text("import nothing_of_this_name", "utf-8")
        del sys.modules["outside_networks_minimal"]
        importlib.invalidate_caches()
        problem = refused(tmp_path / "model")
        assert "damaged" not in str(problem)
        assert "'minimal'" in str(problem)
        assert "repair" in str(problem.hint)
    problem = refused(tmp_path / "model")
    assert "there is no 'minimal' among the networks" in str(problem)
    assert "damaged" not in str(problem)


def test_the_hash_is_of_the_weights_alone() -> None:
    network = build_vae(small_model.settings())
    before = weights_hash({"vae": network})
    assert before == weights_hash({"vae": build_vae(small_model.settings())})
    assert before != small_model.trained().hash
    with torch.no_grad():
        next(iter(network.parameters())).mul_(1.01)
    assert weights_hash({"vae": network}) != before
