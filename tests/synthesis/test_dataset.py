"""Synthetic scans in a training loop: the same items whatever the workers, MONAI's seeds, a network that learns."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.data import Dataset as MonaiDataset
from monai.losses import DiceLoss
from monai.networks.blocks import Convolution
from monai.transforms import Compose, NormalizeIntensityd, SpatialPadd
from toy_model import SHAPE, toy_model

import medvae
from medvae import RandSyntheticd, SyntheticDataset, synthesize
from medvae.errors import ScanError, SettingsError
from medvae.synthesis import copies
from medvae.synthesis.synthetic import Accepted, SampleJob, SyntheticSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from medvae.checkpoint.model import Model
    from medvae.synthesis.copies import CopyScreen


@pytest.fixture(scope="module")
def model() -> Model:
    return toy_model(n=8, labels=("a", "b"), label_maps=True)


def scans(model: Model, count: int = 6, **more: Any) -> SyntheticDataset:
    return SyntheticDataset(model, count, sampler="classical", **more)


def test_an_item_is_what_synthesize_gives(model: Model) -> None:
    dataset = scans(model, seed=3)
    assert len(dataset) == 6
    for number, scan in enumerate(synthesize(model, 6, sampler="classical", seed=3)):
        item = dataset[number]
        assert isinstance(item["image"], MetaTensor)
        np.testing.assert_array_equal(item["image"][0].numpy(), scan.image.data)
        np.testing.assert_array_equal(item["label"][0].numpy(), scan.label_map)
        np.testing.assert_allclose(item["image"].affine, scan.image.geometry.affine)
        assert (item["class"], item["id"], item["sources"]) == (scan.label, scan.id, ";".join(scan.sources))


@pytest.mark.parametrize("count", [-3, 1.5])
def test_a_count_that_is_none_is_refused_at_once(model: Model, count: Any) -> None:
    with pytest.raises(SettingsError, match=f"count is {count}: a whole number"):
        scans(model, count)


def test_the_copy_screen_is_fitted_only_where_it_decides(model: Model) -> None:
    """It takes minutes for 200 brains; of one person's altered scan it is known whose it is."""
    altered, decoded = scans(model), SyntheticDataset(model, 2, sampler="density")
    assert ("screen" in vars(altered.whole), "screen" in vars(decoded.whole)) == (False, True)
    assert altered[0]["sources"]
    assert decoded[0]["sources"] == ""
    assert "screen" not in vars(altered.whole)


def test_worker_processes_do_not_fit_the_copy_screen_again(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits, fit = tmp_path / "fits", copies.fit

    def counted(*args: Any, **more: Any) -> CopyScreen:
        with fits.open("a") as file:
            file.write("1")
        return fit(*args, **more)

    monkeypatch.setattr(copies, "fit", counted)
    loader = DataLoader(SyntheticDataset(model, 2, sampler="density"), batch_size=1, num_workers=2)
    for _ in range(2):  # epochs
        assert len(list(loader)) == 2
    assert fits.read_text() == "1"


def test_what_a_sampler_does_not_give_is_not_there(model: Model) -> None:
    assert scans(model).parts == ("image", "label", "class")
    decoded = SyntheticDataset(toy_model(n=8), 1, sampler="density")
    assert decoded.parts == ("image",)
    assert set(decoded[0]) == {"image", "id", "sources"}


def test_all_items_have_the_same_keys_where_only_some_scans_have_a_class() -> None:
    """Otherwise no loader can put them together."""
    dataset = scans(toy_model(n=8, labels=("a", None), label_maps=True))
    assert dataset.parts == ("image", "label")
    batch = next(iter(DataLoader(dataset, batch_size=6)))
    assert set(batch) == {"image", "label", "id", "sources"}


def test_it_ends_where_a_list_would(model: Model) -> None:
    dataset = scans(model, 2)
    assert torch.equal(dataset[-1]["image"], dataset[1]["image"])
    for index in (2, -3):
        with pytest.raises(IndexError):
            dataset[index]
    assert len(list(dataset)) == 2


@pytest.mark.parametrize("number", [np.int64(1), torch.tensor(1)])
def test_an_index_may_be_of_numpy_or_torch(model: Model, number: Any) -> None:
    """As `torch.randperm` gives them."""
    dataset = scans(model, 2)
    assert dataset[number]["id"] == dataset[1]["id"]


def test_an_index_that_is_no_whole_number_is_refused(model: Model) -> None:
    with pytest.raises(TypeError, match="interpreted as an integer"):
        scans(model, 2)[0.5]  # type: ignore[index]


def test_workers_give_the_same_items(model: Model) -> None:
    loaded = [list(DataLoader(scans(model, 4), batch_size=2, num_workers=workers)) for workers in (0, 2)]
    for one, other in zip(*loaded, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["label"], other["label"])
        assert (one["class"], one["id"]) == (other["class"], other["id"])


def test_it_can_be_sent_to_a_worker(model: Model) -> None:
    dataset = scans(model)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[2]["image"], dataset[2]["image"])


def test_a_training_loop_of_monai(model: Model) -> None:
    """A convolution learns the labels, which lie where the images are bright."""
    torch.manual_seed(0)
    prepared = Compose([NormalizeIntensityd("image", nonzero=True), SpatialPadd(["image", "label"], (16, 20, 16))])
    loader = DataLoader(MonaiDataset(scans(model, 8), prepared), batch_size=4, shuffle=False)
    network, loss = Convolution(3, 1, 1, act=None, norm=None), DiceLoss(sigmoid=True)
    optimiser = torch.optim.Adam(network.parameters(), 0.2)
    seen = []
    for _ in range(8):
        for batch in loader:
            value = loss(network(batch["image"].as_tensor()), batch["label"].as_tensor())
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            seen.append(float(value.detach()))
    assert np.mean(seen[-2:]) < 0.8 * np.mean(seen[:2])


# ------------------------------------------------------------------------------------------------- the transform


def real() -> dict[Any, Any]:
    return {"image": torch.zeros(1, *SHAPE), "label": torch.zeros(1, *SHAPE), "class": "real", "age": 50}


def transform(model: Model, **more: Any) -> RandSyntheticd:
    return RandSyntheticd(["image", "label", "class"], model, sampler="classical", **more)


def test_the_scan_of_an_item_is_replaced(model: Model) -> None:
    item = real()
    changed = transform(model, prob=1.0)(item)
    assert changed["image"].any()
    assert changed["label"].any()
    assert (changed["class"] in ("a", "b"), changed["age"]) == (True, 50)
    assert item["class"] == "real", "the item itself stays"
    kept = transform(model, prob=0.0)(item)
    assert kept["class"] == "real"


def test_its_state_is_that_of_monai(model: Model) -> None:
    change = transform(model)
    runs = []
    for seed in (0, 0, 1):
        change.set_random_state(seed)
        runs.append([change(real()) for _ in range(8)])
    first, again, other = [[item["image"].sum().item() for item in run] for run in runs]
    assert first == again != other
    assert 0 < sum(item["class"] == "real" for item in runs[0]) < 8, "about half of them"


def implausible(monkeypatch: pytest.MonkeyPatch, refused: Callable[[int], bool]) -> None:
    """All draws of some numbers are rejected."""
    accepted = SyntheticSet.accepted

    def some(self: SyntheticSet, index: int) -> Accepted:
        if refused(index):
            raise ScanError("all draws were rejected", code="implausible")
        return accepted(self, index)

    monkeypatch.setattr(SyntheticSet, "accepted", some)


def test_an_implausible_scan_does_not_end_a_training(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    change = transform(model, prob=1.0)
    change.set_random_state(0)
    change.randomize()
    drawn = change.number
    implausible(monkeypatch, lambda index: index in (drawn, drawn + 1))
    ids = []
    for _ in range(2):
        change.set_random_state(0)
        ids.append(change(real())["image"].meta["filename_or_obj"])
    assert ids == [SampleJob(drawn + 2).id] * 2, "the next one that is plausible, each time"


def test_a_model_whose_scans_are_all_implausible_is_told_of(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    implausible(monkeypatch, lambda _: True)
    with pytest.raises(ScanError, match="all draws were rejected"):
        transform(model, prob=1.0)(real())


def test_keys_may_be_called_otherwise(model: Model) -> None:
    change = RandSyntheticd("img", model, parts=["image"], prob=1.0, sampler="classical", allow_missing_keys=True)
    assert change({"img": torch.zeros(1, *SHAPE)})["img"].any()
    assert change({}) == {}


@pytest.mark.parametrize(("keys", "parts"), [(["seg"], None), (["label"], None), (["a", "b"], ["image"])])
def test_parts_that_there_are_not_are_refused(keys: list[str], parts: list[str] | None) -> None:
    with pytest.raises(SettingsError, match="the synthetic scans have the parts image, not"):
        RandSyntheticd(keys, toy_model(n=4), parts=parts, sampler="density")


def test_both_are_public() -> None:
    assert {"SyntheticDataset", "RandSyntheticd"} <= set(medvae.__all__)
