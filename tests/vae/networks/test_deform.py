"""The network `deform` learns a shift as a shift, labels with it, and comes back from a checkpoint with its labels."""

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
from medvae.vae.diffeomorphism import compose, jacobian
from medvae.vae.networks.deform import Deform

if TYPE_CHECKING:
    from pathlib import Path


OPTIONS = {"stem": 2, "channels": [8, 16], "latent": 3, "velocity": 2, "smooth": 1}
LABELS = (0, 3, 9)


def settings(**train: object) -> Settings:
    tree = {
        "prepare": {"modality": "MR", "shape": SHAPE, "spacing": (4, 4, 4)},
        "model": {"name": "deform", "options": OPTIONS},
        "train": {"steps": 4, "validate_every": 2, "precision": "32", "kl_warmup": 0.0, **train},
    }
    return Settings.model_validate(tree)


def network(**options: object) -> Deform:
    tree = {"prepare": {"shape": SHAPE}, "model": {"name": "deform", "options": {**OPTIONS, **options}}}
    vae = build_vae(Settings.model_validate(tree))
    assert isinstance(vae, Deform)
    return vae


def ball(shift: float) -> TrainingScan:
    """A bright ball that has moved along x, with label 9 in it; label 3 to its left."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    inside = (x - shift) ** 2 + y**2 + z**2
    image = torch.from_numpy(np.exp(-3 * inside).astype(np.float32))[None]
    labels = np.where(inside < 0.3, 9, np.where(x < shift, 3, 0)).astype(np.int16)
    return TrainingScan(image, torch.ones(1, *SHAPE, dtype=torch.bool), torch.from_numpy(labels)[None])


def labelled(index: int) -> TrainingScan:
    return ball(0.1 * np.sin(index))


def cases() -> list[TrainingScan]:
    return [labelled(i) for i in range(4)]


def test_the_untrained_decoder_gives_the_template() -> None:
    net = network()
    net.begin([ball(0.0)])
    with torch.no_grad():
        mean = net.decode(torch.zeros(1, *net.latent_shape(SHAPE))).mean
    torch.testing.assert_close(mean, ball(0.0).image[None], atol=0.02, rtol=0)


def test_it_learns_where_things_have_moved() -> None:
    """Template and scans differ by a shift: it is found, in voxels, along the right axis and in the right direction."""
    net, moved = network(), ball(0.27)
    net.begin([ball(0.0)])
    for parameter in net.template.parameters():
        parameter.requires_grad_(requires_grad=False)
    learned = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(learned, lr=2e-3)
    x, mask = moved.image[None], moved.mask[None]
    unmoved = float((x - ball(0.0).image[None]).square().mean())
    zeros = torch.zeros(1, *net.latent_shape(SHAPE))
    errors = []
    for _ in range(36):
        optimiser.zero_grad()
        given = {"inputs": x, "image": x, "mask": mask, "label_map": moved.label_map[None]}  # type: ignore[index]
        terms = Objective(net, free_bits=0.0)(**given, noise=zeros, beta=1.0, fit_spread=True)
        terms.loss.backward()
        optimiser.step()
        errors.append(float(terms.error))
    assert errors[0] < 0.2 * unmoved, "forces alone go most of the way"
    assert errors[-1] < 0.1 * errors[0]
    with torch.no_grad():
        z = net.encode(x).mean
        u = net.displacement(z)
        centre = u[0, :, 6:12, 6:10, 6:10].mean((1, 2, 3))
        assert centre[0] == pytest.approx(-0.27 * (SHAPE[0] - 1) / 2, abs=0.7), "the template lies to the left"
        assert centre[1:].abs().max() < 0.7
        assert jacobian(u).min() > 0
        back = net.displacement(z, inverse=True)
        assert compose(back, u, SHAPE)[..., 4:12, 4:12, 4:12].abs().max() < 0.1 * u.abs().max() + 0.1


def test_labels_add_their_cross_entropy_in_nats() -> None:
    net, one = network(), ball(0.0)
    net.begin([one])
    z = torch.zeros(1, *net.latent_shape(SHAPE))
    assert one.label_map is not None
    counts = torch.tensor([1.5, 0.5, 0.5])
    per_voxel = float(-torch.log(1.5 / counts.sum()))
    with torch.no_grad():
        loss = net.label_loss(z, one.label_map[None])
        unknown = net.label_loss(z, torch.full_like(one.label_map[None], -1))
    assert loss is not None
    assert unknown is not None
    assert float(unknown) == 0, "a scan without a label map adds nothing"
    assert float(loss) == pytest.approx(per_voxel * np.prod(SHAPE), rel=0.02)


def test_labels_are_a_part_of_the_loss_and_reach_encoder_and_template() -> None:
    net, one = network(), ball(0.2)
    net.begin([ball(0.0)])
    given = {"inputs": one.image[None], "image": one.image[None], "mask": one.mask[None]}
    noise = torch.zeros(1, *net.latent_shape(SHAPE))
    objective, more = Objective(net, free_bits=0.0), {"noise": noise, "beta": 1.0, "fit_spread": False}
    assert one.label_map is not None
    without, joint = objective(**given, **more), objective(**given, **more, label_map=one.label_map[None])
    q = net.encode(one.image[None])
    labels = net.label_loss(q.mean, one.label_map[None])
    assert labels is not None
    bound = elbo(one.image[None], one.mask[None], posterior=q, likelihood=net.decode(q.mean))
    voxels = one.mask.sum().item()
    assert without.loss.item() == pytest.approx(-bound.sum().item() / voxels, rel=1e-4)
    assert (joint.loss - without.loss).item() == pytest.approx(labels.item() / voxels, rel=1e-4)
    labels.backward()
    grad = net.template.odds_weights.grad
    assert grad is not None
    assert grad.abs().max() > 0


def test_a_network_of_another_grid_or_velocity_is_refused() -> None:
    with pytest.raises(SettingsError, match="built for the grid 16x16x16, not 16x16x32"):
        network().encode(torch.zeros(1, 1, 16, 16, 32))
    with pytest.raises(SettingsError, match="velocity 3 does not divide"):
        network(velocity=3)


def test_training_finds_the_labels_and_a_checkpoint_keeps_them(tmp_path: Path) -> None:
    model = trained(tmp_path / "run", cases(), settings())
    assert isinstance(model.vae, Deform)
    assert model.vae.template.values == LABELS
    assert model.vae.architecture["options"]["labels"] == list(LABELS)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model", device="cpu")
    assert isinstance(again.vae, Deform)
    assert again.vae.template.values == LABELS
    assert torch.equal(again.vae.template.odds, model.vae.template.odds)
    assert again.hash == model.hash


def test_a_training_that_goes_on_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", cases(), settings(steps=4, plan=[(0, 2), (2, 4)]))
    trained(tmp_path / "parts", cases(), settings(steps=2))
    resumed = trained(tmp_path / "parts", cases(), settings(steps=4), resume=True)
    assert resumed.hash == whole.hash
