"""All witnesses in one map: how rare each of their values is in healthy scans, as one p-value."""

from __future__ import annotations

from medvae.anomaly.maps._fused import Fused


class Map(Fused):
    """−ln of the harmonic mean of the healthy tails of five maps, nats."""

    NEEDS_ALIGNMENT = True
    USES = ("residual_z", "asymmetry", "contrast", "elbo_z", "detector")
