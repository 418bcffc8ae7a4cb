"""What MAP restoration takes out of the scan, in SD of healthy scans; gives a pseudo-healthy image, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from medvae.anomaly.maps._normative import Normative, Scales
from medvae.settings import Frozen
from medvae.statistics import Normal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference


class Settings(Frozen):
    """Options of the map."""

    scales_mm: Scales = (0.0, 3.0, 6.0)
    weight: float = Field(
        1.0,
        gt=0,
        description="weight of total variation, in units of the noise: the larger, the fewer and stronger the changes",
    )
    steps: int = Field(3, ge=1, description="steps of the restoration; each costs a pass through the network and back")
    winsor: float = Field(
        1.0, gt=0, description="restoration begins from values clipped to the training mean ± this many SD"
    )


class Map(Normative):
    """|z| of x − x', where x' maximises ELBO(x') − λ TV(x − x') (`medvae.anomaly.restore`).

    It begins from the winsorised scan: from the scan itself it ends where the network has copied a lesion.
    """

    COSTLY = True  # as much as all other maps together
    FIXED_OPTIONS = ("weight", "steps", "winsor")
    USES = ("atlas",)

    def values(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """x − x'."""
        return inference.prepared.image - self.pseudo_healthy(inference, arrays)

    def pseudo_healthy(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """x', `(C, X, Y, Z)`; the scan itself outside the foreground."""
        low, high = Normal.from_arrays(arrays.used["atlas"]).interval(self.settings.winsor)
        return inference.restored(low, high, weight=self.settings.weight, steps=self.settings.steps)
