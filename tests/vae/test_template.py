"""The template starts from the mean of the training scans and the frequency of their labels."""

from __future__ import annotations

import pytest
import torch

from medvae.errors import SettingsError
from medvae.vae.base import TrainingScan
from medvae.vae.template import Template

GRID = (4, 4, 4)


def scan(value: float, *, label: int | None = None, inside: int = 4) -> TrainingScan:
    image, mask = torch.full((1, *GRID), -5.0), torch.zeros((1, *GRID), dtype=torch.bool)
    image[:, :inside], mask[:, :inside] = value, True
    labels = None if label is None else torch.where(mask, label, 0).to(torch.int16)
    return TrainingScan(image, mask, labels)


def test_it_is_the_mean_of_what_is_foreground_and_background_elsewhere() -> None:
    template = Template(GRID, channels=2, labels=())
    template.begin([scan(1.0, inside=2), scan(3.0, inside=3)], binary=False)
    lines = template.image.detach()[0, :, :, 0, 0]
    torch.testing.assert_close(lines[0], torch.tensor([2.0, 2.0, 3.0, -5.0]))
    assert not lines[1].any(), "a scale is no mean"


def test_binary_scans_give_logits() -> None:
    template = Template(GRID, channels=1, labels=())
    template.begin([scan(1.0), scan(0.0), scan(0.0), scan(0.0)], binary=True)
    torch.testing.assert_close(torch.sigmoid(template.image.detach()), torch.full((1, 1, *GRID), 0.25))
    template.begin([scan(1.0)], binary=True)
    assert torch.isfinite(template.image).all()


def test_labels_are_found_and_start_from_their_frequency() -> None:
    template = Template(GRID, channels=1, labels=())
    template.begin([scan(1.0, label=7, inside=2), scan(1.0, label=2), scan(1.0), scan(1.0, label=2)], binary=False)
    assert template.values == (0, 2, 7)
    counts = torch.exp(template.odds.detach()[0, :, :, 0, 0]) - 0.5
    torch.testing.assert_close(counts, torch.tensor([[0.0, 0, 1, 1], [2, 2, 2, 2], [1, 1, 0, 0]]), atol=1e-5, rtol=0)
    wanted = torch.tensor([[7, 2, 0, 5, -1]]).view(1, 1, 5, 1, 1)
    assert template.classes(wanted).flatten().tolist() == [2, 1, 0, -1, -1]


def test_labels_that_are_named_are_the_only_ones() -> None:
    template = Template(GRID, channels=1, labels=(0, 2))
    template.begin([scan(1.0, label=7), scan(1.0, label=2)], binary=False)
    assert template.values == (0, 2)
    assert template.odds.shape == (1, 2, *GRID)


def test_too_many_labels_are_refused() -> None:
    many = TrainingScan(
        torch.zeros(1, 5, 5, 5), torch.ones(1, 5, 5, 5).bool(), torch.arange(125).view(1, 5, 5, 5).short()
    )
    with pytest.raises(SettingsError, match="more than 64 labels") as caught:
        Template((5, 5, 5), channels=1, labels=()).begin([many], binary=False)
    assert "model.options.labels" in str(caught.value.hint)
