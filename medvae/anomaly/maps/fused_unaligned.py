"""Witnesses that need no alignment in one map: how rare each value is in healthy scans, as one p-value."""

from __future__ import annotations

from medvae.anomaly.maps import fused


class Map(fused.Map):
    """As `fused`, of the maps whose statistics are of all voxels where scans are not aligned."""

    NEEDS_ALIGNMENT = False
    USES = ("latent", "contrast")
