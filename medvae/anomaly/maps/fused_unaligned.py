"""Witnesses that need no alignment in one map: how rare each value is in healthy scans, as one p-value."""

from __future__ import annotations

from medvae.anomaly.maps._fused import Fused


class Map(Fused):
    """As `fused`, of maps whose statistics are of all voxels or cells where scans are not aligned, nats."""

    USES = ("latent", "contrast")
