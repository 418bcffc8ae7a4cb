"""Another package that offers maps through entry points, as files of a test's temporary folder."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

# A map with healthy statistics of its own and an option, which uses the map of another one.
THEIRS = '''
"""How unusual the negative log-likelihood of a voxel is for its place."""

import numpy as np
from pydantic import Field

from medvae.anomaly.base_map import BaseMap
from medvae.statistics import Normal
from medvae.settings import Frozen


class Settings(Frozen):
    """Options of the map."""

    power: float = Field(1.0, gt=0, description="of the z-score")


class Map(BaseMap):
    UNIT = "z"
    NEEDS_ALIGNMENT = True
    STANDARDISED = True
    USES = ("nll",)

    def statistics(self, inference, arrays):
        return {"nll": arrays.used["nll"].map}

    def fit(self, healthy):
        return healthy.moments["nll"].normal(spacing=healthy.spacing).to_arrays()

    def map(self, inference, arrays):
        z = np.abs(Normal.from_arrays(arrays).z(arrays.used["nll"].map))
        return np.where(inference.foreground, z ** np.float32(self.settings.power), np.float32(0))
'''
BROKEN = "import a_package_that_is_not_installed\n"
OLD = '''
"""A map in the way of an earlier version."""

UNIT = "z"


def anomaly_map(inference, reference, settings):
    return inference.residual
'''


def using(*names: str) -> str:
    """A map that is the sum of others."""
    return f"""
from medvae.anomaly.base_map import BaseMap

class Map(BaseMap):
    USES = {names!r}

    def map(self, inference, arrays):
        return sum(one.map for one in arrays.used.values())
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, **maps: str) -> None:
    """Put a package with these maps, source by name, on the path."""
    place = folder / "outside"
    info = place / "outside-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n", "utf-8")
    points = [f"{name} = outside_{name}" for name in maps]
    (info / "entry_points.txt").write_text("\n".join(["[medvae.maps]", *points]) + "\n", "utf-8")
    for name, source in maps.items():
        (place / f"outside_{name}.py").write_text(source, "utf-8")
        monkeypatch.delitem(importlib.sys.modules, f"outside_{name}", raising=False)  # type: ignore[attr-defined]
    monkeypatch.syspath_prepend(str(place))
