"""The network `joint` learns where structures lie, decodes labels from a code alone, and keeps them in a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from labelled_training import trained
from small_model import SHAPE

from medvae.checkpoint.folder import load, save
from medvae.checkpoint.model import build_vae
from medvae.errors import SettingsError
from medvae.settings import Settings
from medvae.training.losses import Objective
from medvae.vae.base import TrainingScan, elbo
from medvae.vae.distances import censored_log_prob, truncated_distances
from medvae.vae.networks.joint import Joint

if TYPE_CHECKING:
    from pathlib import Path


OPTIONS = {"stem": 2, "channels": [8, 16], "latent": 3}
SPACING = (4.0, 4.0, 4.0)
REACH = 12.0


def settings(**train: object) -> Settings:
    tree = {
        "prepare": {"modality": "MR", "shape": SHAPE, "spacing": SPACING},
        "model": {"name": "joint", "options": {**OPTIONS, "reach": REACH}},
        "train": {"steps": 4, "validate_every": 2, "precision": "32", "kl_warmup": 0.0, **train},
    }
    return Settings.model_validate(tree)


def network(**options: object) -> Joint:
    tree = {"prepare": {"shape": SHAPE}, "model": {"name": "joint", "options": {**OPTIONS, "reach": REACH, **options}}}
    vae = build_vae(Settings.model_validate(tree))
    assert isinstance(vae, Joint)
    return vae


def ball(shift: float, *, labelled: bool = True) -> TrainingScan:
    """A bright ball that has moved along x; its halves have the labels 3 and 9."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    distance = (x - shift) ** 2 + y**2 + z**2
    image = torch.from_numpy(np.exp(-3 * distance).astype(np.float32))[None]
    labels = np.where(distance < 0.3, np.where(y > 0, 9, 3), 0).astype(np.int16)
    label_map = torch.from_numpy(labels)[None] if labelled else None
    return TrainingScan(image, torch.ones(1, *SHAPE, dtype=torch.bool), label_map, SPACING)


def label_map_of(one: TrainingScan) -> torch.Tensor:
    assert one.label_map is not None
    return one.label_map[None]


def origin(net: Joint) -> torch.Tensor:
    return torch.zeros(1, *net.latent_shape(SHAPE))


def cases() -> list[TrainingScan]:
    return [ball(shift) for shift in (-0.1, 0.0, 0.1, 0.2)]


def test_the_untrained_decoder_gives_the_mean_label_map() -> None:
    net = network()
    net.begin([ball(0.1), ball(0.1), ball(0.0, labelled=False)])
    assert net.labels == (3, 9)
    with torch.no_grad():
        labels = net.decode_labels(origin(net))
    assert labels.dtype == torch.int16
    assert torch.equal(labels, label_map_of(ball(0.1)))


def test_a_structure_that_half_of_the_scans_have_is_far_away_in_the_others() -> None:
    net, other = network(), ball(0.0)
    without = label_map_of(other)[0].clone()
    without[without == 9] = 0
    net.begin([other, other._replace(label_map=without)])
    with torch.no_grad():
        mean = net.distances(origin(net))
    expected = (truncated_distances(label_map_of(other), (9,), SPACING, reach=REACH) - REACH) / 2
    torch.testing.assert_close(mean[:, 1:], expected, atol=1e-4, rtol=0)


def test_label_loss_is_in_nats_and_only_over_what_is_labelled() -> None:
    net, one = network(), ball(0.1)
    net.begin([ball(0.0)])
    both = torch.cat([label_map_of(one), torch.full_like(label_map_of(one), -1)])
    z = origin(net).expand(2, -1, -1, -1, -1)
    with torch.no_grad():
        loss = net.label_loss(z, both)
        target = truncated_distances(label_map_of(one), (3, 9), SPACING, reach=REACH)
        each = censored_log_prob(target, net.distances(origin(net)), log_scale=torch.zeros(()), reach=REACH)
    assert loss is not None
    assert float(loss) == pytest.approx(-float(each.sum()), rel=1e-5)


def test_labels_are_a_part_of_the_loss_and_reach_every_weight() -> None:
    net, one = network(), ball(0.2)
    net.begin([ball(0.0)])
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in net.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    given = {"inputs": one.image[None], "image": one.image[None], "mask": one.mask[None], "noise": origin(net)}
    objective = Objective(net, free_bits=0.0)
    without = objective(**given, beta=1.0, fit_spread=False)
    joint = objective(**given, beta=1.0, fit_spread=False, label_map=label_map_of(one))
    q = net.encode(one.image[None])
    labels = net.label_loss(q.mean, label_map_of(one))
    assert labels is not None
    bound = elbo(one.image[None], one.mask[None], posterior=q, likelihood=net.decode(q.mean))
    voxels = one.mask.sum().item()
    assert without.loss.item() == pytest.approx(-bound.sum().item() / voxels, rel=1e-4)
    assert (joint.loss - without.loss).item() == pytest.approx(labels.item() / voxels, rel=1e-4)
    joint.loss.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_it_learns_which_labels_belong_to_an_image() -> None:
    """Two balls that lie apart: their label maps are decoded from what the encoder sees of the images alone."""
    net, scans = network(), [ball(-0.3), ball(0.3)]
    net.begin(scans)
    x, mask = (torch.stack([one[i] for one in scans]) for i in (0, 1))  # type: ignore[arg-type]
    labels = torch.cat([label_map_of(one) for one in scans])
    objective, noise = Objective(net, free_bits=0.0), origin(net).expand(2, -1, -1, -1, -1)
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    given = {"inputs": x, "image": x, "mask": mask, "noise": noise, "label_map": labels}

    def right() -> float:
        with torch.no_grad():
            found = net.decode_labels(net.encode(x).mean)
        return float(((found == labels) & (labels > 0)).sum() / ((found > 0) | (labels > 0)).sum())

    before = right()
    for _ in range(20):
        optimiser.zero_grad()
        objective(**given, beta=0.1, fit_spread=True).loss.backward()
        optimiser.step()
    assert before < 0.4
    assert right() > 0.6


def test_scans_without_label_maps_are_refused_with_what_to_do() -> None:
    with pytest.raises(SettingsError, match="no training scan has one") as caught:
        network().begin([ball(0.0, labelled=False)])
    assert "label_map" in str(caught.value.hint)
    assert "model.name=spatial" in str(caught.value.hint)
    with pytest.raises(SettingsError, match=r"none with the labels \[4\]"):
        network(labels=[3, 4]).begin([ball(0.0)])


def test_training_finds_the_labels_and_a_checkpoint_keeps_them(tmp_path: Path) -> None:
    model = trained(tmp_path / "run", cases(), settings())
    assert isinstance(model.vae, Joint)
    assert model.vae.labels == (3, 9)
    assert model.vae.architecture["options"]["labels"] == [3, 9]
    assert model.vae.shapes is not None
    assert model.vae.shapes.spacing.tolist() == list(SPACING)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model", device="cpu")
    z = model.latents.mean[0]
    assert again.vae.labels == (3, 9)
    assert np.array_equal(again.decode_labels(z), model.decode_labels(z))
    assert again.hash == model.hash


def test_a_training_that_goes_on_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", cases(), settings(steps=4, plan=[(0, 2), (2, 4)]))
    trained(tmp_path / "parts", cases(), settings(steps=2))
    resumed = trained(tmp_path / "parts", cases(), settings(steps=4), resume=True)
    assert resumed.hash == whole.hash
