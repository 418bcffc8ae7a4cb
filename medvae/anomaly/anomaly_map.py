"""Anomaly maps: one file each. This one runs a map by name and turns it into a score.

A map offers `UNIT` and `anomaly_map(inference, reference, settings) -> float32 (X, Y, Z)`: on the model's grid, 0
outside the foreground, higher = less normal. It may offer `Settings`, and `NEEDS_ALIGNMENT = True` where a voxel has to
be a place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medvae.errors import SettingsError
from medvae.settings import configure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference
    from medvae.anomaly.reference import Reference

Unit = Literal["z", "nats", "a.u.", "probability"]


@dataclass(frozen=True, eq=False)
class AnomalyMap:
    """One map of one scan on the model's grid.

    Attributes:
        name: of the map.
        values: float32 `(X, Y, Z)`, higher = less normal, 0 outside the foreground.
        unit: `z`, `nats` (per model voxel), `a.u.` or `probability`.
    """

    name: str
    values: NDArray[np.float32] = field(repr=False)
    unit: Unit

    def score(self, mask: NDArray[np.bool_], *, top: float) -> float:
        """The mean of the `top` share of the highest foreground voxels."""
        inside = self.values[mask]
        count = max(1, round(top * inside.size))
        return float(np.partition(inside, inside.size - count)[inside.size - count :].mean())


def anomaly_map(
    name: str, inference: Inference, reference: Reference, *, options: Mapping[str, Any] | None = None
) -> AnomalyMap:
    """Compute one map.

    A map that the Reference has a scale for is divided by it; it was measured under the Reference's options.

    Raises:
        SettingsError: an unknown map or option, one that needs aligned scans where they are not, or a scale that was
            measured under other options.
    """
    module, settings = configure("maps", name, options or {})
    if getattr(module, "NEEDS_ALIGNMENT", False) and reference.residual is None:
        message = f"the map {name!r} compares voxel by voxel, and this model's scans are not aligned"
        raise SettingsError(message, hint="use residual, nll, elbo or intensity")
    if name in reference.scales:
        measured = configure("maps", name, reference.options.get(name, {}))[1]
        if measured != settings:
            message = f"the scale of {name!r} was measured with ({measured!r}), not with ({settings!r})"
            raise SettingsError(message, hint="run `medvae calibrate` with these options")
    values = module.anomaly_map(inference, reference, settings)
    return AnomalyMap(name, values / np.float32(reference.scales.get(name, 1.0)), module.UNIT)
