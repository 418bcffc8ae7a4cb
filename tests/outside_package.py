"""A package of somebody else that registers plug-ins by entry points, made in a temporary folder by a test."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pytest

NETWORK = '''
"""A network of somebody else, after the documented contract and no more: two linear maps."""

import math

import torch
from torch import nn

from medvae.settings import Frozen
from medvae.vae.base import VAE, Posterior
from medvae.vae.observation import build_observation


class Settings(Frozen):
    latent: int = 3


class Minimal(VAE):
    def __init__(self, settings, likelihood, grid, conditions):
        super().__init__()
        self.observation = build_observation(likelihood)
        self.latent, self.grid = settings.latent, tuple(grid)
        self.down = nn.Linear(math.prod(grid) + conditions, 2 * settings.latent)
        self.up = nn.Linear(settings.latent + conditions, self.observation.channels * math.prod(grid))

    def encode(self, x, c=None):
        seen = x.flatten(1) if c is None else torch.cat([x.flatten(1), c], dim=1)
        return Posterior.from_parameters(self.down(seen))

    def render(self, z, c=None):
        seen = z if c is None else torch.cat([z, c], dim=1)
        return self.up(seen).view(-1, self.observation.channels, *self.grid)

    def latent_shape(self, grid):
        return (self.latent,)


def build(settings, likelihood, grid, *, conditions=0):
    return Minimal(settings, likelihood, grid, conditions)
'''

LIKELIHOOD = '''
"""A likelihood of somebody else: Student's t with a scale."""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch.distributions import StudentT

from medvae.settings import Frozen
from medvae.vae.observation import ScaledObservation


class Settings(Frozen):
    nu: float = Field(4.0, gt=2, description="degrees of freedom")


@dataclass(frozen=True, eq=False)
class Student:
    mean: torch.Tensor
    log_scale: torch.Tensor
    nu: float

    def log_prob(self, x):
        return StudentT(self.nu, self.mean, self.log_scale.exp(), validate_args=False).log_prob(x)

    def sample(self, generator):
        noise = torch.randn(self.mean.shape, generator=generator)
        squares = torch.randn((int(self.nu), *self.mean.shape), generator=generator).square().mean(0)
        return self.mean + self.log_scale.exp() * noise / squares.sqrt()


class StudentObservation(ScaledObservation):
    def __init__(self, nu, spread):
        super().__init__(spread)
        self.nu = nu

    def at(self, mean, log_scale):
        return Student(mean, log_scale, self.nu)

    def log_optimum(self, error):
        return 0.5 * torch.log(error * (self.nu - 2) / self.nu)


def build(settings, *, spread):
    return StudentObservation(settings.nu, spread)
'''


def install(folder: Path, plugins: Mapping[str, Mapping[str, str]], *, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a package with plug-ins where Python finds it, until the iterator is closed.

    Args:
        folder: an empty one.
        plugins: by kind and name, the source text of each.
        patch: of the test.
    """
    points = []
    for kind, sources in plugins.items():
        points.append(f"[medvae.{kind}]")
        for name, source in sources.items():
            module = f"outside_{kind}_{name}"
            (folder / f"{module}.py").write_text(source, "utf-8")
            points.append(f"{name} = {module}")
    info = folder / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("\n".join(points), "utf-8")
    patch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    yield
    for kind, sources in plugins.items():
        for name in sources:
            sys.modules.pop(f"outside_{kind}_{name}", None)
